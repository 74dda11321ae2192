"""What will it cost, by when is it done, how often to save: answered before a cent is spent.

In: a job's work and deadline, traces of capacity, prices, and what a rehearsal or an earlier job measured. Out: a
:class:`Plan`: what every policy makes of the job over start times, the best interval between saves, and what to write
into job.yaml. Seeded, no clock, no I/O but trace files. Who may import it: ``cli`` and the rooms above ``checkpoint``.
Needs numpy; loads neither torch nor boto3.
"""

from spotproof.plan.advise import Plan, Question, make_plan
from spotproof.plan.capacity import ASSUMED_DOWN, ASSUMED_UP, Offer, assumed_offer, fitted_offer
from spotproof.plan.costs import ASSUMED, Costs, Figure, costs_of
from spotproof.plan.course import Course
from spotproof.plan.document import to_json
from spotproof.plan.forecast import Forecast, Spread, forecast, forecast_bound
from spotproof.plan.generate import Lengths, fit_spells, generate_trace
from spotproof.plan.html import embed_figure, frame_page, in_both_lights, plotly_script
from spotproof.plan.intervals import (
    compare_intervals,
    daly_seconds,
    expected_makespan_seconds,
    replayed_running,
    young_seconds,
)
from spotproof.plan.job import PlannedJob, Pool
from spotproof.plan.offers import parse_offers
from spotproof.plan.omniscient import omniscient_bound
from spotproof.plan.page import build_page
from spotproof.plan.price_list import PriceList, parse_products, price_file
from spotproof.plan.prices import Price, Prices, parse_prices
from spotproof.plan.rules import POLICIES, Policy, Rules
from spotproof.plan.simulate import Outcomes, play
from spotproof.plan.spells import Spells, spells_of
from spotproof.plan.table import format_duration, render_plan

__all__ = [
    "ASSUMED",
    "ASSUMED_DOWN",
    "ASSUMED_UP",
    "POLICIES",
    "Costs",
    "Course",
    "Figure",
    "Forecast",
    "Lengths",
    "Offer",
    "Outcomes",
    "Plan",
    "PlannedJob",
    "Policy",
    "Pool",
    "Price",
    "PriceList",
    "Prices",
    "Question",
    "Rules",
    "Spells",
    "Spread",
    "assumed_offer",
    "build_page",
    "compare_intervals",
    "costs_of",
    "daly_seconds",
    "embed_figure",
    "expected_makespan_seconds",
    "fit_spells",
    "fitted_offer",
    "forecast",
    "forecast_bound",
    "format_duration",
    "frame_page",
    "generate_trace",
    "in_both_lights",
    "make_plan",
    "omniscient_bound",
    "parse_offers",
    "parse_prices",
    "parse_products",
    "play",
    "plotly_script",
    "price_file",
    "render_plan",
    "replayed_running",
    "spells_of",
    "to_json",
    "young_seconds",
]
