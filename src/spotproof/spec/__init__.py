"""JobSpec: what ``job.yaml`` says, checked before anything starts.

The words are those of the SageMaker SDK's ``Estimator``, so that the call and the file read alike; two more,
``source_dir`` and ``entrypoint``, say what the image holds, for the local platform, which has no registry to pull it
from. Whatever the service would refuse and can be known beforehand is refused here, with the field, the value and the
remedy.
"""

from spotproof.spec.data import Channel, TensorBoardOutput
from spotproof.spec.deadline import Deadline
from spotproof.spec.job import JobSpec
from spotproof.spec.places import as_folder, split_s3_uri
from spotproof.spec.program import Hyperparameter, MetricDefinition, hyperparameter_text
from spotproof.spec.read import parse_job_spec, profile_names, read_job_spec
from spotproof.spec.schema import build_schema, format_schema

__all__ = [
    "Channel",
    "Deadline",
    "Hyperparameter",
    "JobSpec",
    "MetricDefinition",
    "TensorBoardOutput",
    "as_folder",
    "build_schema",
    "format_schema",
    "hyperparameter_text",
    "parse_job_spec",
    "profile_names",
    "read_job_spec",
    "split_s3_uri",
]
