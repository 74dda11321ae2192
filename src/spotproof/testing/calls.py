"""A training killed at each file-system call it makes in its checkpoint folder."""

import itertools
import os
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotproof.checkpoint import Manifest, committed_steps, first_difference, newest_verified, read_manifest
from spotproof.checkpoint.manifest import manifest_key
from spotproof.errors import CheckpointError, NotIdentical, SpecError
from spotproof.storage import LocalStorage
from spotproof.testing.guard import guard_calls

if TYPE_CHECKING:
    from spotproof.checkpoint import Checkpointer

__all__ = ["CallKill", "CallKills", "kill_at_every_call"]

_KEEP_ALL = 10**9


@dataclass(frozen=True, kw_only=True, slots=True)
class CallKill:
    """One kill."""

    number: int
    """Of the call, from 0."""
    call: str
    """What the process died at, such as ``fsync packs``."""
    saved_step: int | None
    """The newest step whose save had returned."""
    found_step: int | None
    """The newest whole checkpoint afterwards."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallKills:
    """All kills of a training, each of which it survived."""

    kills: tuple[CallKill, ...]
    final_step: int
    """Of the last checkpoint, of the undisturbed training and of each that was killed and went on."""


@dataclass(frozen=True, slots=True)
class _Ended:
    code: int
    """Negative for a signal."""
    died_at: str
    saved_step: int | None


def kill_at_every_call(
    train: "Callable[[Checkpointer], object]", folder: str | os.PathLike[str], *, timeout_seconds: float = 60.0
) -> CallKills:
    """Run *train* again and again, each time killed by SIGKILL one file-system call later, until all were met.

    After each kill no checkpoint whose save had returned may be lost, the newest must be bit for bit that of an
    undisturbed training, and *train*, run again, must go on from it to the same end.

    Args:
        train: Registers what has state, restores, trains to a fixed step, and saves on its way and at its end. Is run
            in processes forked from this one: let nothing else have used several threads before
            (``torch.set_num_threads(1)``), and let it set the seeds itself. Saves are waited for, so that each run
            makes the same calls.
        folder: For the checkpoints; must not hold anything. Empty afterwards but for the undisturbed training.
        timeout_seconds: For each run.

    Raises:
        CheckpointError: A checkpoint was lost, or *train* failed by itself.
        NotIdentical: A checkpoint, or the end, is another than the undisturbed training's.
        SpecError: *folder* holds something, or *train* saved nothing.
    """
    place = Path(folder).absolute()
    if place.exists() and any(place.iterdir()):
        raise SpecError(f"{place} is not empty.", do="Name a folder of its own.")
    base = place / "undisturbed"
    _run_to_end(train, base, timeout_seconds, keep=_KEEP_ALL)
    steps = committed_steps(LocalStorage(base))
    if not steps:
        raise SpecError("The training saved no checkpoint.", do="Let it call checkpointer.save(step).")
    kills: list[CallKill] = []
    for number in itertools.count():
        victim = place / f"killed-at-{number:04d}"
        ended = _run(train, victim, timeout_seconds, die_at=number)
        if ended.code == 0:
            shutil.rmtree(victim, ignore_errors=True)
            return CallKills(kills=tuple(kills), final_step=steps[0])
        where = f"Killed at file-system call {number} ({ended.died_at})"
        if ended.code != -signal.SIGKILL:
            raise _failed(ended.code, victim)
        found = newest_verified(LocalStorage(victim))
        _check_not_lost(where, ended.saved_step, found, victim)
        if found is not None:
            _check_same(where, found, victim, base)
        _run_to_end(train, victim, timeout_seconds)
        last = newest_verified(LocalStorage(victim))
        if last is None or last.step != steps[0]:
            told = f"step {last.step}" if last is not None else "nothing"
            raise NotIdentical(f"{where} and run again, the training ended with {told}, not with step {steps[0]}.")
        _check_same(f"{where} and run again", last, victim, base)
        found_step = found.step if found is not None else None
        kills.append(CallKill(number=number, call=ended.died_at, saved_step=ended.saved_step, found_step=found_step))
        shutil.rmtree(victim)
    raise AssertionError  # count() has no end


def _check_not_lost(where: str, saved_step: int | None, found: Manifest | None, folder: Path) -> None:
    if saved_step is not None and (found is None or found.step < saved_step):
        told = f"only step {found.step} is" if found is not None else "nothing is"
        raise CheckpointError(
            f"{where}, the checkpoint of step {saved_step} is lost: {told} found in {folder}.",
            why="Its save had returned before.",
        )


def _check_same(where: str, found: Manifest, folder: Path, base: Path) -> None:
    undisturbed = LocalStorage(base)
    try:
        wanted = read_manifest(undisturbed, manifest_key(found.step))
    except CheckpointError as err:
        raise NotIdentical(f"{where}, step {found.step} is saved, which the undisturbed training never saved.") from err
    difference = first_difference(wanted, undisturbed, found, LocalStorage(folder))
    if difference is not None:
        raise NotIdentical(
            f"{where}, the checkpoint of step {found.step} in {folder} is not that of the undisturbed training.",
            why=f"First difference: {difference.where}: {difference.detail}.",
            do="Register all it depends on (RngState, the loader, schedulers), and seed torch, numpy and random.",
        )


def _run_to_end(train: "Callable[[Checkpointer], object]", folder: Path, timeout_seconds: float, keep: int = 2) -> None:
    ended = _run(train, folder, timeout_seconds, keep=keep)
    if ended.code != 0:
        raise _failed(ended.code, folder)


def _failed(code: int, folder: Path) -> CheckpointError:
    return CheckpointError(
        f"The training in {folder} failed by itself, with exit code {code}.", do="What it printed says why."
    )


def _run(
    train: "Callable[[Checkpointer], object]",
    folder: Path,
    timeout_seconds: float,
    *,
    die_at: int | None = None,
    keep: int = 2,
) -> _Ended:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)  # loader workers that outlive the training hold the other end
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _train_in_child(train, folder, die_at, keep, writer)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(writer)
    try:
        status = _wait(pid, timeout_seconds)
        has_told = bool(select.select([reader], [], [], 0)[0])
        told = os.read(reader, 2**16).decode().splitlines() if has_told else []
    finally:
        os.close(reader)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    saved = [int(line.removeprefix("saved ")) for line in told if line.startswith("saved ")]
    died_at = next((line.removeprefix("at ") for line in told if line.startswith("at ")), "")
    return _Ended(code, died_at, max(saved, default=None))


def _train_in_child(
    train: "Callable[[Checkpointer], object]", folder: Path, die_at: int | None, keep: int, pipe: int
) -> None:
    from spotproof.checkpoint import Checkpointer

    plain_write = os.write

    def tell(line: str) -> None:
        plain_write(pipe, f"{line}\n".encode())

    checkpointer = Checkpointer(folder, keep=keep)
    plain_save = checkpointer.save

    def save(step: int, **options: Any) -> bool:
        saved = plain_save(step, **{**options, "wait": True, "may_defer": False})
        if checkpointer.writer is not None and checkpointer.writer.last_committed_step == step:
            tell(f"saved {step}")
        return saved

    checkpointer.save = save  # type: ignore[method-assign]
    guard_calls(folder, die_at, lambda what: tell(f"at {what}"))
    train(checkpointer)
    checkpointer.close()


def _wait(pid: int, timeout_seconds: float) -> int:
    deadline = time.monotonic() + timeout_seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise CheckpointError(
                f"The training took longer than {timeout_seconds:g} s.",
                why="It runs in a forked process, where threads that were started before are missing.",
                do="Call torch.set_num_threads(1) before anything else, or give it more time.",
            )
        time.sleep(0.001)
