"""The local SageMaker: training jobs over HTTP, in namespaces, with a real S3 and real reclaims.

In: CreateTrainingJob requests over HTTP, and a reclaim schedule. Out: killed and restarted processes, objects in S3,
and the answers that SageMaker gives; docs/fidelity.md says how far that goes. It copies files and kills processes, as
SageMaker does, and knows nothing of checkpoints: it imports neither ``checkpoint`` nor ``events``.

The way of a request: ``http`` (→ ``logs_api``, ``identity``, ``s3proxy``) → ``api`` → ``validate``, ``request`` →
``jobs`` (``store``, ``capacity``, ``clock``) → ``job`` (→ ``state``, ``reclaims``, pure) → ``attempt`` → ``hosts``,
``sync``, ``artifacts`` → ``processes``, ``_supervisor``; of a real image: ``containers`` → ``processes``, ``_engine``.
"""

from spotproof.local.images import Image, parse_image, read_images
from spotproof.local.platform import DEFAULT_CAPACITY, LocalSageMaker
from spotproof.local.s3_faults import S3Faults, parse_s3_faults
from spotproof.local.sync_faults import SyncFaults, parse_sync_faults

__all__ = [
    "DEFAULT_CAPACITY",
    "Image",
    "LocalSageMaker",
    "S3Faults",
    "SyncFaults",
    "parse_image",
    "parse_s3_faults",
    "parse_sync_faults",
    "read_images",
]
