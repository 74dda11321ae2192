"""The way to SageMaker, real or local: one boto3 path for both.

In: a :class:`~spotproof.spec.JobSpec`. Out: the service's answers as they are on the wire, log lines, errors as
:class:`~spotproof.errors.LaunchError`. Who may import it: ``supervise``, ``rehearsal`` and ``cli``. The only room that
uses boto3, which is loaded when a :class:`TrainingService` is opened.
"""

from spotproof.launch.client import TrainingService
from spotproof.launch.failures import ServiceUnreachable
from spotproof.launch.local_files import LocalFiles, read_files
from spotproof.launch.logs import LogLine, LogReader, Position, format_position, parse_position
from spotproof.launch.merge import LogMerge
from spotproof.launch.request import build_request, unique_job_name, with_uploaded_inputs
from spotproof.launch.upload import Uploaded

__all__ = [
    "LocalFiles",
    "LogLine",
    "LogMerge",
    "LogReader",
    "Position",
    "ServiceUnreachable",
    "TrainingService",
    "Uploaded",
    "build_request",
    "format_position",
    "parse_position",
    "read_files",
    "unique_job_name",
    "with_uploaded_inputs",
]
