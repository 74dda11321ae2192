"""The EC2 metadata notice, against a small server that plays the metadata service."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from spotproof.loop.ec2 import Ec2Poller

NOTICE = {"action": "terminate", "time": "2026-05-04T08:22:00Z"}


class Service(ThreadingHTTPServer):
    """IMDSv2: a token by PUT, then answers to who shows it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.body = 404, b""
        self.token_status, self.tokens = 200, 0
        self.asked = threading.Semaphore(0)

    @property
    def env(self):
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{self.server_address[1]}/"}


class Handler(BaseHTTPRequestHandler):
    def do_PUT(self):
        assert self.path == "/latest/api/token"
        assert int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"]) > 0
        self.server.tokens += 1
        self.answer(self.server.token_status, f"token-{self.server.tokens}".encode())

    def do_GET(self):
        assert self.path == "/latest/meta-data/spot/instance-action"
        is_known = self.headers["X-aws-ec2-metadata-token"] == f"token-{self.server.tokens}"
        self.answer(self.server.status if is_known else 401, self.server.body)
        self.server.asked.release()

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def service():
    """A metadata service that announces nothing yet."""
    server = Service()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_notice(service):
    """404 is the answer of an instance that stays."""
    poller = Ec2Poller(service.env)

    assert poller.ask() is None
    assert poller.ask() is None
    assert service.tokens == 1


def test_a_notice(service):
    """What is announced is told."""
    service.status, service.body = 200, json.dumps(NOTICE).encode()

    assert Ec2Poller(service.env).ask() == "terminate"


def test_an_expired_token_is_replaced(service):
    """After a 401 the next question brings a new token."""
    poller = Ec2Poller(service.env)
    poller.ask()
    service.tokens += 1  # the one that the poller has is no longer the newest
    with pytest.raises(OSError, match="401"):
        poller.ask()

    assert poller.ask() is None


@pytest.mark.parametrize("body", [b"", b"[]", b'{"action": 1}', b"\xff", b"<html>"])
def test_what_is_no_notice_is_not_taken_for_one(service, body):
    """An answer that is not the documented one is an error, and no reason to leave."""
    service.status, service.body = 200, body

    with pytest.raises(ValueError, match=r"."):
        Ec2Poller(service.env).ask()


def test_the_thread_lives_through_errors_and_tells_once(service):
    """Refused, broken and empty answers end nothing; the notice that follows is told, once, and the thread ends."""
    told = []
    came = threading.Event()

    def on_notice(source):
        told.append(source)
        came.set()

    service.token_status = 500
    poller = Ec2Poller(service.env, poll_seconds=0.001)
    poller.start(on_notice)
    while service.tokens < 2:
        threading.Event().wait(0.001)
    service.token_status, service.status = 200, 503
    service.asked.acquire()
    service.status, service.body = 200, b"nonsense"
    service.asked.acquire()
    service.asked.acquire()
    service.body = json.dumps(NOTICE).encode()

    assert came.wait(30)
    assert told == ["EC2 terminate"]
    poller.stop()


def test_a_stopped_poller_asks_no_more(service):
    """After stop() the thread ends."""
    poller = Ec2Poller(service.env, poll_seconds=0.001)
    before = threading.active_count()
    poller.start(lambda source: None)
    service.asked.acquire()
    poller.stop()
    names = {"spotproof-ec2-notice"}
    for thread in threading.enumerate():
        if thread.name in names:
            thread.join(30)

    assert not [thread for thread in threading.enumerate() if thread.name in names]
    assert before > 0


def test_outside_ec2_nothing_is_raised():
    """Nobody listens at the endpoint: the thread says so once, quietly, and the training does not notice."""
    poller = Ec2Poller({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1"})

    with pytest.raises(OSError, match=r"."):
        poller.ask()


def test_it_can_be_turned_off_as_in_the_sdks(service):
    """AWS_EC2_METADATA_DISABLED is respected: no thread, no question."""
    Ec2Poller({**service.env, "AWS_EC2_METADATA_DISABLED": "true"}).start(lambda source: None)

    assert service.tokens == 0
    assert "spotproof-ec2-notice" not in [thread.name for thread in threading.enumerate()]
