"""A node that does not answer a method which only an exit needs is found out at the start."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from tests.adapters.scripted_node import HASH, TX, Refusal, ScriptedNode, ask

from cromford.adapters.bitcoind import BitcoindChain
from cromford.adapters.chain_check import NodeCheck
from cromford.bitcoin.network import MAINNET
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.ports import ChainUnavailable, CredentialsRefused, TxRefused

# What a node says that answers everything, to questions about what it does not know.
ANSWERS: Final[dict[str, object]] = {
    "getblockchaininfo": {"chain": "main", "initialblockdownload": False},
    "getnetworkinfo": {"version": 290_000},
    "getblockhash": str(MAINNET.genesis_hash),
    "getblockheader": {"height": 0},
    "getblock": Refusal(-1, "Block not available (pruned data)"),
    "gettxout": None,
    "getmempoolentry": Refusal(-5, "Transaction not in mempool"),
    "getmempoolinfo": {},
    "gettxspendingprevout": [{"txid": HASH, "vout": 0}],
    "estimatesmartfee": Refusal(-32603, "Fee estimation disabled"),  # With `blocksonly`.
    "sendrawtransaction": Refusal(-22, "TX decode failed"),
    "submitpackage": Refusal(-8, "Array must contain between 1 and 25 transactions."),
}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    scripted = ScriptedNode(tmp_path)
    scripted.answers = dict(ANSWERS)
    yield scripted
    scripted.close()


def check(node: ScriptedNode) -> None:
    ask(node, lambda chain: NodeCheck(chain, MAINNET)())


def test_a_node_that_answers_every_method_fits_whatever_it_says(node: ScriptedNode) -> None:
    check(node)
    assert {method for method, _ in node.calls} == set(ANSWERS)


@pytest.mark.parametrize("method", sorted(ANSWERS))
def test_a_method_that_a_whitelist_leaves_out_is_named_at_the_start(
    node: ScriptedNode, method: str
) -> None:
    """Else an exit would be the first to find out that nothing is published."""
    node.forbidden = {method}
    with pytest.raises(CredentialsRefused, match=rf"^{method} at .*: HTTP 403$"):
        check(node)


@pytest.mark.parametrize("code", [-32601, -32604])
def test_so_is_one_that_a_proxy_does_not_know_or_allow(node: ScriptedNode, code: int) -> None:
    node.answers["submitpackage"] = Refusal(code, "Method not allowed")
    with pytest.raises(CredentialsRefused, match=r"^submitpackage at .*Method not allowed"):
        check(node)


def test_all_that_the_adapter_calls_is_asked_for(node: ScriptedNode) -> None:
    async def everything(chain: BitcoindChain) -> None:
        outpoint = OutPoint(txid=Txid.from_hex(HASH), vout=0)
        for question in (
            chain.status(),
            chain.block_hash(0),
            chain.block(MAINNET.genesis_hash),
            chain.coin(outpoint),
            chain.broadcast(TX),
            chain.broadcast_package((TX, TX)),
            chain.mempool_tx(outpoint.txid),
            chain.spenders((outpoint,)),
            chain.relay_feerates(),
            chain.estimate_sat_per_kw(6),
        ):
            with suppress(ChainUnavailable, TxRefused):
                await question

    ask(node, everything)
    assert {method for method, _ in node.calls} <= set(ANSWERS)


def test_a_running_daemon_goes_on_with_what_it_may_still_ask(node: ScriptedNode) -> None:
    """Blocks are read, and what can be published is: a node that restarted stops nobody."""

    async def again(chain: BitcoindChain) -> None:
        fits = NodeCheck(chain, MAINNET)
        await fits()
        node.forbidden = {"submitpackage"}
        await fits()

    ask(node, again)
