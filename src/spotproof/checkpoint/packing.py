"""Which bytes of a staged state must be written, into which packs. Content that is stored already is not stored again.

A tensor that did not change is read from the pack of an older save. Packs are immutable, so one whose tensors change
one after another would keep the dead beside the living: once less than half of a pack is used, what is used is written
anew, and retention drops the old one. So a checkpoint never takes more than twice its size, however it came about.
"""

import queue
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from spotproof.checkpoint.manifest import StoredFile, TensorEntry, content_hash
from spotproof.checkpoint.pack import PackTensor, format_header, pack_file
from spotproof.checkpoint.stage import StagedTensor
from spotproof.storage import Chunk, Storage

__all__ = ["PACK_BYTES", "PackStore", "StoredTensors", "TensorChanged"]

PACK_BYTES = 64 * 2**20
"""Size after which a pack is closed: large enough that disks and object stores are used well, small enough that
hashing one goes on beside the writing of another."""

_MIN_USED_SHARE = 0.5
_MIN_PACK_BYTES = 2**20
"""Smaller packs are kept only whole: writing them again costs nothing, and they would become many."""

_NUM_UPLOADS = 2


class TensorChanged(Exception):
    """A tensor that was taken to be unchanging is not what was copied; the save must be made again."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''} had changed after all")
        self.names = names


@dataclass(frozen=True, slots=True)
class StoredTensors:
    """Where the tensors of a staged state lie now."""

    packs: tuple[StoredFile, ...]
    entries: tuple[TensorEntry, ...]
    """In the order of the staged tensors."""
    written_bytes: int


class PackStore:
    """Stores tensors by content. Trusts only packs that this process wrote or verified."""

    def __init__(self, storage: Storage, attempt: int) -> None:
        self._storage = storage
        self._attempt = attempt
        self._files: dict[str, StoredFile] = {}
        self._place: dict[str, str] = {}
        """From content hash to the key of the pack that holds it."""

    def trust(self, packs: Sequence[StoredFile], entries: Iterable[TensorEntry]) -> None:
        """Take it that *packs* are whole and hold *entries*."""
        self._files.update({file.key: file for file in packs})
        self._place.update({entry.hash: packs[entry.pack].key for entry in entries if entry.pack is not None})

    def forget(self, key: str) -> None:
        """Trust the pack *key* no more: it was removed."""
        if self._files.pop(key, None) is not None:
            self._place = {digest: place for digest, place in self._place.items() if place != key}

    def hashes(self, tensors: Sequence[StagedTensor]) -> list[str]:
        """Return the content hash of each of *tensors*.

        Raises:
            TensorChanged: One that was not copied, because it was taken to be unchanging, has changed.
        """
        hashes = [_hash(tensor) for tensor in tensors]
        _refuse_changed(tensors, hashes)
        return hashes

    def store(self, tensors: Sequence[StagedTensor], hashes: Sequence[str] = ()) -> StoredTensors:
        """Return where *tensors* lie, having written those that did not lie anywhere.

        Args:
            tensors: The copies.
            hashes: What :meth:`hashes` returned for them. Without it they are hashed here, beside the writing.

        Raises:
            TensorChanged: As above.
            OSError: The storage refused.
        """
        found: list[str] = []
        is_sound = True
        with _Uploads(self._storage) as uploads:
            new = _NewPacks(uploads, self._attempt)
            for number, tensor in enumerate(tensors):
                digest = hashes[number] if hashes else _hash(tensor)
                found.append(digest)
                is_sound = is_sound and (tensor.live is None or digest == tensor.known_hash)
                if digest not in self._place and is_sound:
                    new.add(tensor, digest)
            _refuse_changed(tensors, found)
            hashes = found
            worn = self._worn_packs(tensors, hashes)
            for tensor, digest in zip(tensors, hashes, strict=True):
                if self._place.get(digest) in worn:
                    if tensor.live is not None and content_hash(tensor.data) != digest:
                        raise TensorChanged([tensor.name])  # the earlier copy is no more; the next save makes one
                    new.add(tensor, digest)
            new.close()
        self._files.update(new.files)
        self._place.update(new.place)
        return self._stored(tensors, hashes, new.written_bytes)

    def _worn_packs(self, tensors: Sequence[StagedTensor], hashes: Sequence[str]) -> set[str]:
        """Return the packs that hold some of *tensors* and are gone, or not worth keeping for them."""
        used: dict[str, dict[str, int]] = {}
        for tensor, digest in zip(tensors, hashes, strict=True):
            if digest in self._place:
                used.setdefault(self._place[digest], {})[digest] = tensor.size_bytes
        held = Counter(self._place.values())
        worn = set()
        for key, contents in used.items():
            file = self._files[key]
            is_whole = len(contents) == held[key]
            is_worn = not is_whole and (
                file.size_bytes < _MIN_PACK_BYTES or sum(contents.values()) < _MIN_USED_SHARE * file.size_bytes
            )
            # Somebody may have emptied the folder since.
            entry = self._storage.head(key)
            if is_worn or entry is None or entry.size_bytes != file.size_bytes:
                worn.add(key)
        return worn

    def _stored(self, tensors: Sequence[StagedTensor], hashes: Sequence[str], written_bytes: int) -> StoredTensors:
        keys: dict[str, int] = {}
        entries = []
        for tensor, digest in zip(tensors, hashes, strict=True):
            pack = keys.setdefault(self._place[digest], len(keys)) if tensor.size_bytes else None
            entries.append(TensorEntry(tensor.name, tensor.dtype, tensor.shape, digest, pack))
        return StoredTensors(tuple(self._files[key] for key in keys), tuple(entries), written_bytes)


def _hash(tensor: StagedTensor) -> str:
    return content_hash(tensor.data if tensor.live is None else _bytes_of(tensor.live))


def _refuse_changed(tensors: Sequence[StagedTensor], hashes: Sequence[str]) -> None:
    changed = [
        tensor.name
        for tensor, digest in zip(tensors, hashes, strict=True)
        if tensor.live is not None and digest != tensor.known_hash
    ]
    if changed:
        raise TensorChanged(changed)


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return tensor.detach().view(-1).view(torch.uint8).numpy().data


class _NewPacks:
    """Groups tensors into packs and hands each over as soon as it is full."""

    def __init__(self, uploads: "_Uploads", attempt: int) -> None:
        self._uploads = uploads
        self._attempt = attempt
        self._group: list[tuple[StagedTensor, str]] = []
        self._group_bytes = 0
        self._added: set[str] = set()
        self.files: dict[str, StoredFile] = {}
        self.place: dict[str, str] = {}
        self.written_bytes = 0

    def add(self, tensor: StagedTensor, digest: str) -> None:
        """Put *tensor* into a pack, once for all tensors of the same bytes."""
        if digest in self._added or not tensor.size_bytes:
            return
        self._added.add(digest)
        self._group.append((tensor, digest))
        self._group_bytes += tensor.size_bytes
        if self._group_bytes >= PACK_BYTES:
            self.close()

    def close(self) -> None:
        """Hand over what is left."""
        if not self._group:
            return
        # As they lie in memory, so that neighbours are written in one go.
        group = sorted(self._group, key=lambda item: (id(item[0].buffer), item[0].start))
        header = format_header([PackTensor(t.name, t.dtype, t.shape, t.size_bytes, digest) for t, digest in group])
        file = pack_file(header, self._group_bytes, self._attempt)
        self._uploads.submit(file.key, [header, *_runs([tensor for tensor, _ in group])])
        self.files[file.key] = file
        self.place.update({digest: file.key for _, digest in group})
        self.written_bytes += file.size_bytes
        self._group, self._group_bytes = [], 0


def _runs(tensors: Sequence[StagedTensor]) -> list[memoryview]:
    """Return the bytes of *tensors*, those of neighbours in one piece."""
    runs: list[tuple[memoryview, int, int]] = []
    for tensor in tensors:
        if runs and runs[-1][0] is tensor.buffer and runs[-1][2] == tensor.start:
            runs[-1] = (tensor.buffer, runs[-1][1], tensor.end)
        else:
            runs.append((tensor.buffer, tensor.start, tensor.end))
    return [buffer[start:end] for buffer, start, end in runs]


class _Uploads:
    """Writes packs in two threads: while one waits for the disk, the other's bytes are on their way."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._queue: queue.Queue[tuple[str, list[Chunk]] | None] = queue.Queue(maxsize=1)
        self._threads: list[threading.Thread] = []
        self._error: Exception | None = None

    def __enter__(self) -> "_Uploads":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Wait for all; raise what one of them raised."""
        for _thread in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def submit(self, key: str, chunks: list[Chunk]) -> None:
        """Write *chunks* soon; wait while two others are being written."""
        if self._error is not None:
            raise self._error
        if len(self._threads) < _NUM_UPLOADS:
            name = f"spotproof-upload-{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._run, name=name, daemon=True))
            self._threads[-1].start()
        self._queue.put((key, chunks))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._storage.put(*item)
                except Exception as err:  # raised again where the save is made
                    self._error = err
