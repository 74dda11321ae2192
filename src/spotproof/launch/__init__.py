"""The way to SageMaker, real or local: one boto3 path for both.

In: a :class:`~spotproof.spec.JobSpec`. Out: the service's answers as they are on the wire, log lines, errors as
:class:`~spotproof.errors.LaunchError`. Who may import it: ``supervise``, ``rehearsal`` and ``cli``. The only room that
uses boto3, which is loaded when a :class:`TrainingService` is opened. A job's image is built by the machine's container
engine, and pushed to ECR.
"""

from spotproof.launch.client import TrainingService
from spotproof.launch.failures import ServiceUnreachable
from spotproof.launch.images import Repository, parse_repository
from spotproof.launch.local_files import LocalFiles, read_files
from spotproof.launch.logs import LogLine, LogReader, Position, format_position, parse_position
from spotproof.launch.merge import LogMerge
from spotproof.launch.prices import fetch_products
from spotproof.launch.registry import Pushed, build_image, push_image
from spotproof.launch.request import build_request, unique_job_name, with_uploaded_inputs
from spotproof.launch.upload import Uploaded

__all__ = [
    "LocalFiles",
    "LogLine",
    "LogMerge",
    "LogReader",
    "Position",
    "Pushed",
    "Repository",
    "ServiceUnreachable",
    "TrainingService",
    "Uploaded",
    "build_image",
    "build_request",
    "fetch_products",
    "format_position",
    "parse_position",
    "parse_repository",
    "push_image",
    "read_files",
    "unique_job_name",
    "with_uploaded_inputs",
]
