"""What goes wrong with the machine of a training: disks, folders, clocks. Installed in the training's own process."""

import ctypes
import errno
import os
import shutil
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl

from spotproof.storage import LocalStorage


class Fault(pl.Callback):
    """Begins before the batch of a step and ends before that of another, each once what was under way is done."""

    def __init__(self, spot, first, last, begin, end):
        self.spot, self.first, self.last, self.begin, self.end = spot, first, last, begin, end

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step in (self.first, self.last):
            self.spot._checkpointer.wait()
        if trainer.global_step == self.first:
            self.begin()
        if trainer.global_step == self.last:
            self.end()
            # Time passes, so that it does not depend on the machine's speed how soon is tried again.
            time.sleep(max(0.0, self.spot._checkpointer.writer.retry_at - time.monotonic()))


def install(folder, spot, *, kind, first=None, last=None):
    """Let the fault *kind* happen in the training that *spot* belongs to, from the step *first* (or at once) to *last*.

    Returns the callbacks that the trainer needs for it.
    """
    begin, end = FAULTS[kind](Path(folder), spot)
    if first is None:
        begin()
    return [Fault(spot, first, last, begin, end)]


def nothing():
    """End a fault that is over at once."""


def failing(number, *names):
    """Return a fault: calls of *names* on the checkpoint folder fail with errno *number*."""

    def make(folder, spot):
        originals = {name: getattr(os, name) for name in names}
        ours = set()

        def guarded(name):
            def call(target, *args, **kwargs):
                if name == "open":
                    flags = args[0] if args else kwargs.get("flags", 0)
                    writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                    is_ours = str(target).startswith(str(folder / "checkpoints")) and writes
                else:
                    is_ours = isinstance(target, int) and target in ours
                if is_ours:
                    raise OSError(number, os.strerror(number), str(target))
                return originals[name](target, *args, **kwargs)

            return call

        original_open, original_close = os.open, os.close

        def noting_close(fd):
            ours.discard(fd)
            original_close(fd)

        def noting_open(target, *args, **kwargs):
            fd = original_open(target, *args, **kwargs)
            if str(target).startswith(str(folder / "checkpoints")):
                ours.add(fd)
            else:
                ours.discard(fd)
            return fd

        def begin():
            if "open" not in names:
                os.open, os.close = noting_open, noting_close
            for name in names:
                setattr(os, name, guarded(name))

        def end():
            os.open, os.close = original_open, original_close
            for name in names:
                setattr(os, name, originals[name])

        return begin, end

    return make


def deleted(folder, spot):
    """Remove the whole checkpoint folder, once."""
    return lambda: shutil.rmtree(folder / "checkpoints"), nothing


def replaced_by_file(folder, spot):
    """Put a file where the folder was; end by taking it away."""

    def begin():
        (folder / "checkpoints").rename(folder / "aside")
        (folder / "checkpoints").write_text("")

    return begin, lambda: put_back(folder)


def put_back(folder):
    """Take the file away that is in the way."""
    (folder / "checkpoints").unlink()
    (folder / "aside").rename(folder / "checkpoints")


MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000


def mounted_read_only(folder, spot):
    """Let the kernel itself refuse writes: the folder becomes a read-only mount, seen by this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    place = str(folder / "checkpoints").encode()

    def mount(source, target, flags):
        if libc.mount(source, target, None, flags, None) != 0:
            raise OSError(ctypes.get_errno(), f"mount {target!r}")

    if libc.unshare(CLONE_NEWNS) != 0 and libc.unshare(CLONE_NEWNS | CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    (folder / "checkpoints").mkdir(exist_ok=True)
    mount(None, b"/", MS_REC | MS_PRIVATE)
    mount(place, place, MS_BIND)
    return (
        lambda: mount(place, place, MS_REMOUNT | MS_BIND | MS_RDONLY),
        lambda: mount(place, place, MS_REMOUNT | MS_BIND),
    )


def slow(folder, spot):
    """Let each write and fsync take its time, as long as a batch and more."""
    originals = {name: getattr(os, name) for name in ("write", "fsync")}

    def slowed(name):
        def call(*args):
            time.sleep(0.03)
            return originals[name](*args)

        return call

    def begin():
        for name in originals:
            setattr(os, name, slowed(name))

    return begin, lambda: [setattr(os, name, original) for name, original in originals.items()]


def clock(folder, spot):
    """Set the wall clock back by an hour, and let it jump ahead by a day at the end."""
    from spotproof import events
    from spotproof.checkpoint import manifest

    true_time, true_datetime = time.time, events.datetime

    def shift(seconds):
        class Shifted(true_datetime):
            @classmethod
            def now(cls, tz=None):
                return true_datetime.now(tz) + timedelta(seconds=seconds)

        time.time = lambda: true_time() + seconds
        events.datetime = manifest.datetime = Shifted

    return lambda: shift(-3600), lambda: shift(86400)


def no_tmpdir(folder, spot):
    """Let TMPDIR name a folder that is not there."""
    import tempfile

    def begin():
        os.environ["TMPDIR"] = str(folder / "nowhere")
        tempfile.tempdir = None

    return begin, nothing


def impatient(folder, spot):
    """Ask the metadata service all the time."""
    (poller,) = spot._departure.notice._pollers
    return lambda: setattr(poller, "_poll_seconds", 0.01), nothing


def second_notice(folder, spot):
    """Send SIGTERM again at each write of the save with which the training leaves."""
    original = LocalStorage.put

    def put(self, key, chunks):
        if spot._departure.is_wanted:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, key, chunks)

    return lambda: setattr(LocalStorage, "put", put), nothing


def full_when_leaving(folder, spot):
    """Let the disk be full for the save with which the training leaves."""
    original = LocalStorage.put

    def put(self, key, chunks):
        if spot._departure.is_wanted:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), key)
        original(self, key, chunks)

    return lambda: setattr(LocalStorage, "put", put), nothing


def hangs_when_leaving(folder, spot):
    """Let the disk never answer once a notice came."""
    original = LocalStorage.put

    def put(self, key, chunks):
        if spot._departure.is_wanted:
            threading.Event().wait()
        original(self, key, chunks)

    return lambda: setattr(LocalStorage, "put", put), nothing


def hangs_at_the_end(folder, spot):
    """Let the disk never answer to the save with which the training ends, and let that be waited for briefly."""
    from spotproof.loop import saves

    original = LocalStorage.put

    def put(self, key, chunks):
        if spot._saves.run.between == "end":
            threading.Event().wait()
        original(self, key, chunks)

    def begin():
        saves.END_PATIENCE_SECONDS = 0.5
        LocalStorage.put = put

    return begin, nothing


FAULTS = {
    "full": failing(errno.ENOSPC, "write"),
    "no space for names": failing(errno.ENOSPC, "open"),
    "broken": failing(errno.EIO, "fsync"),
    "read-only": failing(errno.EROFS, "open"),
    "deleted": deleted,
    "file in the way": replaced_by_file,
    "mounted read-only": mounted_read_only,
    "slow": slow,
    "clock": clock,
    "no TMPDIR": no_tmpdir,
    "impatient": impatient,
    "second notice": second_notice,
    "full when leaving": full_when_leaving,
    "hangs when leaving": hangs_when_leaving,
    "hangs at the end": hangs_at_the_end,
}
