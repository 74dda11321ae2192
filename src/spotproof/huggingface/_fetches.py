"""Where a Trainer stands in its training data, though accelerate has read one batch ahead.

A batch that was fetched and not trained on is lost with the process. So the position to save is the one before it was
fetched; the resumed run fetches it again with the random numbers of then, and goes on with those of the save.
"""

from collections.abc import Iterator
from typing import Any

from spotproof.checkpoint import RngState, resumable_loader

__all__ = ["Fetches"]


class Fetches:
    """Stands in front of the loader that accelerate reads from, and looks like it."""

    def __init__(self, loader: Any, *, reads_ahead: bool) -> None:
        self._loader = resumable_loader(loader)
        self._reads_ahead = reads_ahead
        self._before: dict[str, Any] | None = None
        """How things were before the last fetch of this pass."""
        self._fetch_again_with: tuple[dict[str, Any], dict[str, Any]] | None = None

    def __getattr__(self, name: str) -> Any:
        # Without a state of its own: accelerate would ask for it before each fetch.
        if name.startswith("__") or name in ("_loader", "state_dict", "load_state_dict"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    @property
    def __class__(self) -> type:
        return type(self._loader)

    @__class__.setter
    def __class__(self, kind: type) -> None:
        raise TypeError("The class of a loader does not change.")

    def __len__(self) -> int:
        return len(self._loader)

    @property
    def without_position(self) -> str | None:
        """The kind of data of which a resume reads items again to find its place; None if it need not."""
        return str(self._loader.kind_of_data) if self._loader.reads_again else None

    def __iter__(self) -> Iterator[Any]:
        self._before = None
        batches = iter(self._loader)
        while True:
            before, after = self._fetch_again_with or (None, None)
            self._fetch_again_with = None
            if before is not None:
                RngState().load_state_dict(before)
            self._before = {"loader": self._loader.state_dict(), "rng": RngState().state_dict()}
            try:
                batch = next(batches)
            except StopIteration:
                return
            if after is not None:
                RngState().load_state_dict(after)
            yield batch

    def position(self, *, in_pass: bool) -> dict[str, Any]:
        """Return where the training stands: within a pass, or before the first batch of the next."""
        if not in_pass or self._before is None:
            return {"next": self._loader.end_state()}
        if not self._reads_ahead:
            return {"loader": self._loader.state_dict(), "rng": None}
        before = self._before["loader"]
        if hasattr(self._loader, "followed_by") and before["before"] is not None:
            before = self._loader.followed_by(before)
        return {"loader": before, "rng": self._before["rng"]}

    def go_on(self, position: dict[str, Any], rng: dict[str, Any]) -> None:
        """Go on from *position* at the next ``iter()``; *rng* are the generators where the training stands."""
        if "next" in position:
            self._loader.begin_after(position["next"])
            return
        self._loader.load_state_dict(position["loader"])
        if position["rng"] is not None:
            self._fetch_again_with = (position["rng"], rng)
