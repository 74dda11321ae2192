"""What container and platform agree on: paths, environment, signals, statuses. Constants only, no code.

Paths are relative to the base directory, which is ``/opt/ml`` on SageMaker and in a namespaced host. Where no namespace
can be had, a plain process gets another base through ``SAGEMAKER_BASE_DIR``, the variable that AWS's own training
toolkit reads for the same purpose.

Source: docs.aws.amazon.com "How Amazon SageMaker Processes Training Output" and aws/sagemaker-training-toolkit
``environment.py``; the checkpoint suffixes: aws/sagemaker-xgboost-container ``checkpointing.py``.
"""

from typing import Final, Literal

ML_ROOT: Final = "/opt/ml"
ENV_BASE_DIR: Final = "SAGEMAKER_BASE_DIR"

HYPERPARAMETERS_FILE: Final = "input/config/hyperparameters.json"
INPUT_DATA_CONFIG_FILE: Final = "input/config/inputdataconfig.json"
RESOURCE_CONFIG_FILE: Final = "input/config/resourceconfig.json"
CHECKPOINT_CONFIG_FILE: Final = "input/config/checkpointconfig.json"
"""Exists only if the job has a CheckpointConfig: ``{"LocalPath": "/opt/ml/checkpoints"}``."""

INPUT_DATA_DIR: Final = "input/data"
CODE_DIR: Final = "code"
PACKAGES_DIR: Final = "packages"
"""Ours: what the requirements.txt of submitted code names and the image lacks."""
MODEL_DIR: Final = "model"
OUTPUT_DIR: Final = "output"
OUTPUT_DATA_DIR: Final = "output/data"
FAILURE_FILE: Final = "output/failure"
CHECKPOINT_DIR: Final = "checkpoints"
DEFAULT_CHECKPOINT_LOCAL_PATH: Final = "/opt/ml/checkpoints"
DEFAULT_TENSORBOARD_LOCAL_PATH: Final = "/opt/ml/output/tensorboard"
"""Source: TensorBoardOutputConfig in the API model."""

FAILURE_REASON_MAX_CHARS: Final = 1024

ENV_JOB_NAME: Final = "TRAINING_JOB_NAME"
ENV_JOB_ARN: Final = "TRAINING_JOB_ARN"
ENV_CHECKPOINT_DIR: Final = "SM_CHECKPOINT_DIR"
"""Set by our container. SageMaker itself sets none; AWS's toolkits neither."""
ENV_MODEL_DIR: Final = "SM_MODEL_DIR"
ENV_OUTPUT_DATA_DIR: Final = "SM_OUTPUT_DATA_DIR"

ENV_PROGRESS_SECONDS: Final = "SPOTPROOF_PROGRESS_SECONDS"
"""Seconds between two progress lines of a training process (default 1). The local platform sets 0, a line each step,
when its reclaim schedule waits for a step."""
PROGRESS_LINE_REGEX: Final = r"\[spotproof\] attempt=(\d+) epoch=(\d+) step=(\d+)"
STEP_METRIC_NAME: Final = "spotproof:step"
STEP_METRIC_REGEX: Final = r"\[spotproof\] attempt=\d+ epoch=\d+ step=(\d+)"
"""The MetricDefinition that makes SageMaker, real or local, read the progress lines as a metric."""

IGNORE_SUFFIX: Final = ".sagemaker-ignore"
"""The sync agent skips files with this suffix: write there, then rename."""
UPLOADING_SUFFIX: Final = ".sagemaker-uploading"
UPLOADED_SUFFIX: Final = ".sagemaker-uploaded"

EVENT_FILE_WORD: Final = "tfevents"
"""In the name of each of TensorBoard's event files; by it TensorBoard knows them."""
SUPERSEDED_PREFIX: Final = "superseded."
"""Begins the name of a file beside them, of the same form, with what an interruption made void. TensorBoard passes it
over; a report draws it faint."""

STOP_GRACE_SECONDS: Final = 120
"""Between SIGTERM and SIGKILL when a job is stopped. A spot reclaim promises nothing.
Source: StoppingCondition in the API model."""

ENV_GRACE_SECONDS: Final = "SPOTPROOF_GRACE_SECONDS"
"""Seconds that the platform leaves a process between a notice and the kill, where they are not the platform's own."""
DEFAULT_GRACE_SECONDS: Final = STOP_GRACE_SECONDS
"""Assumed where nothing is known. Too long is harmless: a save that is cut off by the kill leaves the older ones."""
ENV_KUBERNETES: Final = "KUBERNETES_SERVICE_HOST"
"""Set in every pod."""
ORCHESTRATOR_GRACE_SECONDS: Final = 30
"""Of Kubernetes (terminationGracePeriodSeconds) and of Slurm (KillWait), unless they are configured otherwise."""

EXIT_INTERRUPTED: Final = 143
"""Exit code of a training process that saved and left because of a notice (128 + SIGTERM)."""

JobStatus = Literal["InProgress", "Completed", "Failed", "Stopping", "Stopped"]
SecondaryStatus = Literal[
    "Starting",
    "Downloading",
    "Training",
    "Uploading",
    "Stopping",
    "Stopped",
    "MaxRuntimeExceeded",
    "Completed",
    "Failed",
    "Interrupted",
    "MaxWaitTimeExceeded",
]
TERMINAL_STATUSES: Final = ("Completed", "Failed", "Stopped")
