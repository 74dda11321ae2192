"""A server that kills itself at a write of its store, forked from a process that has imported everything."""

import http.client
import json
import multiprocessing
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from spotproof.local import Image, LocalSageMaker
from spotproof.local.registry import owner_id
from spotproof.local.store import JobStore
from spotproof.local.validate import load_models

load_models()
WRITES = ("insert", "save", "save_plan", "finish", "delete")
PATIENCE_SECONDS = 120
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["store_killer"])


def _kill_at_write(number, moment, num_writes):
    """Make this process die *moment* ("before" or "after") its *number*-th write, from 0; None for never."""
    lock = threading.Lock()

    def guarded(original):
        def write(self, *arguments):
            with lock:
                mine = num_writes.value
                num_writes.value += 1
            if (mine, moment) == (number, "before"):
                os.kill(os.getpid(), signal.SIGKILL)
            original(self, *arguments)
            if (mine, moment) == (number, "after"):
                os.kill(os.getpid(), signal.SIGKILL)

        return write

    for verb in WRITES:
        setattr(JobStore, verb, guarded(getattr(JobStore, verb)))


def _serve(state, folder, environment, kill, num_writes, told):
    os.environ.update(environment)
    _kill_at_write(*(kill or (None, None)), num_writes)
    with LocalSageMaker(
        state,
        images={"image": Image(Path(folder), ["sh", "script.sh"])},
        hosts="plain",
        s3_endpoint=environment["AWS_ENDPOINT_URL_S3"],
        capacity=2,
        capacity_wait_seconds=0.01,
        reclaim="step:1",
    ) as platform:
        told.send(platform.url)
        threading.Event().wait()


class MortalServer:
    """A server on *folder* that dies as often as *kills* says, and is started again each time somebody asks it.

    Args:
        kills: ``(number, moment)`` of a write, one for each server but the last.
    """

    def __init__(self, folder, s3_server, kills):
        self.state = folder / "state"
        self._image, self._environment = folder / "image", s3_server.environment()
        self._kills = list(kills)
        self.num_deaths = self.num_writes = 0
        self._process = None

    def _start(self):
        kill = self._kills.pop(0) if self._kills else None
        num_writes, (here, there) = processes.Value("i", 0), processes.Pipe()
        arguments = (str(self.state), str(self._image), self._environment, kill, num_writes, there)
        self._process = processes.Process(target=_serve, args=arguments)
        self._process.start()
        self._num_writes = num_writes
        there.close()
        try:
            self._url = here.recv()
        except EOFError:  # it found a job to save while it started
            return False
        finally:
            here.close()
        return True

    def _bury(self):
        self._process.join()
        assert self._process.exitcode == -signal.SIGKILL, self._process.exitcode
        self._process.close()
        self._process = None
        self.num_deaths += 1

    def call(self, operation, **body):
        """Return the answer of the server that lives to give it, and whether one died of the question."""
        has_died = False
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self._process is None and not self._start():
                self._bury()
                continue
            try:
                return self._ask(operation, body), has_died
            except urllib.error.HTTPError:
                raise
            except (OSError, http.client.HTTPException):  # no connection, or one that ended within the answer
                self._bury()
                has_died = True
        raise AssertionError(f"no server answered {operation}")

    def _ask(self, operation, body):
        headers = {"X-Amz-Target": f"SageMaker.{operation}", "Content-Type": "application/x-amz-json-1.1"}
        scope = "Credential=key/20260101/us-east-1/sagemaker/aws4_request"
        headers["Authorization"] = f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=none"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return json.loads(answer.read() or b"{}")

    def close(self):
        """End the last one, and return the mark of what must not be left of any."""
        if self._process is not None:
            self.num_writes = self._num_writes.value
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None
        return f"={owner_id(self.state)}/"
