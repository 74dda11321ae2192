"""The way to SageMaker, real or local: one boto3 path for both.

In: a :class:`~spotproof.spec.JobSpec`. Out: the service's answers as they are on the wire, log lines, errors as
:class:`~spotproof.errors.LaunchError`. Who may import it: ``rehearsal`` and ``cli``. The only room that uses boto3,
which is loaded when a :class:`TrainingService` is opened. A job's image is built by the machine's container engine, and
pushed to ECR.
"""

from spotproof.launch.client import TrainingService
from spotproof.launch.images import Repository, parse_repository
from spotproof.launch.logs import LogLine, LogReader
from spotproof.launch.registry import Pushed, build_image, push_image
from spotproof.launch.request import build_request, unique_job_name, with_uploaded_inputs

__all__ = [
    "LogLine",
    "LogReader",
    "Pushed",
    "Repository",
    "TrainingService",
    "build_image",
    "build_request",
    "parse_repository",
    "push_image",
    "unique_job_name",
    "with_uploaded_inputs",
]
