"""Bitcoin Core itself derives our scripts from our descriptors.

Runs where CROMFORD_BITCOIND names a bitcoind (with bitcoin-cli beside it) that knows `musig()`.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.factory import oracle
from tests.factory.specimen import tree_of

from cromford.bitcoin.address import address_of_script
from cromford.bitcoin.network import REGTEST

BITCOIND = os.environ.get("CROMFORD_BITCOIND", "")
pytestmark = pytest.mark.skipif(not BITCOIND, reason="CROMFORD_BITCOIND names no bitcoind")
START_SECONDS = 30


class Core:
    """A bitcoind of its own for one test, and its command line."""

    def __init__(self, folder: Path, port: int) -> None:
        self.options = ["-regtest", f"-datadir={folder}", f"-rpcport={port}"]

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                BITCOIND,
                *self.options,
                "-listen=0",
                "-dnsseed=0",
                "-fixedseeds=0",
                "-rpcbind=127.0.0.1",
                "-rpcallowip=127.0.0.1",
                "-disablewallet",
            ],
            stdout=subprocess.DEVNULL,
        )

    def call(self, *arguments: str) -> Any:
        cli = Path(BITCOIND).with_name("bitcoin-cli")
        waiting = ["-rpcwait", f"-rpcwaittimeout={START_SECONDS}"]
        answer = subprocess.run(
            [cli, *self.options, *waiting, *arguments], check=True, capture_output=True, text=True
        )
        return json.loads(answer.stdout)


@pytest.fixture
def core(tmp_path: Path, unused_port: int) -> Iterator[Core]:
    core = Core(tmp_path, unused_port)
    with ExitStack() as stack:
        process = stack.enter_context(core.start())
        stack.callback(process.terminate)
        yield core


def test_core_derives_the_address_of_every_output(core: Core) -> None:
    terms = oracle.terms_of(
        [50_000, 60_000, 70_000], [10_000, 20_000], inner_arities=[2], expiry_height=8000
    )
    tree = tree_of(terms)
    described = {tree.funding_output.descriptor: tree.funding_output.script_pubkey}
    for node in tree.nodes:
        for output in node.outputs:
            assert output.descriptor is not None
            described[output.descriptor] = output.script_pubkey
    assert len(described) == 12
    for descriptor, script in described.items():
        assert core.call("deriveaddresses", descriptor) == [address_of_script(script, REGTEST)]
