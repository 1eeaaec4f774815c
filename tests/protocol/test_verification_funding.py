"""What a client checks of the funding, its channel and its nonces: one thing changed, one name."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import msgspec
import pytest
from tests.protocol.forge import (
    NOT_A_POINT,
    Change,
    Victim,
    candidate_of,
    rebuilt,
    scene,
    stranger,
    with_candidate,
    with_channel,
    with_commitment_nonce,
    with_input,
    with_nonce,
    with_one_more_output,
    with_output,
    with_outputs_swapped,
    without_last_output,
)
from tests.protocol.refusal import (
    Case,
    check,
    check_refused,
    on_funding,
    parametrized,
    with_unknown_parent,
)

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn
from cromford.crypto.keys import sha256
from cromford.factory.funding import CHANGE_MIN_SAT
from cromford.protocol.opening.verification import check_funding_tx
from cromford.wallet.coins import N_INPUTS_MAX
from cromford.wire import messages as m
from cromford.wire.fields import encode_fields

TREE_TXS: Final = ("kickoff_root", "state_root", "kickoff_0", "state_0")
OTHER_SCRIPT: Final = b"\x51\x20" + b"\x07" * 32
LONG_SCRIPT: Final = b"\x6a" + bytes(20_000)


# The funding transaction


def _two_coins_spent(tx: Tx) -> Tx:
    """Spend another coin of the LSP too, and give the client nothing of it."""
    used = {tx_in.outpoint for tx_in in tx.inputs}
    free = min(outpoint for outpoint in scene().coins if outpoint not in used)
    extra = TxIn(outpoint=free, nsequence=tx.inputs[0].nsequence)
    return replace(tx, inputs=(*tx.inputs, extra))


def _many_coins_spent(tx: Tx, n: int) -> Tx:
    """Spend so many coins, of which the client's chain has the first alone."""
    first = tx.inputs[0]
    parent = Txid(sha256(b"nobody's"))
    others = (replace(first, outpoint=OutPoint(txid=parent, vout=vout)) for vout in range(1, n))
    return replace(tx, inputs=(first, *others))


def _same_coin_twice(tx: Tx) -> Tx:
    return replace(tx, inputs=(*tx.inputs, *tx.inputs))


def _overspent(tx: Tx) -> Tx:
    in_sat = sum(scene().coins[tx_in.outpoint].txout.amount_sat for tx_in in tx.inputs)
    return with_output(tx, 1, amount_sat=in_sat - tx.outputs[0].amount_sat)


FUNDING_TX: Final = scene().attempt.funding_tx
FUNDING = [
    Case(
        claim="a funding transaction that is none",
        change=lambda p: with_candidate(p, funding_tx=b"\x02\x00"),
        field="funding_tx",
        expected="a transaction",
    ),
    Case(
        claim="a funding transaction of version 3",
        change=on_funding(lambda tx: replace(tx, version=3)),
        field="funding_tx.version",
        expected=2,
        received=3,
    ),
    Case(
        claim="a funding transaction with an nLockTime",
        change=on_funding(lambda tx: replace(tx, nlocktime=1)),
        field="funding_tx.nlocktime",
        expected=0,
        received=1,
    ),
    Case(
        claim="a funding input with another nSequence",
        change=on_funding(lambda tx: with_input(tx, nsequence=0xFFFF)),
        field="funding_tx.input[0].nsequence",
        expected=0xFFFF_FFFD,
        received=0xFFFF,
    ),
    Case(
        claim="a funding transaction that is signed already",
        change=on_funding(lambda tx: with_input(tx, witness=(bytes(64),))),
        field="funding_tx.witness",
        expected="none",
        received="some",
    ),
    Case(
        claim="a funding transaction without change",
        change=on_funding(without_last_output),
        field="funding_tx.outputs",
        expected=2,
        received=1,
    ),
    Case(
        claim="a funding transaction with a third output",
        change=on_funding(with_one_more_output),
        field="funding_tx.outputs",
        expected=2,
        received=3,
    ),
    Case(
        claim="a change too small for a CPFP",
        change=on_funding(partial(with_output, vout=1, amount_sat=CHANGE_MIN_SAT - 1)),
        field="funding_tx.change",
        expected=f"at least {CHANGE_MIN_SAT} sat",
        received=CHANGE_MIN_SAT - 1,
    ),
    Case(
        claim="a change that no node relays",
        change=on_funding(partial(with_output, vout=1, script_pubkey=LONG_SCRIPT)),
        field="funding_tx.change",
        expected="P2WPKH, P2WSH or P2TR",
    ),
    Case(
        claim="a funding with more coins than a wallet spends",
        change=on_funding(partial(_many_coins_spent, n=N_INPUTS_MAX + 1)),
        field="funding_tx.inputs",
        expected=f"1..{N_INPUTS_MAX}",
        received=N_INPUTS_MAX + 1,
    ),
    Case(
        claim="a funding with as many coins as a wallet spends",
        change=on_funding(partial(_many_coins_spent, n=N_INPUTS_MAX)),
        field="funding_tx.input[1]",
        expected="a confirmed coin",
    ),
    Case(
        claim="a funding input that nobody has seen",
        change=on_funding(with_unknown_parent),
        field="funding_tx.input[0]",
        expected="a confirmed coin",
    ),
    Case(
        claim="a funding input with a scriptSig",
        change=on_funding(lambda tx: with_input(tx, script_sig=b"\x51")),
        field="funding_tx.input[0]",
        expected="native segwit, empty scriptSig",
    ),
    Case(
        claim="a funding input named twice",
        change=on_funding(_same_coin_twice),
        field="funding_tx.input[1]",
        expected="each coin once",
    ),
    Case(
        claim="a funding transaction that pays more than it spends",
        change=on_funding(partial(with_output, vout=1, amount_sat=2**63)),
        field="funding_tx.fee",
        expected="above 0 sat",
    ),
    Case(
        claim="a funding transaction without a fee",
        change=on_funding(_overspent),
        field="funding_tx.fee",
        received=0,
    ),
    Case(
        claim="a funding output with another script",
        change=on_funding(partial(with_output, vout=0, script_pubkey=OTHER_SCRIPT)),
        field="funding_output.script_pubkey",
        expected=FUNDING_TX.outputs[0].script_pubkey,
        received=OTHER_SCRIPT,
    ),
    Case(
        claim="a funding output of one satoshi less",
        change=on_funding(
            partial(with_output, vout=0, amount_sat=FUNDING_TX.outputs[0].amount_sat - 1)
        ),
        field="funding_output.amount_sat",
        expected=FUNDING_TX.outputs[0].amount_sat,
        received=FUNDING_TX.outputs[0].amount_sat - 1,
    ),
    Case(
        claim="a funding output of one satoshi more",
        change=on_funding(
            partial(with_output, vout=0, amount_sat=FUNDING_TX.outputs[0].amount_sat + 1)
        ),
        field="funding_output.amount_sat",
    ),
    Case(
        claim="the factory behind the change",
        change=on_funding(with_outputs_swapped),
        field="funding_output.script_pubkey",
    ),
    Case(
        claim="a tree that hangs from another transaction than the funding",
        change=on_funding(_two_coins_spent),
        field="kickoff_root.outpoint",
    ),
]


@parametrized(FUNDING)
def test_a_client_refuses_a_wrong_funding_transaction(case: Case) -> None:
    check(case)


def test_a_change_that_is_just_large_enough_for_a_cpfp_is_taken() -> None:
    tx = with_output(FUNDING_TX, 1, amount_sat=CHANGE_MIN_SAT)
    assert check_funding_tx(tx.serialize(), scene().coins) == tx


def test_a_client_asks_its_node_for_no_more_coins_than_a_wallet_spends() -> None:
    victim = Victim()
    victim.hear(on_funding(partial(_many_coins_spent, n=900))(scene().propose))
    (asked,) = (effect for effect in victim.wished if isinstance(effect, fx.LookUpCoins))
    assert len(asked.outpoints) == N_INPUTS_MAX


@pytest.mark.parametrize(
    "script",
    [b"\x76\xa9\x14" + bytes(20) + b"\x88\xac", b"\xa9\x14" + bytes(20) + b"\x87", b"\x51"],
    ids=["P2PKH", "P2SH", "bare"],
)
def test_a_funding_input_that_is_not_native_segwit_is_refused(script: bytes) -> None:
    """Its scriptSig would change the txid after the tree was signed."""
    outpoint = FUNDING_TX.inputs[0].outpoint
    coin = scene().coins[outpoint]
    foreign = replace(coin, txout=replace(coin.txout, script_pubkey=script))
    victim = Victim(coins={**scene().coins, outpoint: foreign})
    check_refused(
        scene().propose,
        "funding_tx.input[0]",
        expected="native segwit, empty scriptSig",
        received=script,
        victim=victim,
    )


def test_a_funding_input_that_was_spent_is_refused() -> None:
    outpoint = FUNDING_TX.inputs[0].outpoint
    coins = {known: coin for known, coin in scene().coins.items() if known != outpoint}
    check_refused(
        scene().propose,
        "funding_tx.input[0]",
        expected="a confirmed coin",
        received=outpoint,
        victim=Victim(coins=coins),
    )


def test_a_funding_outpoint_that_was_signed_for_before_is_refused() -> None:
    """A second tree under one outpoint would be a second sighash for its kickoff_root."""
    victim = Victim()
    victim.hear(scene().propose)
    assert len(victim.signing) == 1
    state = victim.driver.state
    again = replace(
        state,
        joining=scene().state.joining,
        attempts={
            attempt_id: replace(attempt, aborted="over")
            for attempt_id, attempt in state.attempts.items()
        },
    )
    propose = rebuilt(attempt_id=b"\x09" * 32)
    assert candidate_of(propose).funding_tx == candidate_of(scene().propose).funding_tx
    check_refused(
        propose, "funding_outpoint", expected="one never seen", victim=Victim(state=again)
    )


# The channel


CHANNEL_KEYS: Final = (
    "funding_pubkey",
    "revocation_basepoint",
    "payment_basepoint",
    "delayed_payment_basepoint",
    "htlc_basepoint",
    "first_per_commitment_point",
    "second_per_commitment_point",
)


@pytest.mark.parametrize("name", CHANNEL_KEYS)
def test_a_channel_key_that_is_not_a_point_is_refused(name: str) -> None:
    propose = with_channel(scene().propose, **{name: NOT_A_POINT})
    check_refused(propose, f"channel.{name}", expected="a pubkey", received=NOT_A_POINT)


def test_a_channel_with_the_clients_own_key_on_both_sides_is_refused() -> None:
    joining = scene().state.joining
    assert joining is not None
    own = joining.join.candidates[0].channel.funding_pubkey
    propose = with_channel(scene().propose, funding_pubkey=own)
    check_refused(propose, "channel.funding_pubkey", expected="a key of its own", received=own)


@pytest.mark.parametrize("name", CHANNEL_KEYS)
def test_a_channel_key_of_the_lsp_that_is_the_clients_is_refused(name: str) -> None:
    joining = scene().state.joining
    assert joining is not None
    for stolen in CHANNEL_KEYS:
        own = getattr(joining.join.candidates[0].channel, stolen)
        propose = with_channel(scene().propose, **{name: own})
        check_refused(propose, f"channel.{name}", expected="a key of its own", received=own)


@pytest.mark.parametrize("name", CHANNEL_KEYS[1:])
def test_one_channel_key_in_two_places_is_refused(name: str) -> None:
    """The second per-commitment point too: revoking the first commitment would reveal it."""
    repeated = candidate_of(scene().propose).channel.funding_pubkey
    propose = with_channel(scene().propose, **{name: repeated})
    check_refused(propose, f"channel.{name}", expected="a key of its own", received=repeated)


def test_a_channel_whose_first_commitment_cannot_be_built_is_refused() -> None:
    """Nothing else measures its own keys: they are as its own signer gave them."""
    joining = scene().state.joining
    assert joining is not None
    (offer,) = joining.join.candidates
    keys = encode_fields(replace(offer.channel, first_per_commitment_point=bytes(33)))
    join = msgspec.structs.replace(
        joining.join, candidates=(msgspec.structs.replace(offer, keys=keys),)
    )
    state = replace(scene().state, joining=replace(joining, join=join))
    check_refused(
        scene().propose,
        "commitment_accepter",
        expected="a commitment that can be built",
        victim=Victim(state=state),
    )


def test_a_channel_of_another_lsp_key_than_the_leaf_pays_is_refused() -> None:
    propose = with_channel(scene().propose, funding_pubkey=stranger())
    check_refused(propose, "state_0.output[1].script_pubkey")


# Nonces, places, counts


N_SESSIONS: Final = len(TREE_TXS)
POOL_SIZE: Final = len(scene().attempt.candidate.joins[0].factory_pool.pubnonces)


def _fewer_nonces(propose: m.Propose) -> m.Propose:
    return with_candidate(propose, nonces=candidate_of(propose).nonces[:-1])


def _more_nonces(propose: m.Propose) -> m.Propose:
    nonces = candidate_of(propose).nonces
    return with_candidate(propose, nonces=(*nonces, replace(nonces[0], index=9)))


def _fewer_vertices(propose: m.Propose) -> m.Propose:
    return with_candidate(propose, vertices=candidate_of(propose).vertices[:1])


def _more_vertices(propose: m.Propose) -> m.Propose:
    vertices = candidate_of(propose).vertices
    return with_candidate(propose, vertices=(*vertices, vertices[-1]))


def _commitment_nonces(change: Callable[[Any], Any]) -> Change:
    return lambda p: with_candidate(p, commitment_nonces=change(candidate_of(p).commitment_nonces))


REST = [
    Case(
        claim="one nonce for two sessions",
        change=lambda p: with_nonce(p, 1, index=0),
        field="state_root.nonce_index",
        expected="unused",
        received=0,
    ),
    Case(
        claim="a nonce index beyond the pool",
        change=lambda p: with_nonce(p, 3, index=POOL_SIZE),
        field="state_0.nonce_index",
        expected=f"0..{POOL_SIZE - 1}",
        received=POOL_SIZE,
    ),
    Case(
        claim="a nonce index of 64 bits",
        change=lambda p: with_nonce(p, 0, index=2**64 - 1),
        field="kickoff_root.nonce_index",
    ),
    Case(
        claim="an aggregate nonce that is no point",
        change=lambda p: with_nonce(p, 2, aggnonce=b"\x02" + b"\xff" * 65),
        field="kickoff_0.aggnonce",
        expected="two points",
    ),
    Case(
        claim="a nonce for too few sessions",
        change=_fewer_nonces,
        field="nonces",
        expected=N_SESSIONS,
        received=N_SESSIONS - 1,
    ),
    Case(
        claim="a nonce for too many sessions",
        change=_more_nonces,
        field="nonces",
        expected=N_SESSIONS,
        received=N_SESSIONS + 1,
    ),
    Case(
        claim="a vertex too few", change=_fewer_vertices, field="vertices", expected=2, received=1
    ),
    Case(
        claim="a vertex too many", change=_more_vertices, field="vertices", expected=2, received=3
    ),
    Case(
        claim="no vertex",
        change=lambda p: with_candidate(p, vertices=()),
        field="vertices",
        expected=2,
        received=0,
    ),
    Case(
        claim="a second candidate",
        change=lambda p: replace(p, candidates=p.candidates * 2),
        field="candidates",
        expected=1,
        received=2,
    ),
    Case(
        claim="no candidate",
        change=lambda p: replace(p, candidates=()),
        field="candidates",
        expected=1,
        received=0,
    ),
    Case(
        claim="one nonce for both first commitments",
        change=lambda p: with_commitment_nonce(p, 1, index=0),
        field="commitment_accepter.nonce_index",
        expected="unused",
        received=0,
    ),
    Case(
        claim="a nonce of a commitment beyond the pool",
        change=lambda p: with_commitment_nonce(p, 0, index=POOL_SIZE),
        field="commitment_opener.nonce_index",
        expected=f"0..{POOL_SIZE - 1}",
        received=POOL_SIZE,
    ),
    Case(
        claim="an aggregate nonce of a commitment that is no point",
        change=lambda p: with_commitment_nonce(p, 1, aggnonce=b"\x02" + b"\xff" * 65),
        field="commitment_accepter.aggnonce",
        expected="two points",
    ),
    Case(
        claim="a nonce for one first commitment only",
        change=_commitment_nonces(lambda nonces: nonces[:1]),
        field="commitment_nonces",
        expected=2,
        received=1,
    ),
    Case(
        claim="a nonce for no first commitment",
        change=_commitment_nonces(lambda _: ()),
        field="commitment_nonces",
        expected=2,
        received=0,
    ),
    Case(
        claim="client 0, which is the LSP",
        change=lambda p: replace(p, client=0),
        field="client",
        expected="1..3",
        received=0,
    ),
    Case(
        claim="a client beyond the last",
        change=lambda p: replace(p, client=4),
        field="client",
        expected="1..3",
        received=4,
    ),
    Case(
        claim="the place of its neighbour",
        change=lambda p: replace(p, client=1),
        field="factory_pubkeys[own]",
    ),
    Case(
        claim="the place of a client in another leaf",
        change=lambda p: replace(p, client=3),
        field="factory_pubkeys[own]",
    ),
]


@parametrized(REST)
def test_a_client_refuses_a_wrong_nonce_place_or_count(case: Case) -> None:
    check(case)
