"""The report on a terminal: readable at 80 columns, verdict last."""

import dataclasses
import io

import pytest
from rich.console import Console
from test_summary import TWICE, TWICE_EVENTS

from spotproof.report import FaultCount, FaultSummary, Verdict, render_summary, summarize
from spotproof.report.figures import format_seconds, format_spread
from spotproof.report.summary import Spread, Summary

SUMMARY = dataclasses.replace(
    summarize(TWICE, TWICE_EVENTS, reclaims_planned=2),
    verdict=Verdict(is_identical=True, compared="last checkpoints of step 100"),
)


def rendered(summary: Summary, width: int) -> str:
    file = io.StringIO()
    render_summary(summary, Console(file=file, width=width))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 100])
def test_fits_and_says_it_all(width: int) -> None:
    """No figure is cut at 80 columns, and the numbers are those of the summary."""
    text = rendered(SUMMARY, width)

    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for part in ["1-33", "21-55", "51-100", "reclaimed", "finished", "10/30 ms", "200/400 ms", "69.7 %", "48.8 %"]:
        assert part in text
    assert "passed over the checkpoint of step 30: cut short" in text


def test_faults_and_new_beginnings_are_told() -> None:
    """Which faults, when, how often, what was lost there; an attempt that began anew; an end that shows little."""
    faults = FaultSummary(
        seed=3,
        reclaim="step:5",
        sync_faults="torn:1",
        s3_faults="none",
        injected=(
            FaultCount(kind="torn", attempt=1, count=3, examples=("packs/[a]: torn",), lost_steps=5),
            FaultCount(kind="download-fail", attempt=None, count=12345, examples=("x" * 200,)),
        ),
        given={},
    )
    text = rendered(dataclasses.replace(SUMMARY, faults=faults), 80)
    assert "seed 3" in text
    assert ["torn", "1", "3", "5", "packs/[a]:", "torn"] in [line.split() for line in text.splitlines()]
    assert ["download-fail", "S3", "12345", "-"] in [line.split()[:4] for line in text.splitlines()]
    assert max(map(len, text.splitlines())) <= 80
    assert "began anew" not in text
    assert "shows little" not in text

    attempts = [dataclasses.replace(one, resumed_from_step=0, began_anew=one.number > 0) for one in SUMMARY.attempts]
    text = rendered(dataclasses.replace(SUMMARY, attempts=tuple(attempts)), 80)
    assert "attempt 1: began anew: no whole checkpoint had reached S3" in text
    assert "shows little" in text


def test_the_interval_has_its_reason() -> None:
    """How often auto mode saved last, and why, in one sentence that is not cut."""
    summary = dataclasses.replace(SUMMARY, interval_seconds=15.0, interval_reason="Saving every 15 s: " + "why " * 40)
    text = rendered(dataclasses.replace(summary, interval_changes=3), 80)

    assert "auto, changed 3 times" in text
    assert text.count("why") == 40
    assert max(map(len, text.splitlines())) <= 80


def test_verdict_is_last() -> None:
    """Whoever looks at the end of the output sees the verdict."""
    assert "identical: yes" in "\n".join(rendered(SUMMARY, 100).strip().splitlines()[-2:])


def test_first_difference_is_shown() -> None:
    """A no comes with the place and what is there."""
    verdict = Verdict(is_identical=False, compared="c", where="lightning/state_dict/w", detail="other bytes")
    text = rendered(dataclasses.replace(SUMMARY, verdict=verdict), 100)

    assert "identical: no" in text
    assert "lightning/state_dict/w: other bytes" in text


def test_text_of_users_is_not_markup() -> None:
    """Square brackets in names and reasons are shown as they are."""
    summary = dataclasses.replace(SUMMARY, job_name="[red]job[/red]", failure_reason="[bold]x")

    assert "[red]job[/red]" in rendered(summary, 100)
    assert "[bold]x" in rendered(summary, 100)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (3, "3 s"), (3.25, "3.2 s"), (100, "1 min 40 s"), (245.4, "4 min 05 s"), (7380, "2 h 03 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    """Durations have units that people use."""
    assert format_seconds(seconds) == text


def test_spreads_share_a_unit() -> None:
    """Both numbers of a spread are in one unit."""
    assert format_spread(Spread(p50=0.0042, p95=0.09)) == "4.2/90 ms"
    assert format_spread(Spread(p50=0.2, p95=1.5)) == "0.2/1.5 s"
    assert format_spread(None) == "-"
