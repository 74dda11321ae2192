"""The threads that wait for connections: never too few, and not for ever too many."""

import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from local_rig import PATIENCE_SECONDS, wait_until

from spotproof.errors import EngineError
from spotproof.local.http_server import HttpServer

NUM_SLOW = 30


class Place:
    """An application with a path that takes as long as a test likes."""

    def __init__(self):
        self.gate, self.num_slow, self._lock = threading.Event(), 0, threading.Lock()

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            with self._lock:
                self.num_slow += 1
            assert self.gate.wait(PATIENCE_SECONDS)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]


@pytest.fixture
def place():
    place = Place()
    place.server = HttpServer(0, place)
    place.server.start()
    yield place
    place.gate.set()
    place.server.close()


def ask(place, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{place.server.port}{path}", timeout=PATIENCE_SECONDS) as answer:
        return answer.read()


def test_slow_requests_hold_up_nobody(place):
    """More of them than threads that were waiting: the next request is answered all the same; later they are fewer."""
    before = threading.active_count()
    with ThreadPoolExecutor(NUM_SLOW) as pool:
        slow = [pool.submit(ask, place, "/slow") for _ in range(NUM_SLOW)]
        wait_until(lambda: place.num_slow == NUM_SLOW)
        assert ask(place, "/") == b"ok"
        place.gate.set()
        assert [item.result() for item in slow] == [b"ok"] * NUM_SLOW
    wait_until(lambda: threading.active_count() <= before)


def test_closing_waits_for_no_answer(place):
    """A request under way is still answered, a new one is refused, and no thread waits any more."""
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(ask, place, "/slow")
        wait_until(lambda: place.num_slow == 1)
        place.server.close()
        with pytest.raises(OSError, match="refused"):
            ask(place, "/")
        place.gate.set()
        assert slow.result() == b"ok"
    wait_until(lambda: not any(thread.name == "http" for thread in threading.enumerate()))


def test_a_port_that_is_taken_is_told(place):
    """With what to do about it."""
    with pytest.raises(EngineError, match=rf"Port {place.server.port} .* can't be used.*--port"):
        HttpServer(place.server.port, place)
