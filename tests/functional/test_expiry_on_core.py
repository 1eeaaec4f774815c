"""An LSP takes back what a lost client left, out of a real Bitcoin Core's mempool."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bitcoin_core_rpc import BitcoinCoreRpcClient
from tests.daemon.test_expiry_sweeps import HASTY, SHORT, lose_a_client_and_sweep
from tests.daemon.test_joint_sweeps import (
    expire_before_a_rival,
    expire_beside_a_rival,
    expire_together,
    see_no_rivals,
)
from tests.daemon.town import town


@dataclass(frozen=True)
class CoreNode:
    """A real node as a town asks it."""

    url: str
    cookie_file: Path

    def call(self, method: str, *params: Any) -> Any:
        return BitcoinCoreRpcClient(self.url, cookie_path=self.cookie_file).call(
            method, list(params)
        )


def test_what_nobody_claimed_is_a_coin_of_the_lsp_one_block_after_the_expiry(
    core: CoreNode, tmp_path: Path
) -> None:
    async def main() -> None:
        async with town(tmp_path, lsp_policy=SHORT, client_policy=HASTY, real_node=core) as built:
            await lose_a_client_and_sweep(built)

    asyncio.run(main())


def test_factories_that_expire_together_are_taken_by_one_transaction(
    core: CoreNode, tmp_path: Path
) -> None:
    async def main() -> None:
        async with town(tmp_path, lsp_policy=SHORT, client_policy=HASTY, real_node=core) as built:
            await expire_together(built)

    asyncio.run(main())


@pytest.mark.parametrize("is_seen", [True, False])
def test_a_rival_keeps_out_what_it_spends_and_nothing_else(
    core: CoreNode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_seen: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    if not is_seen:
        see_no_rivals(monkeypatch)

    async def main() -> None:
        async with town(tmp_path, lsp_policy=SHORT, client_policy=HASTY, real_node=core) as built:
            await expire_beside_a_rival(built, is_seen=is_seen)

    asyncio.run(main())


def test_who_takes_the_place_of_a_joint_sweep_holds_up_the_others_for_a_block(
    core: CoreNode, tmp_path: Path
) -> None:
    async def main() -> None:
        async with town(tmp_path, lsp_policy=SHORT, client_policy=HASTY, real_node=core) as built:
            await expire_before_a_rival(built)

    asyncio.run(main())
