"""What is said, or answered, of a ceremony out of its place: nothing comes of it, nothing stops."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from tests.protocol.attacks import at_height, flipped, kept, only_from, proposed, with_house
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import dying_records as dr
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.factory import apply_to_factory
from cromford.protocol.journal.lsp_attempt import Acknowledging
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.streams import CLIENT
from cromford.protocol.opening import lsp as opening
from cromford.protocol.opening.client import after_reconnect
from cromford.protocol.opening.funding import fund, published_funding, published_ladder
from cromford.protocol.policy import LspPolicy
from cromford.protocol.turn import Decision, Turn
from cromford.shelf import Shelf
from cromford.wire import messages as m

DEEP = LspPolicy(min_clients=1, min_depth=3)
STALE = replace(FRESH, stale="no answer for 120 seconds")
UNMARKED = replace(FRESH, unmarkable="the mark's place does not answer")
WHY = "no nonce is left"


@cache
def funded() -> Pump:
    """Return a funded factory of two, and a third client beside it: only its state is asked."""
    pump = Pump(3, policy=DEEP)
    pump.join(*pump.clients[:2])
    pump.build()
    pump.run()
    assert pump.is_funded()
    return pump


@cache
def signing() -> Pump:
    """Return a ceremony whose second client is about to sign the root, and a third beside it."""
    pump = Pump(3, policy=DEEP)
    pump.join(*pump.clients[:2])
    pump.build()
    pump.run_to(m.SignRoot)
    return pump


def signer_failed(pump: Pump) -> ev.SigningFailed:
    return ev.SigningFailed(asked=pump.wishes(pump.lsp, fx.PartialSign)[-1], reason=WHY)


def funding_signed(pump: Pump) -> ev.FundingSigned:
    (asked,) = pump.wishes(pump.lsp, fx.SignFunding)
    return ev.FundingSigned(asked=asked, tx=pump.published[0])


def step_is_late(pump: Pump) -> ev.DeadlineReached:
    deadline = fx.AttemptDeadline(attempt_id=pump.attempt.attempt_id)
    return ev.DeadlineReached(stream=pump.factory.stream, deadline=deadline)


def refused(pump: Pump, client: int = 0) -> ev.MessageReceived:
    abort = m.Abort(attempt_id=pump.attempt.attempt_id, reason="after all")
    return ev.MessageReceived(node_id=pump.clients[client].node_id, message=abort)


def no_message(pump: Pump, client: int = 0) -> ev.MessageMalformed:
    return ev.MessageMalformed(node_id=pump.clients[client].node_id, reason="no type 7")


def said_again(kind: type[m.Message]) -> Callable[[Pump], ev.Event]:
    def make(pump: Pump) -> ev.MessageReceived:
        client = pump.clients[0]
        (message,) = pump.sent(client, kind)
        return ev.MessageReceived(node_id=client.node_id, message=message)

    return make


@pytest.mark.parametrize(
    "late",
    [
        signer_failed,
        funding_signed,
        step_is_late,
        refused,
        no_message,
        *map(said_again, (m.SignBelow, m.SignRoot, m.Acknowledge)),
    ],
)
def test_nothing_ends_a_ceremony_whose_funding_is_signed(late: Callable[[Pump], ev.Event]) -> None:
    """What would have ended it a moment before, or comes twice, finds a factory."""
    pump = funded()
    decision = lsp_role.decide(pump.lsp.state, late(pump))
    assert kept(decision) == ()
    assert [one for one in decision.effects if not isinstance(one, fx.Disconnect)] == []
    assert (decision.faults, dict(decision.state.stopped)) == ((), {})


def test_a_funded_attempt_is_never_ended() -> None:
    """Whoever would ask for it: its funding may be published, and cannot be taken back."""
    pump = funded()
    turn = Turn(pump.factory, apply_to_factory, FRESH, stream=pump.factory.stream)
    with pytest.raises(AssertionError, match="a funded attempt cannot be aborted"):
        opening.abort(turn, reason="never", outcome=op.Outcome.SIGNER)
    assert turn.decision.is_nothing


def test_an_lsp_whose_signer_fails_ends_the_ceremony_and_tries_no_other() -> None:
    """The next would fail alike."""
    pump = signing()
    decision = lsp_role.decide(pump.lsp.state, signer_failed(pump))
    (ended,) = [one for one in decision.records if isinstance(one, op.AttemptAborted)]
    assert (ended.reason, ended.culprits) == (f"our signer: {WHY}", ())
    assert (ended.outcome, ended.tries_again) == (op.Outcome.SIGNER, False)


@pytest.mark.parametrize("said", [refused, no_message])
def test_who_has_no_seat_in_a_ceremony_ends_none(said: Callable[..., ev.Event]) -> None:
    pump = signing()
    decision = lsp_role.decide(pump.lsp.state, said(pump, 2))
    assert kept(decision) == ()
    assert not [one for one in decision.effects if isinstance(one, fx.Send)]
    by_member = lsp_role.decide(pump.lsp.state, said(pump, 0))
    (ended,) = [one for one in by_member.records if isinstance(one, op.AttemptAborted)]
    assert ended.culprits == (pump.clients[0].node_id,)
    assert ended.is_fault is (said is no_message)


def test_what_a_client_refuses_with_is_for_the_operator_and_no_other_client_hears_it() -> None:
    """Whoever joins could tell all users of the LSP, in its name, whatever it likes."""
    pump = signing()
    number = pump.attempt.client_of(pump.clients[0].node_id)
    decision = lsp_role.decide(pump.lsp.state, refused(pump))
    (ended,) = [one for one in decision.records if isinstance(one, op.AttemptAborted)]
    assert ended.reason == f"client {number} refused: after all"
    told = {one.message for one in decision.effects if isinstance(one, fx.Send)}
    assert told == {m.Abort(attempt_id=ended.attempt_id, reason=f"client {number} refused")}


def two_of_each(message: m.SignBelow) -> tuple[m.SignBelow, ...]:
    return (replace(message, candidates=message.candidates * 2),)


def two_roots(message: m.SignRoot) -> tuple[m.SignRoot, ...]:
    return (replace(message, partial_sigs=message.partial_sigs * 2),)


@pytest.mark.parametrize(
    ("kind", "change", "what"),
    [
        (m.SignBelow, two_of_each, "2 candidates"),
        (m.SignRoot, two_roots, "2 root signatures"),
    ],
)
def test_signatures_for_candidates_that_nobody_proposed_are_a_fault(
    kind: type[m.Message], change: Callable[[m.Message], tuple[m.Message, ...]], what: str
) -> None:
    pump = proposed(2)
    culprit, attempt_id = pump.client_at(2), pump.attempt.attempt_id
    with pump.tampering(only_from(culprit, change, kind)):
        pump.run()
    (ended,) = ended_of(pump, attempt_id)
    assert (ended.reason, ended.culprits) == (f"client 2: {what}", (culprit.node_id,))
    assert (ended.is_fault, ended.outcome) == (True, op.Outcome.FAULT)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (m.SignBelow, "second, different partial signatures"),
        (m.SignRoot, "a second, different root signature"),
    ],
)
def test_who_signs_a_second_time_and_differently_is_named(kind: type[m.Message], what: str) -> None:
    pump = proposed(2)
    first, silent = pump.client_at(1), pump.client_at(2)
    with pump.tampering(only_from(silent, lambda _: (), kind)):
        pump.run()
    (message,) = pump.sent(first, kind)
    assert kept(lsp_role.decide(pump.lsp.state, by(first, message))) == ()
    decision = lsp_role.decide(pump.lsp.state, by(first, spoilt(message)))
    (ended,) = [one for one in decision.records if isinstance(one, op.AttemptAborted)]
    assert (ended.reason, ended.culprits) == (f"client 1: {what}", (first.node_id,))


def by(node: PumpNode, message: m.Message) -> ev.MessageReceived:
    return ev.MessageReceived(node_id=node.node_id, message=message)


def spoilt(message: m.Message) -> m.Message:
    if isinstance(message, m.SignRoot):
        return replace(message, partial_sigs=tuple(map(flipped, message.partial_sigs)))
    assert isinstance(message, m.SignBelow)
    (halves,) = message.candidates
    half = flipped(halves.commitment_partial_sig)
    return replace(message, candidates=(replace(halves, commitment_partial_sig=half),))


def ended_of(pump: Pump, attempt_id: bytes) -> list[op.AttemptAborted]:
    """Return how the LSP ended an attempt."""
    return [
        record
        for record in pump.lsp.store.remembered
        if isinstance(record, op.AttemptAborted) and record.attempt_id == attempt_id
    ]


def test_a_ceremony_ends_with_the_patience_of_its_clients_though_no_timer_of_it_runs() -> None:
    """The timer of a step begins anew with every restart: the height does not."""
    pump = proposed(2, policy=replace(DEEP, patience_blocks=6))
    silent, attempt_id = pump.client_at(2), pump.attempt.attempt_id
    with pump.tampering(only_from(silent, lambda _: (), m.Acknowledge)):
        pump.run()
    pump.mine(pump.attempt.terms.patience_end_height - pump.chain.height - 1)
    assert ended_of(pump, attempt_id) == []
    pump.mine()
    (ended,) = ended_of(pump, attempt_id)
    assert ended.reason == "deadline in acknowledging: no answer from clients [2]"
    assert (ended.culprits, ended.outcome) == ((silent.node_id,), op.Outcome.SILENCE)


@cache
def acknowledged() -> tuple[Pump, LspState]:
    """Return a ceremony that everybody finished while our chain was stale, and the LSP's state."""
    pump = proposed(2, policy=DEEP)
    with pump.tampering(only_from(pump.client_at(2), lambda _: (), m.Acknowledge)):
        pump.run()
    attempt = pump.attempt
    last = m.Acknowledge(attempt_id=attempt.attempt_id, terms_hash=attempt.terms.terms_hash)
    event = ev.MessageReceived(node_id=pump.client_at(2).node_id, message=last)
    decision = lsp_role.decide(pump.lsp.state, event, STALE)
    assert decision.state.attempts[attempt.attempt_id].holdouts == ()
    assert funds(decision) == []
    assert lsp_role.decide(decision.state, event, STALE).is_nothing, "said twice, it counts once"
    return pump, decision.state


def funds(decision: Decision[LspState]) -> list[fx.SignFunding]:
    return [one for one in decision.effects if isinstance(one, fx.SignFunding)]


TOO_LATE = "the funding is too late: no client uses the factory if it confirms above height"


@pytest.mark.parametrize(
    ("facts", "blocks_left", "why"),
    [
        (STALE, 9, "our chain is stale"),
        (UNMARKED, 9, "no mark can be written here"),
        (FRESH, 1, "a funding coin is gone"),
        (FRESH, 0, TOO_LATE),
    ],
)
def test_a_ceremony_that_everybody_finished_and_we_did_not_fund_names_nobody(
    facts: Facts, blocks_left: int, why: str
) -> None:
    pump, state = acknowledged()
    last = pump.attempt.blueprint.ready_height_max
    decision = lsp_role.decide(at_height(state, last - blocks_left), step_is_late(pump), facts)
    (ended,) = [one for one in decision.records if isinstance(one, op.AttemptAborted)]
    assert ended.reason.startswith(f"deadline in acknowledging: {why}")
    assert (ended.culprits, ended.is_fault, ended.outcome) == ((), False, op.Outcome.UNFUNDED)


@pytest.mark.parametrize(
    ("facts", "blocks_left", "is_funded"),
    [(FRESH, 1, True), (FRESH, 0, False), (UNMARKED, 9, False)],
)
def test_what_everybody_acknowledged_is_funded_as_soon_as_it_may_be_and_never_too_late(
    facts: Facts, blocks_left: int, *, is_funded: bool
) -> None:
    """A factory that no client would use locks our coins up until its expiry."""
    pump, state = acknowledged()
    last = pump.attempt.blueprint.ready_height_max
    decision = lsp_role.decide(at_height(state, last - blocks_left), ev.FactsChanged(), facts)
    assert bool(funds(decision)) is is_funded


def test_nothing_is_funded_of_which_a_coin_was_taken_away() -> None:
    _, state = acknowledged()
    wallet = replace(state.house.wallet, coins=Shelf())
    poor = with_house(state, wallet=wallet)
    assert funds(lsp_role.decide(poor, ev.FactsChanged())) == []
    assert funds(lsp_role.decide(state, ev.FactsChanged()))


@pytest.mark.parametrize("blocks_left", [1, 0])
def test_a_funding_that_came_too_late_is_published_no_more(blocks_left: int) -> None:
    pump = funded()
    last = pump.attempt.blueprint.ready_height_max
    owed = lsp_role.resume(at_height(pump.lsp.state, last - blocks_left))
    assert len([one for one in owed if isinstance(one, fx.Broadcast)]) == blocks_left


def test_nothing_is_funded_without_a_first_commitment_of_our_own_in_every_channel() -> None:
    _, state = acknowledged()
    (factory,) = state.factories.values()
    stage = factory.attempt.stage
    assert isinstance(stage, Acknowledging)
    assert fund(factory)
    below = replace(stage.signed.below, commitment_signatures=(bytes(64),))
    bare = replace(stage, signed=replace(stage.signed, below=below))
    with pytest.raises(AssertionError, match="funding before every own first commitment is held"):
        fund(replace(factory, begun=replace(factory.attempt, stage=bare)))


# A client


def decided(client: PumpNode, event: ev.Event, facts: Facts = FRESH) -> Decision[ClientState]:
    """Return what a client decides, without doing it."""
    return client_role.decide(client.state, event, facts)


def said(client: PumpNode, message: m.Message) -> ev.MessageReceived:
    lsp_node_id = client.state.lsp_node_id
    return ev.MessageReceived(node_id=lsp_node_id, message=message)


def reasons(decision: Decision[Any]) -> list[str]:
    """Return with which words a ceremony is ended."""
    sent = [one.message for one in decision.effects if isinstance(one, fx.Send)]
    return [message.reason for message in sent if isinstance(message, m.Abort)]


WHY_NOT = {
    "this client's chain is stale": STALE,
    "this client cannot mark what it remembers": UNMARKED,
}


@pytest.mark.parametrize("why", WHY_NOT)
@pytest.mark.parametrize("is_checking", [False, True])
def test_a_client_that_may_take_no_risk_says_why_and_signs_nothing(
    why: str, *, is_checking: bool
) -> None:
    """As it hears of the proposal, and once more as it has looked at the coins."""
    pump = proposed(1)
    client = pump.clients[0]
    pump.run_to(m.Propose)
    (propose,) = pump.sent(pump.lsp, m.Propose)
    event: ev.Event = said(client, propose)
    if is_checking:
        pump.answers_coins = False
        pump.run()
        (asked,) = pump.wishes(client, fx.LookUpCoins)
        coins = tuple((outpoint, pump.chain.coin(outpoint)) for outpoint in asked.outpoints)
        event = ev.CoinsLookedUp(asked=asked, coins=coins)
        assert signs(decided(client, event))
    decision = decided(client, event, WHY_NOT[why])
    assert reasons(decision) == [why]
    assert not signs(decision)
    assert not [one for one in decision.effects if isinstance(one, fx.LookUpCoins)]
    assert decision.state.wish is not None, "its wish stays"


def signs(decision: Decision[Any]) -> list[fx.PartialSign]:
    return [one for one in decision.effects if isinstance(one, fx.PartialSign)]


def test_a_client_whose_signer_fails_ends_the_ceremony_and_says_so_once() -> None:
    pump = proposed(1)
    client = pump.clients[0]
    pump.run_to(m.SignedBelow)
    asked = pump.wishes(client, fx.PartialSign)[-1]
    failed = ev.SigningFailed(asked=asked, reason=WHY)
    decision = decided(client, failed)
    assert reasons(decision) == [WHY]
    assert client.signer is not None
    (dropped,) = [one for one in decision.effects if isinstance(one, fx.DropPools)]
    assert set(dropped.pool_ids) == set(client.signer._pools) != set()
    again = client_role.decide(decision.state, failed)
    assert again.is_nothing


def ended_by_lsp(until: type[m.Message]) -> tuple[Pump, PumpNode]:
    """Return a client whose ceremony its LSP called over, just before such a message came."""
    pump = proposed(1)
    client = pump.clients[0]
    pump.run_to(until)
    pump.wire.clear()
    pump.lsp_says(client, m.Abort(attempt_id=pump.attempt.attempt_id, reason="not now"))
    pump.wire.clear()
    return pump, client


@pytest.mark.parametrize("until", [m.SignedBelow, m.SignedRoot])
def test_what_comes_late_in_a_ceremony_that_is_over_changes_nothing_at_a_client(
    until: type[m.Message],
) -> None:
    pump, client = ended_by_lsp(until)
    attempt_id, terms_hash = pump.attempt.attempt_id, pump.attempt.terms.terms_hash
    asked = pump.wishes(client, fx.PartialSign)[-1]
    looked_up = pump.wishes(client, fx.LookUpCoins)[-1]
    signatures = pump.attempt.signatures
    deadline = fx.AttemptDeadline(attempt_id=attempt_id)
    late: list[ev.Event] = [
        ev.SigningFailed(asked=asked, reason=WHY),
        ev.PartialSigned(asked=asked, partial_sigs=(("x", bytes(32)),)),
        ev.CoinsLookedUp(asked=looked_up, coins=()),
        ev.DeadlineReached(stream=CLIENT, deadline=deadline),
        said(client, m.Abort(attempt_id=attempt_id, reason="once more")),
        said(client, pump.sent(pump.lsp, m.Propose)[0]),
        *(said(client, one) for one in pump.sent(pump.lsp, m.SignedBelow)),
        *(said(client, one) for one in pump.sent(pump.lsp, m.SignedRoot)),
    ]
    assert signatures
    assert terms_hash
    for event in late:
        assert decided(client, event).is_nothing, event


def test_a_root_that_is_being_signed_as_the_ceremony_ends_is_not_given_away() -> None:
    """The nonces are dropped with it: what the signer answers all the same is forgotten."""
    pump = proposed(1)
    client = pump.clients[0]
    pump.run_to(m.SignedBelow)
    (below,) = pump.sent(pump.lsp, m.SignedBelow)
    held = decided(client, said(client, below))
    (asked,) = signs(held)
    over = m.Abort(attempt_id=pump.attempt.attempt_id, reason="not now")
    ended = client_role.decide(held.state, said(client, over))
    root = ev.PartialSigned(asked=asked, partial_sigs=(("kickoff_root", bytes(32)),))
    assert client_role.decide(ended.state, root).is_nothing
    (given,) = [
        one.message
        for one in client_role.decide(held.state, root).effects
        if isinstance(one, fx.Send)
    ]
    assert isinstance(given, m.SignRoot)


def looking_up() -> tuple[Pump, PumpNode, ev.CoinsLookedUp]:
    """Return a client that waits for its node to say what the LSP's coins are, and the answer."""
    pump = proposed(1)
    client = pump.clients[0]
    pump.answers_coins = False
    pump.run()
    (asked,) = pump.wishes(client, fx.LookUpCoins)
    coins = tuple((outpoint, pump.chain.coin(outpoint)) for outpoint in asked.outpoints)
    return pump, client, ev.CoinsLookedUp(asked=asked, coins=coins)


def test_coins_that_are_found_after_the_ceremony_ended_or_twice_sign_nothing() -> None:
    pump, client, found = looking_up()
    checked = decided(client, found)
    assert signs(checked)
    assert client_role.decide(checked.state, found).is_nothing
    deadline = fx.AttemptDeadline(attempt_id=pump.attempt.attempt_id)
    ended = decided(client, ev.DeadlineReached(stream=CLIENT, deadline=deadline))
    assert reasons(ended) == ["deadline: our own node did not answer"]
    assert client_role.decide(ended.state, found).is_nothing


def test_two_factories_never_hang_from_one_funding_output() -> None:
    _, client, found = looking_up()
    checked = decided(client, found)
    ((attempt_id, before),) = client.state.attempts.items()
    for other, is_refused in ((before, False), (checked.state.attempts[attempt_id], True)):
        attempts = {**client.state.attempts, bytes(32): replace(other, attempt_id=bytes(32))}
        decision = client_role.decide(replace(client.state, attempts=attempts), found)
        assert bool(signs(decision)) is not is_refused
        assert ["funding_outpoint" in reason for reason in reasons(decision)] == [True] * is_refused


def test_a_proposal_for_keys_of_another_join_is_dropped() -> None:
    """It answers one that we left: its keys and nonces are gone."""
    pump = proposed(1)
    client = pump.clients[0]
    (propose,) = pump.sent(pump.lsp, m.Propose)
    other = replace(propose, factory_pubkey=pump.lsp.node_id)
    assert decided(client, said(client, other)).is_nothing
    nobody = replace(client.state, joining=None)
    assert client_role.decide(nobody, said(client, propose)).is_nothing


@pytest.mark.parametrize("kind", [m.SignBelow, m.SignRoot, m.Acknowledge, m.Resume])
def test_an_lsp_that_says_what_only_a_client_says_is_parted_from(kind: type[m.Message]) -> None:
    pump = funded()
    client = pump.clients[0]
    ids = {"attempt_id": pump.attempt.attempt_id, "terms_hash": pump.attempt.terms.terms_hash}
    sent = [wish.message for wish in pump.wishes(client, fx.Send)]
    given: list[m.Message] = [*sent, m.Resume(**ids)]
    message = next(one for one in given if isinstance(one, kind))
    (parted,) = decided(client, said(client, message)).effects
    assert isinstance(parted, fx.Disconnect)
    assert parted.node_id == pump.lsp.node_id
    assert kind.__name__ in parted.reason


def test_a_root_that_comes_again_is_acknowledged_again_and_remembered_once() -> None:
    """The LSP sends it to whoever asks; what answered it before may have been lost."""
    pump = funded()
    client = pump.clients[0]
    (root,) = {one.signatures: one for one in pump.sent(pump.lsp, m.SignedRoot)}.values()
    decision = decided(client, said(client, root))
    assert decision.records == ()
    (answer,) = [one.message for one in decision.effects if isinstance(one, fx.Send)]
    assert answer == m.Acknowledge(attempt_id=root.attempt_id, terms_hash=root.terms_hash)
    for other in (replace(root, terms_hash=bytes(32)), replace(root, attempt_id=bytes(32))):
        assert decided(client, said(client, other)).is_nothing


def test_with_its_connection_a_ceremony_ends_once_and_nothing_waits_for_it() -> None:
    pump = proposed(1)
    client, attempt_id = pump.clients[0], pump.attempt.attempt_id
    pump.run_to(m.SignedBelow)
    parts = ev.ConnectionClosed(node_id=pump.lsp.node_id)
    decision = decided(client, parts)
    (ended,) = [one for one in decision.records if isinstance(one, op.AttemptAborted)]
    assert (ended.attempt_id, ended.reason) == (attempt_id, "connection lost")
    deadline = fx.AttemptDeadline(attempt_id=attempt_id)
    assert fx.ClearDeadline(deadline=deadline, stream=CLIENT) in decision.effects
    _, over = ended_by_lsp(m.SignedBelow)
    records = decided(over, parts).records
    assert records
    assert not [one for one in records if isinstance(one, op.AttemptAborted)]


def test_who_refuses_terms_and_moves_from_nowhere_has_no_move_that_is_hindered() -> None:
    pump = proposed(1)
    client = pump.clients[0]
    pump.run_to(m.SignedRoot)
    bad = m.SignedRoot(
        attempt_id=pump.attempt.attempt_id,
        terms_hash=pump.attempt.terms.terms_hash,
        signatures=(bytes(64),),
    )
    for wish in (client.state.wish, None):
        state = replace(client.state, wish=wish)
        decision = client_role.decide(state, said(client, bad))
        assert reasons(decision)[0].startswith("the LSP is at fault: ")
        assert not [one for one in decision.records if isinstance(one, dr.MoveHindered)]
        assert decision.state.wish is None


def test_of_a_channel_whose_keys_its_lsp_took_a_client_says_nothing() -> None:
    pump = funded()
    held = pump.held(pump.clients[0])
    assert [type(message) for message in after_reconnect(held)] == [m.Acknowledge]
    assert after_reconnect(replace(held, keys_taken=True)) == ()
    assert after_reconnect(replace(held, keys_taken=True, ready_sent=True)) == ()


# Before its house knows


def test_an_attempt_that_ended_is_over_for_who_asks_before_the_house_knows() -> None:
    pump = signing()
    late = lsp_role.decide(pump.lsp.state, step_is_late(pump), delivers=False)
    client = pump.clients[0]
    attempt = pump.attempt
    resume = m.Resume(attempt_id=attempt.attempt_id, terms_hash=attempt.terms.terms_hash)
    asking = ev.MessageReceived(node_id=client.node_id, message=resume)
    assert reasons(lsp_role.decide(pump.lsp.state, asking)) == [], "it will hear with the others"
    assert reasons(lsp_role.decide(late.state, asking)) == ["this attempt is over"]


def test_a_peer_that_sends_nonsense_ends_no_factory_whose_house_does_not_know_of_it_yet() -> None:
    pump, state = acknowledged()
    due = lsp_role.decide(state, ev.FactsChanged())
    (asked,) = funds(due)
    signed = ev.FundingSigned(asked=asked, tx=asked.tx)
    funded_now = lsp_role.decide(due.state, signed, delivers=False)
    assert funded_now.state.house.under_way is not None
    assert not [one for one in lsp_role.resume(funded_now.state) if isinstance(one, fx.Broadcast)]
    decision = lsp_role.decide(funded_now.state, no_message(pump))
    assert [type(one) for one in decision.effects if not isinstance(one, fx.Broadcast)] == [
        fx.Disconnect
    ]
    fundings = (published_funding, published_ladder)
    before, after = funded_now.state.factories[0], decision.state.factories[0]
    assert [one(before) for one in fundings] == [None, ()], "nobody watches for it yet"
    assert [one(after) for one in fundings] == [asked.tx, (asked.tx,)]
    assert [one(pump.factory) for one in fundings] == [None, ()], "nothing is signed"
