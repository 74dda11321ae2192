"""What tests of several rooms share."""

import pytest


@pytest.fixture(autouse=True)
def no_width_of_a_terminal(monkeypatch):
    """Workers of pytest-xdist have one in their environment, and tables are cut to it."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """A real S3 server for the whole test session: it takes a second to start. Use a bucket of your own."""
    from spotproof.local.keys import read_or_make_keys
    from spotproof.local.registry import Registry
    from spotproof.local.s3server import S3Server

    folder = tmp_path_factory.mktemp("s3")
    registry = Registry(folder / "processes", "tests")
    server = S3Server(folder / "s3", registry, read_or_make_keys(folder))
    server.open()
    yield server
    server.close()
    registry.close()
