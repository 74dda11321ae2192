"""Reads the events of a training while it runs."""

from pathlib import Path

from spotproof.events import EVENT_FILE_REGEX, CheckpointCommitted, Progress, parse_events

__all__ = ["EventWatch"]


class EventWatch:
    """Tells which step an attempt has reached; what earlier attempts left counts for nothing."""

    def __init__(self, checkpoints: Path) -> None:
        self._folder = checkpoints / "events"
        self._known = set(self._files())
        self._file: Path | None = None
        self._read_bytes = 0
        self.step: int | None = None
        """The last step that was told."""

    @property
    def has_begun(self) -> bool:
        """Whether the attempt has told anything."""
        return self._file is not None

    def poll(self) -> None:
        """Read what is new."""
        if self._file is None:
            new = sorted(set(self._files()) - self._known)
            if not new:
                return
            self._file = new[-1]
        try:
            with self._file.open("rb") as file:
                file.seek(self._read_bytes)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]  # the last line may still be under way
        self._read_bytes += len(whole)
        for event in parse_events(whole.decode(errors="replace").splitlines()):
            if isinstance(event, Progress | CheckpointCommitted):
                self.step = max(event.step, self.step or 0)

    def _files(self) -> list[Path]:
        try:
            return [path for path in self._folder.iterdir() if EVENT_FILE_REGEX.fullmatch(path.name)]
        except FileNotFoundError:
            return []
