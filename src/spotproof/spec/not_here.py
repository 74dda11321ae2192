"""Words of the Estimator that a job.yaml does not have, and what stands in their place."""

from collections.abc import Mapping
from typing import Final

__all__ = ["NOT_HERE"]

_OFF = "Leave it out: the debugger and the profiler are off, and slow nothing down."

NOT_HERE: Final[Mapping[str, str]] = {
    "base_job_name": "Write it as name.",
    "entry_point": "Write entrypoint, and source_dir: what the image starts, in which folder.",
    "dependencies": "Put them into source_dir, or into the image.",
    "code_location": "The code is in the image.",
    "git_config": "The code is in the image.",
    "train_instance_type": "Write it as instance_type.",
    "train_instance_count": "Write it as instance_count.",
    "train_use_spot_instances": "Write it as use_spot_instances.",
    "train_max_run": "Write it as max_run.",
    "train_max_wait": "Write it as max_wait.",
    "train_volume_size": "Write it as volume_size.",
    "instance_groups": "All machines of a job are alike here, as the ranks of a training are: write instance_type.",
    "distribution": "Write what starts the ranks into entrypoint: python -m spotproof.container torchrun train.py.",
    "model_uri": "Give the model as a channel: inputs: {model: s3://…}.",
    "model_channel_name": "Give the model as a channel: inputs: {model: s3://…}.",
    "rules": _OFF,
    "debugger_hook_config": _OFF,
    "profiler_config": _OFF,
    "disable_profiler": _OFF,
    "max_retries": "Write it as max_retry_attempts.",
    "training_plan": "A plan is reserved capacity, which is not reclaimed: use the SDK's Estimator for it.",
    "instance_placement_config": "Placement is for reserved capacity: use the SDK's Estimator for it.",
    "container_log_level": "Set it in the program, or as a variable in environment.",
    "framework_version": "Write AWS's image of that version as image_uri.",
    "py_version": "Write AWS's image of that version as image_uri.",
    "compiler_config": "AWS's compiler changes the numbers: nothing would be bit for bit the same.",
    "training_recipe": "Recipes are scripts of AWS's images: put yours into source_dir.",
    "recipe_overrides": "Recipes are scripts of AWS's images: put yours into source_dir.",
    "sagemaker_session": "Which account is used is said by the AWS profile and the AWS_* variables; region is a field.",
}
