"""What the factory's tests need of the machine."""

import socket

import pytest


@pytest.fixture
def unused_port() -> int:
    """Return a port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
