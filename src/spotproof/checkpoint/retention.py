"""What lies in a place, as its writer knows it, and the removal of what is not needed any more. Loads no torch.

Whatever is removed here may be removed late: the process may have slept between the decision and the deed, while a
newer attempt began. So nothing is removed that a newer attempt can need. Packs carry the number of the attempt that
wrote them, and those of newer ones are left alone, whatever their content; manifests go, with their packs, only when
they are older than the newest ones that this attempt keeps, and a newer attempt begins at one of those.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spotproof.checkpoint.choose import read_manifest
from spotproof.checkpoint.manifest import MANIFEST_REGEX, Manifest, attempt_of, manifest_key
from spotproof.checkpoint.retain import steps_to_keep
from spotproof.errors import CheckpointDamaged
from spotproof.storage import Entry, LocalStorage, Storage

__all__ = ["Retention", "drop_unnamed"]


class Retention:
    """Knows the manifests of a place and drops old ones. For the writer's thread alone."""

    def __init__(
        self,
        storage: Storage,
        attempt: int,
        run_id: str,
        *,
        keep: int,
        resumed_from: int | None,
        rejected: frozenset[int],
        was_empty: bool,
    ) -> None:
        """Look what is there.

        Args:
            storage: The place.
            attempt: Its writer.
            run_id: The writer's run.
            keep: Newest checkpoints kept.
            resumed_from: The step that the writer went on from.
            rejected: Steps whose checkpoints did not verify.
            was_empty: Whether the writer has looked for checkpoints and found none but the rejected ones. Then others
                are those of a run that began here in the same moment, and was superseded.
        """
        self._storage = storage
        self._attempt = attempt
        self._run_id = run_id
        self._keep = keep
        self._resumed_from = resumed_from
        entries = storage.list()
        self._damaged = {manifest_key(step) for step in rejected}
        self._doubtful: set[str] = set()
        """Manifests of our own, of which nobody knows whether they are there."""
        self._manifests: dict[int, Manifest] = {}
        for step, manifest in self._unknown(entries):
            if not was_empty or manifest.run_id == run_id:
                self._manifests[step] = manifest
        # What lies here at the start came from the mirror or from an attempt that ended: no upload is pending for it.
        self._at_start = {entry.key for entry in entries}
        self.mirrored_elsewhere: set[str] | None = None
        """What sync agents have uploaded from the folders of other hosts; None if none has shown itself there."""

    def _unknown(self, entries: Sequence[Entry]) -> list[tuple[int, Manifest]]:
        found = []
        for entry in entries:
            match = MANIFEST_REGEX.fullmatch(entry.key)
            if match is None or int(match[1]) in self._manifests or entry.key in self._damaged | self._doubtful:
                continue
            try:
                found.append((int(match[1]), read_manifest(self._storage, entry.key)))
            except CheckpointDamaged:
                self._damaged.add(entry.key)
        return found

    def committed(self, manifest: Manifest) -> None:
        """Take note of a checkpoint that was written."""
        self._manifests[manifest.step] = manifest
        self._at_start.discard(manifest.key)
        self._damaged.discard(manifest.key)
        self._doubtful.discard(manifest.key)

    def in_doubt(self, step: int) -> None:
        """Count on the checkpoint of *step* no longer: it is about to be replaced, and may be left half there."""
        self._manifests.pop(step, None)
        self._doubtful.add(manifest_key(step))

    def forget_removed(self) -> tuple[list[int], int | None]:
        """Count on those no longer that somebody has removed; return their steps, and the newest that is left."""
        removed = sorted(step for step in self._manifests if self._storage.head(manifest_key(step)) is None)
        for step in removed:
            del self._manifests[step]
        return removed, max(self._manifests, default=None)

    def drop(self) -> tuple[list[int], list[str]]:
        """Remove the checkpoints that need not stay, then what no manifest names; return their steps, and the packs.

        Raises:
            OSError: The storage refused. What is left is removed the next time.
        """
        entries = self._storage.list()
        self._take_in_latecomers(entries)
        kept = steps_to_keep(
            self._manifests.keys(),
            safe=list(filter(self._is_safe(), self._manifests)),
            keep=self._keep,
            resumed_from=self._resumed_from,
        )
        newest = sorted(self._manifests, reverse=True)[: self._keep]
        for unwanted, limit in ((self._damaged, newest[-1]), (self._doubtful, newest[0])):
            for key in sorted(key for key in unwanted if key < manifest_key(limit)):
                self._storage.delete(key)
                unwanted.discard(key)
        dropped = sorted(self._manifests.keys() - kept)
        for step in dropped:
            self._storage.delete(manifest_key(step))  # the manifest first: no manifest may name what is gone
            del self._manifests[step]
        named = {file.key for manifest in self._manifests.values() for file in manifest.files}
        removed = []
        for entry in entries:
            if entry.key.startswith("packs/") and entry.key not in named and not self._is_newer(entry.key):
                self._storage.delete(entry.key)
                removed.append(entry.key)
        return dropped, removed

    def kept(self) -> dict[str, Any]:
        """Return what must stay, for :func:`drop_unnamed` on other hosts; a JSON value."""
        newest = sorted(self._manifests, reverse=True)[: self._keep]
        return {
            "manifests": sorted(manifest.key for manifest in self._manifests.values()),
            "oldest": manifest_key(newest[-1]),
            "named": sorted({file.key for manifest in self._manifests.values() for file in manifest.files}),
        }

    def _take_in_latecomers(self, entries: Sequence[Entry]) -> None:
        """Look at manifests that came after the start: from a mirror, or from a superseded attempt's last breath."""
        sizes = {entry.key: entry.size_bytes for entry in entries}
        for step, manifest in self._unknown(entries):
            if manifest.run_id != self._run_id:
                self._storage.delete(manifest.key)
            elif all(sizes.get(file.key) == file.size_bytes for file in manifest.files):
                self._manifests[step] = manifest  # as good as ours: the same run has computed it
            else:
                self._damaged.add(manifest.key)

    def _is_newer(self, key: str) -> bool:
        return _is_newer(key, self._attempt)

    def _is_safe(self) -> Callable[[int], bool]:
        here = self._storage.mirrored_keys() if isinstance(self._storage, LocalStorage) else None
        if here is None and self.mirrored_elsewhere is None:
            return lambda step: True
        safe_keys = self._at_start.union(here or (), self.mirrored_elsewhere or ())

        def is_safe(step: int) -> bool:
            manifest = self._manifests[step]
            return manifest.key in safe_keys and all(file.key in safe_keys for file in manifest.files)

        return is_safe


def _is_newer(key: str, attempt: int) -> bool:
    by = attempt_of(key)
    return by is not None and by > attempt


def drop_unnamed(storage: Storage, attempt: int, kept: Mapping[str, Any]) -> list[str]:
    """Remove what rank 0 keeps no longer from the folder of another host; return the packs. See :meth:`Retention.kept`.

    Such a folder holds what was restored there, and the packs of its own ranks. The same holds for what is newer.

    Raises:
        OSError: The storage refused. What is left is removed the next time.
    """
    manifests, named = set(kept["manifests"]), set(kept["named"])
    removed = []
    for entry in storage.list():
        if MANIFEST_REGEX.fullmatch(entry.key):
            if entry.key < kept["oldest"] and entry.key not in manifests:
                storage.delete(entry.key)
        elif entry.key.startswith("packs/") and entry.key not in named and not _is_newer(entry.key, attempt):
            storage.delete(entry.key)
            removed.append(entry.key)
    return removed
