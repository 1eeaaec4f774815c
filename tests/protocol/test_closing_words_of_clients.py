"""What a client makes of words and answers about a close that come too early, too late, or wrong.

One close of a factory of two, as one of its clients sees it in each of its stages.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import pytest
from tests.protocol.closes import ask_for_close, closable_factory
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.bitcoin.tx import Txid
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.turn import Decision
from cromford.signing.keychain import FactoryKey
from cromford.signing.nonces import PublicPool
from cromford.wire import messages as m

OTHER: Final = b"\x07" * 32
POOL: Final = PublicPool(pubkey=b"\x02" * 33, pubnonces=(b"\x02" * 66,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """A close in all its stages, and what the LSP said in it.

    Attributes:
        before: It was not begun.
        agreed: The client agreed; its nonces are asked for.
        waiting: It said so.
        signed: It wrote down that it signs, and its signer is asked.
        over: The LSP ended it after that.
        finished: It is finished.
        begin: What the LSP asked.
        propose: What it proposed.
        closed: What it finished.
        prepare: What asked for the nonces.
        sign: What asks for the partial signatures.
    """

    before: ClientState
    agreed: ClientState
    waiting: ClientState
    signed: ClientState
    over: ClientState
    finished: ClientState
    begin: m.CloseBegin
    propose: m.ClosePropose
    closed: m.Closed
    prepare: fx.PrepareClose
    sign: fx.PartialSign

    @property
    def close_id(self) -> bytes:
        return self.begin.close_id

    def heard(self, message: m.Message) -> ev.MessageReceived:
        return ev.MessageReceived(node_id=self.before.lsp_node_id, message=message)


@cache
def stages() -> Stages:
    pump = closable_factory(2)
    client = pump.client_at(1)
    said: dict[type[m.Message], Any] = {}

    def keep(_sender: PumpNode, receiver: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if receiver is client:
            said[type(message)] = message
        return (message,)

    before = client.state
    with pump.tampering(keep):
        ask_for_close(pump)
        pump.run_to(m.ClosePropose)
        waiting = client.state
        pump.run()
    lsp = before.lsp_node_id

    def decided(state: ClientState, message: m.Message) -> Decision[ClientState]:
        return client_role.decide(state, ev.MessageReceived(node_id=lsp, message=message))

    agreed = decided(before, said[m.CloseBegin])
    signed = decided(waiting, said[m.ClosePropose])
    over = decided(signed.state, m.CloseEnd(close_id=said[m.CloseBegin].close_id, reason="no"))
    (prepare,) = (one for one in agreed.effects if isinstance(one, fx.PrepareClose))
    (sign,) = (one for one in signed.effects if isinstance(one, fx.PartialSign))
    return Stages(
        before=before,
        agreed=agreed.state,
        waiting=waiting,
        signed=signed.state,
        over=over.state,
        finished=client.state,
        begin=said[m.CloseBegin],
        propose=said[m.ClosePropose],
        closed=said[m.Closed],
        prepare=prepare,
        sign=sign,
    )


def decide(stage: str, event: ev.Event, facts: Facts = FRESH) -> Decision[ClientState]:
    state: ClientState = getattr(stages(), stage)
    return client_role.decide(state, event, facts)


def ended(decision: Decision[ClientState]) -> str | None:
    """Return why a decision ended the close, which clears its deadline; None if it did not."""
    found = [one for one in decision.records if isinstance(one, cl.CloseEnded)]
    if not found:
        return None
    (record,) = found
    deadline = fx.CloseDeadline(close_id=record.close_id)
    assert fx.ClearDeadline(deadline=deadline) in decision.effects
    return record.reason


def sent(decision: Decision[ClientState]) -> list[m.Message]:
    return [one.message for one in decision.effects if isinstance(one, fx.Send)]


def dropped(decision: Decision[ClientState]) -> list[bytes]:
    asked = (one for one in decision.effects if isinstance(one, fx.DropPools))
    return [pool_id for one in asked for pool_id in one.pool_ids]


def own_pool_id() -> bytes:
    (closing,) = stages().waiting.closing.values()
    assert closing.pool is not None
    return closing.pool.pool_id


def test_its_nonces_are_of_its_factory_key_and_one_for_each_option() -> None:
    at = stages()
    (attempt,) = at.before.attempts.values()
    assert at.prepare == fx.PrepareClose(
        attempt_id=attempt.attempt_id,
        close_id=at.close_id,
        key=FactoryKey(attempt=attempt.key_attempt),
        n_options=2,
    )


@pytest.mark.parametrize("stage", ["before", "waiting", "signed", "over", "finished"])
def test_nonces_that_come_too_late_are_forgotten_and_change_nothing(stage: str) -> None:
    at = stages()
    for close_id in (at.close_id, OTHER):
        late = ev.ClosePrepared(asked=replace(at.prepare, close_id=close_id), pool=POOL)
        decision = decide(stage, late)
        assert (decision.records, sent(decision)) == ((), [])
        assert dropped(decision) == [POOL.pool_id]


def troubles(close_id: bytes) -> dict[str, ev.Event]:
    """Return what our own signer says where it cannot go on, by the words of the end."""
    at = stages()
    return {
        "our signer: full": ev.CloseUnprepared(
            asked=replace(at.prepare, close_id=close_id), reason="full"
        ),
        "our signer: a nonce is gone": ev.SigningFailed(
            asked=replace(at.sign, close_id=close_id), reason="a nonce is gone"
        ),
    }


@pytest.mark.parametrize("stage", ["agreed", "waiting", "signed"])
def test_what_our_signer_cannot_do_ends_the_close_it_was_asked_for_and_is_told(stage: str) -> None:
    at = stages()
    for why, event in troubles(at.close_id).items():
        decision = decide(stage, event)
        assert ended(decision) == why
        assert sent(decision) == [m.CloseEnd(close_id=at.close_id, reason=why)]
        assert dropped(decision) == ([] if stage == "agreed" else [own_pool_id()])
    for event in troubles(OTHER).values():
        assert decide(stage, event).records == ()


@pytest.mark.parametrize("stage", ["agreed", "waiting", "signed"])
def test_an_end_that_the_lsp_told_or_a_connection_that_is_gone_is_not_answered(stage: str) -> None:
    at = stages()
    decision = decide(stage, at.heard(m.CloseEnd(close_id=at.close_id, reason="no")))
    assert (ended(decision), sent(decision)) == ("the LSP: no", [])
    assert decide(stage, at.heard(m.CloseEnd(close_id=OTHER, reason="no"))).records == ()
    decision = decide(stage, ev.ConnectionClosed(node_id=at.before.lsp_node_id))
    assert (ended(decision), sent(decision)) == ("connection lost", [])


def test_partial_signatures_are_sent_once_they_are_made_and_their_nonces_forgotten() -> None:
    at = stages()
    event = ev.PartialSigned(asked=at.sign, partial_sigs=(("close_0", b"0"), ("close_1", b"1")))
    decision = decide("signed", event)
    assert sent(decision) == [m.CloseSign(close_id=at.close_id, partial_sigs=(b"0", b"1"))]
    assert dropped(decision) == [own_pool_id()]
    for stage in ("before", "agreed", "waiting", "over", "finished"):
        assert sent(decide(stage, event)) == []
    other = replace(event, asked=replace(at.sign, close_id=OTHER))
    assert sent(decide("signed", other)) == []


def late() -> Facts:
    """Return that a block is known of from which on no close is signed any more."""
    state = stages().before
    (link,) = state.book.ordered_links
    deadline = link.remaining(state.chain).exit_deadline_height
    assert deadline is not None
    return replace(FRESH, header_height=deadline - 144)


def next_block() -> ev.BlockAdded:
    height = stages().before.chain.height + 1
    return ev.BlockAdded(height=height, block_hash=Txid(bytes(32)), txs=())


def test_a_block_ends_what_it_would_not_sign_any_more_and_nothing_that_it_signed() -> None:
    at = stages()
    for stage in ("agreed", "waiting"):
        assert ended(decide(stage, next_block())) is None
        decision = decide(stage, next_block(), late())
        assert "too late: expected a height below" in (ended(decision) or "")
        (told,) = sent(decision)
        assert told == m.CloseEnd(close_id=at.close_id, reason=ended(decision) or "")
    for stage in ("signed", "finished"):
        assert ended(decide(stage, next_block(), late())) is None


def test_what_changed_before_it_could_say_its_word_or_sign_ends_it() -> None:
    at = stages()
    prepared = ev.ClosePrepared(asked=at.prepare, pool=POOL)
    assert len(sent(decide("agreed", prepared))) == 1
    for stage, event in (("agreed", prepared), ("waiting", at.heard(at.propose))):
        decision = decide(stage, event, late())
        assert "too late" in (ended(decision) or "")
        assert [type(one) for one in sent(decision)] == [m.CloseEnd]
        assert len(dropped(decision)) == 1


def test_it_waits_no_longer_than_its_deadline_and_says_so_unless_it_has_signed() -> None:
    at = stages()
    deadline = fx.CloseDeadline(close_id=at.close_id)
    event = ev.DeadlineReached(stream="client", deadline=deadline)
    for stage in ("agreed", "waiting", "signed"):
        decision = decide(stage, event)
        why = "deadline: the LSP went silent"
        assert ended(decision) == why
        told = [] if stage == "signed" else [m.CloseEnd(close_id=at.close_id, reason=why)]
        assert sent(decision) == told
    for stage in ("before", "over", "finished"):
        assert decide(stage, event).records == ()


BEGINS: Final = {
    "agreed": "close: expected one at a time, received a second one",
    "signed": "close: expected one at a time, received a second one",
    "finished": "another close of it is finished already",
}


@pytest.mark.parametrize("stage", BEGINS)
def test_a_second_close_is_refused_while_one_is_under_way_or_finished(stage: str) -> None:
    at = stages()
    decision = decide(stage, at.heard(replace(at.begin, close_id=OTHER)))
    (told,) = sent(decision)
    assert isinstance(told, m.CloseEnd)
    assert (told.close_id, decision.records) == (OTHER, ())
    assert BEGINS[stage] in told.reason


def test_what_was_begun_may_be_said_twice_and_a_name_that_was_signed_for_never_again() -> None:
    at = stages()
    for stage in ("agreed", "waiting", "signed"):
        decision = decide(stage, at.heard(at.begin))
        assert (decision.records, sent(decision)) == ((), [])
    (told,) = sent(decide("over", at.heard(at.begin)))
    assert isinstance(told, m.CloseEnd)
    assert told.reason.startswith("close_id: expected a new one")
    assert ended(decide("over", at.heard(replace(at.begin, close_id=OTHER)))) is None


def test_only_what_is_a_factory_of_this_client_is_closed() -> None:
    at = stages()
    (told,) = sent(decide("before", at.heard(replace(at.begin, attempt_id=OTHER))))
    assert isinstance(told, m.CloseEnd)
    assert told.reason.startswith("attempt_id: expected a factory of ours")
    (told,) = sent(decide("before", at.heard(replace(at.begin, outpoint=bytes(36)))))
    assert isinstance(told, m.CloseEnd)
    assert told.reason.startswith("outpoint: expected on the way to our channel")
    (told,) = sent(decide("before", at.heard(at.begin), replace(FRESH, stale="no block comes")))
    assert isinstance(told, m.CloseEnd)
    assert told.reason == "chain: expected fresh, received stale"


def test_a_proposal_is_signed_once_and_only_by_who_agreed() -> None:
    at = stages()
    for stage in ("before", "agreed", "signed", "over", "finished"):
        decision = decide(stage, at.heard(at.propose))
        assert (decision.records, sent(decision)) == ((), [])
    one = replace(at.propose, proposals=at.propose.proposals[:1])
    decision = decide("waiting", at.heard(one))
    assert ended(decision) == "refused: proposals: expected 2, received 1"


def test_what_is_finished_is_remembered_once_and_whoever_waits_for_it_waits_no_more() -> None:
    at = stages()
    for stage in ("signed", "over"):
        decision = decide(stage, at.heard(at.closed))
        (record,) = (one for one in decision.records if isinstance(one, cl.CloseFinished))
        assert (record.close_id, len(record.txs)) == (at.close_id, 2)
        cleared = fx.ClearDeadline(deadline=fx.CloseDeadline(close_id=at.close_id))
        assert (cleared in decision.effects) is (stage == "signed")
        published = [one.tx for one in decision.effects if isinstance(one, fx.Broadcast)]
        assert [tx.serialize() for tx in published] == [at.closed.txs[0].tx]
        assert dropped(decision) == ([own_pool_id()] if stage == "signed" else [])
    for stage in ("before", "agreed", "waiting", "finished"):
        decision = decide(stage, at.heard(at.closed))
        assert (decision.records, decision.faults) == ((), ())
    for none in (replace(at.closed, attempt_id=OTHER), replace(at.closed, txs=())):
        for stage in ("signed", "over"):
            assert decide(stage, at.heard(none)).records == ()
    renamed = replace(at.closed, close_id=OTHER)
    assert decide("finished", at.heard(renamed)).records == (), "it tells nothing new"


def test_of_a_factory_that_is_being_opened_no_close_is_heard() -> None:
    """Its transactions are not checked yet, let alone signed."""
    at = stages()
    pump = Pump(1)
    (client,) = pump.clients
    pump.join()
    pump.build()
    pump.run(until=lambda: bool(client.state.attempts))
    (attempt,) = client.state.attempts.values()
    begin = replace(at.begin, attempt_id=attempt.attempt_id)
    (told,) = sent(client_role.decide(client.state, at.heard(begin)))
    assert isinstance(told, m.CloseEnd)
    assert told.reason.startswith("attempt_id: expected a factory of ours")
    closed = replace(at.closed, attempt_id=attempt.attempt_id)
    decision = client_role.decide(client.state, at.heard(closed))
    assert (decision.records, decision.faults) == ((), ())
