"""How an attempt ends: after a notice, with an error, or because the training is complete."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from spotproof.checkpoint import Checkpointer
from spotproof.contract import (
    DEFAULT_GRACE_SECONDS,
    ENV_GRACE_SECONDS,
    ENV_KUBERNETES,
    EXIT_INTERRUPTED,
    ORCHESTRATOR_GRACE_SECONDS,
)
from spotproof.errors import SpecError
from spotproof.events import AttemptEnded, NoticeReceived, Warned
from spotproof.loop import slurm
from spotproof.loop.ec2 import Ec2Poller
from spotproof.loop.notice import Notice, NoticeSource

__all__ = ["Departure", "default_grace_seconds", "default_notices"]

log = logging.getLogger(__name__)


def default_notices(env: Mapping[str, str]) -> tuple[NoticeSource, ...]:
    """Return what is listened to unless the user says otherwise: SIGTERM, and under Slurm SIGUSR1."""
    return ("sigterm", "sigusr1") if slurm.is_slurm(env) else ("sigterm",)


def default_grace_seconds(env: Mapping[str, str]) -> float:
    """Return the seconds from a notice to the kill: what the environment says, else the platform's own default.

    Raises:
        SpecError: The environment says something that is no number of seconds.
    """
    given = env.get(ENV_GRACE_SECONDS)
    if given:
        try:
            return float(given)
        except ValueError as err:
            raise SpecError(
                f"{ENV_GRACE_SECONDS}={given!r} is no number of seconds.", do="Set it to 120, say."
            ) from err
    if ENV_KUBERNETES in env or slurm.is_slurm(env):
        return ORCHESTRATOR_GRACE_SECONDS
    return DEFAULT_GRACE_SECONDS


class Departure:
    """Knows whether a notice came, leaves in time after it, and tells the end of the attempt once."""

    def __init__(
        self,
        checkpointer: Checkpointer,
        *,
        notices: Sequence[NoticeSource] | None = None,
        grace_seconds: float | None = None,
        requeue: bool = True,
    ) -> None:
        sources = default_notices(os.environ) if notices is None else notices
        self.notice = Notice(sources, [Ec2Poller()] if "ec2" in sources else [])
        self.grace_seconds = default_grace_seconds(os.environ) if grace_seconds is None else grace_seconds
        if not self.grace_seconds >= 0:
            raise SpecError(
                f"grace_seconds={self.grace_seconds} is no time between a notice and the kill.", do="Use 0 or more."
            )
        self._requeue = requeue
        self._checkpointer = checkpointer
        self._has_ended = False
        self._is_deaf = self._is_deaf_told = False

    def start(self) -> None:
        """Listen from here on."""
        self._has_ended = False
        self._is_deaf = not self.notice.install()

    def tell_deafness(self) -> None:
        """Say once that signals can't be heard, if so."""
        if self._is_deaf and not self._is_deaf_told:
            self._is_deaf_told = True
            self._warn(
                "SIGTERM can't be noticed, because training runs outside the main thread: Python handles signals only "
                "there. Periodic saves are not affected. Train in the main thread to save at a notice, too."
            )

    @property
    def is_wanted(self) -> bool:
        """Whether a notice came."""
        return self.notice.source is not None

    @property
    def seconds_left(self) -> float:
        """Return the time from now to the kill."""
        return self.grace_seconds - (time.monotonic() - self.notice.at)

    def leave(self, step: int, save: Callable[[], object] | None, *, is_new: bool = False) -> NoReturn:
        """Make *step* durable if that can be done in time, say what came of it, and end the process.

        Args:
            step: The last completed one.
            save: Begins to save it, in the background; None if there is nothing more to save.
            is_new: Whether to save although there is a checkpoint of this step, made before it was complete.
        """
        self.notice.may_wake = False
        source = self.notice.source or ""
        self._checkpointer.record(NoticeReceived(attempt=self._checkpointer.begin(), signal=source, step=step))
        try:
            problem = self._make_durable(step, save, is_new)
        except OSError as err:
            problem = f"the processes of this training could not agree on it ({err})"
        if problem is None:
            level = logging.WARNING if self._checkpointer.is_lead else logging.DEBUG
            log.log(level, "%s: step %d is saved, leaving.", source, step)
        else:
            newest = self._newest_step
            kept = "There is no checkpoint" if newest is None else f"The newest checkpoint is that of step {newest}"
            self._warn(f"{source}: step {step} is not saved, because {problem}. {kept}; leaving.")
        self.tell_end("notice", step)
        self._ask_for_more(source)
        self._await_others()
        raise SystemExit(EXIT_INTERRUPTED)

    def _await_others(self) -> None:
        """Let no process leave before all are through: launchers kill what is left when the first has gone."""
        try:
            self._checkpointer.all_true(True)
        except OSError as err:
            log.debug("Not all processes were there at the end: %s", err)

    def _make_durable(self, step: int, save: Callable[[], object] | None, is_new: bool) -> str | None:
        """Return why *step* could not be made durable, or None."""
        # Of several processes none may begin what another has no time for: each of these is agreed on.
        agreed = self._checkpointer.all_true
        if not agreed(self._checkpointer.wait(max(0.0, self.seconds_left))):
            return f"a save that was under way took longer than the grace of {self.grace_seconds:g} s"
        if self._newest_step == step and not is_new:
            return None
        if save is None:
            return "nothing was at rest"
        writer = self._checkpointer.writer
        assert writer is not None
        needed, left = writer.last_durable_seconds or 0.0, max(0.0, self.seconds_left)
        if not agreed(needed <= left):
            return (
                f"a save takes {needed:.3g} s, and of the grace of {self.grace_seconds:g} s only {left:.3g} s are left"
            )
        try:
            save()
            is_through = agreed(self._checkpointer.wait(max(0.0, self.seconds_left)))
            if is_through and writer.must_repeat:
                save()
                is_through = agreed(self._checkpointer.wait(max(0.0, self.seconds_left)))
        except Exception as err:  # a user's hook may raise anything; the process was told to leave and must say how
            log.debug("Saving step %d failed.", step, exc_info=True)
            return f"saving failed ({type(err).__name__}: {err})"
        if not is_through:
            return f"the grace of {self.grace_seconds:g} s ran out while it was written"
        return None if self._newest_step == step else "it could not be written"

    @property
    def _newest_step(self) -> int | None:
        writer = self._checkpointer.writer
        return writer.last_committed_step if writer is not None else None

    def left_early(self, step: int) -> None:
        """Tell that a notice ended the process before anything was trained."""
        source = self.notice.source or ""
        if self._checkpointer.attempt is not None:
            self._checkpointer.record(NoticeReceived(attempt=self._checkpointer.attempt, signal=source, step=step))
            self.tell_end("notice", step)
        log.warning("%s: nothing was trained yet that could be saved, leaving.", source)
        self._ask_for_more(source)

    def _ask_for_more(self, source: str) -> None:
        if self._checkpointer.is_lead and self._requeue and source == "SIGUSR1" and slurm.is_slurm(os.environ):
            log.warning(slurm.requeue(os.environ))

    def _warn(self, message: str) -> None:
        log.warning(message)
        self._checkpointer.record(Warned(attempt=self._checkpointer.begin(), message=message))

    def tell_end(self, outcome: str, step: int) -> None:
        """Record how the attempt ended, unless that is told already."""
        if not self._has_ended:
            self._has_ended = True
            self._checkpointer.record(AttemptEnded(attempt=self._checkpointer.begin(), outcome=outcome, step=step))
            self._checkpointer.flush_events()

    def stop(self, restored_by_others: dict[int, Any]) -> None:
        """Listen no longer; put signal handlers back."""
        self.notice.remove(restored_by_others)
