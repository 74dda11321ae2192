"""The summary as a person reads it: what happened, in which order, what it cost, and the verdict last."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spotproof.report.chain import Chain
from spotproof.report.faults import FaultSummary
from spotproof.report.figures import (
    Row,
    attempt_rows,
    chain_rows,
    format_seconds,
    format_spread,
    job_rows,
    price_note,
)
from spotproof.report.summary import Summary

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["render_chain", "render_summary"]

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
    console.print(_rows_table(job_rows(summary)))
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
    for number, outcome, *others in attempt_rows(summary)[1]:
        table.add_row(number, Text(outcome, style=_OUTCOME_STYLES.get(outcome, "")), *others)
    return table


def _rows_table(rows: Sequence[Row]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    for row in rows:
        table.add_row(row.name, row.value, Text(row.how))
    return table


def render_chain(chain: Chain, console: "Console") -> None:
    """Print each job of *chain*, and what they did together."""
    from rich.text import Text

    for job in chain.jobs:
        render_summary(job, console)
    console.print(Text(f"All {len(chain.jobs)} jobs together", style="bold"))
    console.print()
    console.print(_rows_table(chain_rows(chain)))
    console.print()


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
            "! No attempt went on from a checkpoint, so an identical end shows little: the program does not save and "
            "load, or not early enough. Reclaim later, or save earlier: SpotCheckpoint(every_n_steps=…)."
        )
        notes.append(Text(text, style="yellow"))
    if price_note(summary.cost):
        notes.append(Text(f"! {price_note(summary.cost)}", style="yellow"))
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
    if verdict.note:
        table.add_row("", Text(verdict.note, style="yellow"))
    return table


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
