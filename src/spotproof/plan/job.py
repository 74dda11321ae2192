"""What is planned: the work, what interrupting it costs, and where it may run. Pure."""

import math
from dataclasses import dataclass

import numpy as np

from spotproof.errors import SpecError
from spotproof.plan.course import Course
from spotproof.plan.spells import Floats, Spells

__all__ = ["PlannedJob", "Pool"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Spot capacity of one instance type in one zone."""

    name: str
    spells: Spells
    usd_per_hour: float
    """Of all instances of the job together; the mean over time where it moves."""
    speed: float = 1.0
    """Work done in a second, where the on-demand instances do 1."""
    course: Course | None = None
    """How the price moves; None if it does not. Its start is that of the trace."""

    def __post_init__(self) -> None:
        _require(self.usd_per_hour >= 0, f"The price of {self.name}, {self.usd_per_hour} USD/h, is below 0.")
        _require(0 < self.speed < math.inf, f"The speed of {self.name}, {self.speed}, is not above 0.")

    def cost_usd(self, begin: Floats, end: Floats) -> Floats:
        """Return what the machines cost from *begin* to *end*, both (jobs,) seconds after the trace's start."""
        seconds = end - begin if self.course is None else self.course.weighted_seconds(begin, end)
        return seconds * (self.usd_per_hour / 3600)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedJob:
    """One training job. Its work is counted in seconds of undisturbed training on on-demand instances."""

    work_seconds: float
    deadline_seconds: float
    """From the job's creation."""
    start_seconds: float = 0.0
    """From a machine to the first new step: boot, image, inputs, imports, restore. Billed."""
    interval_seconds: float = 0.0
    """From the beginning of one save to that of the next; 0 for no loss at a reclaim and no cost, as in papers."""
    save_seconds: float = 0.0
    """What one save takes from training: its stall, and what it slows steps down."""
    durable_seconds: float = 0.0
    """From the end of a save's stall until it survives a reclaim. Training goes on meanwhile."""
    usd_per_hour: float = 1.0
    """On demand, of all instances together."""

    def __post_init__(self) -> None:
        for name in ("work_seconds", "deadline_seconds"):
            value = getattr(self, name)
            _require(0 < value < math.inf, f"{name}={value} is no time above 0.")
        for name in ("start_seconds", "interval_seconds", "save_seconds", "durable_seconds", "usd_per_hour"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"{name}={value} is below 0 or no number.")
        _require(
            self.interval_seconds > self.save_seconds or self.interval_seconds == self.save_seconds == 0,
            f"A save that costs {self.save_seconds} s can't be made every {self.interval_seconds} s.",
            "Save more rarely.",
        )

    @property
    def undisturbed_seconds(self) -> float:
        """Return how long the job takes on demand: start-up, work and saves."""
        return self.start_seconds + float(self.training_seconds(np.array([self.work_seconds]))[0])

    @property
    def work_rate(self) -> float:
        """Return the work done in a second of training, saves included."""
        return 1 - self.save_seconds / self.interval_seconds if self.interval_seconds else 1.0

    @property
    def risk_seconds(self) -> float:
        """Return the most that a reclaim can lose, start-up aside."""
        return self.interval_seconds + self.durable_seconds

    def training_seconds(self, work: Floats, speed: "Floats | float" = 1.0) -> Floats:
        """Return how long *work* (jobs,) takes once training runs: each full interval of it ends with a save."""
        seconds: Floats = work / speed
        if self.save_seconds:
            pieces = np.ceil(seconds / (self.interval_seconds - self.save_seconds) - 1e-9)
            seconds = seconds + self.save_seconds * np.maximum(pieces - 1, 0)
        return seconds

    def kept_and_lost(self, training: Floats, speed: "Floats | float" = 1.0) -> tuple[Floats, Floats]:
        """Return the work that survives a reclaim after *training* seconds, and what has to be done again."""
        training = np.maximum(training, 0.0)
        if not self.interval_seconds:
            kept = np.maximum(training - self.durable_seconds, 0.0) * speed
            return kept, training * speed - kept
        useful = self.interval_seconds - self.save_seconds
        saves = np.floor(np.maximum(training - self.durable_seconds, 0.0) / self.interval_seconds)
        whole = np.floor(training / self.interval_seconds)
        begun = np.minimum(training - whole * self.interval_seconds, useful)
        return saves * useful * speed, ((whole - saves) * useful + begun) * speed


def _require(is_right: bool, what: str, do: str = "Correct it.") -> None:
    if not is_right:
        raise SpecError(what, do=do)
