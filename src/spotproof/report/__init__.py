"""What jobs did, in numbers: events, log lines and the service's description in, a Summary out, and its rendering.

In: events of all attempts (from S3), log lines, DescribeTrainingJob's answer, prices from a file. Out: pure numbers, a
:class:`~spotproof.report.summary.Summary` of a job and a :class:`~spotproof.report.chain.Chain` of several; the table,
the page and ``--json`` show the same. Who may import it: ``rehearsal`` and ``cli``. Loads neither torch nor boto3;
rich, plotly, matplotlib and TensorBoard only when they are needed.
"""

from spotproof.report.boards import Board, boards_of
from spotproof.report.chain import Chain, chain_of, chain_to_json, in_order, shares_checkpoints
from spotproof.report.cost import Cost, PriceTag, price_tag, region_of, rehearsal_price_tag
from spotproof.report.event_files import copy_event_files, has_event_files, read_scalars
from spotproof.report.faults import FaultCount, FaultSummary
from spotproof.report.loss import (
    Curve,
    Mark,
    Piece,
    Point,
    Reach,
    choose_metric,
    curve_of,
    metric_points,
    stepless_metrics,
)
from spotproof.report.page import build_page
from spotproof.report.picture import check_image_name, write_image
from spotproof.report.read import read_events, read_progress
from spotproof.report.render import render_chain, render_summary
from spotproof.report.savings import aws_savings_percent, net_savings_percent
from spotproof.report.summary import AttemptSummary, Spread, Summary, Verdict, summarize, to_json

__all__ = [
    "AttemptSummary",
    "Board",
    "Chain",
    "Cost",
    "Curve",
    "FaultCount",
    "FaultSummary",
    "Mark",
    "Piece",
    "Point",
    "PriceTag",
    "Reach",
    "Spread",
    "Summary",
    "Verdict",
    "aws_savings_percent",
    "boards_of",
    "build_page",
    "chain_of",
    "chain_to_json",
    "check_image_name",
    "choose_metric",
    "copy_event_files",
    "curve_of",
    "has_event_files",
    "in_order",
    "metric_points",
    "net_savings_percent",
    "price_tag",
    "read_events",
    "read_progress",
    "read_scalars",
    "region_of",
    "rehearsal_price_tag",
    "render_chain",
    "render_summary",
    "shares_checkpoints",
    "stepless_metrics",
    "summarize",
    "to_json",
    "write_image",
]
