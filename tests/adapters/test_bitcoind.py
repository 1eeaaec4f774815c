"""The Bitcoin Core adapter against scripted answers over real HTTP."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from tests.adapters.scripted_node import CHILD, HASH, TX, Refusal, ScriptedNode, ask

from cromford.adapters.bitcoind import CALLS_MAX, BitcoindChain
from cromford.adapters.chain_check import PUBLIC_SIGNET_CHALLENGE, ChainMismatch, check_node
from cromford.bitcoin.network import MAINNET, REGTEST, SIGNET
from cromford.bitcoin.tx import OutPoint, Txid, TxOut
from cromford.ports import (
    BlockRef,
    ChainStatus,
    ChainUnavailable,
    Coin,
    CredentialsRefused,
    TxRefused,
)

# The genesis block of every network but for the header: one transaction, no witness.
GENESIS_TX = (
    "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d"
    "0104455468652054696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66"
    "207365636f6e64206261696c6f757420666f722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe55"
    "48271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba"
    "0b8d578a4c702b6bf11d5fac00000000"
)
MAINNET_GENESIS = bytes.fromhex(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e"
    "67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c01" + GENESIS_TX
)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    scripted = ScriptedNode(tmp_path)
    yield scripted
    scripted.close()


def chain_info(**facts: object) -> dict[str, object]:
    """Return a `getblockchaininfo` of a node at its tip."""
    return {"blocks": 7, "headers": 7, "time": 1_700_000_000, "bestblockhash": HASH, **facts}


def test_where_a_node_is_is_one_answer(node: ScriptedNode) -> None:
    node.answers["getblockchaininfo"] = chain_info(
        headers=9, pruned=True, pruneheight=5, initialblockdownload=True
    )
    status = ask(node, lambda chain: chain.status())
    assert status == ChainStatus(
        tip=BlockRef(height=7, block_hash=Txid.from_hex(HASH)),
        tip_time=1_700_000_000,
        header_height=9,
        is_initial_download=True,
        kept_height=5,
    )
    assert len(node.calls) == 1


def test_a_node_that_prunes_nothing_keeps_every_block(node: ScriptedNode) -> None:
    node.answers["getblockchaininfo"] = chain_info(pruned=False, initialblockdownload=False)
    status = ask(node, lambda chain: chain.status())
    assert (status.kept_height, status.is_initial_download) == (0, False)


@pytest.mark.parametrize(
    ("info", "complaint"),
    [
        ([], "getblockchaininfo: expected dict, received"),
        ({"bestblockhash": HASH}, "blocks: expected int, received None"),
        ({"blocks": True, "bestblockhash": HASH}, "blocks: expected int, received True"),
        ({"blocks": 7, "bestblockhash": 7}, "bestblockhash: expected str, received 7"),
        ({"blocks": 7, "bestblockhash": "07"}, "bestblockhash: a txid has 64 hex digits"),
        ({"blocks": 7, "bestblockhash": "no"}, "bestblockhash: "),
        (chain_info(time=None), "time: expected int, received None"),
        (chain_info(headers="7"), "headers: expected int, received '7'"),
        (chain_info(pruneheight=True), "pruneheight: expected int, received True"),
        (chain_info(blocks=-1), "blocks: expected 0..499999999, received -1"),
        (chain_info(headers=5 * 10**8), "headers: expected -1..499999999, received 500000000"),
        (chain_info(pruneheight=-2), "pruneheight: expected 0..499999999, received -2"),
        (chain_info(time=2**32), "time: expected 0..4294967295, received 4294967296"),
        (chain_info(time=-1), "time: expected 0..4294967295, received -1"),
    ],
)
def test_an_unreadable_answer_is_unavailable_naming_the_field(
    node: ScriptedNode, info: object, complaint: str
) -> None:
    node.answers["getblockchaininfo"] = info
    with pytest.raises(ChainUnavailable, match=complaint):
        ask(node, lambda chain: chain.status())


def test_a_height_above_the_tip_has_no_block(node: ScriptedNode) -> None:
    node.answers["getblockhash"] = Refusal(-8, "Block height out of range")
    assert ask(node, lambda chain: chain.block_hash(8)) is None
    node.answers["getblockhash"] = Refusal(-1, "something else")
    with pytest.raises(ChainUnavailable, match="something else"):
        ask(node, lambda chain: chain.block_hash(8))


def test_a_block_that_the_node_never_heard_of_is_told_from_no_answer(node: ScriptedNode) -> None:
    here = Txid.from_hex(HASH)
    node.answers["getblockheader"] = {"height": 7, "previousblockhash": "22" * 32}
    assert ask(node, lambda chain: chain.previous_hash(here)) == Txid.from_hex("22" * 32)
    node.answers["getblockheader"] = Refusal(-5, "Block not found")
    assert ask(node, lambda chain: chain.previous_hash(here)) is None
    node.answers["getblockheader"] = Refusal(-1, "something else")
    with pytest.raises(ChainUnavailable, match=r"getblockheader: .*something else"):
        ask(node, lambda chain: chain.previous_hash(here))
    node.answers["getblockheader"] = {"height": 0}
    with pytest.raises(ChainUnavailable, match="previousblockhash: expected"):
        ask(node, lambda chain: chain.previous_hash(here))


@pytest.mark.parametrize(
    ("written", "amount_sat"),
    [
        (b"0.00000001", 1),
        (b"20999999.97690000", 2_099_999_997_690_000),
        (b"0.10000000", 10_000_000),
        (b"50", 5_000_000_000),
        (b"1e-8", 1),
        (b"0", 0),
    ],
)
def test_amounts_are_exact(node: ScriptedNode, written: bytes, amount_sat: int) -> None:
    outpoint = OutPoint(txid=Txid.from_hex(HASH), vout=3)
    node.answers["gettxout"] = (
        b'{"value":' + written + b',"confirmations":6,"scriptPubKey":{"hex":"51"}}'
    )
    assert ask(node, lambda chain: chain.coin(outpoint)) == Coin(
        outpoint=outpoint,
        txout=TxOut(amount_sat=amount_sat, script_pubkey=b"\x51"),
        confirmations=6,
    )
    assert node.calls == [("gettxout", [HASH, 3, False])]


@pytest.mark.parametrize(
    "written",
    [
        b"-1",
        b"0.000000001",
        b"true",
        b'"1"',
        b"null",
        b"21000000.00000001",
        b"1e4000",
        b"1e-4000",
        b"0.1" + 40 * b"0" + b"1",
        b"9" * 4000,
    ],
)
def test_an_amount_that_is_none_is_unavailable(node: ScriptedNode, written: bytes) -> None:
    node.answers["gettxout"] = (
        b'{"value":' + written + b',"confirmations":6,"scriptPubKey":{"hex":"51"}}'
    )
    with pytest.raises(ChainUnavailable, match="value: expected"):
        ask(node, lambda chain: chain.coin(TX.outpoint(0)))


def test_a_spent_coin_is_none(node: ScriptedNode) -> None:
    node.answers["gettxout"] = None
    assert ask(node, lambda chain: chain.coin(TX.outpoint(0))) is None


def test_a_block_is_the_one_asked_for(node: ScriptedNode) -> None:
    node.answers["getblockheader"] = {"height": 0}
    node.answers["getblock"] = MAINNET_GENESIS.hex()
    block = ask(node, lambda chain: chain.block(MAINNET.genesis_hash))
    assert (block.height, block.block_hash) == (0, MAINNET.genesis_hash)
    assert block.previous_hash == Txid(bytes(32))
    assert [tx.serialize().hex() for tx in block.txs] == [GENESIS_TX]
    with pytest.raises(ChainUnavailable, match="block hash: expected 0f9188f1"):
        ask(node, lambda chain: chain.block(REGTEST.genesis_hash))
    node.answers["getblockheader"] = {"height": -1}
    with pytest.raises(ChainUnavailable, match=r"height: expected 0\.\.499999999, received -1"):
        ask(node, lambda chain: chain.block(MAINNET.genesis_hash))
    node.answers["getblockheader"] = {"height": 0}
    node.answers["getblock"] = "xx"
    with pytest.raises(ChainUnavailable, match="getblock: expected hex"):
        ask(node, lambda chain: chain.block(MAINNET.genesis_hash))
    node.answers["getblock"] = Refusal(-1, "Block not available (pruned data)")
    with pytest.raises(ChainUnavailable, match="pruned"):
        ask(node, lambda chain: chain.block(MAINNET.genesis_hash))


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(-27, "Transaction outputs already in utxo set"),
        Refusal(-27, "Transaction already in block chain"),
        Refusal(-26, "txn-already-known"),
        Refusal(-26, "txn-already-in-mempool"),
        Refusal(-25, "txn-same-nonwitness-data-in-mempool"),
    ],
)
def test_a_transaction_the_node_has_is_accepted(node: ScriptedNode, refusal: Refusal) -> None:
    node.answers["sendrawtransaction"] = refusal
    ask(node, lambda chain: chain.broadcast(TX))
    assert node.calls == [("sendrawtransaction", [TX.serialize().hex()])]


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(-26, "min relay fee not met, 0 < 100"),
        Refusal(-25, "bad-txns-inputs-missingorspent"),
        Refusal(-22, "TX decode failed."),
    ],
)
def test_a_refusal_is_the_nodes_own_word(node: ScriptedNode, refusal: Refusal) -> None:
    node.answers["sendrawtransaction"] = refusal
    node.answers["submitpackage"] = refusal
    for question in (
        lambda chain: chain.broadcast(TX),
        lambda chain: chain.broadcast_package([TX, CHILD]),
    ):
        with pytest.raises(TxRefused) as refused:
            ask(node, question)
        assert refused.value.reason == refusal.error["message"]


def test_an_error_that_is_no_refusal_is_unavailable(node: ScriptedNode) -> None:
    node.answers["sendrawtransaction"] = Refusal(-33, "mempool disabled")
    node.answers["submitpackage"] = Refusal(-33, "mempool disabled")
    with pytest.raises(ChainUnavailable, match="mempool disabled"):
        ask(node, lambda chain: chain.broadcast(TX))
    with pytest.raises(ChainUnavailable, match="mempool disabled"):
        ask(node, lambda chain: chain.broadcast_package([TX, CHILD]))


def package_answer(*reasons: str | None, message: str = "transaction failed") -> object:
    results = {
        str(tx.wtxid): {"txid": str(tx.txid)} | ({"error": reason} if reason else {})
        for tx, reason in zip((TX, CHILD), reasons, strict=True)
    }
    return {"package_msg": message, "tx-results": results}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (package_answer("bad-parent", "package-not-validated"), "bad-parent"),
        (package_answer(None, "bad-child"), "bad-child"),
        (package_answer("txn-already-known", "bad-child"), "bad-child"),
        (package_answer("min relay fee not met, 0 < 13", "insufficient fee"), "insufficient fee"),
        (package_answer("non-BIP68-final", "bad-txns-inputs-missingorspent"), "non-BIP68-final"),
        (package_answer(*["bad-txns-inputs-missingorspent"] * 2), "bad-txns-inputs-missingorspent"),
        (
            package_answer("min relay fee not met", "no", message="package RBF failed"),
            "package RBF",
        ),
        (
            package_answer("package-not-validated", "package-not-validated", message="too large"),
            "too large",
        ),
        (package_answer(None, None, message="package-topology-disallowed"), "package-topology"),
    ],
)
def test_a_refused_package_has_the_reason_of_the_whole_or_else_of_the_child(
    node: ScriptedNode, answer: object, reason: str
) -> None:
    node.answers["submitpackage"] = answer
    with pytest.raises(TxRefused, match=reason):
        ask(node, lambda chain: chain.broadcast_package([TX, CHILD]))


def test_a_package_whose_parent_confirmed_is_finished_by_the_child(node: ScriptedNode) -> None:
    node.answers["submitpackage"] = package_answer("txn-already-known", "package-not-validated")
    node.answers["sendrawtransaction"] = str(CHILD.txid)
    ask(node, lambda chain: chain.broadcast_package([TX, CHILD]))
    assert node.calls[1:] == [("sendrawtransaction", [CHILD.serialize().hex()])]


def test_a_package_the_node_has_is_accepted(node: ScriptedNode) -> None:
    for answer in (
        package_answer(None, None, message="success"),
        package_answer("txn-already-known", "txn-already-known"),
    ):
        node.calls.clear()
        node.answers["submitpackage"] = answer
        ask(node, lambda chain: chain.broadcast_package([TX, CHILD]))
        assert [method for method, _ in node.calls] == ["submitpackage"]


def test_a_starting_node_is_unavailable(node: ScriptedNode) -> None:
    node.answers["getblockchaininfo"] = Refusal(-28, "Loading block index")
    with pytest.raises(ChainUnavailable, match=r"the node is starting.*Loading block index"):
        ask(node, lambda chain: chain.status())


@pytest.mark.parametrize(
    ("status", "body", "complaint"),
    [(503, None, "503"), (200, b"<html>", "getblockchaininfo"), (200, b"{}", "getblockchaininfo")],
)
def test_an_answer_that_is_no_json_rpc_is_unavailable(
    node: ScriptedNode, status: int, body: bytes | None, complaint: str
) -> None:
    node.http_status, node.raw_body = status, body
    with pytest.raises(ChainUnavailable, match=complaint):
        ask(node, lambda chain: chain.status())


def test_who_asks_while_all_threads_wait_for_a_node_that_hangs_is_told_so_and_waits_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()

    def hang(_chain: BitcoindChain, method: str, _params: object) -> object:
        answers.wait()
        return {"method": method}

    monkeypatch.setattr(BitcoindChain, "_call", hang)

    async def scenario() -> None:
        async with BitcoindChain("http://127.0.0.1:1", cookie_path=tmp_path) as chain:
            asked = [asyncio.create_task(chain.call("getblock")) for _ in range(CALLS_MAX)]
            await asyncio.sleep(0)  # They have begun.
            monkeypatch.setattr(chain, "_answer_seconds", 0.01)
            for question in (
                chain.status(),
                chain.coin(TX.outpoint(0)),
                chain.block(Txid(bytes(32))),
            ):
                with pytest.raises(ChainUnavailable, match="no answer within"):
                    await question
            answers.set()
            assert await asyncio.gather(*asked) == [{"method": "getblock"}] * CALLS_MAX

    asyncio.run(scenario())


def test_where_no_thread_can_begin_the_node_is_unavailable_and_asked_again(
    node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that allows no more threads for a while ends no daemon."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")  # What CPython says: `pids.max`, `ulimit -u`.

    node.answers["getblockchaininfo"] = chain_info()

    async def twice(chain: BitcoindChain) -> ChainStatus:
        with monkeypatch.context() as full:
            full.setattr(threading.Thread, "start", refuse)
            with pytest.raises(ChainUnavailable, match="can't start new thread"):
                await chain.status()
        return await chain.status()

    assert ask(node, twice).tip.height == 7


def test_the_cookie_is_read_again_after_a_restart(node: ScriptedNode) -> None:
    node.answers["getblockchaininfo"] = chain_info()

    async def scenario() -> None:
        async with node.chain() as chain:
            await chain.status()
            node.set_cookie("second")
            await chain.status()
            node.cookie_path.unlink()
            with pytest.raises(ChainUnavailable, match="no rpc cookie file"):
                await chain.status()
            node.cookie_path.write_text("__cookie__:wrong")
            with pytest.raises(CredentialsRefused, match="401") as refused:
                await chain.status()
            assert "wrong" not in str(refused.value)

    asyncio.run(scenario())


def test_an_address_that_may_not_ask_is_told_apart_from_a_node_that_is_away(
    node: ScriptedNode,
) -> None:
    node.http_status = 403
    with pytest.raises(CredentialsRefused, match="403"):
        ask(node, lambda chain: chain.status())


def test_either_a_cookie_or_a_password_is_needed() -> None:
    with pytest.raises(ValueError, match="no rpc credentials"):
        BitcoindChain("http://127.0.0.1:1")


def node_facts(node: ScriptedNode, **facts: object) -> None:
    node.answers["getblockchaininfo"] = {
        "chain": facts.get("chain", "main"),
        "initialblockdownload": facts.get("initialblockdownload", False),
    }
    node.answers["getblockhash"] = facts.get("genesis", str(MAINNET.genesis_hash))
    node.answers["getnetworkinfo"] = {"version": facts.get("version", 290_000)}


def test_a_fitting_node_passes(node: ScriptedNode) -> None:
    node_facts(node)
    ask(node, lambda chain: check_node(chain, MAINNET))
    node_facts(node, chain="regtest", genesis=str(REGTEST.genesis_hash))
    ask(node, lambda chain: check_node(chain, REGTEST))


def test_a_node_that_is_still_catching_up_is_waited_for_not_refused(node: ScriptedNode) -> None:
    node_facts(node, initialblockdownload=True)
    ask(node, lambda chain: check_node(chain, MAINNET))


@pytest.mark.parametrize(
    ("facts", "field"),
    [
        ({"chain": "test"}, "chain"),
        ({"chain": None}, "chain"),
        ({"genesis": str(REGTEST.genesis_hash)}, "genesis hash"),
        ({"version": 289_999}, "version"),
        ({"version": "30"}, "version"),
    ],
)
def test_what_does_not_fit_is_named_with_expected_and_received(
    node: ScriptedNode, facts: dict[str, object], field: str
) -> None:
    node_facts(node, **facts)
    with pytest.raises(ChainMismatch, match=f"^{field}: expected .*, received ") as mismatch:
        ask(node, lambda chain: check_node(chain, MAINNET))
    assert mismatch.value.field == field


@pytest.mark.parametrize(
    ("told", "received", "fits"),
    [
        (None, PUBLIC_SIGNET_CHALLENGE, True),
        ("51", "51", True),
        (None, "51", False),
        ("51", PUBLIC_SIGNET_CHALLENGE, False),
        ("51", None, False),
    ],
)
def test_signets_are_told_apart_by_their_challenges(
    node: ScriptedNode, told: str | None, received: str | None, *, fits: bool
) -> None:
    node_facts(node, chain="signet", genesis=str(SIGNET.genesis_hash))
    node.answers["getblockchaininfo"] = {
        "chain": "signet",
        "initialblockdownload": False,
        "signet_challenge": received,
    }
    with nullcontext() if fits else pytest.raises(ChainMismatch, match=r"^signet challenge"):
        ask(node, lambda chain: check_node(chain, SIGNET, signet_challenge=told))


def test_a_check_that_gets_no_answer_is_unavailable(node: ScriptedNode) -> None:
    node_facts(node)
    node.answers["getnetworkinfo"] = Refusal(-32601, "Method not found")
    with pytest.raises(ChainUnavailable, match="Method not found"):
        ask(node, lambda chain: check_node(chain, MAINNET))
    node.answers["getnetworkinfo"] = []
    with pytest.raises(ChainUnavailable, match="expected an object"):
        ask(node, lambda chain: check_node(chain, MAINNET))
