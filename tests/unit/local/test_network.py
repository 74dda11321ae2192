"""What leads out of a network of hosts: which ports, which variables, and the bytes themselves."""

import socket
import threading

import pytest

from spotproof.local import _forwarder
from spotproof.local.network import find_machine_interface, plan_network


def test_each_host_has_an_address_and_finds_the_endpoints():
    """AWS endpoints on this machine's loopback are led through, those elsewhere are not, other URLs never."""
    plan = plan_network(
        300,
        {
            "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:8333",
            "AWS_ENDPOINT_URL": "http://localhost:4566/",
            "AWS_ENDPOINT_URL_STS": "https://sts.example.com:443",
            "AWS_ENDPOINT_URL_LOGS": "http://[::",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
        },
        is_isolated=False,
    )
    assert plan.forwards == [(4566, "localhost", 4566), (8333, "127.0.0.1", 8333)]
    assert plan.addresses[:2] == ["10.0.1.1", "10.0.1.2"]
    assert len(set(plan.addresses)) == 300
    environment = plan.environment()
    assert environment["HTTPS_PROXY"] == environment["https_proxy"] == f"http://127.0.0.1:{plan.proxy_port}"
    assert {"127.0.0.1", "localhost", "algo-1", "algo-300", "10.0.1.1"} <= set(environment["NO_PROXY"].split(","))


def test_an_isolated_network_leads_nowhere():
    """No port, no proxy, no variable."""
    plan = plan_network(2, {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:8333"}, is_isolated=True)

    assert (plan.forwards, plan.proxy_port, plan.environment()) == ([], None, {})


def test_the_machines_interface_is_one_that_is_there():
    """Of a default route, or loopback."""
    assert find_machine_interface() in [name for _, name in socket.if_nameindex()]


@pytest.fixture
def echo():
    """A server that answers what it was sent, backwards, once the sender has finished; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, client.makefile("rwb") as stream:
                stream.write(stream.read()[::-1])

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def exchange(port, data):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client, client.makefile("rb") as answers:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return answers.read()


def test_bytes_go_through_whole_in_both_directions(echo):
    """More than any buffer holds; the end of one direction is told, and the other goes on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _forwarder.forward(listener, "127.0.0.1", echo)
        data = bytes(range(256)) * 40_000
        assert exchange(listener.getsockname()[1], data) == data[::-1]


def test_a_target_that_is_not_there_closes_the_connection():
    """Nobody waits for a server that is gone."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _forwarder.forward(listener, "127.0.0.1", port)
        with socket.create_connection(listener.getsockname(), timeout=60) as client:
            assert client.recv(1) == b""


def test_the_proxy_connects_and_passes_requests_on(echo):
    """CONNECT opens a tunnel; a request for a whole URL goes on as one for its path, without the hop's headers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _forwarder.proxy(listener)
        port = listener.getsockname()[1]
        answer = exchange(port, b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\nabc" % echo)
        assert answer == b"HTTP/1.1 200 Connection established\r\n\r\ncba"

        request = (
            b"PUT http://127.0.0.1:%d/a?b=1 HTTP/1.1\r\nHost: h\r\nProxy-Connection: keep-alive\r\n\r\nbody" % echo
        )
        assert exchange(port, request)[::-1] == b"PUT /a?b=1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nbody"


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"nonsense", b"400"),
        (b"GET /no-host HTTP/1.1", b"400"),
        (b"GET ftp://host/x HTTP/1.1", b"400"),
        (b"CONNECT host:nan HTTP/1.1", b"400"),
        (b"CONNECT 127.0.0.1:1 HTTP/1.1", b"502"),
        (b"GET http://no-such-host.invalid/ HTTP/1.1", b"502"),
    ],
)
def test_the_proxy_says_what_it_can_not_reach(request_line, status):
    """A client gets an answer and not silence."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _forwarder.proxy(listener)
        answer = exchange(listener.getsockname()[1], request_line + b"\r\n\r\n")
        assert answer.split(b" ")[1] == status
