"""Which reclaims and faults a rehearsal with ``--chaos`` lets in. Pure: the same seed and job, the same plan."""

import math
import random
from dataclasses import dataclass
from typing import Final

from spotproof.errors import SpecError

__all__ = ["Chaos", "plan_chaos"]

_UPLOAD_FAULTS: Final = ("torn", "lost", "corrupt", "late", "reorder", "stall", "no-flush")
"""Each has an attempt of its own where the job is long enough, so that it can be seen which one it did not survive."""
_SPOILED_SHARE: Final = 0.5
"""A checkpoint is three files or more: nearly nine of ten are hit in the attempt, and older ones stay whole."""
_MIN_STEPS_BETWEEN: Final = 3
_NUM_TIMED: Final = 4
_NOTICE_SECONDS: Final = 2
_FULL_SAVE_SECONDS: Final = 2.0
"""What the upload of a whole checkpoint takes at the least."""
_MIN_BYTES_PER_SECOND: Final = 2_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Chaos:
    """A plan, in the words of the command line."""

    seed: int
    reclaim: str
    sync_faults: str
    s3_faults: str


def plan_chaos(seed: int, *, num_steps: int | None, num_seconds: float, num_bytes: int | None) -> Chaos:
    """Return reclaims spread over the job, a fault of the sync agent before each, and an S3 that fails all along.

    Args:
        seed: Decides the order of the faults, where the reclaims come, and which files and requests are hit.
        num_steps: Of an undisturbed run; None if it tells none. Then reclaims come by the clock.
        num_seconds: That an undisturbed run trains.
        num_bytes: Of a checkpoint; None if it is not known.

    Raises:
        SpecError: The job has too few steps to be reclaimed in its middle.
    """
    rng = random.Random(seed)
    faults = list(_UPLOAD_FAULTS)
    rng.shuffle(faults)
    if num_steps is None:
        places = [f"at:{num_seconds * 0.8 * (index + 1) / _NUM_TIMED:.1f}s" for index in range(_NUM_TIMED)]
    else:
        places = [f"step:{step}" for step in _steps(rng, num_steps, len(faults))]
    homes: dict[str, int] = {fault: index % len(places) for index, fault in enumerate(faults)}
    places[homes["no-flush"]] += f"@grace={_NOTICE_SECONDS}"  # or there would be nothing to flush
    away = rng.randrange(len(places))
    places[away] += "@away=2s"
    sync = [_sync_fault(rng, fault, attempt) for fault, attempt in homes.items()]
    last = len(places)
    sync.append(f"download-fail:2@attempt={rng.randint(1, last)}")
    sync.append(f"download-lost:{_SPOILED_SHARE}@attempt={rng.randint(1, last)}@seed={_seed(rng)}")
    bandwidth = max(_MIN_BYTES_PER_SECOND, (num_bytes or 100_000_000) / _FULL_SAVE_SECONDS)
    s3 = (
        f"error:0.03@seed={_seed(rng)}",
        f"throttle:0.03@seed={_seed(rng)}",
        f"reset:0.02@seed={_seed(rng)}",
        f"latency:50ms@share=0.2@seed={_seed(rng)}",
        f"bandwidth:{math.ceil(bandwidth / 1e6)}MB/s",
    )
    return Chaos(seed=seed, reclaim=",".join(places), sync_faults=",".join(sync), s3_faults=",".join(s3))


def _steps(rng: random.Random, num_steps: int, most: int) -> list[int]:
    """Return up to *most* rising steps, all inside the run."""
    num_reclaims = min(most, num_steps // _MIN_STEPS_BETWEEN)
    if num_reclaims < 1:
        raise SpecError(
            f"The job has {num_steps} steps, too few for chaos.",
            why="It would be over before it could be reclaimed in its middle.",
            do=f"Give it {_MIN_STEPS_BETWEEN} steps or more, better some hundred.",
        )
    gap = num_steps / (num_reclaims + 1)
    places = [round(gap * (index + 1 + rng.uniform(-0.3, 0.3))) for index in range(num_reclaims)]
    return [min(max(1, step), num_steps - 1) for step in places]


def _sync_fault(rng: random.Random, fault: str, attempt: int) -> str:
    if fault == "late":
        return f"late:{rng.choice((1, 2, 3))}s@share=0.5@seed={_seed(rng)}@attempt={attempt}"
    if fault == "reorder":
        return f"reorder:{rng.choice(('newest', 'random', 'smallest'))}@attempt={attempt}"
    if fault == "stall":
        return f"stall:{rng.randint(2, 8)}@attempt={attempt}"
    if fault == "no-flush":
        return f"no-flush@attempt={attempt}"
    return f"{fault}:{_SPOILED_SHARE}@seed={_seed(rng)}@attempt={attempt}"


def _seed(rng: random.Random) -> int:
    return rng.randrange(10_000)
