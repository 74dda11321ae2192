"""Rehearse a job: run it on the local SageMaker, really take its machines away, and compare with an undisturbed run.

In: a JobSpec and a reclaim schedule. Out: a :class:`~spotproof.report.summary.Summary` with the verdict. Who may import
it: ``cli``. It joins ``launch`` (submits, as for AWS), ``local`` (runs and reclaims), ``checkpoint`` (compares) and
``report`` (counts), which do not know each other.
"""

from spotproof.rehearsal.environment import only_aws_settings
from spotproof.rehearsal.judge import judge
from spotproof.rehearsal.progress import (
    ChaosPlanned,
    Compared,
    InputsUploaded,
    JobEnded,
    JobSubmitted,
    OnProgress,
    PlatformReady,
    StatusChanged,
    Stepped,
)
from spotproof.rehearsal.reclaims import AUTO_RECLAIM
from spotproof.rehearsal.run import check_rehearsable, rehearse
from spotproof.rehearsal.watch import WatchedJob, watch_job

__all__ = [
    "AUTO_RECLAIM",
    "ChaosPlanned",
    "Compared",
    "InputsUploaded",
    "JobEnded",
    "JobSubmitted",
    "OnProgress",
    "PlatformReady",
    "StatusChanged",
    "Stepped",
    "WatchedJob",
    "check_rehearsable",
    "judge",
    "only_aws_settings",
    "rehearse",
    "watch_job",
]
