"""The summary's figures as words: name, value, and how it comes about. Terminal and page show the same. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from spotproof.report.chain import Chain
from spotproof.report.cost import OLD_AFTER_DAYS, Cost
from spotproof.report.summary import AttemptSummary, Spread, Summary

__all__ = ["Row", "attempt_rows", "chain_rows", "format_seconds", "format_spread", "format_usd", "job_rows"]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure."""

    name: str
    value: str
    how: str = ""
    """From what it is computed, or why it is not known."""


def job_rows(summary: Summary) -> list[Row]:
    """Return what *summary* says beside its attempts."""
    rows = [_interruptions(summary), _lost(summary)]
    rows += _waiting(summary)
    if summary.interval_seconds is not None:
        changes = f"changed {summary.interval_changes} times" if summary.interval_changes != 1 else "changed once"
        rows.append(Row("Save interval", format_seconds(summary.interval_seconds), f"auto, {changes}"))
    if summary.saving_seconds is not None:
        saves = f"{summary.num_checkpoints} save{'s' * (summary.num_checkpoints != 1)}"
        slowed = ": stalls and slowed steps" if summary.slowdown_seconds is not None else ": stalls"
        rows.append(Row("Saving", format_seconds(round(summary.saving_seconds, 1)), saves + slowed))
    if summary.training_seconds is not None and summary.billable_seconds is not None:
        billed = f"billed {format_seconds(summary.billable_seconds)}"
        instances = f" of each of {summary.instance_count} instances" if summary.instance_count > 1 else ""
        rows.append(Row("Training time", format_seconds(summary.training_seconds), billed + instances))
    else:
        rows.append(Row("Training time", "-", summary.missing.get("training_seconds", "")))
    rows += _cost(summary)
    rows += _savings(summary)
    if summary.goodput is not None:
        useful, wall = format_seconds(summary.useful_seconds), format_seconds(summary.wall_seconds)
        how = f"{useful} useful of {wall}; the rest: start-ups, waits, lost steps"
        rows.append(Row("Goodput", f"{summary.goodput * 100:.1f} %", how))
    return rows


def _interruptions(summary: Summary) -> Row:
    planned = f"of {summary.reclaims_planned} planned" if summary.reclaims_planned is not None else ""
    return Row("Interruptions", str(summary.num_interruptions), planned)


def _lost(summary: Summary) -> Row:
    if "lost_seconds" in summary.missing and summary.final_step is None:
        return Row("Lost steps", "-", summary.missing["lost_seconds"])
    computed = (summary.final_step or 0) + summary.lost_steps
    took = f", {format_seconds(round(summary.lost_seconds, 1))}" if summary.lost_seconds else ""
    return Row("Lost steps", str(summary.lost_steps), f"of {computed} computed{took}" if computed else "")


def _waiting(summary: Summary) -> list[Row]:
    if summary.waiting_seconds is None:
        return []
    without = summary.no_capacity_seconds or 0.0
    how = f"for machines; {format_seconds(round(without, 1))} of it without capacity" if without else "for machines"
    return [Row("Waiting", format_seconds(round(summary.waiting_seconds, 1)), how)]


def _cost(summary: Summary) -> list[Row]:
    cost = summary.cost
    if cost.usd_per_hour is None and not cost.price_source:
        return []
    if cost.usd_per_hour is None:
        return [Row("Cost", "no price", cost.price_source.removeprefix("no price: "))]
    rows = []
    machines = f"{summary.instance_count} × {summary.instance_type} at {cost.usd_per_hour:g} USD/h"
    if cost.usd is None:
        rows.append(Row("Cost", "-", summary.missing.get("billable_seconds", "")))
    else:
        billed = format_seconds(summary.billable_seconds)
        rows.append(Row("Cost", format_usd(cost.usd), f"{billed} billed · {machines}"))
    if cost.lost_usd:
        rows.append(Row("  of it lost", format_usd(cost.lost_usd), "what steps that were computed twice cost"))
    if cost.undisturbed_usd is not None:
        source = summary.undisturbed_source or ""
        rows.append(Row("  undisturbed", format_usd(cost.undisturbed_usd), f"one run on demand ({source})"))
    rows.append(Row("  price", _age(cost), cost.price_source))
    if cost.is_local:
        how = f"this machine's: on {summary.instance_type} time and cost are others"
        rows.append(Row("  seconds", "local", how))
    return rows


def _age(cost: Cost) -> str:
    if cost.price_date is None:
        return "undated"
    return f"{cost.price_date}, old" if cost.price_is_old else cost.price_date


def _savings(summary: Summary) -> list[Row]:
    rows = []
    if summary.aws_savings_percent is not None and summary.is_spot:
        how = f"(1 - {summary.billable_seconds:g} / {summary.training_seconds:g}) · 100, as SageMaker counts"
        rows.append(Row("AWS savings", f"{summary.aws_savings_percent:.1f} %", how))
    if not summary.is_spot:
        return rows
    if summary.net_savings_percent is not None and summary.undisturbed_seconds is not None:
        formula = f"(1 - {summary.billable_seconds:g} / {summary.undisturbed_seconds:.4g}) · 100"
        how = f"{formula}, to one undisturbed on-demand run ({summary.undisturbed_source})"
        rows.append(Row("Net savings", f"{summary.net_savings_percent:.1f} %", how))
    else:
        rows.append(Row("Net savings", "-", summary.missing.get("undisturbed_seconds", "")))
    return rows


def attempt_rows(summary: Summary) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return the headings and the lines of the attempts' table."""
    heads = ("#", "ended", "steps", "from", "lost", "saves", "stall p50/p95", "durable p50/p95", "time")
    lines = [
        (
            str(attempt.number),
            attempt.outcome,
            steps_of(attempt),
            resumed_of(attempt),
            str(attempt.lost_steps),
            str(attempt.num_checkpoints),
            format_spread(attempt.stall_seconds),
            format_spread(attempt.durable_seconds),
            format_seconds(attempt.seconds),
        )
        for attempt in summary.attempts
    ]
    return heads, list(lines)


def chain_rows(chain: Chain) -> list[Row]:
    """Return what all jobs of *chain* did together."""
    rows = [Row("Interruptions", str(chain.num_interruptions))]
    between = f"{chain.lost_between_steps} of them from one job to the next" if chain.lost_between_steps else ""
    rows.append(Row("Lost steps", str(chain.lost_steps), between))
    for name, value, key in (
        ("Waiting", chain.waiting_seconds, "waiting_seconds"),
        ("Training time", chain.training_seconds, "training_seconds"),
        ("Billed", chain.billable_seconds, "billable_seconds"),
    ):
        rows.append(Row(name, format_seconds(value), chain.missing.get(key, "") if value is None else ""))
    if any(job.cost.usd_per_hour is not None for job in chain.jobs):
        usd = "-" if chain.usd is None else format_usd(chain.usd)
        rows.append(Row("Cost", usd, chain.missing.get("usd", "")))
        if chain.undisturbed_usd is not None:
            rows.append(Row("  undisturbed", format_usd(chain.undisturbed_usd), "one run on demand (estimated)"))
    if chain.aws_savings_percent is not None:
        how = f"(1 - {chain.billable_seconds:g} / {chain.training_seconds:g}) · 100, as SageMaker counts"
        rows.append(Row("AWS savings", f"{chain.aws_savings_percent:.1f} %", how))
    if chain.net_savings_percent is not None:
        how = "to one undisturbed on-demand run over all steps (estimated)"
        rows.append(Row("Net savings", f"{chain.net_savings_percent:.1f} %", how))
    else:
        rows.append(Row("Net savings", "-", chain.missing.get("undisturbed_seconds", "")))
    return rows


def price_note(cost: Cost) -> str:
    """Return what has to be said of an old price; empty otherwise."""
    if not cost.price_is_old:
        return ""
    return f"The price is more than {OLD_AFTER_DAYS} days older than the job: `spotproof prices update` gets today's."


def steps_of(attempt: AttemptSummary) -> str:
    """Return the first and the last step that *attempt* computed."""
    if attempt.last_step is None or attempt.resumed_from_step is None:
        return "none"
    if attempt.last_step <= attempt.resumed_from_step:
        return "none"
    return f"{attempt.resumed_from_step + 1}-{attempt.last_step}"


def resumed_of(attempt: AttemptSummary) -> str:
    """Return where *attempt* went on from."""
    if attempt.resumed_from_step is None:
        return "?"
    return str(attempt.resumed_from_step) if attempt.resumed_from_step else "start"


def format_usd(usd: float) -> str:
    """Return an amount with as many digits as it needs: ``12.34 USD``, ``0.0035 USD``."""
    if usd == 0 or usd >= 1:
        return f"{usd:.2f} USD"
    return f"{usd:.{max(2, 1 - math.floor(math.log10(usd)))}f} USD"


def format_spread(spread: Spread | None) -> str:
    """Return both numbers with one unit: ``4.2/9.1 ms``."""
    if spread is None:
        return "-"
    if spread.p95 < 1:
        return f"{_short(spread.p50 * 1000)}/{_short(spread.p95 * 1000)} ms"
    return f"{_short(spread.p50)}/{_short(spread.p95)} s"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def format_seconds(seconds: float | None) -> str:
    """Return a duration for people: ``12.3 s``, ``4 min 05 s``, ``2 h 03 min``."""
    if seconds is None:
        return "-"
    if seconds < 99.95:
        return f"{seconds:.0f} s" if seconds == int(seconds) else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
