"""``watch``: jobs as they run, until they have ended. Looking changes nothing: it may be left and begun at any time."""

import json
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer

from spotproof.cli.options import Aws, Endpoint, StateDir
from spotproof.errors import LaunchError

if TYPE_CHECKING:
    from rich.live import Live

    from spotproof.launch import TrainingService
    from spotproof.plan import Prices
    from spotproof.supervise import JobView, JobWatcher

__all__ = ["WatchScreen", "watch"]

_LONGEST_PAUSE_SECONDS = 60.0
_MOST_JOBS = 20


def watch(
    jobs: Annotated[
        list[str] | None, typer.Argument(help="Names of jobs; without any, all that are in progress.", metavar="JOB...")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(help="File of prices. Default: what `prices update` wrote.", metavar="FILE")
    ] = None,
    endpoint: Endpoint = None,
    is_aws: Aws = False,
    state_dir: StateDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, for each change.")] = False,
) -> None:
    """Watch jobs: step, checkpoint in S3, cost, end."""
    from spotproof.cli.console import print_line
    from spotproof.cli.launched import was_spot_asked
    from spotproof.cli.locate import open_service
    from spotproof.cli.prices import read_prices
    from spotproof.storage import open_storage
    from spotproof.supervise import JobWatcher

    service = open_service(endpoint=endpoint, is_aws=is_aws, state_dir=state_dir)
    known = read_prices(prices, service.region)
    names = list(dict.fromkeys(jobs or [])) or _in_progress(service)
    if not names:
        if not as_json:
            print_line(f"No job is in progress at {service.endpoint}.")
        return
    watchers = {name: JobWatcher(service, name, open_storage) for name in names}
    asked = {name: was_spot_asked(name) for name in names}
    try:
        with WatchScreen(as_json=as_json) as screen:
            views = _watch(service, watchers, asked, known, screen)
    except KeyboardInterrupt:
        if not as_json:
            again = " ".join(names) + (" --aws" if is_aws else "")
            print_line(f"The jobs go on without this view. Come back: spotproof watch {again}", stderr=True)
        raise
    _check_ended(views)


def _in_progress(service: "TrainingService") -> list[str]:
    found = service.list(limit=_MOST_JOBS, status="InProgress")
    return [summary["TrainingJobName"] for summary in found]


def _watch(
    service: "TrainingService",
    watchers: "dict[str, JobWatcher]",
    asked: dict[str, bool | None],
    prices: "Prices | None",
    screen: "WatchScreen",
) -> "list[JobView]":
    """Look at all jobs until all have ended; return their last views."""
    from spotproof.cli.prices import highest_price
    from spotproof.launch import ServiceUnreachable
    from spotproof.supervise import build_view

    views: dict[str, JobView] = {}
    pause = service.poll_seconds
    while True:
        try:
            for name, watcher in watchers.items():
                if name in views and views[name].is_over:
                    continue
                look = watcher.look(datetime.now(timezone.utc))
                kind = str((look.description.get("ResourceConfig") or {}).get("InstanceType", ""))
                views[name] = build_view(look, price=highest_price(prices, kind), asked_spot=asked[name])
                screen.show(list(views.values()))
            pause = service.poll_seconds
        except ServiceUnreachable as error:
            if not views:
                raise
            screen.note(f"{error.what} The jobs go on; trying again.")
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        if len(views) == len(watchers) and all(view.is_over for view in views.values()):
            return list(views.values())
        time.sleep(pause)


def _check_ended(views: "list[JobView]") -> None:
    """Raise if a job has failed, so that a script that waits for it knows."""
    for view in views:
        if view.status == "Failed":
            raise LaunchError(
                f"Job {view.job_name} ended Failed: {view.failure_reason or view.phase}",
                do=f"See what it printed: spotproof logs {view.job_name} --tail 50",
            )


class WatchScreen:
    """Where views are shown: a table that stays on a terminal, else a line for each change."""

    def __init__(self, *, as_json: bool) -> None:
        from spotproof.cli.console import open_console

        self._as_json = as_json
        self._console = open_console()
        self._live: Live | None = None
        self._told: dict[str, tuple[object, ...]] = {}
        self._alarms: set[tuple[str, str]] = set()
        self._note = ""

    def __enter__(self) -> "WatchScreen":
        from rich.live import Live

        if self._console.is_terminal and not self._as_json:
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, views: "list[JobView]") -> None:
        """Show all *views*, and each warning once."""
        from spotproof.cli.watch_table import alarm_text, change_key, change_line, watch_table
        from spotproof.supervise import view_to_json

        now = datetime.now(timezone.utc)
        self._note = ""
        for view in views:
            new = [alarm for alarm in view.alarms if (view.job_name, alarm.key) not in self._alarms]
            self._alarms.update((view.job_name, alarm.key) for alarm in new)
            key = change_key(view, now)
            is_changed = self._told.get(view.job_name) != key
            self._told[view.job_name] = key
            if self._as_json:
                if is_changed or new:
                    self._write(json.dumps({"at": now.isoformat(), **view_to_json(view)}))
                continue
            for alarm in new:
                self._console.print(alarm_text(view.job_name, alarm))
            if self._live is None and is_changed:
                self._write(change_line(view, now))
        if self._live is not None:
            self._live.update(watch_table(views, now), refresh=True)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        from rich.text import Text

        if self._as_json:
            return
        self._console.print(Text(text), soft_wrap=not self._console.is_terminal)

    def write_json(self, fields: dict[str, object]) -> None:
        """Print *fields* as a line of JSON, where that is asked for."""
        if self._as_json:
            self._write(json.dumps(fields))

    def note(self, text: str) -> None:
        """Say something about the watching itself, once until it changes."""
        if text != self._note:
            self._note = text
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def _write(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
