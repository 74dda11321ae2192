"""Views of jobs as text: a table that stays, and lines for what changed."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from spotproof.supervise import Alarm, JobView

__all__ = ["alarm_text", "change_key", "change_line", "watch_table"]

_SECONDS_PER_LINE = 10
_STYLES = {
    "Completed": "green",
    "Failed": "red",
    "Training": "cyan",
    "Interrupted": "yellow",
    "Stopped": "yellow",
    "MaxRuntimeExceeded": "red",
    "MaxWaitTimeExceeded": "red",
}


def watch_table(views: Sequence["JobView"], now: datetime) -> "Table":
    """Return the table of *views*; fits 80 columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True)
    table.add_column("job", overflow="fold", ratio=1)
    table.add_column("attempt", no_wrap=True)
    table.add_column("step", justify="right", no_wrap=True)
    table.add_column("checkpoint", justify="right", no_wrap=True)
    table.add_column("USD", justify="right", no_wrap=True)
    table.add_column("done", justify="right", no_wrap=True)
    for view in views:
        phase = Text(_phase(view), style=_STYLES.get(view.phase, ""))
        phase.append("".join(f"  {name} {value:.4g}" for name, value in view.metrics.items()), style="default")
        table.add_row(
            Text.assemble((view.job_name, "bold"), "\n", phase),
            f"{view.attempt}, {'spot' if view.is_spot else 'on demand'}\n{_machines(view)}",
            f"{_steps(view)}\n{_rate(view)}",
            _checkpoint(view, now),
            _cost(view),
            _done(view, now),
        )
    return table


def change_key(view: "JobView", now: datetime) -> tuple[object, ...]:
    """Return what a new line is printed for when it is another than before: steps count every ten seconds."""
    tens = int(now.timestamp() // _SECONDS_PER_LINE) if view.phase == "Training" else None
    return (view.status, view.phase, view.message, view.attempt, view.is_spot, view.step is None, tens)


def change_line(view: "JobView", now: datetime) -> str:
    """Return the view in one line, for a log."""
    parts = [
        f"{now.astimezone():%H:%M:%S}",
        view.job_name,
        _phase(view),
        f"attempt {view.attempt}",
        f"step {_steps(view)}",
        _rate(view),
        *(f"{name}={value:.4g}" for name, value in view.metrics.items()),
    ]
    if view.checkpoint_step is not None:
        parts.append(f"checkpoint {view.checkpoint_step}, {_age(view, now)} old")
    if view.spent_usd is not None:
        parts.append(f"{view.spent_usd:.2f} USD")
    if view.finish_at is not None:
        parts.append(f"done {_clock(view.finish_at, now)}")
    return "  ".join(part for part in parts if part)


def alarm_text(job_name: str, alarm: "Alarm") -> "Text":
    """Return the warning for people."""
    from rich.text import Text

    text = Text.assemble(("warning: ", "bold yellow"), (f"{job_name}: ", "bold"), alarm.what)
    if alarm.do:
        text.append(f"\n  → {alarm.do}")
    return text


def _phase(view: "JobView") -> str:
    if view.phase in ("Starting", "Interrupted") and view.message:
        return f"{view.phase}: {view.message.removeprefix('Starting ')}"
    return view.phase


def _machines(view: "JobView") -> str:
    kind = view.instance_type.removeprefix("ml.")
    return kind if view.instance_count == 1 else f"{view.instance_count} × {kind}"


def _steps(view: "JobView") -> str:
    if view.step is None:
        return "-"
    return f"{view.step:,}" + (f" of {view.total_steps:,}" if view.total_steps else "")


def _rate(view: "JobView") -> str:
    if view.seconds_per_step is None or view.is_over:
        return ""
    per_second = 1 / view.seconds_per_step if view.seconds_per_step > 0 else 0.0
    return f"{per_second:.3g}/s" if per_second >= 1 else f"{view.seconds_per_step:.3g} s each"


def _checkpoint(view: "JobView", now: datetime) -> str:
    if view.checkpoint_step is None:
        return "none yet"
    return f"{view.checkpoint_step:,}\n" + ("" if view.is_over else f"{_age(view, now)} old")


def _age(view: "JobView", now: datetime) -> str:
    from spotproof.report.figures import format_seconds

    return format_seconds(
        round(max(0.0, (now - view.checkpoint_at).total_seconds())) if view.checkpoint_at is not None else None
    )


def _cost(view: "JobView") -> str:
    if view.spent_usd is None:
        return "no price"
    spent = f"{view.spent_usd:.2f}"
    return f"{spent}\nof {view.projected_usd:.2f}" if view.projected_usd is not None and not view.is_over else spent


def _done(view: "JobView", now: datetime) -> str:
    from spotproof.report.figures import format_seconds

    if view.finish_at is None:
        return "-"
    if view.is_over:
        return _clock(view.finish_at, now)
    return f"{_clock(view.finish_at, now)}\nin {format_seconds(round((view.finish_at - now).total_seconds()))}"


def _clock(at: datetime, now: datetime) -> str:
    local, today = at.astimezone(), now.astimezone().date()
    return f"{local:%H:%M:%S}" if local.date() == today else f"{local:%m-%d %H:%M}"
