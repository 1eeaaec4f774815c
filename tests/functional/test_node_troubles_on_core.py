"""Daemons beside a Bitcoin Core that is stopped, forgets its mempool, and goes another way."""

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.test_bumped_fundings import stuck
from tests.daemon.test_node_troubles import follow
from tests.daemon.town import town
from tests.functional.node_world import wait_for
from tests.functional.test_expiry_on_core import CoreNode

EXPIRY_SECONDS = 3600


@dataclass
class RestartedCore:
    """A Core that can be stopped, and started again at the same address, with an empty mempool."""

    datadir: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def cookie_file(self) -> Path:
        return self.datadir / "regtest" / ".cookie"

    def call(self, method: str, *params: Any) -> Any:
        return CoreNode(self.url, self.cookie_file).call(method, *params)

    def start(self) -> "RestartedCore":
        options = ["-regtest", f"-datadir={self.datadir}", f"-rpcport={self.port}", "-listen=0"]
        options += ["-connect=0", "-dnsseed=0", "-persistmempool=0", "-mempoolexpiry=1"]
        binary = os.environ["CROMFORD_BITCOIND"]
        self.process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
        wait_for(self.url, self.cookie_file)
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
        self.process = None


@pytest.fixture
def core(tmp_path: Path) -> Iterator[RestartedCore]:
    if "CROMFORD_BITCOIND" not in os.environ:
        pytest.skip("CROMFORD_BITCOIND does not name a bitcoind")
    datadir = tmp_path / "core"
    datadir.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    core = RestartedCore(datadir, port)
    core.start()
    try:
        yield core
    finally:
        core.stop()


def test_both_roles_live_through_an_outage_and_a_reorganisation_of_the_funding(
    core: RestartedCore, tmp_path: Path
) -> None:
    async def main() -> None:
        async with town(tmp_path, real_node=core) as t:
            await follow(t, core.stop, core.start)

    asyncio.run(main())


@pytest.mark.parametrize("loss", ["a restart", "its expiry"])
def test_a_funding_that_left_the_mempool_is_there_again_after_the_next_block(
    core: RestartedCore, tmp_path: Path, loss: str
) -> None:
    async def main() -> None:
        async with town(tmp_path, real_node=core) as t:
            funding_txid = (await stuck(t, is_in_mempool=True))["funding_txid"]
            await t.until("lsp", "status", lambda _: waits(funding_txid))
            if loss == "a restart":
                core.stop()
                core.start()
            else:
                now = core.call("getblockheader", core.call("getbestblockhash"))["time"]
                core.call("setmocktime", now + 3 * EXPIRY_SECONDS)
                # What is too old leaves when something new comes.
                address = (await t.call("lsp", "address"))["address"]
                sent = await t.call("lsp", "wallet_send", address=address, amount_sat=50_000)
                await t.until("lsp", "status", lambda _: waits(sent["txid"]))
            assert not waits(funding_txid)
            await t.mine(1)
            await t.until("lsp", "status", lambda _: waits(funding_txid))
            await t.mine(3)
            shown = await t.call("lsp", "factories")
            assert shown["factories"][0]["status"] == "live"

    def waits(txid: str) -> bool:
        return txid in core.call("getrawmempool")

    asyncio.run(main())
