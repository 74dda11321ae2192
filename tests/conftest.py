"""What tests of several rooms share."""

import pytest


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """A real S3 server for the whole test session: it takes a second to start. Use a bucket of your own."""
    from spotproof.local.processes import Registry
    from spotproof.local.s3server import S3Server

    folder = tmp_path_factory.mktemp("s3")
    server = S3Server(folder / "s3", Registry(folder / "processes", "tests"))
    server.open()
    yield server
    server.close()
