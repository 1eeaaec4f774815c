"""Both daemons beside a node that is stopped, comes back, and goes another way."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.town import STEP_SECONDS, Town, TownNode, town

from cromford.daemon.api.failures import ApiFailure
from cromford.regtest.node import RegtestNode

ROLES = ("lsp", "alice")
ANSWERED = ("status", "factories", "wallet_balance", "wallet_coins", "payments", "events")
PAID_SAT = 50_000


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RegtestNode]:
    with RegtestNode(tmp_path / "node") as running:
        yield running


async def code_of(t: Town, name: str, method: str, **params: object) -> tuple[str, bool]:
    with pytest.raises(ApiFailure) as refused:
        await t.call(name, method, **params)
    return refused.value.code, refused.value.retryable


async def statuses(t: Town, *words: str) -> None:
    """Wait until a factory's status is this at its LSP, and that at its client."""
    for name, word in zip(ROLES, words, strict=True):

        def is_it(answer: dict[str, Any], word: str = word) -> bool:
            return bool(answer["factories"][0]["status"] == word)

        await t.until(name, "factories", is_it)


async def follow(t: Town, stop: Callable[[], None], start: Callable[[], TownNode]) -> None:
    """Let the node of a live factory be stopped, come back, and take the funding's block back."""
    await t.build("alice")
    payment = {"address": (await t.call("alice", "address"))["address"], "amount_sat": PAID_SAT}
    stop()
    for name in ROLES:
        for method in ANSWERED:
            assert await t.call(name, method), method
        assert await code_of(t, name, "wallet_send", **payment) == ("chain_unavailable", True)
    # It needs no node to be signed, and is published once there is one.
    sent = await t.call("lsp", "wallet_send", **payment, feerate_sat_per_vb="2")
    t.node = start()
    await t.until("lsp", "status", lambda _: sent["txid"] in t.node.call("getrawmempool"))
    funded_at = t.node.call("getblockcount") - 2
    t.node.call("invalidateblock", t.node.call("getblockhash", funded_at))
    # Mined to the same address, the block could be the one that was just called invalid.
    t.mining_address = (await t.call("lsp", "address"))["address"]
    # What was paid may spend a subsidy that is young again, and has to wait for a block.
    await t.mine(1, mempool=1)
    await statuses(t, "funding", "confirming")
    invoice = {"amount_msat": 1_000_000}
    assert await code_of(t, "alice", "invoice", **invoice) == ("funding_not_deep", True)
    await t.mine(2)
    await statuses(t, "live", "live")
    text = (await t.call("alice", "invoice", **invoice))["invoice"]
    assert (await t.call("lsp", "pay", invoice=text))["status"] == "paid"
    async with asyncio.timeout(STEP_SECONDS):
        while (await t.call("alice", "wallet_balance"))["confirmed_sat"] != PAID_SAT:
            await t.mine(1)
    for name in reversed(ROLES):
        await t.stop(name)


@pytest.mark.sampled(0)
def test_while_the_node_is_down_both_roles_answer_and_then_follow_it_wherever_it_went(
    node: RegtestNode, tmp_path: Path
) -> None:
    async def scenario() -> None:
        with contextlib.ExitStack() as later:
            port = node.port

            def again() -> RegtestNode:
                return later.enter_context(RegtestNode(tmp_path / "node", port=port))

            async with town(tmp_path, real_node=node) as t:
                await follow(t, node.stop, again)

    asyncio.run(scenario())
