"""The exit package: what a client hands over is what is read, and nothing else is."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.factory import oracle
from tests.watch.packages import FEE_SAT, WHICH, as_told, encoded, package
from tests.watch.signed_factory import signed_branches

from cromford.bitcoin.fees import TRUC_VSIZE_MAX
from cromford.bitcoin.network import NETWORKS, REGTEST, SIGNET
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.factory.exit_path import exit_path
from cromford.protocol.policy import ClientPolicy
from cromford.watch.package import (
    PACKAGE_TXS_MAX,
    ExitPackage,
    ReplacedState,
    delay_of,
    package_document,
    package_of,
)
from cromford.watch.package_reading import (
    PACKAGE_SIZE_MAX,
    RECEIVED_SHOWN_MAX,
    REPLACED_MAX,
    InvalidPackage,
    check_funding,
    read_package,
)

DEEP = (5, 3)  # kickoff and state, twice or more.
STATIC = (4, 1)  # static_root, then a leaf of two clients.
Document = dict[str, Any]


def document_of(which: tuple[int, int], *, is_leaving: bool = False) -> Document:
    document: Document = json.loads(encoded(package(*which, is_leaving=is_leaving)))
    return document


def refused(data: bytes | Document) -> InvalidPackage:
    given = data if isinstance(data, bytes) else json.dumps(data).encode()
    with pytest.raises(InvalidPackage) as caught:
        read_package(given, REGTEST)
    return caught.value


@pytest.mark.parametrize("is_leaving", [False, True])
@pytest.mark.parametrize(("n_clients", "client"), WHICH)
def test_what_a_client_hands_over_is_what_is_read(
    n_clients: int,
    client: int,
    is_leaving: bool,  # noqa: FBT001 - one of pytest's parameters
) -> None:
    made = package(n_clients, client, is_leaving=is_leaving)
    read = read_package(encoded(made), REGTEST)
    assert read == made
    # And it says of itself what the client's own branch says.
    signed = signed_branches(n_clients)[client - 1]
    branch = signed.branch
    n_path = len(signed.txs)
    assert read.steps[:n_path] == tuple(map(as_told, exit_path(signed)))
    assert [(step.name, step.fee_sat) for step in read.steps[n_path:]] == (
        [("commitment", FEE_SAT)] if is_leaving else []
    )
    assert read.channel_outpoint == branch.channel_outpoint
    assert read.channel_txout == branch.channel.txout
    left = read.remaining(confirmed={}, tip_height=0)
    assert left.exit_blocks == branch.exit_blocks
    assert left.exit_deadline_height == branch.exit_deadline_height
    funded = TxOut(
        amount_sat=branch.funding_amount_sat, script_pubkey=branch.funding_output.script_pubkey
    )
    check_funding(read, funded)


def test_a_package_holds_no_key_of_anybody_but_of_funding_and_channel() -> None:
    text = encoded(package(*DEEP, is_leaving=True)).decode()
    for index in range(6):
        assert oracle.seckey("factory", index).hex() not in text
    assert oracle.seckey("client funding", 3).hex() not in text


def test_every_client_has_an_id_of_its_own_whatever_the_commitment() -> None:
    ids = {package(6, client).package_id for client in range(1, 7)}
    assert len(ids) == 6
    assert package(*DEEP, is_leaving=True).package_id == package(*DEEP).package_id in ids
    elsewhere = OutPoint(txid=Txid(b"\x78" * 32), vout=0)
    assert replace(package(*DEEP), network=SIGNET).package_id not in ids
    assert replace(package(*DEEP), funding_outpoint=elsewhere).package_id not in ids


def test_only_the_client_whose_branch_it_is_makes_a_package() -> None:
    signed = signed_branches(2)[0]
    channel = replace(signed.branch.channel, signers_output=None)
    last = signed.branch.vertices[-1]
    outputs = tuple(
        channel if output == signed.branch.channel else output for output in last.last.outputs
    )
    vertex = replace(last, last=replace(last.last, outputs=outputs))
    foreign = replace(
        signed, branch=replace(signed.branch, vertices=(*signed.branch.vertices[:-1], vertex))
    )
    with pytest.raises(ValueError, match="a package is made by the client"):
        package_of(foreign, REGTEST)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "regtest"])
def test_a_package_of_another_network_is_refused_by_name(name: str) -> None:
    error = refused(document_of(DEEP) | {"network": name})
    assert str(error) == f"network: expected regtest, received {name}"


def edit(path: str, value: object) -> Callable[[Document], None]:
    """Return what puts a value at a place like `funding.vout` or `transactions.0`."""

    def change(document: Document) -> None:
        *above, last = path.split(".")
        place: Any = document
        for name in above:
            place = place[int(name) if name.isdigit() else name]
        place[int(last) if last.isdigit() else last] = value

    return change


def drop(path: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        *above, last = path.split(".")
        place: Any = document
        for name in above:
            place = place[name]
        del place[last]

    return change


EDITS = [
    (edit("format", "cromford-export"), "format", "cromford-exit-package"),
    (edit("version", 2), "version", "1"),
    (edit("version", True), "version", "1"),  # Python's own idea of a number.
    (edit("version", "1"), "version", "1"),
    (edit("network", ["regtest"]), "network", "regtest"),
    (edit("network", None), "network", "regtest"),
    (edit("note", "hello"), "note", "no such field"),
    (edit("funding", []), "funding", "an object"),
    (edit("funding.vout", -1), "funding.vout", "a whole number of 0..100000"),
    (edit("funding.vout", 1.0), "funding.vout", "a whole number of 0..100000"),
    (edit("funding.vout", 10**4000), "funding.vout", "a whole number of 0..100000"),
    (edit("funding.amount_sat", float("nan")), "funding.amount_sat", "a whole number of 1.."),
    (edit("funding.amount_sat", 1e300), "funding.amount_sat", "a whole number of 1.."),
    (edit("transactions.1", 12.0), "transactions[1]", "a transaction in lower-case hex"),
    (edit("network", float("inf")), "network", "regtest"),
    (edit("version", 1.0), "version", "1"),
    (edit("funding.vout", False), "funding.vout", "a whole number of 0..100000"),
    (edit("funding.vout", 10**9), "funding.vout", "a whole number of 0..100000"),
    (edit("funding.txid", "ab"), "funding.txid", "64 lower-case hex digits"),
    (edit("funding.txid", "AB" * 32), "funding.txid", "64 lower-case hex digits"),
    (edit("funding.txid", " " * 64), "funding.txid", "64 lower-case hex digits"),
    (edit("funding.txid", "ab" * 32), "transactions[0].inputs", "ab" * 32),  # another funding
    (edit("funding.vout", 1), "transactions[0].inputs", "77:1"),
    (edit("funding.amount_sat", 0), "funding.amount_sat", "a whole number of 1.."),
    (edit("funding.internal_key", "ff" * 32), "funding.internal_key", "an x-only pubkey"),
    (edit("funding.expiry_height", 500_000_000), "funding.expiry_height", "1..499999999"),
    (edit("funding.expiry_height", 17), "funding.script_pubkey", "expiry_height give"),
    (edit("funding.lsp_pubkey", "11" * 32), "funding.script_pubkey", "expiry_height give"),
    (edit("funding.script_pubkey", "5120" + "11" * 32), "funding.script_pubkey", "give"),
    (drop("funding.expiry_height"), "funding.expiry_height", "the field"),
    (drop("transactions"), "transactions", "the field"),
    (drop("channel.vout"), "channel.vout", "the field"),
    (edit("transactions", []), "transactions", "a list of 2..34"),
    (edit("transactions", "ab"), "transactions", "a list of 2..34"),
    (edit("transactions", ["00"] * 35), "transactions", "a list of 2..34"),
    (edit("transactions.0", 5), "transactions[0]", "a transaction in lower-case hex"),
    (edit("transactions.0", ""), "transactions[0]", "a transaction in lower-case hex"),
    (edit("transactions.1", "00" * 50_000), "transactions[1]", "a transaction in lower-case hex"),
    (edit("transactions.0", "00"), "transactions[0]", "a transaction"),
    (edit("channel.vout", 3), "channel.vout", "a whole number of 0.."),
    (edit("channel.funding_pubkeys", []), "channel.funding_pubkeys", "a list of two pubkeys"),
    (edit("channel.funding_pubkeys.0", "02" + "ff" * 32), "channel.funding_pubkeys[0]", "a pubkey"),
    (edit("commitment", None), "commitment", "a transaction in lower-case hex"),
]


@pytest.mark.parametrize(("change", "field", "expected"), EDITS)
def test_what_is_edited_is_refused_by_the_name_of_the_field(
    change: Callable[[Document], None], field: str, expected: str
) -> None:
    document = document_of(DEEP)
    change(document)
    error = refused(document)
    assert error.field == field
    assert expected in error.expected
    assert str(error).startswith(f"{field}: expected ")


@pytest.mark.parametrize("which", WHICH)
def test_a_path_that_does_not_reach_the_channel_is_refused(which: tuple[int, int]) -> None:
    document = document_of(which)
    whole = document["transactions"]
    for n in range(len(whole)):
        error = refused(document | {"transactions": whole[:n]})
        assert error.field.startswith(("transactions", "channel."))
        error = refused(document | {"transactions": whole[n + 1 :]})
        assert error.field.startswith("transactions")
    for n in range(len(whole) - 1):
        left_out = [*whole[:n], *whole[n + 1 :]]
        assert refused(document | {"transactions": left_out}).field.startswith("transactions")
        swapped = [*whole]
        swapped[n], swapped[n + 1] = swapped[n + 1], swapped[n]
        assert refused(document | {"transactions": swapped}).field.startswith("transactions")
    assert refused(document | {"transactions": [*whole, whole[-1]]}).field.startswith("trans")


def test_a_kickoffs_output_is_nobodys_channel() -> None:
    """A leaf of one client: its kickoff pays two keys, as a channel does."""
    made = package(1, 1)
    cut = replace(
        made,
        txs=made.txs[:1],
        channel_vout=0,
        funding_pubkeys=_sorted(oracle.pubkey("factory", 0), oracle.pubkey("factory", 1)),
    )
    again = replace(cut, txs=(*cut.txs, *cut.txs))
    assert refused(encoded(cut)).field == "transactions"
    assert refused(encoded(again)).field == "transactions"


def _sorted(first: bytes, second: bytes) -> tuple[bytes, bytes]:
    return (first, second) if first < second else (second, first)


def test_a_neighbours_channel_is_not_ones_own() -> None:
    document = document_of(STATIC)
    assert document["channel"]["vout"] == 0
    document["channel"]["vout"] = 1
    assert refused(document).field == "channel.funding_pubkeys"
    document = document_of(STATIC)
    document["channel"]["funding_pubkeys"].reverse()
    error = refused(document)
    assert (error.field, error.expected) == (
        "channel.funding_pubkeys",
        "two pubkeys, the smaller one first",
    )


def test_a_transaction_of_another_client_is_refused() -> None:
    document, other = document_of(DEEP), document_of((5, 1))
    for n, own in enumerate(document["transactions"]):
        if own == other["transactions"][n]:
            continue
        changed = [*document["transactions"]]
        changed[n] = other["transactions"][n]
        assert refused(document | {"transactions": changed}).field.startswith("transactions[")


def resigned(made: ExitPackage, n: int, change: Callable[[Tx], Tx]) -> InvalidPackage:
    txs = (*made.txs[:n], change(made.txs[n]), *made.txs[n + 1 :])
    return refused(encoded(replace(made, txs=txs)))


def with_outputs(change: Callable[[tuple[TxOut, ...]], tuple[TxOut, ...]]) -> Callable[[Tx], Tx]:
    return lambda tx: replace(tx, outputs=change(tx.outputs))


def with_input(**changes: Any) -> Callable[[Tx], Tx]:
    return lambda tx: replace(tx, inputs=(replace(tx.inputs[0], **changes),))


CHANGED_TXS: list[tuple[int, Callable[[Tx], Tx], str, str]] = [
    (0, lambda tx: replace(tx, version=2), ".version", "3"),
    (0, lambda tx: replace(tx, nlocktime=1), ".nlocktime", "0"),
    (0, lambda tx: replace(tx, inputs=(*tx.inputs, *tx.inputs)), ".inputs", "one"),
    (0, with_input(script_sig=b"\x51"), ".script_sig", "none"),
    (0, with_input(nsequence=0xFFFF_FFFD), ".nsequence", "a delay in blocks or"),
    (1, with_input(nsequence=1 << 22), ".nsequence", "a delay in blocks or"),  # BIP 68: seconds
    (0, with_input(nsequence=5), "", "a kickoff before each state"),
    (2, with_input(nsequence=5), "", "a kickoff before each state"),
    (0, with_input(witness=()), ".witness", "[64] bytes"),
    (0, with_input(witness=(bytes(65),)), ".witness", "[64] bytes"),
    (0, with_input(witness=(bytes(64), b"")), ".witness", "[64] bytes"),
    (0, with_input(witness=(bytes(64),)), ".witness", "a signature for"),
    (0, with_outputs(lambda outs: outs[:-1]), ".outputs", "taproot outputs before the anchor"),
    (0, with_outputs(lambda outs: outs[-1:]), ".outputs", "taproot outputs before the anchor"),
    (0, with_outputs(lambda outs: outs[:1] * 2), ".outputs", "an anchor last"),
    (0, with_outputs(lambda outs: (replace(outs[0], amount_sat=10**9), outs[1])), ".outputs", "at"),
    (0, with_outputs(lambda outs: (replace(outs[0], amount_sat=999), outs[1])), ".witness", "a s"),
    (0, with_outputs(lambda outs: outs[:1] * 240 + outs[1:]), "", "at most 10000 vB (BIP 431)"),
]  # fmt: skip


@pytest.mark.parametrize(("n", "change", "field", "expected"), CHANGED_TXS)
def test_a_transaction_that_was_changed_is_refused_and_named(
    n: int, change: Callable[[Tx], Tx], field: str, expected: str
) -> None:
    error = resigned(package(*DEEP), n, change)
    assert error.field == f"transactions[{n}]{field}"
    assert error.expected.startswith(expected)


def test_a_kickoff_pays_one_state_and_nothing_else() -> None:
    """Signed or not: what looks like a kickoff with two children is none."""
    made = package(*STATIC)
    assert len(made.txs[0].outputs) > 2
    path = (made.txs[0], made.txs[2])
    error = refused(encoded(replace(made, txs=path)))
    assert str(error) == "transactions[0].outputs: expected 2, as of a kickoff, received 3"


COMMITMENTS: list[tuple[Callable[[Tx], Tx], str]] = [
    (with_input(nsequence=5), "commitment.nsequence"),
    (lambda tx: replace(tx, nlocktime=100), "commitment.nlocktime"),  # A height, not yet reached.
    (lambda tx: replace(tx, nlocktime=0xFFFF_FFFF), "commitment.nlocktime"),
    (with_input(witness=(bytes(64),)), "commitment.witness"),
    (lambda tx: replace(tx, outputs=tx.outputs * 2), "commitment.outputs"),
    (lambda _: package(*STATIC).txs[0], "commitment.nlocktime"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "field"), COMMITMENTS)
def test_a_commitment_that_was_changed_is_refused_and_named(
    change: Callable[[Tx], Tx], field: str
) -> None:
    made = package(*DEEP, is_leaving=True)
    assert made.commitment is not None
    changed = replace(made, commitment=change(made.commitment))
    assert refused(encoded(changed)).field == field


def test_the_commitment_of_another_channel_is_refused() -> None:
    other = package(*STATIC, is_leaving=True).commitment
    error = refused(encoded(replace(package(*DEEP), commitment=other)))
    assert error.field == "commitment.inputs"


NO_PACKAGES = [
    (b"", "package", "one JSON document"),
    (b"nothing of the kind", "package", "one JSON document"),
    (b"null", "package", "an object"),
    (b"[]", "package", "an object"),
    (b"{}", "format", "the field"),
    (b"\xff\xfe{}", "package", "UTF-8"),
    (b"[" * PACKAGE_SIZE_MAX, "package", "one JSON document"),
    (b'{"a":' * 40_000, "package", "one JSON document"),
    (b" " * (PACKAGE_SIZE_MAX + 1), "package", f"at most {PACKAGE_SIZE_MAX} bytes"),
    (b'{"version": 1, "version": 1}', "version", "the field once"),
    (b'{"\\ud800": 1}', "\\ud800", "no such field"),
]


@pytest.mark.parametrize(("data", "field", "expected"), NO_PACKAGES)
def test_what_is_no_package_at_all_is_refused_soon(data: bytes, field: str, expected: str) -> None:
    began = time.monotonic()
    error = refused(data)
    assert str(error).startswith(f"{field}: expected {expected}")
    assert str(error).isascii()
    assert len(error.expected) + RECEIVED_SHOWN_MAX + 100 > len(str(error))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("garbage", [b"x", b"{}", b"\x00", b"1"])
def test_nothing_may_follow_a_package(garbage: bytes) -> None:
    data = encoded(package(*DEEP))
    assert refused(data + garbage).field == "package"
    assert read_package(data + b"\n", REGTEST) == package(*DEEP)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", "-0", "1.0", "9" * 100_000])
def test_a_number_that_is_none_of_ours_is_refused_by_its_field(number: str) -> None:
    data = encoded(package(*DEEP)).replace(b'"version":1', b'"version":' + number.encode())
    error = refused(data)
    assert str(error) == f"version: expected 1, received {number[:80]}" + "..." * (len(number) > 80)


def test_a_field_that_stands_twice_is_refused_though_both_are_right() -> None:
    data = encoded(package(*DEEP))
    again = data.replace(b'"version":1', b'"version":1,"version":1')
    assert str(refused(again)) == "version: expected the field once, received it twice"
    nested = data.replace(b'{"txid"', b'{"vout":0,"txid"')
    assert refused(nested).field == "vout"


@pytest.mark.parametrize(
    ("found", "field"),
    [
        ({"amount_sat": 1}, "funding.amount_sat"),
        ({"script_pubkey": b"\x51\x20" + bytes(32)}, "funding.script_pubkey"),
    ],
)
def test_a_funding_that_the_chain_has_otherwise_is_refused(
    found: dict[str, Any], field: str
) -> None:
    made = package(*DEEP)
    with pytest.raises(InvalidPackage, match="as the chain has it") as caught:
        check_funding(made, replace(made.funding_txout, **found))
    assert caught.value.field == field


def test_the_largest_path_fits() -> None:
    """229 clients below one another's 228 neighbours, twice: no path of 1,024 clients has more."""
    output = {"amount_sat": 10**15, "script_pubkey": "5120" + "ab" * 32}
    largest_tx = 10_000 * 4 * 2  # BIP 431, as hex, were all of it witness; it is not.
    assert len(json.dumps(output)) < largest_tx
    of_outputs = 1_024 * 43 * 2  # Every client's output once, as hex.
    frames = 34 * (111 + 17 + 43) * 2  # And all else of 34 transactions, as hex.
    assert of_outputs + frames + len(json.dumps(package_document(package(1, 1)))) < PACKAGE_SIZE_MAX


def test_the_largest_package_of_a_leaf_that_was_sold_of_fits() -> None:
    """229 clients in one leaf, which a client's own policy lets have so many states."""
    policy, n_clients = ClientPolicy(), 229
    n_replaced = policy.exit_delay_blocks_max // policy.step_blocks[0]
    assert n_replaced <= REPLACED_MAX
    paid = TxOut(amount_sat=10**6, script_pubkey=b"\x51\x20" + bytes(32))
    anchor = TxOut(amount_sat=240, script_pubkey=ANCHOR_SCRIPT)

    def tx(n_outputs: int, *rest: TxOut, witness: tuple[bytes, ...] = (bytes(64),)) -> Tx:
        outpoint = OutPoint(txid=Txid(bytes(32)), vout=0)
        spends = TxIn(outpoint=outpoint, nsequence=0, witness=witness)
        return Tx(version=3, inputs=(spends,), outputs=(paid,) * n_outputs + rest)

    state = tx(n_clients + 1, anchor)
    assert state.vsize <= TRUC_VSIZE_MAX < tx(n_clients + 2, anchor).vsize
    replaced = ReplacedState(
        tx=tx(n_clients + 1, anchor, witness=()), poisons=(tx(1), tx(n_clients))
    )
    made = package(*DEEP)
    largest = replace(made, txs=(*made.txs[:-1], state), replaced=(replaced,) * n_replaced)
    document = json.dumps(package_document(largest) | {"commitment": (bytes(10_000)).hex()})
    inner = 1_024 * 43 * 2 + 34 * (111 + 17 + 43) * 2  # As above: what lies above the leaf.
    assert len(document) + inner < PACKAGE_SIZE_MAX


def test_the_page_about_packages_names_every_field_and_limit(repository: Path) -> None:
    page = (repository / "docs" / "exit-package.md").read_text(encoding="utf-8")
    document = document_of(DEEP, is_leaving=True)
    for name in [*document, *document["funding"], *document["channel"]]:
        assert f"`{name}`" in page
    assert f"`version` is {document['version']};" in page
    assert f"| `format` | `{document['format']}` |" in page
    assert f"at most {PACKAGE_SIZE_MAX:,} bytes" in page
    assert f"at most {PACKAGE_TXS_MAX} |" in page
    for name in NETWORKS:
        assert f"`{name}`" in page


def of_state(given: ExitPackage, *, delay: int) -> ExitPackage:
    """Return a package whose leaf has another state, with that delay; nothing in it is checked."""
    *path, state = given.txs
    (tx_in,) = state.inputs
    other = replace(state, inputs=(replace(tx_in, nsequence=delay),))
    return replace(given, txs=(*path, other))


def with_poisons(given: ExitPackage, *poisons: Tx) -> ExitPackage:
    """Return a package that takes a replaced state apart by these."""
    return replace(given, replaced=(ReplacedState(tx=given.txs[-1], poisons=poisons),))


def test_the_place_of_a_package_is_taken_only_by_one_that_says_no_less() -> None:
    path, leaving = package(*DEEP), package(*DEEP, is_leaving=True)
    one, two, *_ = (tx for tx in package(*STATIC).txs)
    newer, older = of_state(path, delay=1), of_state(path, delay=2_000)
    elsewhere = replace(path, txs=package(*STATIC).txs)
    assert path.may_replace(path)
    assert leaving.may_replace(path)
    assert not path.may_replace(leaving), "the commitment would be lost"
    assert leaving.may_replace(leaving)
    assert newer.may_replace(path)
    assert newer.may_replace(leaving), "of the older state's channel no commitment is of use"
    assert not older.may_replace(path)
    same_delay = of_state(path, delay=path.txs[-1].inputs[0].nsequence)
    assert same_delay.may_replace(path)
    other_outputs = replace(path.txs[-1], outputs=path.txs[-1].outputs[1:])
    assert not replace(path, txs=(*path.txs[:-1], other_outputs)).may_replace(path)
    # Another way to the kickoff is none that was begun.
    assert not elsewhere.may_replace(path)
    assert not of_state(elsewhere, delay=1).may_replace(path)
    assert not replace(path, txs=(*elsewhere.txs[:-1], path.txs[-1])).may_replace(path)
    assert with_poisons(newer, one).may_replace(path)
    assert not newer.may_replace(with_poisons(path, one)), "a poison would be lost"
    assert not with_poisons(newer, two).may_replace(with_poisons(path, one))
    assert with_poisons(newer, one).may_replace(with_poisons(path, one))
    assert with_poisons(newer, one, two).may_replace(with_poisons(path, two))
    assert not with_poisons(path, one).may_replace(leaving)


def test_the_commitment_is_the_last_step_and_waits_for_nothing_but_the_channel() -> None:
    *path, last = package(*DEEP, is_leaving=True).steps
    assert path == list(package(*DEEP).steps)
    assert (last.delay_blocks, last.fee_sat) == (0, FEE_SAT)


def test_what_a_package_pays_at_the_least_is_what_its_poorest_transaction_pays() -> None:
    """Fees are rounded up, so that none is below the 500 sat per 1,000 weight units of the terms;
    the commitment's 400 sat are for 124 vbytes and an anchor more.
    """
    assert package(*DEEP).lowest_sat_per_kw == 500
    leaving = package(*DEEP, is_leaving=True)
    assert leaving.commitment is not None
    rich = replace(leaving.commitment, outputs=leaving.commitment.outputs[:1])
    assert replace(leaving, commitment=rich).lowest_sat_per_kw == 500
    poor_sat = leaving.commitment.outputs[1].amount_sat + FEE_SAT - 100
    poor = replace(
        leaving.commitment,
        outputs=(
            leaving.commitment.outputs[0],
            replace(leaving.commitment.outputs[1], amount_sat=poor_sat),
        ),
    )
    assert replace(leaving, commitment=poor).lowest_sat_per_kw == 1000 * 100 // poor.weight


def test_a_delay_is_a_number_of_blocks_of_two_bytes() -> None:
    """BIP 68: the bits above say that it is none."""
    state = package(*DEEP).txs[-1]
    (tx_in,) = state.inputs
    told = [
        delay_of(replace(state, inputs=(replace(tx_in, nsequence=nsequence),)))
        for nsequence in (0, 65_535, 65_536, 0x8012_3456, 0xFFFF_FFFF)
    ]
    assert told == [0, 65_535, None, None, None]
