"""`spotproof tensorboard`: TensorBoard itself shows what is in the place, and what comes to it later."""

import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from spotproof.cli.tensorboard import _keep_copied, _serve
from spotproof.errors import SpecError
from spotproof.storage import LocalStorage


def ask(url: str, until: Any) -> Any:
    """Return the answer once *until* holds of it."""
    answer: Any = None
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                answer = json.loads(response.read())
        except urllib.error.HTTPError:
            answer = None  # it has not read that much yet
        if answer and until(answer):
            return answer
        time.sleep(0.1)
    raise AssertionError(f"{url} says {answer}")


def log(writer: EventFileWriter, step: int) -> None:
    value = Summary.Value(tag="loss", simple_value=1.0 / (step + 1))
    writer.add_event(Event(step=step, wall_time=1000.0 + step, summary=Summary(value=[value])))
    writer.flush()


@pytest.mark.filterwarnings("ignore")
def test_it_shows_what_is_there_and_what_comes(tmp_path: Path) -> None:
    """On this machine alone; a port that is taken is an error with a remedy."""
    place, copy, ended = tmp_path / "place", tmp_path / "copy", threading.Event()
    copy.mkdir()
    writer = EventFileWriter(str(place / "version_0"))
    log(writer, 0)
    url = _serve(str(copy), 0)
    copying = threading.Thread(target=_keep_copied, args=(LocalStorage(place), copy, ended), daemon=True)
    copying.start()
    try:
        assert url.startswith("http://127.0.0.1:")
        points = f"{url}data/plugin/scalars/scalars?tag=loss&run=version_0"
        assert [step for _, step, _ in ask(points, len)] == [0]
        log(writer, 1)
        assert [step for _, step, _ in ask(points, lambda answer: len(answer) > 1)] == [0, 1]
        with pytest.raises(SpecError, match=r"TensorBoard does not start: .*Name another --port"):
            _serve(str(copy), int(url.rstrip("/").rpartition(":")[2]))
    finally:
        ended.set()
        writer.close()
        copying.join(30)
