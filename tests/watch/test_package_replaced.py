"""What a package says of states that were replaced: their form, their order, and their poisons.

Whoever makes such a file chooses these states; here a key of its own signs what takes them apart.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.factory import oracle
from tests.watch.packages import encoded, package
from tests.watch.test_package import refused, with_input

from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.script import p2tr_script
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto import schnorr
from cromford.crypto.keys import pubkey_of, xonly_of
from cromford.watch.package import ReplacedState
from cromford.watch.package_reading import POISONS_MAX, REPLACED_MAX, read_package

DEEP: Final = (5, 3)
SECKEY: Final = oracle.seckey("client funding", 1)
SCRIPT: Final = p2tr_script(xonly_of(pubkey_of(SECKEY)))
Change = Callable[[Tx], Tx]


def same(tx: Tx) -> Tx:
    return tx


def replaced_state(delay: int, *, change: Change = same, n_poisons: int = 1) -> ReplacedState:
    """Return a state of the same kickoff with another delay, and poisons of its first output."""
    newest = package(*DEEP).txs[-1]
    outputs = (
        TxOut(amount_sat=10_000, script_pubkey=SCRIPT),
        TxOut(amount_sat=5_000, script_pubkey=SCRIPT),
        newest.outputs[-1],
    )
    tx_in = replace(newest.inputs[0], nsequence=delay, witness=())
    whole = replace(newest, inputs=(tx_in,), outputs=outputs)
    state = change(whole)
    # Where it has no output of that kind, what is refused first is the state.
    poison = poison_of(state if state.outputs[:1] == outputs[:1] else whole)
    return ReplacedState(tx=state, poisons=(poison,) * n_poisons)


def poison_of(state: Tx, *, vout: int = 0, change: Change = same) -> Tx:
    """Return a poison of an output of a state, signed as it is changed."""
    poison = change(
        Tx(
            version=3,
            inputs=(TxIn(outpoint=state.outpoint(vout), nsequence=0xFFFF_FFFD),),
            outputs=(TxOut(amount_sat=9_000, script_pubkey=SCRIPT),),
        )
    )
    sighash = taproot_sighash(poison, prevouts=[state.outputs[vout]], input_index=0)
    return poison.with_witnesses((schnorr.sign(sighash, SECKEY),))


def document_with(*states: ReplacedState) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(encoded(replace(package(*DEEP), replaced=states)))
    return document


def newest_delay() -> int:
    return package(*DEEP).txs[-1].inputs[0].nsequence


def test_states_with_ever_shorter_delays_down_to_the_paths_are_read() -> None:
    delay = newest_delay()
    states = tuple(replaced_state(delay + extra) for extra in (3, 2, 1))
    read = read_package(json.dumps(document_with(*states)).encode(), REGTEST)
    assert read.replaced == states
    most = tuple(replaced_state(delay + extra) for extra in range(REPLACED_MAX, 0, -1))
    document = document_with(*most)
    assert read_package(json.dumps(document).encode(), REGTEST).replaced == most
    fullest = replaced_state(delay + 1, n_poisons=POISONS_MAX)
    document = document_with(fullest)
    assert read_package(json.dumps(document).encode(), REGTEST).replaced == (fullest,)


@pytest.mark.parametrize("extras", [(0,), (-1,), (2, 2), (1, 2), (3, 1, 2), (2, 0)])
def test_a_state_that_was_not_replaced_by_what_follows_it_is_refused(
    extras: tuple[int, ...],
) -> None:
    """By a poison of a state that is not older, whoever holds it would rob the LSP."""
    states = (replaced_state(newest_delay() + extra) for extra in extras)
    error = refused(document_with(*states))
    assert error.field == "replaced"
    assert error.expected == "delays that become shorter, down to the path's"


LISTS: Final[dict[str, tuple[Callable[[dict[str, Any]], object], str, str]]] = {
    "no list of states": (lambda one: one.update(replaced={}), "replaced", "{}"),
    "no states": (lambda one: one.update(replaced=[]), "replaced", "0"),
    "too many states": (
        lambda one: one.update(replaced=one["replaced"] * (REPLACED_MAX + 1)),
        "replaced",
        f"{REPLACED_MAX + 1}",
    ),
    "no list of poisons": (
        lambda one: one["replaced"][0].update(poisons="1"),
        "replaced[0].poisons",
        "1",
    ),
    "no poisons": (lambda one: one["replaced"][0].update(poisons=[]), "replaced[0].poisons", "[]"),
    "too many poisons": (
        lambda one: one["replaced"][0].update(poisons=["00"] * (POISONS_MAX + 1)),
        "replaced[0].poisons",
        "['00'",
    ),
}


@pytest.mark.parametrize("what", LISTS)
def test_what_is_no_list_or_too_long_is_refused_by_name(what: str) -> None:
    change, field, received = LISTS[what]
    document = document_with(replaced_state(newest_delay() + 1))
    change(document)
    error = refused(document)
    assert error.field == field
    assert str(error).partition("received ")[2].startswith(received)


OTHER: Final = TxOut(amount_sat=1_000, script_pubkey=b"\x51\x02\x4e\x73")
STATES: Final[list[tuple[Change, str]]] = [
    (lambda tx: replace(tx, outputs=()), "outputs"),
    (lambda tx: replace(tx, outputs=(OTHER, tx.outputs[-1])), "outputs"),
    (lambda tx: replace(tx, outputs=(tx.outputs[0], OTHER, tx.outputs[-1])), "outputs"),
    (lambda tx: replace(tx, nlocktime=1), "nlocktime"),
    (lambda tx: replace(tx, outputs=tx.outputs[:-1]), "outputs"),
    (with_input(witness=(bytes(64),)), "witness"),
    (lambda tx: with_input(outpoint=tx.outpoint(0))(tx), "inputs"),
]


@pytest.mark.parametrize(("change", "field"), STATES)
def test_a_state_of_another_form_or_place_is_refused(change: Change, field: str) -> None:
    error = refused(document_with(replaced_state(newest_delay() + 1, change=change)))
    assert error.field == f"replaced[0].state.{field}"


POISONS: Final[list[tuple[Change, str]]] = [
    (with_input(outpoint=OutPoint(txid=Txid(bytes(32)), vout=0)), "inputs"),
    (lambda tx: replace(tx, nlocktime=1), "nlocktime"),
    (with_input(nsequence=0), "nsequence"),
    (lambda tx: replace(tx, outputs=()), "outputs"),
    (lambda tx: replace(tx, outputs=(OTHER,)), "outputs"),
    (lambda tx: replace(tx, outputs=(*tx.outputs, OTHER)), "outputs"),
    (lambda tx: replace(tx, outputs=tx.outputs * 2), "outputs"),
    (lambda tx: with_input(outpoint=replace(tx.inputs[0].outpoint, vout=2))(tx), "inputs"),
]


@pytest.mark.parametrize(("change", "field"), POISONS)
def test_what_has_not_the_form_of_a_poison_is_refused_though_it_is_signed(
    change: Change, field: str
) -> None:
    state = replaced_state(newest_delay() + 1)
    one = poison_of(
        state.tx,
        vout=1,
        change=lambda tx: replace(tx, outputs=(TxOut(amount_sat=5_000, script_pubkey=SCRIPT),)),
    )
    changed = replace(state, poisons=(one, poison_of(state.tx, change=change)))
    error = refused(document_with(changed))
    assert error.field == f"replaced[0].poisons[1].{field}"
