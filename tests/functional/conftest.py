"""A Bitcoin Core of its own for each test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.functional.test_demo_on_core import started
from tests.functional.test_expiry_on_core import CoreNode


@pytest.fixture
def core(tmp_path: Path) -> Iterator[CoreNode]:
    """Yield a node on regtest, as it comes."""
    datadir = tmp_path / "core"
    datadir.mkdir()
    for running in started(datadir, "regtest"):
        yield CoreNode(running.url, running.cookie)
