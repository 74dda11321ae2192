"""The summary as a person reads it: what happened, in which order, what it cost, and the verdict last."""

from typing import TYPE_CHECKING

from spotproof.report.faults import FaultSummary
from spotproof.report.summary import AttemptSummary, Spread, Summary

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["format_seconds", "render_summary"]

_FAULT_COLUMNS_WIDTH = 40
"""What the numbers beside an example take."""
_OUTCOME_STYLES = {"reclaimed": "yellow", "finished": "green", "failed": "red", "out of time": "red"}


def render_summary(summary: Summary, console: "Console") -> None:
    """Print *summary*; the same figures that :func:`spotproof.report.summary.to_json` gives."""
    from rich.text import Text

    kind = "managed spot" if summary.is_spot else "on demand"
    title = Text.assemble((summary.job_name, "bold"), f"  {kind}, {summary.status}")
    console.print()
    console.print(title)
    if summary.failure_reason:
        console.print(Text(f"  {summary.failure_reason}", style="red"))
    if summary.attempts:
        console.print(_attempts_table(summary))
    else:
        console.print()
    console.print(_totals_table(summary))
    for line in _notes(summary):
        console.print(line)
    if summary.faults is not None:
        console.print()
        console.print(_faults_table(summary.faults, width=console.width))
    if summary.verdict is not None:
        console.print()
        console.print(_verdict(summary))
    console.print()


def _attempts_table(summary: Summary) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
        show_footer=len(summary.attempts) > 1,
    )
    table.show_footer = len(summary.attempts) > 1
    total = summary.attempts[-1].last_step
    table.add_column("#", "", justify="right", no_wrap=True)
    table.add_column("ended", "total", no_wrap=True)
    table.add_column("steps", _or_dash(total), justify="right", no_wrap=True)
    table.add_column("from", "", justify="right", no_wrap=True)
    table.add_column("lost", str(summary.lost_steps), justify="right", no_wrap=True)
    table.add_column("saves", str(summary.num_checkpoints), justify="right", no_wrap=True)
    table.add_column("stall\np50/p95", format_spread(summary.stall_seconds), justify="right", no_wrap=True)
    table.add_column("durable\np50/p95", format_spread(summary.durable_seconds), justify="right", no_wrap=True)
    table.add_column("time", format_seconds(summary.training_seconds), justify="right", no_wrap=True)
    for attempt in summary.attempts:
        table.add_row(
            str(attempt.number),
            Text(attempt.outcome, style=_OUTCOME_STYLES.get(attempt.outcome, "")),
            _steps(attempt),
            _resumed(attempt),
            str(attempt.lost_steps),
            str(attempt.num_checkpoints),
            format_spread(attempt.stall_seconds),
            format_spread(attempt.durable_seconds),
            format_seconds(attempt.seconds),
        )
    return table


def _totals_table(summary: Summary) -> "Table":
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    planned = f"of {summary.reclaims_planned} planned" if summary.reclaims_planned is not None else ""
    table.add_row("Interruptions", str(summary.num_interruptions), planned)
    computed = (summary.final_step or 0) + summary.lost_steps
    table.add_row("Lost steps", str(summary.lost_steps), f"of {computed} computed" if computed else "")
    if summary.interval_seconds is not None:
        changes = f"changed {summary.interval_changes} times" if summary.interval_changes != 1 else "changed once"
        table.add_row("Save interval", format_seconds(summary.interval_seconds), f"auto, {changes}")
    if summary.training_seconds is not None and summary.billable_seconds is not None:
        billed = f"billed {format_seconds(summary.billable_seconds)}"
        table.add_row("Training time", format_seconds(summary.training_seconds), billed)
    if summary.aws_savings_percent is not None and summary.is_spot:
        formula = f"(1 - {summary.billable_seconds:g} / {summary.training_seconds:g}) · 100, as SageMaker counts"
        table.add_row("AWS savings", f"{summary.aws_savings_percent:.1f} %", formula)
    if summary.net_savings_percent is not None and summary.is_spot and summary.undisturbed_seconds is not None:
        formula = f"(1 - {summary.billable_seconds:g} / {summary.undisturbed_seconds:.4g}) · 100"
        source = "measured" if summary.undisturbed_source == "measured" else "assumed: computed"
        against = f"{formula}, to one undisturbed on-demand run ({source})"
        table.add_row("Net savings", f"{summary.net_savings_percent:.1f} %", against)
    if summary.goodput is not None:
        useful, wall = format_seconds(summary.useful_seconds), format_seconds(summary.wall_seconds)
        table.add_row(
            "Goodput",
            f"{summary.goodput * 100:.1f} %",
            f"{useful} useful of {wall}; the rest: start-ups, waits, lost steps",
        )
    return table


def _notes(summary: Summary) -> list["Text"]:
    from rich.text import Text

    notes: list[Text] = []
    for attempt in summary.attempts:
        texts = [f"passed over the checkpoint of step {bad.step}: {bad.reason}" for bad in attempt.rejected]
        if attempt.began_anew:
            texts.append("began anew: no whole checkpoint had reached S3")
        texts += [f"could not save {reason}" for reason in attempt.failed_saves]
        texts += attempt.warnings
        notes += [Text(f"! attempt {attempt.number}: {text}", style="yellow") for text in texts]
    if summary.num_interruptions and not summary.num_resumes and summary.verdict is not None:
        text = (
            "! No attempt went on from a checkpoint, so an identical end shows little: reclaim later, or save earlier."
        )
        notes.append(Text(text, style="yellow"))
    if summary.interval_reason:
        notes.insert(0, Text(summary.interval_reason, style="dim"))
    return [Text(), *notes] if notes else []


def _faults_table(faults: FaultSummary, *, width: int) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    seed = f", seed {faults.seed}" if faults.seed is not None else ""
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
        title=f"Faults let in{seed} (lost: all steps that the attempt lost)",
        title_justify="left",
        title_style="",
    )
    for name in ("fault", "#", "times", "lost"):
        table.add_column(name, justify="left" if name == "fault" else "right", no_wrap=True)
    table.add_column("first", no_wrap=True, style="dim")
    in_order = sorted(faults.injected, key=lambda item: (item.attempt is None, item.attempt or 0, item.kind))
    for item in in_order:
        place = "S3" if item.attempt is None else str(item.attempt)
        first = Text(item.examples[0])
        first.truncate(max(20, width - _FAULT_COLUMNS_WIDTH), overflow="ellipsis")
        table.add_row(item.kind, place, str(item.count), _or_dash(item.lost_steps), first)
    return table


def _verdict(summary: Summary) -> "Table":
    from rich.table import Table
    from rich.text import Text

    verdict = summary.verdict
    assert verdict is not None
    if verdict.is_identical:
        head, style, text = "✔ identical: yes", "bold green", "bit for bit the model of the undisturbed run"
    else:
        head, style, text = "✘ identical: no", "bold red", f"first difference: {verdict.where}: {verdict.detail}"
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(Text(head, style=style), Text(text))
    table.add_row("", Text(f"compared: {verdict.compared}", style="dim"))
    return table


def _steps(attempt: AttemptSummary) -> str:
    if attempt.last_step is None or attempt.resumed_from_step is None:
        return "none"
    if attempt.last_step <= attempt.resumed_from_step:
        return "none"
    return f"{attempt.resumed_from_step + 1}-{attempt.last_step}"


def _resumed(attempt: AttemptSummary) -> str:
    return (
        "?"
        if attempt.resumed_from_step is None
        else "start"
        if attempt.resumed_from_step == 0
        else str(attempt.resumed_from_step)
    )


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)


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
