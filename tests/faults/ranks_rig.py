"""Runs trainings of several ranks, moves their folders as a platform does, and compares with an undisturbed run."""

import json
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

from spotproof.checkpoint import find_differences, newest_verified
from spotproof.checkpoint.journal import read_events
from spotproof.contract import IGNORE_SUFFIX, UPLOADED_SUFFIX
from spotproof.storage import LocalStorage

HERE = Path(__file__).parent
WORLD = 2


class Ranks:
    """Starts trainings; see ranks_zygote.py."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(HERE / "ranks_zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._count = 0

    def run(self, program, folder, *, places=None, **request):
        """Run one attempt; return the exit codes of the ranks, negative for a signal."""
        folder.mkdir(exist_ok=True)
        self._count += 1
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        request.update(
            program=program,
            folder=str(folder),
            places=[str(place) for place in places or [folder / "checkpoints"] * WORLD],
            meeting=str(folder / f"meeting-{self._count}"),
            port=port,
        )
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())["exits"]

    def kill(self, program, folder, kill, **request):
        """Run one attempt in which a rank is killed; the others fall with it, or find it gone."""
        exits = self.run(program, folder, kill=kill, **request)
        assert exits[kill["rank"]] == -9, exits
        assert set(exits) <= {-9, 1}, exits

    def close(self):
        """End it."""
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


class Mirror:
    """A platform's sync agents: the folders of all hosts go to one place, and come back from it at a restart.

    It copies what is new, tells so by marker files, and deletes what a host has deleted. By so many rounds as
    *delays* says the files of each host are late.
    """

    def __init__(self, folders, target, *, delays=(0, 0)):
        self.folders, self.target, self._delays = folders, target, delays
        self._seen = [{} for _ in folders]
        self._ages = [{} for _ in folders]
        self._stop = threading.Event()
        self._thread = None

    def restore(self):
        """Begin an attempt: every host finds what is in the place, and nothing else."""
        for number, folder in enumerate(self.folders):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(self.target, folder) if self.target.exists() else folder.mkdir(parents=True)
            self._seen[number] = {path: path.stat().st_size for path in self._files(folder)}
            self._ages[number] = {}

    def __enter__(self):
        self._stop.clear()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_):
        """What has not been copied by now is lost."""
        self._stop.set()
        self._thread.join()

    def drain(self):
        """Copy what is left, as at the end of a job."""
        for _ in range(2 + max(self._delays)):
            self._round()

    def _serve(self):
        while not self._stop.wait(0.005):
            self._round()

    def _files(self, folder):
        hidden = (IGNORE_SUFFIX, UPLOADED_SUFFIX)
        return [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(hidden)]

    def _round(self):
        for number, folder in enumerate(self.folders):
            there = {}
            for path in self._files(folder):
                try:
                    there[path] = path.stat().st_size
                except FileNotFoundError:
                    continue
            for path, size in there.items():
                if self._seen[number].get(path) == size:
                    continue
                age = self._ages[number][path] = self._ages[number].get(path, -1) + 1
                if age >= self._delays[number]:
                    self._copy(folder, path)
                    self._seen[number][path] = size
            for path in self._seen[number].keys() - there.keys():
                (self.target / path.relative_to(folder)).unlink(missing_ok=True)
                path.with_name(path.name + UPLOADED_SUFFIX).unlink(missing_ok=True)
                del self._seen[number][path]

    def _copy(self, folder, path):
        copy = self.target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, copy.with_name(copy.name + ".part"))
        except FileNotFoundError:
            return
        copy.with_name(copy.name + ".part").replace(copy)
        path.with_name(path.name + UPLOADED_SUFFIX).touch()


def traces(folder):
    """Return what each rank told last of each step."""
    return [
        {name: values for name, *values in map(json.loads, path.read_text().splitlines()) if name[:4] != "from"}
        for path in sorted(folder.glob("trace-*.jsonl"))
    ]


def starts(folder, rank=0):
    """Return where each attempt went on from."""
    lines = map(json.loads, (folder / f"trace-{rank}.jsonl").read_text().splitlines())
    return [name.removeprefix("from ") for name, *_ in lines if name.startswith("from")]


def assert_same(folder, undisturbed, place=None):
    """Every sample, loss and sum of every rank; and at the end all that the ranks have registered."""
    assert traces(folder) == traces(undisturbed)
    storages = [LocalStorage(place or folder / "checkpoints"), LocalStorage(undisturbed / "checkpoints")]
    one, other = map(newest_verified, storages)
    assert len(one.ranks) == len(traces(folder))
    assert list(find_differences(one, storages[0], other, storages[1])) == []


def events(place, kind):
    """Return the events of one kind, of all attempts."""
    storage = LocalStorage(place)
    found = [event for entry in storage.list("events/") for event in read_events(storage, int(entry.key[-10:-6]))]
    return [event for event in found if isinstance(event, kind)]
