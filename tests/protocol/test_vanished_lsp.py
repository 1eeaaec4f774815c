"""An LSP that says things out of turn, stops in the middle, or does not fund: nothing is lost."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import pytest
from tests.protocol.attacks import confirm, nothing, only_from, only_to, proposed
from tests.protocol.forge import with_output, with_tx
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol.journal.client_attempt import BelowSent, ClientAttempt, Complete, RootSent
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m

# So short a life that a funding can come too late to be used, and not too late to be waited for.
BRIEF: Final = LspPolicy(min_clients=1, active_blocks=150, ready_min_blocks=140, dying_blocks=144)
Heard = Callable[[dict[type[m.Message], Any]], Sequence[m.Message]]


def blocks_without(pump: Pump, client: PumpNode, *, until: int) -> None:
    """Show a client empty blocks up to a height."""
    while client.state.chain.height < until:
        height = client.state.chain.height + 1
        block_hash = pump.chain.blocks[0][0]
        pump.handle(client, ev.BlockAdded(height=height, block_hash=block_hash, txs=()))


def vanished(message: type[m.Message], n_clients: int = 2) -> tuple[Pump, PumpNode]:
    """Return a world whose LSP says nothing more, from one kind of message on, and a client."""
    pump = proposed(n_clients)
    victim = pump.client_at(1)

    def silence(sender: PumpNode, _to: PumpNode, said: m.Message) -> Sequence[m.Message]:
        is_later = isinstance(said, message | m.Abort)
        return () if sender is pump.lsp and is_later else (said,)

    pump.tamper = silence
    pump.run()
    return pump, victim


def check_nothing_is_lost(pump: Pump, client: PumpNode) -> ClientAttempt:
    """A client has no coin in it, waits for nobody, and may go elsewhere; its records stay."""
    attempts: list[ClientAttempt] = list(client.state.attempts.values())
    held = attempts[0]
    assert client.state.open_attempt is None
    assert held.aborted is not None or held.given_up
    assert not pump.wishes(client, fx.Broadcast)
    assert held.attempt_id in client.durable_state().attempts
    return held


# Stops of page 8


@pytest.mark.parametrize(
    ("message", "stage"), [(m.SignedBelow, BelowSent), (m.SignedRoot, RootSent)]
)
def test_an_lsp_that_stops_in_a_ceremony_is_waited_for_until_the_deadline(
    message: type[m.Message], stage: type
) -> None:
    pump, victim = vanished(message)
    held = pump.held(victim)
    assert isinstance(held.stage, stage)
    pump.pass_deadline(victim, fx.AttemptDeadline(attempt_id=held.attempt_id))
    ended = check_nothing_is_lost(pump, victim)
    assert ended.given_up == (stage is RootSent), "what may become spendable is not forgotten"
    assert (victim.name, fx.AttemptDeadline(attempt_id=held.attempt_id)) not in pump.deadlines


@pytest.mark.parametrize("blocks_late", [0, 1, 300])
def test_an_lsp_that_refuses_to_fund_is_waited_for_until_a_height_and_a_late_funding_works(
    blocks_late: int,
) -> None:
    """Nothing was committed. If it funds after all, in time to be used, the factory is as good."""
    pump = proposed(2)
    victim = pump.client_at(1)
    with pump.tampering(only_from(victim, nothing, m.Acknowledge)):
        pump.run()
    assert isinstance(pump.held(victim).stage, Complete)
    held = pump.held(victim)
    end = held.terms.patience_end_height
    blocks_without(pump, victim, until=end - 1)
    assert pump.held(victim).is_open
    blocks_without(pump, victim, until=end)
    check_nothing_is_lost(pump, victim)
    assert not pump.sent(victim, m.ChannelReady)

    blocks_without(pump, victim, until=end + blocks_late)
    confirm(pump, victim, held.funding_tx)
    late = victim.state.attempts[held.attempt_id]
    assert late.ready_sent
    assert [ready.attempt_id for ready in pump.sent(victim, m.ChannelReady)] == [held.attempt_id]


def test_a_funding_that_comes_too_late_to_be_used_can_be_left_alone() -> None:
    """Nobody pays through it, and its client can still bring its way out on chain."""
    pump = proposed(2, policy=BRIEF)
    pump.run()
    victim = pump.client_at(1)
    held = pump.held(victim)
    blocks_without(pump, victim, until=held.branch.ready_height_max)
    confirm(pump, victim, held.funding_tx)
    late = victim.state.attempts[held.attempt_id]
    assert late.given_up
    assert not late.ready_sent
    pump.chain.mine()
    pump.handle(victim, ev.ExitRequested(attempt_id=held.attempt_id))
    first = held.signed_branch.txs[0].txid
    assert first in {effect.tx.txid for effect in pump.wishes(victim, fx.Broadcast)}
    assert first in pump.chain.mempool, "and the chain takes it"


def test_a_client_that_gave_up_joins_again_with_fresh_keys() -> None:
    pump, victim = vanished(m.SignedRoot)
    held = pump.held(victim)
    pump.pass_deadline(victim, fx.AttemptDeadline(attempt_id=held.attempt_id))
    pump.tamper = lambda _sender, _to, message: (message,)
    pump.restart(pump.lsp)
    pump.run()
    pump.join_again()
    before, again = pump.sent(victim, m.Join)[-2:]
    assert before.factory_pool.pubkey == held.join.factory_pool.pubkey
    assert again.factory_pool.pubkey != held.join.factory_pool.pubkey
    assert not set(again.factory_pool.pubnonces) & set(before.factory_pool.pubnonces)
    kept = victim.state.attempts[held.attempt_id]
    assert isinstance(kept.stage, RootSent | Complete), "what the LSP may have is not forgotten"


# Out of turn


def early_root(heard: dict[type[m.Message], Any]) -> Sequence[m.Message]:
    below: m.SignedBelow = heard[m.SignedBelow]
    ids = {"attempt_id": below.attempt_id, "terms_hash": below.terms_hash}
    return (m.SignedRoot(**ids, signatures=(bytes(64),)),)


def nothing_below(heard: dict[type[m.Message], Any]) -> Sequence[m.Message]:
    below: m.SignedBelow = heard[m.SignedBelow]
    none = replace(below.candidates[0], signatures=())
    return (replace(below, candidates=(none,)),)


def no_commitment(heard: dict[type[m.Message], Any]) -> Sequence[m.Message]:
    below: m.SignedBelow = heard[m.SignedBelow]
    none = replace(below.candidates[0], commitment_partial_sig=bytes(32))
    return (replace(below, candidates=(none,)),)


def of_other_terms(heard: dict[type[m.Message], Any]) -> Sequence[m.Message]:
    below: m.SignedBelow = heard[m.SignedBelow]
    return (replace(below, terms_hash=bytes(32)),)


def ready_at_once(heard: dict[type[m.Message], Any]) -> Sequence[m.Message]:
    below: m.SignedBelow = heard[m.SignedBelow]
    ids = {"attempt_id": below.attempt_id, "terms_hash": below.terms_hash}
    return (m.ChannelReady(**ids, funding_txid=bytes(32)),)


OUT_OF_TURN: Final[dict[str, Heard]] = {
    "the root before the exit": early_root,
    "no signature below the root": nothing_below,
    "no half of the commitment": no_commitment,
    "signatures of other terms": of_other_terms,
    "a channel that is ready before it is signed": ready_at_once,
}


@pytest.mark.parametrize("what", OUT_OF_TURN)
def test_the_root_is_not_to_be_had_before_the_exit_whatever_comes_in_its_place(what: str) -> None:
    pump = proposed(3)
    victim = pump.client_at(2)
    attempt_id = pump.attempt.attempt_id

    def instead(message: m.Message) -> Sequence[m.Message]:
        return OUT_OF_TURN[what]({type(message): message})

    with pump.tampering(only_to(victim, instead, m.SignedBelow)):
        pump.run()
        pump.pass_deadline(victim, fx.AttemptDeadline(attempt_id=attempt_id))
    assert attempt_id not in {one.attempt_id for one in pump.sent(victim, m.SignRoot)}
    asked = [
        request.task.name
        for effect in pump.wishes(victim, fx.PartialSign)
        if effect.attempt_id == attempt_id
        for request in effect.requests
    ]
    assert asked
    assert "kickoff_root" not in asked
    held = victim.state.attempts[attempt_id]
    assert held.aborted is not None
    confirm(pump, victim, held.funding_tx)
    assert attempt_id not in {one.attempt_id for one in pump.sent(victim, m.ChannelReady)}


@pytest.mark.parametrize("off_by", [1, -1])
def test_a_client_that_is_shown_another_tree_than_the_others_signs_no_root(off_by: int) -> None:
    """What it signs below is of its own tree, fits no other, and buys the LSP nothing.

    It is the neighbour's channel that is another: all else is checked and refused by name.
    """
    pump = proposed(3)
    victim = pump.client_at(2)
    attempt = pump.attempt

    def other_tree(propose: m.Propose) -> Sequence[m.Message]:
        script = b"\x51\x20" + bytes((off_by % 256,)) * 32
        return (with_tx(propose, "state_0", partial(with_output, vout=0, script_pubkey=script)),)

    with pump.tampering(only_to(victim, other_tree, m.Propose)):
        pump.run()
    assert pump.sent(victim, m.SignBelow), "it signed what it was shown"
    assert attempt.attempt_id not in {one.attempt_id for one in pump.sent(victim, m.SignRoot)}
    assert attempt.funding_tx.txid not in {tx.txid for tx in pump.published}
    assert victim.state.attempts[attempt.attempt_id].aborted is not None
