"""The local SageMaker: training jobs over HTTP, in namespaces, with a real S3 and real reclaims.

In: CreateTrainingJob requests over HTTP, and a reclaim schedule. Out: killed and restarted processes, objects in S3,
and the answers that SageMaker gives; docs/fidelity.md says how far that goes. It copies files and kills processes, as
SageMaker does, and knows nothing of checkpoints: it imports neither ``checkpoint`` nor ``events``.

The way of a request: ``http`` → ``api`` → ``validate``, ``request`` → ``job`` (→ ``state``, pure) → ``attempt`` →
``hosts``, ``sync``, ``artifacts`` → ``processes``, ``_supervisor``.
"""

from spotproof.local.images import Image, parse_image
from spotproof.local.platform import LocalSageMaker

__all__ = ["Image", "LocalSageMaker", "parse_image"]
