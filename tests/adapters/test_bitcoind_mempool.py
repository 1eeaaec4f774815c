"""What the adapter reads of feerates, of the mempool and of packages."""

from collections.abc import Iterator
from operator import methodcaller
from pathlib import Path

import pytest
from tests.adapters.scripted_node import CHILD, HASH, TX, Refusal, ScriptedNode, ask

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.ports import (
    ChainUnavailable,
    Known,
    MempoolTx,
    NotTaken,
    PackageAnswer,
    PackageNotTaken,
    RelayFeerates,
    Taken,
)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    scripted = ScriptedNode(tmp_path)
    yield scripted
    scripted.close()


def taken(tx: Tx, *, fee: float = 0.00001) -> dict[str, object]:
    fees = {"base": fee, "effective-feerate": 0.0001, "effective-includes": [str(tx.wtxid)]}
    return {"txid": str(tx.txid), "vsize": tx.vsize, "fees": fees}


def test_what_became_of_each_transaction_of_a_package_is_told(node: ScriptedNode) -> None:
    node.answers["submitpackage"] = {
        "package_msg": "success",
        "tx-results": {
            str(TX.wtxid): {"txid": str(TX.txid), "vsize": TX.vsize, "fees": {"base": 0.00000124}},
            str(CHILD.wtxid): taken(CHILD),
        },
        "replaced-transactions": [HASH],
    }
    answer = ask(node, lambda chain: chain.broadcast_package([TX, CHILD]))
    assert answer == PackageAnswer(
        verdicts=(Known(txid=TX.txid), Taken(txid=CHILD.txid, fee_sat=1_000, vsize=CHILD.vsize)),
        replaced=(Txid.from_hex(HASH),),
    )


@pytest.mark.parametrize(
    "parent",
    [
        {"error": "txn-already-known"},
        {"error": "bad-txns-inputs-missingorspent"},
        {"other-wtxid": HASH},
    ],
)
def test_where_the_child_is_in_its_parent_is_there_whatever_the_node_says_of_it(
    node: ScriptedNode, parent: dict[str, str]
) -> None:
    results = {str(TX.wtxid): {"txid": str(TX.txid)} | parent, str(CHILD.wtxid): taken(CHILD)}
    node.answers["submitpackage"] = {"package_msg": "transaction failed", "tx-results": results}
    answer = ask(node, lambda chain: chain.broadcast_package([TX, CHILD]))
    assert [type(verdict) for verdict in answer.verdicts] == [Known, Taken]


def test_a_parent_that_got_in_before_its_child_was_refused_is_told(node: ScriptedNode) -> None:
    child = {"txid": str(CHILD.txid), "error": "TRUC-violation, too big"}
    results = {str(TX.wtxid): taken(TX), str(CHILD.wtxid): child}
    node.answers["submitpackage"] = {"package_msg": "transaction failed", "tx-results": results}
    with pytest.raises(PackageNotTaken) as refused:
        ask(node, lambda chain: chain.broadcast_package([TX, CHILD]))
    assert refused.value.reason == "TRUC-violation, too big"
    assert refused.value.answer.verdicts == (
        Taken(txid=TX.txid, fee_sat=1_000, vsize=TX.vsize),
        NotTaken(txid=CHILD.txid, reason="TRUC-violation, too big"),
    )


def entry(**changes: object) -> dict[str, object]:
    """Return a `getmempoolentry` of a parent of 124 vbytes, with a child of 153."""
    fees = {"base": 0.00000124, "ancestor": 0.00000124, "descendant": 0.00003200}
    sizes = {"vsize": 124, "weight": 496, "ancestorsize": 124, "descendantsize": 277}
    return {"wtxid": HASH, "fees": fees, "depends": [], "spentby": [HASH], **sizes, **changes}


def mempool_tx(node: ScriptedNode) -> MempoolTx:
    found = ask(node, lambda chain: chain.mempool_tx(TX.txid))
    assert isinstance(found, MempoolTx)
    return found


def test_a_transaction_that_waits_is_told_with_its_family(node: ScriptedNode) -> None:
    fees = {"base": 0.00000124, "descendant": 0.000032, "chunk": 0.000032}
    node.answers["getmempoolentry"] = entry(fees=fees, chunkweight=1_106)
    assert mempool_tx(node) == MempoolTx(
        txid=TX.txid,
        wtxid=Txid.from_hex(HASH),
        fee_sat=124,
        vsize=124,
        weight=496,
        replaced_fee_sat=3_200,
        package_fee_sat=3_200,
        package_weight=1_106,
        children=frozenset({Txid.from_hex(HASH)}),
    )
    assert mempool_tx(node).package_sat_per_kw == 2_893
    assert node.calls[0] == ("getmempoolentry", [str(TX.txid)])


@pytest.mark.parametrize(
    ("fees", "sizes", "package"),
    [
        # A parent: its child pulls it along, or pays less and comes later.
        ((0.00000124, 0.00000124, 0.000032), (124, 124, 277), (3_200, 1_108)),
        ((0.00001240, 0.00001240, 0.000013), (124, 124, 277), (1_240, 496)),
        # A child: it pulls its parent along, or it pays less and comes later.
        ((0.00003076, 0.000032, 0.00003076), (153, 277, 153), (3_200, 1_108)),
        ((0.00000060, 0.000013, 0.00000060), (153, 277, 153), (60, 612)),
    ],
)
def test_what_a_transaction_is_mined_with_follows_where_an_older_node_does_not_tell(
    node: ScriptedNode,
    fees: tuple[float, float, float],
    sizes: tuple[int, int, int],
    package: tuple[int, int],
) -> None:
    node.answers["getmempoolentry"] = entry(
        fees=dict(zip(("base", "ancestor", "descendant"), fees, strict=True)),
        **dict(zip(("vsize", "ancestorsize", "descendantsize"), sizes, strict=True)),
    )
    found = mempool_tx(node)
    assert (found.package_fee_sat, found.package_weight) == package


def test_a_transaction_that_does_not_wait_is_none(node: ScriptedNode) -> None:
    node.answers["getmempoolentry"] = Refusal(-5, "Transaction not in mempool")
    assert ask(node, lambda chain: chain.mempool_tx(TX.txid)) is None
    node.answers["getmempoolentry"] = Refusal(-33, "mempool disabled")
    with pytest.raises(ChainUnavailable, match="mempool disabled"):
        mempool_tx(node)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"vsize": "124"}, "vsize: expected int"),
        ({"weight": None}, "weight: expected int"),
        ({"vsize": 0}, "vsize: expected at least 1, received 0"),
        ({"fees": []}, "fees: expected dict"),
        ({"fees": {"base": -1}}, "fees.base: expected 0..21000000 bitcoins"),
        ({"fees": {"base": 0.1}}, "fees.descendant: expected a number, received None"),
        ({"depends": ["no"]}, "depends: "),
        ({"spentby": None}, "spentby: expected list"),
        ({"wtxid": 5}, "wtxid: expected str"),
    ],
)
def test_an_entry_that_cannot_be_read_is_unavailable_naming_the_field(
    node: ScriptedNode, changes: dict[str, object], complaint: str
) -> None:
    node.answers["getmempoolentry"] = entry(**changes)
    with pytest.raises(ChainUnavailable, match=complaint):
        mempool_tx(node)


def test_who_spends_an_output_is_told_of_the_mempool_only(node: ScriptedNode) -> None:
    outpoints = [OutPoint(txid=TX.txid, vout=vout) for vout in range(3)]
    named = [{"txid": str(TX.txid), "vout": vout} for vout in range(3)]
    node.answers["gettxspendingprevout"] = [
        named[0] | {"spendingtxid": str(CHILD.txid)},
        named[1],
        named[2] | {"spendingtxid": HASH, "blockhash": HASH},
    ]
    assert ask(node, lambda chain: chain.spenders(outpoints)) == {outpoints[0]: CHILD.txid}
    assert node.calls == [("gettxspendingprevout", [named])]
    assert ask(node, lambda chain: chain.spenders([])) == {}
    assert len(node.calls) == 1
    with pytest.raises(ChainUnavailable, match="not asked for"):
        ask(node, lambda chain: chain.spenders(outpoints[:1]))
    node.answers["gettxspendingprevout"] = [{"txid": [], "vout": 0}]
    with pytest.raises(ChainUnavailable, match="txid: expected str"):
        ask(node, lambda chain: chain.spenders(outpoints))


def test_feerates_are_rounded_up(node: ScriptedNode) -> None:
    node.answers["getmempoolinfo"] = {
        "mempoolminfee": 0.00001001,
        "minrelaytxfee": 0.000001,
        "incrementalrelayfee": 0.00000101,
    }
    assert ask(node, lambda chain: chain.relay_feerates()) == RelayFeerates(
        mempool_min_sat_per_kw=251, min_relay_sat_per_kw=25, incremental_sat_per_kw=26
    )
    node.answers["estimatesmartfee"] = {"feerate": 0.00001001, "blocks": 6}
    assert ask(node, lambda chain: chain.estimate_sat_per_kw(6)) == 251
    node.answers["estimatesmartfee"] = {"errors": ["Insufficient data"], "blocks": 0}
    assert ask(node, lambda chain: chain.estimate_sat_per_kw(6)) is None
    node.answers["estimatesmartfee"] = Refusal(-32603, "Fee estimation disabled")
    assert ask(node, lambda chain: chain.estimate_sat_per_kw(6)) is None


def test_an_estimate_is_asked_for_within_the_nodes_range(node: ScriptedNode) -> None:
    node.answers["estimatesmartfee"] = {"errors": [], "blocks": 0}
    for blocks in (-3, 1, 144, 5_000):
        ask(node, methodcaller("estimate_sat_per_kw", blocks))
    assert [params for _, params in node.calls] == [
        [1, "economical"],
        [1, "economical"],
        [144, "economical"],
        [1008, "economical"],
    ]
