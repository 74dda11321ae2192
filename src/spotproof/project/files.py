"""The text of job.yaml, Dockerfile and .dockerignore for a project. Pure."""

import json
import re
from pathlib import PurePosixPath

from spotproof.project.look import Project
from spotproof.project.programs import Option, Program

__all__ = ["SCHEMA_FILE", "build_dockerfile", "build_dockerignore", "build_job", "job_name", "rehearsal_option"]

SCHEMA_FILE = "job.schema.json"
_PACKAGES = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
    "pytorch_lightning": "lightning",
}
"""Packages whose name is not that of what is imported."""
_BROUGHT_ALONG = frozenset({"torch", "lightning", "pytorch_lightning", "torchmetrics", "spotproof", "jsonargparse"})
_IGNORED = (
    ".git .venv venv .env **/__pycache__ **/*.pyc .pytest_cache .ruff_cache .mypy_cache checkpoints lightning_logs "
    "**/*.ckpt job.yaml job.schema.json Dockerfile .dockerignore"
)
_MAX_OPTIONS = 30


def job_name(folder_name: str) -> str:
    """Return a job name for a project in a folder of that name."""
    return re.sub(r"[^a-zA-Z0-9]+", "-", folder_name).strip("-")[:40].strip("-").lower() or "training"


def build_job(project: Project, program: Program) -> str:
    """Return a commented job.yaml. It is valid as it is, and can be rehearsed."""
    name = job_name(project.folder.name)
    commands = (
        (f"rehearse job.yaml{rehearsal_option(program)}", "here, really killed and restarted; costs nothing"),
        ("launch job.yaml --dry-run", "what would be sent, and what is wrong with it"),
        ("launch job.yaml --rehearse", "rehearse it, and launch it if it resumes"),
    )
    usage = "\n".join(f"#     spotproof {command:<40} # {text}" for command, text in commands)
    return f"""\
# yaml-language-server: $schema={SCHEMA_FILE}
# {name} as a managed spot training job, in the words of the SageMaker SDK's Estimator. All fields: docs/job-yaml.md.
#
{usage}
#
# ${{NAME}} is a variable of your shell, ${{NAME:-text}} one with a default. --set FIELD=VALUE replaces any field.

# A time stamp is added: names are unique for ever.
name: {name}
# What `spotproof image build` makes by the Dockerfile beside this file. In ECR:
# ACCOUNT.dkr.ecr.REGION.amazonaws.com/{name}:latest
image_uri: ${{IMAGE:-{name}:latest}}
# The role that the job runs as. It reads and writes the buckets below.
role: ${{SAGEMAKER_ROLE:-arn:aws:iam::111122223333:role/SageMakerTraining}}
# region: eu-west-1

instance_type: ml.g5.xlarge
# In the order of preference, in place of instance_type:
# instance_types: [ml.g5.xlarge, ml.g4dn.xlarge]
instance_count: 1
use_spot_instances: true
# Seconds: the job may run for a day, and wait for capacity for another.
max_run: 86400
max_wait: 172800
# Restarts after an internal error of the service. Reclaims do not count.
max_retry_attempts: 2
# By when it must be done, and what it may cost:
# deadline: 36h
# max_cost_usd: 20

# Nothing but what lies here survives a reclaim. One job, one place.
checkpoint_s3_uri: s3://${{BUCKET:-my-bucket}}/{name}/checkpoints/
output_path: s3://${{BUCKET:-my-bucket}}/{name}/output

{_inputs(project)}
# What the image holds, for rehearsals, which need no image: the folder, and what is started in it.
source_dir: .
entrypoint: {json.dumps(_entrypoint(program))}

{_hyperparameters(project, program)}
environment:
  # PyTorch's threads on cores that something else uses as well wait for each other longer than they compute.
  OMP_WAIT_POLICY: PASSIVE

# Numbers that the service reads from the log and shows; the step is there without.
# metric_definitions:
#   - {{Name: val_loss, Regex: 'val_loss=([0-9.]+)'}}
# tags: {{project: {name}}}
{_profiles(program)}"""


def _entrypoint(program: Program) -> list[str]:
    # A LightningCLI wants its subcommand; SpotCLI trains without one.
    return [program.name, "fit"] if program.kind == "LightningCLI" else [program.name]


def _inputs(project: Project) -> str:
    if project.data is not None:
        return f"""\
# Channels. The program finds this one below SM_CHANNEL_TRAINING. A local folder is uploaded; s3:// is read as it is.
inputs:
  training: {json.dumps(project.data)}
"""
    return """\
# Channels, such as a folder that is uploaded, or s3://bucket/prefix/. The program finds it below SM_CHANNEL_TRAINING.
# inputs:
#   training: data
"""


def _hyperparameters(project: Project, program: Program) -> str:
    if program.kind in ("SpotCLI", "LightningCLI"):
        is_named = program.has_config or project.config is None
        lines = [] if is_named else [f"  config: {json.dumps(project.config)}"]
        head = "# Options of the program: --trainer.max_epochs 10, and so on.\nhyperparameters:\n"
        return head + "\n".join([*lines, "  trainer.max_epochs: 10"]) + "\n"
    lines = [f"  # {option.name}: {_yaml(option)}" for option in program.options[:_MAX_OPTIONS] if option.has_value]
    flags = [option.name for option in program.options if not option.has_value]
    if flags:
        lines.append(f"  # No hyperparameters, as these take no value; entrypoint can give them: {', '.join(flags)}")
    if not lines:
        return "# Options of the program, as --NAME VALUE. It seems to have none.\nhyperparameters: {}\n"
    return (
        "# Options of the program, as --NAME VALUE; these are its defaults.\nhyperparameters:\n"
        + "\n".join(lines)
        + "\n"
    )


def _yaml(option: Option) -> str:
    return "…" if option.default is None else json.dumps(option.default, ensure_ascii=False)


def rehearsal_option(program: Program) -> str:
    """Return what `rehearse` is given besides the job, so that it takes few steps."""
    return " --profile rehearsal" if program.kind in ("SpotCLI", "LightningCLI") else ""


def _profiles(program: Program) -> str:
    if program.kind in ("SpotCLI", "LightningCLI"):
        return """
# --profile NAME replaces some fields; `launch --rehearse` rehearses with this one.
profiles:
  rehearsal:
    hyperparameters:
      # Enough steps for two reclaims in their midst, and little more; saves (of SpotCLI) come before them.
      trainer.max_epochs: 2
      trainer.limit_train_batches: 40
      trainer.limit_val_batches: 5
      spot.every_n_steps: 5
"""
    return """
# --profile NAME replaces some fields; `launch --rehearse` rehearses with the one of this name. It should train for ten
# seconds or more: SpotCheckpoint saves once a second at most, and reclaims come at half and four fifths of the steps.
# profiles:
#   rehearsal:
#     hyperparameters: {epochs: 1}
"""


def build_dockerfile(project: Project, program: Program, *, python: str) -> str:
    """Return a Dockerfile for the program; *python* is the version of its image, such as ``3.11``."""
    if project.requirements == "requirements.txt":
        packages = "COPY requirements.txt ./\nRUN pip install --no-cache-dir -r requirements.txt\nCOPY . .\n"
    elif project.requirements == "pyproject.toml":
        packages = "COPY . .\nRUN pip install --no-cache-dir .\n"
    else:
        names = [_PACKAGES.get(name, name) for name in project.packages if name not in _BROUGHT_ALONG]
        head = "# By what the program imports; versions make it repeatable.\n"
        packages = (f"{head}RUN pip install --no-cache-dir {' '.join(names)}\n" if names else "") + "COPY . .\n"
    words = ["python", "-m", "spotproof.container", *_entrypoint(program)]
    return f"""\
# The image of the training job. It is built and pushed by
#
#     spotproof image build job.yaml
#     spotproof image push job.yaml
#
# which put the installed Spotproof beside these files, as a wheel: the one that the job was rehearsed with.
# PyTorch's packages bring CUDA along: this image is for machines with and without a GPU.
ARG BASE=python:{python}-slim
FROM ${{BASE}}

ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Not below /opt/ml, which is the platform's: it may be mounted over.
WORKDIR /opt/program

COPY spotproof-*.whl /tmp/wheels/
RUN python -m pip install --no-cache-dir "$(echo /tmp/wheels/spotproof-*.whl)[train]" && rm -r /tmp/wheels
{packages}
# In exec form: the program must be the first process of the container, or no SIGTERM reaches it.
ENTRYPOINT {json.dumps(words)}
"""


def build_dockerignore(project: Project) -> str:
    """Return what does not belong into the image."""
    names = _IGNORED.split() + ([f"/{PurePosixPath(project.data)}"] if project.data is not None else [])
    return "\n".join(names) + "\n"
