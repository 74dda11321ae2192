"""The way to SageMaker, real or local: one boto3 path for both.

In: a :class:`~spotproof.spec.JobSpec`. Out: the service's answers as they are on the wire, log lines, errors as
:class:`~spotproof.errors.LaunchError`. Who may import it: ``rehearsal`` and ``cli``. The only room that uses boto3,
which is loaded when a :class:`TrainingService` is opened.
"""

from spotproof.launch.client import TrainingService
from spotproof.launch.logs import LogLine, LogReader
from spotproof.launch.prices import fetch_products
from spotproof.launch.request import build_request, unique_job_name, with_uploaded_inputs

__all__ = [
    "LogLine",
    "LogReader",
    "TrainingService",
    "build_request",
    "fetch_products",
    "unique_job_name",
    "with_uploaded_inputs",
]
