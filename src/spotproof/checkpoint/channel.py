"""Messages between the processes of one training, over a gloo group of their own.

Everything here is collective: every rank makes the same calls in the same order, and each group belongs to one thread
of each process. What one rank raises is raised on all of them, so that no rank waits for one that has given up.
"""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from spotproof import errors
from spotproof.checkpoint.packing import TensorChanged
from spotproof.errors import SpotError
from spotproof.storage import StorageUnavailable

__all__ = ["Channel", "RankFailed"]

T = TypeVar("T")


class RankFailed(OSError):
    """Something failed on another rank, or that rank is gone."""


class Channel:
    """One group; for one thread of each rank."""

    def __init__(self, *, timeout: timedelta) -> None:
        """Make the group. Collective, in the main thread.

        Args:
            timeout: How long a rank may keep the others waiting. One that ends is noticed at once.
        """
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self._group: Any = dist.new_group(backend="gloo", timeout=timeout)

    @property
    def is_lead(self) -> bool:
        """Whether this is rank 0, which decides and commits."""
        return self.rank == 0

    def together(self, work: Callable[[], T]) -> list[T]:
        """Let every rank do its *work*; return what came of it (JSON values), by rank.

        Raises:
            Exception: What the lowest rank raised of those whose work failed: there the original, elsewhere one of the
                same meaning that names the rank.
            RankFailed: A rank is gone.
        """
        own: Exception | None = None
        try:
            message = {"value": work()}
        except Exception as err:  # whatever it is, the others must hear of it
            own, message = err, _described(err)
        answers = [json.loads(data) for data in self._gather(json.dumps(message).encode())]
        for rank, answer in enumerate(answers):
            if "value" not in answer:
                raise own if rank == self.rank and own is not None else _rebuilt(rank, answer) from own
        return [answer["value"] for answer in answers]

    def lead(self, work: Callable[[], T]) -> T:
        """Let rank 0 do *work*, and return everywhere what came of it (a JSON value). Errors as :meth:`together`."""
        own: Exception | None = None
        data = b""
        if self.is_lead:
            try:
                message = {"value": work()}
            except Exception as err:  # as above
                own, message = err, _described(err)
            data = json.dumps(message).encode()
        answer = json.loads(self._broadcast(data))
        if "value" not in answer:
            raise own if own is not None else _rebuilt(0, answer)
        value: T = answer["value"]
        return value

    def all_true(self, value: bool) -> bool:
        """Whether *value* is true on every rank."""
        return self.maximum([not value])[0] == 0

    def maximum(self, values: list[int]) -> list[int]:
        """Return the largest of each of *values* over all ranks."""
        return self.begin_maximum(values)()

    def begin_maximum(self, values: list[int]) -> Callable[[], list[int]]:
        """Begin what :meth:`maximum` does; return what waits for it. Costs some 100 µs and waits for nobody."""
        tensor = torch.tensor(values, dtype=torch.int64)
        work = self._told(lambda: dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self._group, async_op=True))

        def result() -> list[int]:
            self._told(work.wait)
            return [int(value) for value in tensor.tolist()]

        return result

    def _gather(self, data: bytes) -> list[bytes]:
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        self._told(lambda: dist.all_gather(sizes, torch.tensor([len(data)]), group=self._group))
        # gloo gathers pieces of one size.
        length = max(int(size) for size in sizes)
        pieces = [torch.zeros(length, dtype=torch.uint8) for _ in range(self.world_size)]
        self._told(lambda: dist.all_gather(pieces, _tensor(data.ljust(length, b" ")), group=self._group))
        return [piece.numpy().tobytes()[: int(size)] for piece, size in zip(pieces, sizes, strict=True)]

    def _broadcast(self, data: bytes) -> bytes:
        size = torch.tensor([len(data)])
        self._told(lambda: dist.broadcast(size, src=0, group=self._group))
        tensor = _tensor(data) if self.is_lead else torch.zeros(int(size), dtype=torch.uint8)
        self._told(lambda: dist.broadcast(tensor, src=0, group=self._group))
        return tensor.numpy().tobytes()

    def _told(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except RuntimeError as err:  # all that torch raises when a peer is gone
            raise RankFailed(f"another process of this training is gone, or does not answer ({err})") from err


def _tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


_KINDS: dict[str, type[Exception]] = {
    **{name: getattr(errors, name) for name in errors.__all__},
    "TensorChanged": TensorChanged,
    "StorageUnavailable": StorageUnavailable,
}


def _described(err: Exception) -> dict[str, Any]:
    if isinstance(err, SpotError):
        return {"kind": type(err).__name__, "what": err.what, "why": err.why, "do": err.do}
    return {"kind": type(err).__name__, "what": f"{type(err).__name__}: {err}", "why": "", "do": ""}


def _rebuilt(rank: int, answer: dict[str, Any]) -> Exception:
    kind = _KINDS.get(answer["kind"], RankFailed)
    what = f"Rank {rank}: {answer['what']}"
    if issubclass(kind, SpotError):
        return kind(what, why=answer["why"], do=answer["do"])
    return TensorChanged([]) if kind is TensorChanged else kind(what)
