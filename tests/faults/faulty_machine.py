"""What goes wrong with the machine of a training: disks, folders, clocks. Installed in the training's own process."""

import errno
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import lightning.pytorch as pl

from spotproof.storage import LocalStorage

CALLS_THAT_WRITE = ("open", "write", "fsync", "replace", "mkdir", "unlink")


class Fault(pl.Callback):
    """Begins before the batch of a step and ends before that of another, each once what was under way is done."""

    def __init__(self, spot, first, last, begin, end):
        self.spot, self.first, self.last, self.begin, self.end = spot, first, last, begin, end

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.spot._checkpointer.wait()
        if trainer.global_step == self.first:
            self.begin()
        if trainer.global_step == self.last:
            self.end()


def install(folder, spot, *, kind, first=None, last=None):
    """Let the fault *kind* happen in the training that *spot* belongs to, between the steps *first* and *last*."""
    begin, end = FAULTS[kind](Path(folder), spot)
    if first is None:
        begin()
        return
    original = spot.setup

    def setup(trainer, module, stage):
        trainer.callbacks.insert(0, Fault(spot, first, last, begin, end))
        original(trainer, module, stage)

    spot.setup = setup


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

        original_open = os.open

        def noting_open(target, *args, **kwargs):
            fd = original_open(target, *args, **kwargs)
            if str(target).startswith(str(folder / "checkpoints")):
                ours.add(fd)
            else:
                ours.discard(fd)
            return fd

        def begin():
            if "open" not in names:
                os.open = noting_open
            for name in names:
                setattr(os, name, guarded(name))

        def end():
            os.open = original_open
            for name in names:
                setattr(os, name, originals[name])

        return begin, end

    return make


def deleted(folder, spot):
    """Remove the whole checkpoint folder, once."""
    return lambda: shutil.rmtree(folder / "checkpoints"), nothing


def replaced_by_file(folder, spot):
    """Put a file where the folder was; end by taking it away."""
    place = folder / "checkpoints"

    def begin():
        place.rename(folder / "aside")
        place.write_text("")

    def end():
        place.unlink()
        (folder / "aside").rename(place)

    return begin, end


def clock(folder, spot):
    """Set the wall clock back by an hour, as time.time() sees it, and let it jump ahead by a day at the end."""
    true_time = time.time
    return lambda: setattr(time, "time", lambda: true_time() - 3600), lambda: setattr(
        time, "time", lambda: true_time() + 86400
    )


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


FAULTS = {
    "full": failing(errno.ENOSPC, "write"),
    "no space for names": failing(errno.ENOSPC, "open"),
    "broken": failing(errno.EIO, "fsync"),
    "read-only": failing(errno.EROFS, "open"),
    "deleted": deleted,
    "file in the way": replaced_by_file,
    "clock": clock,
    "no TMPDIR": no_tmpdir,
    "impatient": impatient,
    "second notice": second_notice,
    "full when leaving": full_when_leaving,
    "hangs when leaving": hangs_when_leaving,
}
