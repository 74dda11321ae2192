"""Two writers in one place: the one that began last wins, wherever the other one slept, on a folder and on S3."""

import json
import os
import signal
import time
from pathlib import Path

import boto3
import pytest
from writer_process import attempt, processes

from spotproof import CheckpointConflict
from spotproof.checkpoint import committed_steps, newest_verified, read_manifest, verify
from spotproof.checkpoint.journal import recorded_attempts
from spotproof.checkpoint.manifest import manifest_key
from spotproof.storage import open_storage

CONFLICT = CheckpointConflict.exit_code


class Place:
    """An empty folder or prefix, and attempts that write to it."""

    def __init__(self, url, env, folder):
        self.url, self._env, self._folder = url, env, folder
        self.storage = open_storage(url)
        self._processes = []

    def start(self, steps, *, stop=None, barrier=None):
        """Start an attempt; return its process and the file that will tell."""
        told = self._folder / f"told-{len(self._processes)}"
        steps = [step if isinstance(step, tuple) else (step, step) for step in steps]
        process = processes.Process(target=attempt, args=(self.url, self._env, steps, str(told), stop, barrier))
        process.start()
        self._processes.append(process)
        return process, told

    def close(self):
        """End what still runs, or sleeps."""
        for process in self._processes:
            process.kill()
            process.join()

    def run(self, steps):
        """Run an attempt to its end; it must not fail."""
        process, told = self.start(steps)
        process.join(60)
        assert process.exitcode == 0, told.read_text() if told.exists() else "crashed"

    def content(self, attempt):
        """Return all that *attempt* has committed: manifests, and the files that they name."""
        found = {}
        for step in committed_steps(self.storage):
            manifest = read_manifest(self.storage, manifest_key(step))
            if manifest.attempt != attempt:
                continue
            verify(self.storage, manifest)
            found[manifest.key] = self.storage.get(manifest.key)
            found.update({file.key: self.storage.get(file.key) for file in manifest.files})
        return found


@pytest.fixture
def make_place(request, tmp_path, monkeypatch):
    """Return a function that makes empty places of a kind."""
    kinds = {}
    places = []

    def make(kind):
        places.append(made(kind))
        return places[-1]

    def made(kind):
        kinds[kind] = kinds.get(kind, 0) + 1
        folder = tmp_path / f"{kind}-{kinds[kind]}"
        folder.mkdir()
        if kind == "folder":
            return Place(str(folder / "run"), {}, folder)
        server = request.getfixturevalue("s3_server")
        env = server.environment()
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", "us-east-1")
        bucket = "fencing"
        if bucket not in [found["Name"] for found in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=bucket)
        client.close()
        return Place(f"s3://{bucket}/{tmp_path.name}/{kinds[kind]}", env, folder)

    yield make
    for place in places:
        place.close()


def wait_until_stopped(process):
    """Return whether *process* is stopped now; False if it ended instead."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                return True
        except (FileNotFoundError, ProcessLookupError):
            pass
        if process.exitcode is not None:
            return False
        time.sleep(0.005)
    raise AssertionError("the process neither stopped nor ended")


@pytest.mark.parametrize("stride", [30, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_zombie_that_slept_at_any_call_of_a_save(make_place, kind, stride):
    """Stopped at any call of a save and woken after the next attempt has saved: it stops, and nothing has changed.

    The next attempt makes the same checkpoints again, with the same content, and one whose content is that of an older
    one, which the sleeper was about to remove.
    """
    number = 0
    while True:
        place = make_place(kind)
        zombie, told = place.start([10, 20, 30, 40, 45, 55], stop=(40, number))
        if not wait_until_stopped(zombie):
            assert zombie.exitcode == 0
            break
        began_at = newest_verified(place.storage).step
        assert began_at in (30, 40)
        place.run([step for step in (40, (45, 20), 55) if step == (45, 20) or step > began_at])
        before, steps = place.content(1), committed_steps(place.storage)

        os.kill(zombie.pid, signal.SIGCONT)
        zombie.join(60)

        assert zombie.exitcode == CONFLICT, number
        number_told, message = json.loads(told.read_text())
        assert number_told == 0
        assert message.startswith(f"Attempt 1 writes to {place.url} too, so attempt 0 stops.")
        assert place.content(1) == before, number
        if kind == "folder":  # on S3 the one commit that was on its way may get there, and is cleared away
            assert committed_steps(place.storage) == steps, number
        assert newest_verified(place.storage).attempt == 1
        place.run([65, 75])
        assert committed_steps(place.storage) == [75, 65]
        assert set(place.content(2)) >= {entry.key for entry in place.storage.list("packs/")}
        number += stride
    assert number > (15 if kind == "folder" else 8)  # the stops really went through the whole save


@pytest.mark.parametrize("kind", ["folder", pytest.param("s3", marks=pytest.mark.slow)])
def test_who_begins_at_the_same_moment(make_place, kind):
    """Of four that begin at once each gets a number of its own, and exactly one can save: the one that came last."""
    place = make_place(kind)
    barrier = processes.Barrier(4)
    started = [place.start([10, 20], barrier=barrier) for _ in range(4)]
    for process, _ in started:
        process.join(60)

    told = [json.loads(path.read_text()) for _, path in started]
    assert sorted(number for number, _ in told) == [0, 1, 2, 3]
    assert [number for number, conflict in told if conflict is None] == [3]
    assert sorted(process.exitcode for process, _ in started) == [0, CONFLICT, CONFLICT, CONFLICT]
    assert [read_manifest(place.storage, manifest_key(step)).attempt for step in (10, 20)] == [3, 3]
    assert recorded_attempts(place.storage) == [0, 1, 2, 3]


def test_a_superseded_save_that_was_on_its_way_does_no_harm(make_place):
    """On S3 a sleeper's commit of a step that nobody else has made may still get there. It is whole, and stays so."""
    place = make_place("s3")
    zombie, _ = place.start([10, 20, 30], stop=(30, 5))
    assert wait_until_stopped(zombie)
    assert newest_verified(place.storage).step == 20
    place.run([25])

    os.kill(zombie.pid, signal.SIGCONT)
    zombie.join(60)
    assert zombie.exitcode == CONFLICT
    place.content(1)
    place.run([27, 28, 35, 36])

    assert committed_steps(place.storage) == [36, 35]
    for step in committed_steps(place.storage):
        verify(place.storage, read_manifest(place.storage, manifest_key(step)))
