"""What a job did, in numbers: events, log lines and the service's description in, a Summary out, and its rendering.

In: events of all attempts (from S3), log lines, DescribeTrainingJob's answer. Out: pure numbers, a
:class:`~spotproof.report.summary.Summary`; the table and ``--json`` show the same. Who may import it: ``rehearsal`` and
``cli``. Loads neither torch nor boto3; rich only when something is rendered.
"""

from spotproof.report.faults import FaultCount, FaultSummary
from spotproof.report.read import read_events, read_progress
from spotproof.report.render import render_summary
from spotproof.report.savings import aws_savings_percent, net_savings_percent
from spotproof.report.summary import AttemptSummary, Spread, Summary, Verdict, summarize, to_json

__all__ = [
    "AttemptSummary",
    "FaultCount",
    "FaultSummary",
    "Spread",
    "Summary",
    "Verdict",
    "aws_savings_percent",
    "net_savings_percent",
    "read_events",
    "read_progress",
    "render_summary",
    "summarize",
    "to_json",
]
