"""The last number of each limit of a package is read, and the first beyond it refused by name."""

from dataclasses import replace
from typing import Any

import pytest
from tests.watch.made_up_packages import FUNDING, made_up, spending, with_replaced
from tests.watch.packages import encoded
from tests.watch.test_package import refused

from cromford.bitcoin.fees import TRUC_VSIZE_MAX
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.timelock import LOCKTIME_THRESHOLD
from cromford.bitcoin.tx import MAX_MONEY_SAT, OutPoint, Tx, Txid, TxIn, TxOut
from cromford.watch.package import PACKAGE_TXS_MAX, ExitPackage, package_document
from cromford.watch.package_reading import RECEIVED_SHOWN_MAX, InvalidPackage, read_package


def check_read(package: ExitPackage) -> None:
    assert read_package(encoded(package), REGTEST) == package


def changed(**fields: Any) -> InvalidPackage:
    """Return why a package is refused of which fields are different."""
    return refused(package_document(made_up()) | fields)


@pytest.mark.parametrize("amount_sat", [10**15 - 1, 10**15, MAX_MONEY_SAT - 1, MAX_MONEY_SAT])
def test_a_funding_may_hold_all_the_money_there_is(amount_sat: int) -> None:
    check_read(made_up(amount_sat=amount_sat))


@pytest.mark.parametrize("amount_sat", [0, -1, MAX_MONEY_SAT + 1, 10**16, 10**400])
def test_no_funding_holds_more_or_nothing(amount_sat: int) -> None:
    document = package_document(made_up())
    document["funding"]["amount_sat"] = amount_sat
    error = refused(document)
    assert error.field == "funding.amount_sat"
    assert str(error).startswith(
        f"funding.amount_sat: expected a whole number of 1..{MAX_MONEY_SAT}, received "
    )


@pytest.mark.parametrize("n_txs", [2, 3, PACKAGE_TXS_MAX])
def test_a_path_is_of_two_transactions_or_more_up_to_the_deepest_tree(n_txs: int) -> None:
    check_read(made_up(n_txs=n_txs))


@pytest.mark.parametrize(
    ("given", "received"),
    [
        (["00"], "1"),
        (["00"] * (PACKAGE_TXS_MAX + 1), f"{PACKAGE_TXS_MAX + 1}"),
        ("00", "00"),
        (7, "7"),
        ({}, "{}"),
    ],
)
def test_what_is_no_such_path_is_refused_with_its_length(given: object, received: str) -> None:
    said = f"transactions: expected a list of 2..{PACKAGE_TXS_MAX}, received {received}"
    assert str(changed(transactions=given)) == said


@pytest.mark.parametrize("n_before", [0, 1, 5])
def test_the_channel_may_be_the_last_output_before_the_anchor(n_before: int) -> None:
    package = made_up(n_before=n_before)
    check_read(package)
    error = refused(encoded(replace(package, channel_vout=n_before + 1)))
    assert str(error).startswith(f"channel.vout: expected a whole number of 0..{n_before}, ")


@pytest.mark.parametrize("given", ["ab", {"0": "", "1": ""}, 2, ["ab"], ["ab"] * 3])
def test_the_funding_keys_are_a_list_of_two(given: object) -> None:
    package = made_up()
    channel = {"vout": package.channel_vout, "funding_pubkeys": given}
    error = changed(channel=channel)
    assert (error.field, error.expected) == ("channel.funding_pubkeys", "a list of two pubkeys")


def of_size(size: int) -> Tx:
    """Return a transaction of so many bytes, nearly all of them witness."""
    tx = spending(FUNDING, TxOut(amount_sat=1, script_pubkey=b"\x51\x20" + bytes(32)))
    least = len(tx.with_witnesses((bytes(0x1_0000),)).serialize()) - 0x1_0000
    sized = tx.with_witnesses((bytes(size - least + (2 if size - least < 0x1_0000 else 0)),))
    assert len(sized.serialize()) == size
    return sized


def test_more_bytes_than_a_version_3_transaction_may_have_are_not_even_parsed() -> None:
    path = package_document(made_up())["transactions"]
    most = 4 * TRUC_VSIZE_MAX
    for size, expected in (
        (most, f"at most {TRUC_VSIZE_MAX} vB (BIP 431)"),
        (most + 1, "a transaction in lower-case hex"),
    ):
        error = changed(transactions=[path[0], of_size(size).serialize().hex()])
        assert (error.field, error.expected) == ("transactions[1]", expected)


def test_a_transaction_of_10_000_virtual_bytes_is_the_largest() -> None:
    """What is then refused is its signature."""
    package = made_up()

    def commitment_of(vsize: int) -> Tx:
        script = bytes(vsize - commitment(script=b"").vsize - 2)
        tx = commitment(script=script)
        assert tx.vsize == vsize
        return tx

    for vsize, field in (
        (TRUC_VSIZE_MAX - 1, "commitment.witness"),
        (TRUC_VSIZE_MAX, "commitment.witness"),
        (TRUC_VSIZE_MAX + 1, "commitment"),
    ):
        error = refused(encoded(replace(package, commitment=commitment_of(vsize))))
        assert error.field == field


def commitment(*, nlocktime: int = 0x2000_0000, script: bytes = b"\x51") -> Tx:
    """Return a commitment that nobody signed."""
    package = made_up()
    tx = Tx(
        version=3,
        inputs=(TxIn(outpoint=package.channel_outpoint, nsequence=0x8000_0000),),
        outputs=(TxOut(amount_sat=1_000, script_pubkey=script),),
        nlocktime=nlocktime,
    )
    return tx.with_witnesses((bytes(64),))


@pytest.mark.parametrize(
    ("nlocktime", "field"),
    [
        (LOCKTIME_THRESHOLD - 1, "commitment.nlocktime"),
        (LOCKTIME_THRESHOLD, "commitment.witness"),
        (0x20FF_FFFF, "commitment.witness"),
        (0x2100_0000, "commitment.nlocktime"),
    ],
)
def test_a_commitments_locktime_is_a_time_long_past(nlocktime: int, field: str) -> None:
    """BOLT 3 puts 0x20 above the lower half of its number: a second of 1987, or before."""
    package = replace(made_up(), commitment=commitment(nlocktime=nlocktime))
    assert refused(encoded(package)).field == field


@pytest.mark.parametrize("given", ["ab", 7, None, {"state": ""}])
def test_replaced_states_are_a_list(given: object) -> None:
    error = changed(replaced=given)
    assert error.field == "replaced"
    assert error.received == given


def test_a_last_state_without_a_delay_may_have_replaced_one_of_a_block() -> None:
    check_read(with_replaced(made_up(delay=0), 1))
    check_read(with_replaced(made_up(delay=0), 3, 2, 1))
    error = refused(encoded(with_replaced(made_up(delay=0), 0)))
    assert error.expected == "delays that become shorter, down to the path's"


def test_what_was_received_is_shown_whole_up_to_a_line() -> None:
    most = "x" * RECEIVED_SHOWN_MAX
    for given, shown in ((most, most), (f"{most}y", f"{most}...")):
        assert str(changed(network=given)) == f"network: expected regtest, received {shown}"


# What of a channel's package takes the place of another


def with_state(package: ExitPackage, **changes: Any) -> ExitPackage:
    *path, state = package.txs
    tx_in = replace(state.inputs[0], **changes)
    return replace(package, txs=(*path, replace(state, inputs=(tx_in,))))


def test_a_state_replaces_another_of_its_own_kickoff_by_a_shorter_delay_alone() -> None:
    held = made_up(delay=5)
    shorter = with_state(held, nsequence=4)
    assert shorter.may_replace(held)
    assert not held.may_replace(shorter)
    elsewhere = OutPoint(txid=Txid(b"\x06" * 32), vout=0)
    assert not with_state(shorter, outpoint=elsewhere).may_replace(held)
    endless = with_state(held, nsequence=0xFFFF_FFFF)
    assert not endless.may_replace(held)
    assert not shorter.may_replace(endless)
    other = replace(held.txs[-1], outputs=held.txs[-1].outputs[::-1])
    same_delay = replace(held, txs=(held.txs[0], other))
    assert not same_delay.may_replace(held)


@pytest.mark.parametrize("fee_sat", range(1, 60, 7))
def test_the_lowest_feerate_is_rounded_down_to_whole_satoshi(fee_sat: int) -> None:
    package = made_up(amount_sat=10_000_000)
    paid_sat = package.channel_txout.amount_sat - fee_sat
    tx = commitment()
    poor = replace(tx, outputs=(replace(tx.outputs[0], amount_sat=paid_sat),))
    lowest = replace(package, commitment=poor).lowest_sat_per_kw
    assert lowest * poor.weight <= 1_000 * fee_sat < (lowest + 1) * poor.weight
