"""A rehearsal as it happens: one line for each thing that happened, and one that moves at the bottom."""

import time
from types import TracebackType
from typing import TYPE_CHECKING

from spotproof.rehearsal import (
    ChaosPlanned,
    Compared,
    InputsUploaded,
    JobEnded,
    JobSubmitted,
    PlatformReady,
    StatusChanged,
    Stepped,
)
from spotproof.rehearsal.progress import ProgressEvent

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["LiveView"]

_STYLES = {
    "Interrupted": "bold yellow",
    "Failed": "bold red",
    "Completed": "bold green",
    "Training": "cyan",
    "MaxRuntimeExceeded": "bold red",
    "MaxWaitTimeExceeded": "bold red",
}


class LiveView:
    """Shows progress events on *console*; without a terminal the lines alone, no moving one."""

    def __init__(self, console: "Console") -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = console
        self._began_at = time.monotonic()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[steps]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting the local SageMaker", total=None, steps="")
        self._last_told: tuple[str, str] | None = None
        self._attempt = 0
        self._last_step = 0

    def __enter__(self) -> "LiveView":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, event: ProgressEvent) -> None:
        """Show *event*."""
        if isinstance(event, PlatformReady):
            self._say("ready", f"local SageMaker at {event.url}")
        elif isinstance(event, InputsUploaded):
            self._say("uploaded", f"input {event.channel}, {event.num_files} file{'s' * (event.num_files != 1)}")
        elif isinstance(event, ChaosPlanned):
            text = f"--seed {event.seed} draws the same again\nsync faults: {event.sync_faults}\n"
            self._say("chaos", f"{text}S3 faults: {event.s3_faults}", style="bold")
        elif isinstance(event, JobSubmitted):
            kind = f"managed spot, to be reclaimed at {event.reclaim}" if event.is_spot else "on demand, undisturbed"
            if event.is_spot and event.reclaim == "none":
                kind = "managed spot, never reclaimed"
            self._console.print()
            self._say("submitted", f"{event.job_name}\n{kind}", style="bold")
            self._last_told, self._attempt, self._last_step = None, 0, 0
            self._bar.reset(self._task, total=event.total_steps, steps="")
            self._describe("waiting")
        elif isinstance(event, Stepped):
            self._show_step(event)
        elif isinstance(event, StatusChanged):
            self._show_status(event)
        elif isinstance(event, JobEnded):
            self._describe("comparing")
        elif isinstance(event, Compared):
            self._console.print()
            self._say("compared", "identical" if event.verdict.is_identical else f"differs at {event.verdict.where}")

    def _show_step(self, event: Stepped) -> None:
        if event.attempt > self._attempt:
            self._attempt = event.attempt
            again = max(0, self._last_step - event.step)
            place = f"goes on from step {event.step}" if event.step else "begins anew"
            lost = f"{again} step{'s' * (again != 1)} lost"
            self._say("resumed", f"attempt {event.attempt} {place}, {lost}", style="cyan")
        self._last_step = event.step
        total = self._bar.tasks[0].total
        steps = f"step {event.step}" + (f" of {total:.0f}" if total else "")
        self._bar.update(self._task, completed=event.step, steps=steps)
        self._describe(f"attempt {event.attempt}, epoch {event.epoch}")

    def _show_status(self, event: StatusChanged) -> None:
        text = event.message.removeprefix(f"{event.status} ")
        if event.status == "Training":
            text = f"attempt {event.attempt}"
        elif event.status == "Interrupted":
            reached = f"after step {event.last_step}" if event.last_step is not None else "before its first step"
            text = f"attempt {event.attempt} was reclaimed {reached}"
        elif (event.status, text) == self._last_told:
            return
        self._last_told = (event.status, text)
        self._say(event.status, text, style=_STYLES.get(event.status, ""))
        self._describe(event.status.lower())

    def _describe(self, text: str) -> None:
        self._bar.update(self._task, description=f"{text:<22}")  # of one width, so that the bar stands still

    def _say(self, word: str, text: str, *, style: str = "") -> None:
        from rich.table import Table
        from rich.text import Text

        elapsed = time.monotonic() - self._began_at
        line = Table.grid(padding=(0, 1))  # so that a long text is folded below itself
        line.add_column(justify="right", width=7, no_wrap=True, style="dim")
        line.add_column(width=12, no_wrap=True, style=style)
        line.add_column(overflow="fold")
        line.add_row(f"{elapsed:.1f} s", word, Text(text))
        self._console.print(line)
