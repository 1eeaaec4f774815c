"""What an LSP makes of words and answers about a close that come too early, too late, or wrong.

One close of a factory of two, looked at from each of its stages; nothing here changes them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import pytest
from tests.protocol.closes import ask_for_close, closable_factory
from tests.protocol.pump import PumpNode
from tests.protocol.test_close_limits import spend_of

from cromford import effects as fx
from cromford.bitcoin.tx import Tx, Txid
from cromford.factory.close import CloseScope
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.closing.rules import NOT_NOW
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.close_scopes import lsp_scope
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.streams import factory_stream
from cromford.protocol.turn import Decision
from cromford.signing.nonces import PublicPool
from cromford.wire import messages as m

OTHER: Final = b"\x07" * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """A close in all its stages, and what was said in it.

    Attributes:
        begun: Its nonces are asked for.
        agreeing: Nobody has agreed yet.
        signing: Nobody has signed yet.
        signed: Everybody did, and our own signer is asked.
        over: A client refused after all.
        finished: It is finished.
        words: The agreements, by client.
        signs: The partial signatures.
        prepare: What asked for the nonces.
        sign: What asks for our own part.
        answer: Its answer.
        ends: What is asked for once it is finished, of deadlines and nonces.
    """

    begun: LspState
    agreeing: LspState
    signing: LspState
    signed: LspState
    over: LspState
    finished: LspState
    clients: tuple[PumpNode, ...]
    words: dict[int, m.CloseAgree]
    signs: dict[int, m.CloseSign]
    prepare: fx.PrepareClose
    sign: fx.PartialSign
    answer: ev.PartialSigned
    ends: tuple[fx.Effect, ...]

    @property
    def close_id(self) -> bytes:
        return self.prepare.close_id

    def heard(self, client: int, message: m.Message) -> ev.MessageReceived:
        return ev.MessageReceived(node_id=self.clients[client - 1].node_id, message=message)


@cache
def stages() -> Stages:
    pump = closable_factory(2)
    clients = (pump.client_at(1), pump.client_at(2))
    request = ev.CloseRequested(attempt_id=pump.attempt.attempt_id)
    begun = lsp_role.decide(pump.lsp.state, request)
    (prepare,) = (one for one in begun.effects if isinstance(one, fx.PrepareClose))
    said: dict[tuple[type[m.Message], int], Any] = {}

    def keep(sender: PumpNode, _receiver: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if sender in clients:
            said[type(message), clients.index(sender) + 1] = message
        return (message,)

    with pump.tampering(keep):
        ask_for_close(pump)
        agreeing = pump.lsp.state
        pump.run_to(m.CloseSign)
        signing = pump.lsp.state
        pump.run()
    signs = {client: said[m.CloseSign, client] for client in (1, 2)}
    state = signing
    for client, message in signs.items():
        event = ev.MessageReceived(node_id=clients[client - 1].node_id, message=message)
        decision = lsp_role.decide(state, event)
        state = decision.state
    (sign,) = (one for one in decision.effects if isinstance(one, fx.PartialSign))
    assert pump.wishes(pump.lsp, fx.PartialSign)[-1] == sign
    no = m.CloseEnd(close_id=prepare.close_id, reason="no")
    over = lsp_role.decide(signing, ev.MessageReceived(node_id=clients[0].node_id, message=no))
    return Stages(
        begun=begun.state,
        agreeing=agreeing,
        signing=signing,
        signed=state,
        over=over.state,
        finished=pump.lsp.state,
        clients=clients,
        words={client: said[m.CloseAgree, client] for client in (1, 2)},
        signs=signs,
        prepare=prepare,
        sign=sign,
        answer=ev.PartialSigned(asked=sign, partial_sigs=()),
        ends=(
            *pump.wishes(pump.lsp, fx.ClearDeadline)[-1:],
            *pump.wishes(pump.lsp, fx.DropPools)[-1:],
        ),
    )


def ended(decision: Decision[LspState]) -> str | None:
    """Return why a decision ended the close, which then is told and cleared; None if it did not."""
    found = [one for one in decision.records if isinstance(one, cl.CloseEnded)]
    told = [one for one in sent(decision) if isinstance(one, m.CloseEnd)]
    if not found:
        assert not told
        return None
    (record,) = found
    whose, _, _ = record.reason.partition(":")
    short = {f"{whose.removesuffix(' refused')}: {NOT_NOW}"}
    assert {one.reason for one in told} <= {record.reason} | short
    at = stages()
    cleared = fx.ClearDeadline(deadline=fx.CloseDeadline(close_id=at.close_id))
    assert cleared in decision.effects
    return record.reason


def sent(decision: Decision[LspState]) -> list[m.Message]:
    return [one.message for one in decision.effects if isinstance(one, fx.Send)]


def faults(decision: Decision[LspState]) -> list[bytes]:
    """Return whose fault a decision says that the end of the close was."""
    found = [one for one in decision.records if isinstance(one, cl.CloseEnded)]
    return [node_id for one in found if one.is_fault for node_id in one.culprits]


def dropped(decision: Decision[LspState]) -> set[bytes]:
    asked = (one for one in decision.effects if isinstance(one, fx.DropPools))
    return {pool_id for one in asked for pool_id in one.pool_ids}


POOL: Final = PublicPool(pubkey=b"\x02" * 33, pubnonces=(b"\x02" * 66,))


@pytest.mark.parametrize("stage", ["agreeing", "signing", "signed", "over", "finished"])
def test_nonces_that_come_too_late_are_forgotten_and_change_nothing(stage: str) -> None:
    at = stages()
    late = ev.ClosePrepared(asked=at.prepare, pool=POOL)
    of_another = ev.ClosePrepared(asked=replace(at.prepare, close_id=OTHER), pool=POOL)
    for event in (late, of_another):
        decision = lsp_role.decide(getattr(at, stage), event)
        assert (decision.records, dropped(decision)) == ((), {POOL.pool_id})
    seats = fx.PrepareSeats(attempt_id=at.prepare.attempt_id, close_id=OTHER, seats=(), pool_size=2)
    decision = lsp_role.decide(getattr(at, stage), ev.SeatsPrepared(asked=seats, pools=(POOL,)))
    assert (decision.records, dropped(decision)) == ((), {POOL.pool_id})


def troubles(at: Stages, close_id: bytes) -> dict[str, ev.Event]:
    """Return what our own signer says where it cannot go on, by the words of the end."""
    attempt_id = at.prepare.attempt_id
    scope: Any = None
    seats = fx.PrepareSeats(attempt_id=attempt_id, close_id=close_id, seats=(), pool_size=2)
    signing = fx.SignForSeats(
        attempt_id=attempt_id, close_id=close_id, scope=scope, txs=(), aggnonces=(), pool_ids=()
    )
    return {
        "our signer: full": ev.CloseUnprepared(
            asked=replace(at.prepare, close_id=close_id), reason="full"
        ),
        "no room for more nonces": ev.SeatsLacking(asked=seats, problems=()),
        "our signer: no key": ev.SeatsFailed(asked=signing, reason="no key"),
        "our signer: a nonce is gone": ev.SigningFailed(
            asked=replace(at.sign, close_id=close_id), reason="a nonce is gone"
        ),
    }


@pytest.mark.parametrize("stage", ["begun", "agreeing", "signing", "signed"])
def test_what_our_signer_cannot_do_ends_the_close_it_was_asked_for_and_no_other(
    stage: str,
) -> None:
    at = stages()
    state = getattr(at, stage)
    for why, event in troubles(at, at.close_id).items():
        decision = lsp_role.decide(state, event)
        assert (ended(decision), faults(decision)) == (why, [])
        assert len(sent(decision)) == 2, "both clients hear of it"
    for event in troubles(at, OTHER).values():
        assert lsp_role.decide(state, event).records == ()


def changed_word(**changes: Any) -> Callable[[m.CloseAgree], m.CloseAgree]:
    return lambda word: replace(word, **changes)


def with_nonces(*pubnonces: bytes) -> Callable[[m.CloseAgree], m.CloseAgree]:
    def changed(word: m.CloseAgree) -> m.CloseAgree:
        return replace(word, pool=replace(word.pool, pubnonces=pubnonces))

    return changed


def with_pubkey(word: m.CloseAgree) -> m.CloseAgree:
    return replace(word, pool=replace(word.pool, pubkey=b"\x02" * 33))


def one_bad_nonce(word: m.CloseAgree) -> m.CloseAgree:
    return with_nonces(word.pool.pubnonces[0], bytes(66))(word)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (with_pubkey, "nonces of another key"),
        (with_nonces(), "0 nonces for 2 options"),
        (one_bad_nonce, "a nonce that is not two points"),
        (changed_word(payout_script=b"\x51\x20" + bytes(32)), "another payout script"),
    ],
)
def test_a_word_that_no_client_gives_is_its_fault(
    change: Callable[[m.CloseAgree], m.CloseAgree], why: str
) -> None:
    at = stages()
    decision = lsp_role.decide(at.agreeing, at.heard(1, change(at.words[1])))
    assert (ended(decision) or "").startswith(f"client 1: {why}")
    assert faults(decision) == [at.clients[0].node_id]
    assert len(sent(decision)) == 2, "whoever is at fault hears it, too"


def test_nobody_agrees_to_what_it_was_not_asked() -> None:
    """The name of a close can be guessed; our nonces for it are not there yet."""
    at = stages()
    decision = lsp_role.decide(at.begun, at.heard(1, at.words[1]))
    assert ended(decision) == "client 1: an agreement to what it was not asked"
    assert faults(decision) == [at.clients[0].node_id]
    decision = lsp_role.decide(at.agreeing, at.heard(1, at.signs[1]))
    assert ended(decision) == "client 1: a signature of what was not proposed"
    stranger = ev.MessageReceived(node_id=b"\x03" + OTHER, message=at.words[1])
    assert lsp_role.decide(at.agreeing, stranger).records == ()


def test_a_word_or_a_signature_may_come_twice_and_not_differently() -> None:
    at = stages()
    word, sign = at.words[1], at.signs[1]
    agreed = lsp_role.decide(at.agreeing, at.heard(1, word)).state
    less = replace(word, balance_msat=word.balance_msat - 1)
    other_nonces = replace(word, pool=replace(word.pool, pubnonces=word.pool.pubnonces[::-1]))
    for state in (agreed, at.signing, at.signed):
        assert lsp_role.decide(state, at.heard(1, word)).records == ()
        for other in (less, other_nonces):
            decision = lsp_role.decide(state, at.heard(1, other))
            assert ended(decision) == "client 1: a second, different agreement"
    signed = lsp_role.decide(at.signing, at.heard(1, sign)).state
    for state in (signed, at.signed):
        assert lsp_role.decide(state, at.heard(1, sign)).records == ()
        other_sign = replace(sign, partial_sigs=sign.partial_sigs[::-1])
        decision = lsp_role.decide(state, at.heard(1, other_sign))
        assert ended(decision) == "client 1: second, different partial signatures"


def test_each_partial_signature_has_to_be_a_scalar() -> None:
    at = stages()
    sign = at.signs[2]
    for bad in (
        (sign.partial_sigs[0], b"\xff" * 32),
        (b"\xff" * 32, sign.partial_sigs[1]),
    ):
        decision = lsp_role.decide(at.signing, at.heard(2, replace(sign, partial_sigs=bad)))
        assert ended(decision) == "client 2: a partial signature that is no scalar"
        assert faults(decision) == [at.clients[1].node_id]


def last_word(at: Stages, state: LspState, facts: Facts = FRESH) -> Decision[LspState]:
    return lsp_role.decide(state, at.heard(2, at.words[2]), facts)


def last_sign(at: Stages, state: LspState, facts: Facts = FRESH) -> Decision[LspState]:
    return lsp_role.decide(state, at.heard(2, at.signs[2]), facts)


def own_part(at: Stages, state: LspState, facts: Facts = FRESH) -> Decision[LspState]:
    return lsp_role.decide(state, at.answer, facts)


STEPS: Final = {"agreeing": last_word, "signing": last_sign, "signed": own_part}


def before_the_last(at: Stages, stage: str) -> LspState:
    """Return a stage in which only the second client's word, or our own, is still missing."""
    state: LspState = getattr(at, stage)
    words: dict[str, m.Message] = {"agreeing": at.words[1], "signing": at.signs[1]}
    first = words.get(stage)
    return state if first is None else lsp_role.decide(state, at.heard(1, first)).state


@pytest.mark.parametrize("stage", STEPS)
def test_a_channel_that_left_its_word_ends_the_close_at_the_next_step(stage: str) -> None:
    """What is proposed, signed, or finished is what was agreed, or nothing is."""
    at = stages()
    state = before_the_last(at, stage)
    channel_id = at.clients[0].state.book.ordered_links[0].channel_id
    failing = m.ChannelFailure(channel_id=channel_id, reason="lost a disk")
    state = lsp_role.decide(state, at.heard(1, failing)).state
    decision = STEPS[stage](at, state)
    assert (ended(decision) or "").startswith("client 1: the channel failed: ")
    assert faults(decision) == []
    assert len(dropped(decision)) == 1, "our own nonces"


@pytest.mark.parametrize("stage", STEPS)
def test_a_channel_that_is_being_left_ends_the_close_at_the_next_step(stage: str) -> None:
    at = stages()
    attempt_id = at.prepare.attempt_id
    leave = ev.ExitRequested(attempt_id=attempt_id, client=2)
    state = lsp_role.decide(before_the_last(at, stage), leave).state
    decision = STEPS[stage](at, state)
    if stage == "agreeing":
        assert (ended(decision) or "").startswith("client 2: the channel failed: ")
    else:
        assert ended(decision) == "the channels with clients [2] are being left"


@pytest.mark.parametrize("stage", STEPS)
def test_a_close_that_came_too_late_ends_at_the_next_step(stage: str) -> None:
    """By the highest block that is known of: a client has to be able to leave in time yet."""
    at = stages()
    client = at.clients[0].state
    deadline = client.book.ordered_links[0].remaining(client.chain).exit_deadline_height
    assert deadline is not None
    state = before_the_last(at, stage)
    late = STEPS[stage](at, state, replace(FRESH, header_height=deadline - 144))
    assert "too late: expected a height below" in (ended(late) or "")
    in_time = replace(FRESH, header_height=deadline - 145)
    if stage != "signed":
        assert ended(STEPS[stage](at, state, in_time)) is None


def test_a_deadline_is_one_closes_and_names_who_is_missing() -> None:
    at = stages()
    stream = stream_of(at)
    for state, label, missing in (
        (at.agreeing, "agreeing", [1, 2]),
        (before_the_last(at, "agreeing"), "agreeing", [2]),
        (before_the_last(at, "signing"), "signing", [2]),
    ):
        deadline = fx.CloseDeadline(close_id=at.close_id)
        event = ev.DeadlineReached(stream=stream, deadline=deadline)
        decision = lsp_role.decide(state, event)
        assert ended(decision) == f"deadline in {label}: no answer from clients {missing}"
        other = replace(event, deadline=fx.CloseDeadline(close_id=OTHER))
        assert lsp_role.decide(state, other).records == ()


def test_who_hears_of_an_end_is_everybody_but_whose_word_it_was() -> None:
    at = stages()
    no = m.CloseEnd(close_id=at.close_id, reason="no")
    for stage in ("agreeing", "signing", "signed"):
        decision = lsp_role.decide(getattr(at, stage), at.heard(1, no))
        assert (ended(decision), faults(decision)) == ("client 1 refused: no", [])
        told = [(one.node_id, one.message) for one in decision.effects if isinstance(one, fx.Send)]
        # Why is its own business: it may name what it owns.
        short = m.CloseEnd(close_id=at.close_id, reason=f"client 1: {NOT_NOW}")
        assert told == [(at.clients[1].node_id, short)]
        other = replace(no, close_id=OTHER)
        assert lsp_role.decide(getattr(at, stage), at.heard(1, other)).records == ()


def test_what_a_client_owns_is_told_to_nobody_else_as_its_channel_leaves_its_word() -> None:
    at = stages()
    more = replace(at.words[1], balance_msat=at.words[1].balance_msat + 1)
    decision = lsp_role.decide(at.agreeing, at.heard(1, more))
    reason = ended(decision)
    assert reason is not None
    assert "balance_msat: expected" in reason
    told = {
        one.node_id: one.message.reason
        for one in decision.effects
        if isinstance(one, fx.Send) and isinstance(one.message, m.CloseEnd)
    }
    mine, theirs = (client.node_id for client in at.clients[:2])
    assert told == {mine: reason, theirs: f"client 1: {NOT_NOW}"}


def late_events(at: Stages) -> list[ev.Event]:
    attempt_id, scope = at.prepare.attempt_id, lsp_scope_of(at)
    seats = fx.SignForSeats(
        attempt_id=attempt_id,
        close_id=at.close_id,
        scope=scope,
        txs=(),
        aggnonces=(),
        pool_ids=(),
    )
    deadline = fx.CloseDeadline(close_id=at.close_id)
    return [
        at.answer,
        ev.SeatsSigned(asked=seats, partial_sigs=()),
        *troubles(at, at.close_id).values(),
        *(at.heard(client, word) for client, word in at.words.items()),
        *(at.heard(client, sign) for client, sign in at.signs.items()),
        at.heard(1, m.CloseEnd(close_id=at.close_id, reason="no")),
        ev.DeadlineReached(stream=stream_of(at), deadline=deadline),
    ]


def stream_of(at: Stages) -> str:
    (number,) = at.signing.factories
    return factory_stream(number)


def lsp_scope_of(at: Stages) -> CloseScope:
    factory = factory_in(at.signing)
    assert factory.closing is not None
    return lsp_scope(factory.attempt, factory.closing.outpoint)


def factory_in(state: LspState) -> Factory:
    (factory,) = state.factories.values()
    return factory


@pytest.mark.parametrize("stage", ["over", "finished"])
def test_nothing_that_is_said_of_a_close_that_is_over_changes_anything(stage: str) -> None:
    """A client that speaks of a finished one hears once more what was finished."""
    at = stages()
    closes = factory_in(at.finished).closed.values()
    told = [m.ClosedTx(tx=tx.serialize()) for close in closes for tx in close.txs]
    for event in late_events(at):
        decision = lsp_role.decide(getattr(at, stage), event)
        assert (decision.records, decision.faults) == ((), ())
        said = [tx for one in sent(decision) if isinstance(one, m.Closed) for tx in one.txs]
        is_word = isinstance(event, ev.MessageReceived) and not isinstance(
            event.message, m.CloseEnd
        )
        assert said == (told if is_word and stage == "finished" else [])


def test_what_is_said_of_a_finished_close_is_no_word_about_the_one_under_way() -> None:
    at = stages()
    (number,) = at.signing.factories
    (done,) = factory_in(at.finished).closed.values()
    older = replace(done, close_id=OTHER)
    for stage, said in (
        ("agreeing", at.words[1]),
        ("signing", at.signs[1]),
        ("signing", m.CloseEnd(close_id=OTHER, reason="no")),
    ):
        state: LspState = getattr(at, stage)
        factory = factory_in(state)
        factory = replace(factory, closed=factory.closed.set(OTHER, older))
        state = replace(state, factories=state.factories.set(number, factory))
        decision = lsp_role.decide(state, at.heard(1, replace(said, close_id=OTHER)))
        assert (decision.records, decision.faults) == ((), ())


def test_our_own_part_is_made_last_and_taken_only_while_it_is_asked_for() -> None:
    at = stages()
    first = lsp_role.decide(at.signing, at.heard(1, at.signs[1]))
    assert not [one for one in first.effects if isinstance(one, fx.PartialSign)]
    for state in (at.agreeing, at.signing, first.state):
        decision = lsp_role.decide(state, at.answer)
        assert (decision.records, decision.faults) == ((), ())
    other = replace(at.answer, asked=replace(at.sign, close_id=OTHER))
    decision = lsp_role.decide(at.signed, other)
    assert (decision.records, decision.faults) == ((), ())
    seats = fx.SignForSeats(
        attempt_id=at.prepare.attempt_id,
        close_id=OTHER,
        scope=lsp_scope_of(at),
        txs=(),
        aggnonces=(),
        pool_ids=(),
    )
    decision = lsp_role.decide(at.signed, ev.SeatsSigned(asked=seats, partial_sigs=()))
    assert (decision.records, decision.effects) == ((), ())


def test_each_step_has_a_deadline_of_its_own_and_none_is_left_in_the_end() -> None:
    at = stages()
    proposed = last_word(at, before_the_last(at, "agreeing"))
    (deadline,) = (one for one in proposed.effects if isinstance(one, fx.SetDeadline))
    assert deadline.deadline == fx.CloseDeadline(close_id=at.close_id)
    closing = factory_in(at.agreeing).closing
    assert closing is not None
    own: Any = closing.stage.pool
    assert at.ends == (
        fx.ClearDeadline(deadline=deadline.deadline),
        fx.DropPools(pool_ids=(own.pool_id,)),
    )


@pytest.mark.parametrize("is_ours", [False, True])
def test_who_hangs_up_ends_a_close_unless_it_has_signed(*, is_ours: bool) -> None:
    """Its nonces went with the connection; whose fault that is nobody says where we hung up."""
    at = stages()
    culprits = () if is_ours else (at.clients[0].node_id,)
    why = "the LSP hung up on client 1" if is_ours else "client 1 disconnected"
    gone = ev.ConnectionClosed(node_id=at.clients[0].node_id, is_ours=is_ours)
    for state in (at.agreeing, before_the_last(at, "agreeing"), at.signing):
        decision = lsp_role.decide(state, gone)
        assert (ended(decision), faults(decision)) == (why, [])
        (record,) = (one for one in decision.records if isinstance(one, cl.CloseEnded))
        assert record.culprits == culprits
    for state in (before_the_last(at, "signing"), at.signed, at.finished):
        assert ended(lsp_role.decide(state, gone)) is None


def block_with(at: Stages, *txs: Tx) -> ev.BlockAdded:
    height = factory_in(at.signing).chain.height + 1
    return ev.BlockAdded(height=height, block_hash=Txid(bytes(32)), txs=txs)


@pytest.mark.parametrize("stage", ["begun", "agreeing", "signing", "signed"])
def test_a_block_ends_a_close_that_cannot_be_in_one_any_more_and_no_other(stage: str) -> None:
    at = stages()
    state: LspState = getattr(at, stage)
    decision = lsp_role.decide(state, block_with(at))
    assert (ended(decision), decision.faults) == (None, ())
    scope = lsp_scope_of(at)
    taken = spend_of(scope.outpoint, 1_000)
    decision = lsp_role.decide(state, block_with(at, taken))
    assert ended(decision) == f"{scope.name}: its output was spent by {taken.txid}"
    client = at.clients[1].state
    deadline = client.book.ordered_links[0].remaining(client.chain).exit_deadline_height
    assert deadline is not None
    late = replace(FRESH, header_height=deadline - 144)
    decision = lsp_role.decide(state, block_with(at), late)
    assert (ended(decision) or "").startswith("client 1: too late: expected a height below")
