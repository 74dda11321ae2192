"""A rehearsal as it happens: one line for each thing that happened, and one that moves at the bottom."""

import time
from types import TracebackType
from typing import TYPE_CHECKING

from spotproof.rehearsal import (
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
    from rich.text import Text

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
        elif isinstance(event, JobSubmitted):
            kind = f"managed spot, reclaim {event.reclaim}" if event.is_spot else "on demand, undisturbed"
            self._say("submitted", f"{event.job_name}: {kind}", style="bold")
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
            self._say("compared", event.verdict.compared)

    def _show_step(self, event: Stepped) -> None:
        if event.attempt > self._attempt:
            self._attempt = event.attempt
            again = max(0, self._last_step - event.step)
            place = f"goes on from step {event.step}" if event.step else "begins anew"
            self._say("resumed", f"attempt {event.attempt} {place}; {again} lost steps come again", style="cyan")
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
        self._console.print(self._line(word, text, style))

    def _line(self, word: str, text: str, style: str) -> "Text":
        from rich.text import Text

        elapsed = time.monotonic() - self._began_at
        return Text.assemble((f"{elapsed:7.1f} s  ", "dim"), (f"{word:<12}", style), f" {text}")
