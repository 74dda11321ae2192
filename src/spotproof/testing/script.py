"""A whole script, killed by SIGKILL again and again until it is through, and compared with an undisturbed run of it."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spotproof.checkpoint import Difference, Manifest, first_difference, newest_verified
from spotproof.checkpoint.journal import read_events, recorded_attempts
from spotproof.contract import ENV_CHECKPOINT_DIR, ENV_PROGRESS_SECONDS
from spotproof.errors import CheckpointError, LaunchError, NotIdentical, SpecError
from spotproof.events import Resumed
from spotproof.storage import LocalStorage
from spotproof.testing.watch import EventWatch

__all__ = ["Kill", "ScriptKills", "kill_script"]

_PLACEHOLDER = "{checkpoints}"
_POLL_SECONDS = 0.005


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """One kill that met a running process."""

    after_seconds: float
    """Since the process began."""
    reached_step: int | None
    """The last step that its events told; None if it was killed before any."""
    found_step: int | None
    """The newest whole checkpoint afterwards."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScriptKills:
    """What came of a script that was killed."""

    seed: int
    """Gives the same kill times again, if not the same kills: no two runs take the same time."""
    kills: tuple[Kill, ...]
    """That met a running process; fewer than asked for if the script was through before."""
    resumed_steps: tuple[int, ...]
    """Where its attempts went on from, in their order."""
    final_step: int
    """Of the last checkpoint of the undisturbed run."""
    difference: Difference | None
    """The first one between the last checkpoints; None if they are the same bit for bit."""

    @property
    def is_identical(self) -> bool:
        """Whether the script ended as if nothing had happened."""
        return self.difference is None

    def check(self) -> None:
        """Return if the kills left no trace.

        Raises:
            NotIdentical: They did, or there was none, which proves nothing.
        """
        if not self.kills:
            raise NotIdentical(
                f"No kill met a running process (seed {self.seed}).", do="Ask for more kills, or let it train longer."
            )
        if self.difference is not None:
            raise NotIdentical(
                f"Killed {len(self.kills)} times (seed {self.seed}), the script ended with another checkpoint than "
                "undisturbed.",
                why=f"First difference: {self.difference.where}: {self.difference.detail}. It resumed from "
                f"{', '.join(f'step {step}' for step in self.resumed_steps) or 'no checkpoint'}.",
                do="Save what it depends on, and make it repeatable: deterministic kernels, the same threads, and "
                "seeds for all of torch, numpy and random, also those that it does not use.",
            )


def kill_script(
    argv: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    num_kills: int = 5,
    seed: int = 0,
    at_steps: Sequence[int] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout_seconds: float = 3600.0,
) -> ScriptKills:
    """Run a script undisturbed, then run it again, killed by SIGKILL and restarted until it is through; compare.

    Kills come at random, start-up and resume included, or at the moment when the script tells that it has reached a
    step. With the process die the children it started.

    Args:
        argv: The command. ``{checkpoints}`` in it becomes the checkpoint folder, which is also in the environment as
            ``SM_CHECKPOINT_DIR``, where ``SpotCheckpoint()`` looks. At its end the script must save its last step, as
            ``SpotCheckpoint`` does by itself.
        folder: For the checkpoints and logs of both runs; must not hold anything.
        num_kills: How many to try at random; the run after them is left alone.
        seed: Of the random times.
        at_steps: Instead: the steps to kill at, ascending, each in an attempt of its own. Lightning trainings tell each
            step; others tell those that they save.
        env: Added to the environment of this process.
        cwd: Where to run it.
        timeout_seconds: For each attempt.

    Raises:
        CheckpointError: A checkpoint that was whole is lost after a kill.
        LaunchError: The script failed by itself, or took too long.
        SpecError: *folder* holds something, or the script saved no checkpoint.
    """
    place = Path(folder).absolute()
    if place.exists() and any(place.iterdir()):
        raise SpecError(f"{place} is not empty.", do="Name a folder of its own.")
    place.mkdir(parents=True, exist_ok=True)
    script = _Script(argv, dict(env or {}), cwd, timeout_seconds, tells_each_step=at_steps is not None)

    base = script.run(place / "undisturbed")
    wanted = newest_verified(LocalStorage(place / "undisturbed"))
    if wanted is None:
        raise SpecError(
            "The script saved no checkpoint.",
            why=f"It was told to use {place / 'undisturbed'}.",
            do=f"Pass {_PLACEHOLDER} to it in argv, or let it read {ENV_CHECKPOINT_DIR}.",
        )
    victim = place / "killed"
    kills: list[Kill] = []
    found: Manifest | None = None
    rng = random.Random(seed)
    for kill_at in at_steps if at_steps is not None else [None] * num_kills:
        done = found.step / wanted.step if found is not None and wanted.step else 0.0
        longest = base.first_event_seconds + (base.seconds - base.first_event_seconds) * (1.0 - done)
        kill_after = rng.uniform(0.0, longest) if kill_at is None else None
        ended = script.run(victim, kill_after=kill_after, kill_at=kill_at)
        found = _newest_not_older(victim, found, seed)
        if not ended.is_killed:
            break
        found_step = found.step if found is not None else None
        kills.append(Kill(after_seconds=ended.seconds, reached_step=ended.reached_step, found_step=found_step))
    else:
        script.run(victim)
    storage = LocalStorage(victim)
    last = newest_verified(storage)
    difference = (
        Difference("step", f"{wanted.step} and no checkpoint")
        if last is None
        else first_difference(wanted, LocalStorage(place / "undisturbed"), last, storage)
    )
    return ScriptKills(
        seed=seed,
        kills=tuple(kills),
        resumed_steps=_resumed_steps(storage),
        final_step=wanted.step,
        difference=difference,
    )


def _newest_not_older(folder: Path, before: Manifest | None, seed: int) -> Manifest | None:
    found = newest_verified(LocalStorage(folder))
    if before is not None and (found is None or found.step < before.step):
        told = f"is that of step {found.step}" if found is not None else "is none"
        raise CheckpointError(
            f"After a kill (seed {seed}) the newest whole checkpoint in {folder} {told}; before it was step "
            f"{before.step}."
        )
    return found


def _resumed_steps(storage: LocalStorage) -> tuple[int, ...]:
    events = (event for attempt in recorded_attempts(storage) for event in read_events(storage, attempt))
    return tuple(event.step for event in events if isinstance(event, Resumed))


@dataclass(frozen=True, slots=True)
class _Ended:
    is_killed: bool
    seconds: float
    first_event_seconds: float
    """When it was seen to begin; its start-up."""
    reached_step: int | None


class _Script:
    def __init__(
        self,
        argv: Sequence[str],
        env: dict[str, str],
        cwd: str | os.PathLike[str] | None,
        timeout_seconds: float,
        *,
        tells_each_step: bool,
    ) -> None:
        self._argv = argv
        self._env = {**os.environ, **({ENV_PROGRESS_SECONDS: "0"} if tells_each_step else {}), **env}
        self._cwd = cwd
        self._timeout_seconds = timeout_seconds

    def run(self, checkpoints: Path, *, kill_after: float | None = None, kill_at: int | None = None) -> _Ended:
        """Run one attempt to its end, or kill it *kill_after* seconds, or when it tells that step *kill_at* is done.

        Raises:
            LaunchError: It failed by itself, or took too long.
        """
        log = checkpoints.with_name(f"{checkpoints.name}.log")
        watch = EventWatch(checkpoints)
        began = time.monotonic()
        first_event_at: float | None = None
        with log.open("ab") as output:
            process = subprocess.Popen(
                [part.replace(_PLACEHOLDER, str(checkpoints)) for part in self._argv],
                env={**self._env, ENV_CHECKPOINT_DIR: str(checkpoints)},
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its children can be killed with it
            )
            try:
                while process.poll() is None:
                    seconds = time.monotonic() - began
                    watch.poll()
                    if watch.has_begun and first_event_at is None:
                        first_event_at = seconds
                    is_there = kill_at is not None and watch.step is not None and watch.step >= kill_at
                    if is_there or (kill_after is not None and seconds >= kill_after):
                        break
                    if seconds > self._timeout_seconds:
                        raise LaunchError(f"The script took longer than {self._timeout_seconds:g} s; see {log}.")
                    time.sleep(_POLL_SECONDS)
            finally:
                _kill_all(process)
        seconds = time.monotonic() - began
        watch.poll()
        if process.returncode not in (0, -signal.SIGKILL):
            raise LaunchError(
                f"The script failed by itself, with exit code {process.returncode}.",
                why=_last_lines(log),
                do=f"See {log}.",
            )
        return _Ended(process.returncode != 0, seconds, first_event_at or seconds, watch.step)


def _kill_all(process: "subprocess.Popen[bytes]") -> None:
    """Kill *process* and the children it left; do nothing to one that has ended and left none."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _last_lines(log: Path) -> str:
    return "It said: " + " / ".join(log.read_text(errors="replace").splitlines()[-3:]) + "."
