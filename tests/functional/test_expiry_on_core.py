"""An LSP takes back what a lost client left, out of a real Bitcoin Core's mempool."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bitcoin_core_rpc import BitcoinCoreRpcClient
from tests.daemon.test_expiry_sweeps import HASTY, SHORT, lose_a_client_and_sweep
from tests.daemon.town import town
from tests.functional.test_demo_on_core import started


@dataclass(frozen=True)
class CoreNode:
    """A real node as a town asks it."""

    url: str
    cookie_file: Path

    def call(self, method: str, *params: Any) -> Any:
        return BitcoinCoreRpcClient(self.url, cookie_path=self.cookie_file).call(
            method, list(params)
        )


@pytest.fixture
def core(tmp_path: Path) -> Iterator[CoreNode]:
    datadir = tmp_path / "core"
    datadir.mkdir()
    for running in started(datadir, "regtest"):
        yield CoreNode(running.url, running.cookie)


def test_what_nobody_claimed_is_a_coin_of_the_lsp_one_block_after_the_expiry(
    core: CoreNode, tmp_path: Path
) -> None:
    async def main() -> None:
        async with town(tmp_path, lsp_policy=SHORT, client_policy=HASTY, real_node=core) as built:
            await lose_a_client_and_sweep(built)

    asyncio.run(main())
