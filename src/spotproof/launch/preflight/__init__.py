"""What can be known of a job before it is asked for, and before a byte of it is uploaded.

In: a :class:`~spotproof.spec.JobSpec` and :class:`Facts`, which :func:`look` gathers through boto3. Out: one
:class:`Check` for each thing that was looked at: it is so, it may go wrong, it will go wrong, or it could not be seen.
"""

from spotproof.launch.preflight.check import Check, Outcome, failed
from spotproof.launch.preflight.checks import check_job
from spotproof.launch.preflight.facts import Facts
from spotproof.launch.preflight.look import look

__all__ = ["Check", "Facts", "Outcome", "check_job", "failed", "look"]
