"""A save of several ranks: each writes what no lower rank holds, rank 0 commits when all of it is durable.

Every step of it is one exchange, and what fails on one rank is given up on all. A rank that dies leaves packs that no
manifest names: the manifest is written only after every rank has said that its files are durable.
"""

from collections.abc import Sequence
from typing import Any

from spotproof.checkpoint.channel import Channel
from spotproof.checkpoint.commit import Committed, Found, SoleCommitter, write_state
from spotproof.checkpoint.journal import Journal, RelayedJournal, relayed
from spotproof.checkpoint.manifest import Manifest, RankFiles, StoredFile, TensorEntry, attempt_of
from spotproof.checkpoint.packing import PackStore
from spotproof.checkpoint.retention import drop_unnamed
from spotproof.checkpoint.stage import StagedState
from spotproof.checkpoint.unchanging import Unchanging
from spotproof.storage import LocalStorage, Storage

__all__ = ["RanksCommitter"]


class RanksCommitter:
    """One rank's part in the commits of all; every method is collective."""

    def __init__(
        self,
        channel: Channel,
        storage: Storage,
        journal: Journal | RelayedJournal,
        unchanging: Unchanging,
        *,
        resumed_from: Manifest | None,
        lead: SoleCommitter | None,
        shares_folder: bool,
    ) -> None:
        """Take part.

        Args:
            channel: To the other ranks.
            storage: The place, or this host's part of it.
            journal: Of this rank.
            unchanging: What this rank need not copy.
            resumed_from: The checkpoint that the training goes on from.
            lead: What rank 0 does for all; None on the others.
            shares_folder: Whether *storage* is the very place that rank 0 writes to, and cleans up.
        """
        self._channel = channel
        self._storage = storage
        self._journal = journal
        self._unchanging = unchanging
        self._lead = lead
        self._shares_folder = shares_folder
        if lead is not None:
            self._packs = lead.packs
            return
        if not shares_folder:
            storage.sweep()
        self._packs = PackStore(storage, journal.attempt)
        if resumed_from is not None:
            files = resumed_from.ranks[channel.rank]
            self._packs.trust(files.packs, files.tensors)

    def begin(self) -> Found:
        found = self._channel.lead(self._begin_for_all)
        return Found(**found)

    def _begin_for_all(self) -> dict[str, Any]:
        assert self._lead is not None
        found = self._lead.begin()
        return {"removed": found.removed, "newest": found.newest}

    def commit(self, step: int, staged: StagedState, meta: dict[str, object]) -> Committed:
        hashes: list[str] = []

        def look() -> dict[str, Any]:
            hashes.extend(self._packs.hashes(staged.tensors))
            news = self._journal.taken() if isinstance(self._journal, RelayedJournal) else []
            return {"hashes": hashes, "mirrored": self._mirrored(), "news": news}

        looks = self._channel.together(look)
        of_lower = {digest for look in looks[: self._channel.rank] for digest in look["hashes"]}
        parts = self._channel.together(lambda: self._store(staged, hashes, of_lower))
        total_bytes = self._channel.lead(lambda: self._commit_for_all(step, meta, looks, parts))
        for tensor, digest in zip(staged.tensors, hashes, strict=True):
            self._unchanging.committed(tensor.name, digest, tensor.identity)
        return Committed(total_bytes, sum(part["written"] for part in parts))

    def _mirrored(self) -> list[str] | None:
        """Return what the sync agent of this host has uploaded of this attempt's; rank 0 looks for itself."""
        if self._shares_folder or not isinstance(self._storage, LocalStorage):
            return None
        keys = self._storage.mirrored_keys()
        return None if keys is None else sorted(key for key in keys if attempt_of(key) == self._journal.attempt)

    def _store(self, staged: StagedState, hashes: Sequence[str], of_lower: set[str]) -> dict[str, Any]:
        """Write what no lower rank holds; return what the manifest is to say of this rank."""
        own = [pair for pair in zip(staged.tensors, hashes, strict=True) if pair[1] not in of_lower]
        stored = self._packs.store([tensor for tensor, _ in own], [digest for _, digest in own])
        state = write_state(self._storage, self._journal.attempt, staged)
        return {
            "state": [state.key, state.size_bytes],
            "packs": [[pack.key, pack.size_bytes] for pack in stored.packs],
            "places": {entry.hash: entry.pack for entry in stored.entries if entry.pack is not None},
            "tensors": [
                [tensor.name, tensor.dtype, list(tensor.shape), digest]
                for tensor, digest in zip(staged.tensors, hashes, strict=True)
            ],
            "written": stored.written_bytes + state.size_bytes,
        }

    def _commit_for_all(
        self, step: int, meta: dict[str, object], looks: Sequence[dict[str, Any]], parts: Sequence[dict[str, Any]]
    ) -> int:
        assert self._lead is not None
        assert isinstance(self._journal, Journal)
        for event in [event for look in looks for event in look["news"]]:
            self._journal.write(relayed(event, self._journal.attempt))
        mirrored = [look["mirrored"] for look in looks if look["mirrored"] is not None]
        self._lead.retention.mirrored_elsewhere = {key for keys in mirrored for key in keys} if mirrored else None
        return self._lead.commit_manifest(step, _of_ranks(parts), meta).total_bytes

    def retain(self) -> None:
        kept = self._channel.lead(self._drop_for_all)
        for key in kept["removed"]:
            self._packs.forget(key)
        if self._lead is None and not self._shares_folder:
            for key in drop_unnamed(self._storage, self._journal.attempt, kept):
                self._packs.forget(key)

    def _drop_for_all(self) -> dict[str, Any]:
        assert self._lead is not None
        removed = self._lead.drop()
        return {"removed": removed, **self._lead.retention.kept()}

    def refuse_if_superseded(self) -> None:
        self._channel.lead(self._refuse_for_all)

    def _refuse_for_all(self) -> None:
        assert self._lead is not None
        self._lead.refuse_if_superseded()


def _of_ranks(parts: Sequence[dict[str, Any]]) -> tuple[RankFiles, ...]:
    """Return what the manifest says of each rank: packs of lower ranks are among its own where it holds the same."""
    places: dict[str, StoredFile] = {}
    ranks = []
    for part in parts:
        packs = [StoredFile(key, size_bytes) for key, size_bytes in part["packs"]]
        for digest, number in part["places"].items():
            places.setdefault(digest, packs[number])
        numbers: dict[StoredFile, int] = {}
        entries = []
        for name, dtype, shape, digest in part["tensors"]:
            place = places.get(digest)  # none if the tensor has no bytes
            number = None if place is None else numbers.setdefault(place, len(numbers))
            entries.append(TensorEntry(name, dtype, tuple(shape), digest, number))
        ranks.append(RankFiles(StoredFile(*part["state"]), tuple(numbers), tuple(entries)))
    return tuple(ranks)
