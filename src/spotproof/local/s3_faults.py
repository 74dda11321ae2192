"""What goes wrong with S3: the grammar of ``--s3-faults``, and a pure answer for each request.

    error:0.05@seed=1 · throttle:0.1 · reset:0.02 · latency:200ms@share=0.5 · bandwidth:5MB/s

An answer depends on the seed, the request's method and path and on how often it was made before, not on other requests:
the same seed disturbs the same requests, in whatever order they come.
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import unquote

from spotproof.local.s3proxy import Disturbance
from spotproof.schedule.items import Grammar, Words

__all__ = ["NO_S3_FAULTS", "S3Fault", "S3Faults", "S3Weather", "parse_s3_faults"]

_METHODS: Final = ("GET", "HEAD", "PUT", "POST", "DELETE")
_FOR: Final = ("method", "keys")
_GRAMMAR: Final = Grammar(
    subject="S3 fault",
    options={
        "error": ("seed", *_FOR),
        "throttle": ("seed", *_FOR),
        "reset": ("seed", *_FOR),
        "latency": ("seed", "share", *_FOR),
        "bandwidth": _FOR,
    },
    examples="error:0.05@seed=1 · throttle:0.1 · reset:0.02@method=GET · latency:200ms@share=0.5 · bandwidth:5MB/s · "
    "none",
)
_MOST_RESET_BYTES: Final = 1 << 20
"""A connection breaks after at most that many bytes, so that objects of any size are hit in their middle."""


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Fault:
    """One item."""

    kind: str
    share: float = 1.0
    """Of the requests that it hits."""
    seconds: float = 0.0
    bytes_per_second: float | None = None
    seed: int = 0
    method: str | None = None
    """None for all."""
    keys: str = "*"
    """A shell pattern that ``bucket/key`` must match; ``*`` goes over slashes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Faults:
    """A plan for any number of requests."""

    text: str
    faults: tuple[S3Fault, ...]

    def disturbance(self, method: str, path: str, number: int) -> tuple[Disturbance | None, tuple[str, ...]]:
        """Return what happens to request *number* (from 0) of that method and path, and the kinds of faults in it.

        Args:
            method: As in HTTP.
            path: ``/bucket/key``, percent-encoded.
            number: How often it was made before.
        """
        delay, rate, error, reset, kinds = 0.0, None, None, None, []
        for fault in self.faults:
            if fault.method not in (None, method) or not fnmatchcase(unquote(path.lstrip("/")), fault.keys):
                continue
            chance = random.Random(f"{fault.kind}/{fault.seed}/{method}/{path}/{number}")
            if chance.random() >= fault.share:
                continue
            kinds.append(fault.kind)
            if fault.kind == "latency":
                delay += fault.seconds
            elif fault.kind == "bandwidth":
                assert fault.bytes_per_second is not None
                rate = min(rate or fault.bytes_per_second, fault.bytes_per_second)
            elif fault.kind == "reset":
                # Half of them before anything has passed: most objects are small.
                reset = int(_MOST_RESET_BYTES ** max(0.0, chance.uniform(-1, 1))) - 1
            elif fault.kind == "throttle":
                error = (503, "SlowDown")
            else:
                error = (500, "InternalError")
        if not kinds:
            return None, ()
        disturbed = Disturbance(delay_seconds=delay, bytes_per_second=rate, error=error, reset_after_bytes=reset)
        return disturbed, tuple(kinds)


NO_S3_FAULTS: Final = S3Faults(text="none", faults=())


class S3Weather:
    """The plan in force, as the proxy asks for it: counts requests, and tells which faults happened.

    Safe from any thread. A new plan counts from 0 again.
    """

    def __init__(self, on_fault: Callable[[str, str], None]) -> None:
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self.set(NO_S3_FAULTS)

    def set(self, faults: S3Faults) -> None:
        """Let *faults* happen from the next request on."""
        with self._lock:
            self.faults = faults
            self._made: dict[tuple[str, str], int] = {}

    def __call__(self, method: str, path: str) -> Disturbance | None:
        if not self.faults.faults:
            return None
        with self._lock:
            faults, number = self.faults, self._made.get((method, path), 0)
            self._made[method, path] = number + 1
        disturbed, kinds = faults.disturbance(method, path, number)
        for kind in kinds:
            self._on_fault(kind, f"{method} {path}")
        return disturbed


def parse_s3_faults(text: str) -> S3Faults:
    """Return the plan that *text* describes: items separated by commas, or ``none``.

    Raises:
        SpecError: Names the bad item, why it is bad, and what would be right.
    """
    faults = tuple(_fault(words) for words in _GRAMMAR.parse(text))
    return S3Faults(text=text, faults=faults) if faults else NO_S3_FAULTS


def _fault(words: Words) -> S3Fault:
    method = words.options.get("method")
    if method is not None and method not in _METHODS:
        raise words.bad(f"there is no method {method!r}.", f"Write @method= and one of {', '.join(_METHODS)}.")
    keys = words.options.get("keys", "*")
    if not keys:
        raise words.bad("keys is empty.", "Write a pattern of bucket/key, such as @keys=*/packs/*.")
    if words.kind == "latency":
        share = words.share(words.options.get("share", "1"))
        seconds = words.duration()
        return S3Fault(kind="latency", share=share, seconds=seconds, seed=words.seed(), method=method, keys=keys)
    if words.kind == "bandwidth":
        return S3Fault(kind="bandwidth", bytes_per_second=words.rate_bytes(), method=method, keys=keys)
    return S3Fault(kind=words.kind, share=words.share(), seed=words.seed(), method=method, keys=keys)
