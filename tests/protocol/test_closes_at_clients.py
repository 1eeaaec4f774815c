"""What a client looks at before it agrees to a close or believes in one, each alone."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any, Final

import pytest
from tests.protocol.closes import QUICK, closable_factory, close, finished, give_money
from tests.protocol.paying_clients import open_factory
from tests.protocol.pump import Pump
from tests.protocol.test_close_limits import spend_of
from tests.protocol.test_closes_that_are_told import channel, forgetful, told, txs, with_channel
from tests.protocol.test_closing_words_of_clients import OTHER, next_block, sent, stages

from cromford import effects as fx
from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.channel.terms import MSAT_PER_SAT
from cromford.factory.allocation import Allocation
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.closing.checks import check_closed
from cromford.protocol.closing.confirming import owed_by_client
from cromford.protocol.closing.rules import ADVANCE_OPEN
from cromford.protocol.facts import FRESH
from cromford.protocol.faults import FaultyLsp
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.advances import ClientAdvance
from cromford.protocol.journal.client_attempt import ClientAttempt, Received
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.mark import StoreMark
from cromford.protocol.journal.next_funding import POISONS_HELD, STATE_HELD, NextFunding
from cromford.protocol.journal.pause import JOINS_TO_PAUSE
from cromford.protocol.turn import Decision
from cromford.wallet.account import RECEIVE
from cromford.wallet.coins import Wallet
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

ELSEWHERE: Final = OutPoint.parse(bytes(36))


def before() -> ClientState:
    return stages().before


def attempt() -> ClientAttempt:
    (one,) = before().attempts.values()
    return one


def with_attempt(state: ClientState, one: ClientAttempt) -> ClientState:
    return replace(state, attempts={one.attempt_id: one})


def answer(state: ClientState, **changes: Any) -> str | None:
    """Return why a client refuses to begin with a close; None if it does not."""
    at = stages()
    decision = client_role.decide(state, at.heard(replace(at.begin, **changes)))
    assert decision.faults == ()
    refused = [one.reason for one in sent(decision) if isinstance(one, m.CloseEnd)]
    agreed = [one for one in decision.records if isinstance(one, cl.CloseAgreed)]
    assert len(refused) + len(agreed) == 1
    return refused[0] if refused else None


def test_whoever_agreed_to_closes_too_often_waits_some_blocks() -> None:
    height = before().chain.height
    often = replace(before(), close_heights=(height,) * JOINS_TO_PAUSE)
    assert answer(often) == "close: expected fewer closes in these blocks, received one more"
    assert answer(replace(before(), close_heights=(height,) * (JOINS_TO_PAUSE - 1))) is None


def test_a_proposal_that_was_not_checked_is_no_factory_of_ours() -> None:
    """One that was refused stays in the journal, and its LSP may speak of it."""
    unchecked = with_attempt(before(), replace(attempt(), stage=Received(), leaf_states=()))
    assert (answer(unchecked) or "").startswith("attempt_id: expected a factory of ours")
    link = channel(stages().signed)
    signed = with_attempt(stages().signed, unchecked.attempts[link.attempt_id])
    assert check_closed(signed, told(*txs())) is None


@pytest.mark.parametrize("changes", [{"ready_received": False}, {"ready_rung": 1}])
def test_only_a_channel_that_both_found_ready_is_closed(changes: dict[str, Any]) -> None:
    said = answer(with_attempt(before(), replace(attempt(), **changes)))
    assert said == "channel: expected ready on both sides, received not ready"


def test_a_channel_that_is_being_left_is_not_closed() -> None:
    leaving = with_attempt(before(), replace(attempt(), is_exiting=True))
    assert answer(leaving) == "channel: expected no exit under way, received an exit"


def test_an_output_of_its_path_that_is_in_no_block_is_not_closed() -> None:
    *_, state = attempt().branch.nodes
    said = answer(before(), outpoint=state.tx.inputs[0].outpoint.serialize())
    assert said == (
        f"outpoint: expected in a block, unspent, received {state.name}: its output is not on chain"
    )


def test_a_factory_without_a_channel_yet_has_no_close() -> None:
    state = stages().signed
    book = replace(state.book, links=state.book.links.delete(channel(state).channel_id))
    assert check_closed(replace(state, book=book), told(*txs())) is None


def advancing(state: ClientState) -> ClientState:
    advance = ClientAdvance(
        advance_id=OTHER,
        channel_id=channel(state).channel_id,
        state_index=1,
        allocation=Allocation(capacities_sat=(1_000,), lstock_sat=0),
        quote_id=b"",
        price_msat=0,
    )
    return replace(state, advances=state.advances.set(attempt().attempt_id, advance))


def test_an_advance_under_way_is_in_the_way_unless_no_update_can_follow() -> None:
    assert answer(advancing(before())) == advance_is_open()
    marked = replace(channel(before()), mark=StoreMark())
    assert answer(advancing(with_channel(before(), marked))) is None


def moving(state: ClientState, **changes: Any) -> ClientState:
    """Return the client on its way to another state of its leaf, which it signed."""
    link = channel(state)
    outpoint = spend_of(link.path[-1].outpoint, 1_000).outpoint(0)
    following = NextFunding(
        advance_id=OTHER,
        funding=replace(link.present, outpoint=outpoint),
        price_msat=0,
        is_dual=True,
        stage=STATE_HELD,
    )
    return with_channel(advancing(state), replace(link, next=replace(following, **changes)))


@pytest.mark.parametrize(
    ("changes", "is_closed"),
    [
        ({}, True),
        ({"stage": 0}, True),
        ({"stage": POISONS_HELD}, False),
        ({"is_dual": False}, False),
        ({"is_leaving": True}, False),
    ],
)
def test_who_signed_a_next_state_and_waits_for_poisons_agrees_to_a_close_above_both(
    changes: dict[str, Any], *, is_closed: bool
) -> None:
    """They may never come, where a neighbour's store was restored."""
    said = answer(moving(before(), **changes))
    assert said == (None if is_closed else advance_is_open())


def advance_is_open() -> str:
    return f"channel: expected one that can be closed, received {ADVANCE_OPEN}"


def test_once_a_state_is_on_chain_who_waits_for_poisons_agrees_to_nothing() -> None:
    waiting = moving(before())
    path = [node.tx for node in attempt().branch.nodes]
    height = before().chain.height + 1
    block = BlockRef(height=height, block_hash=Txid(bytes(32)))
    landed = replace(waiting, chain=waiting.chain.with_block(block, path))
    begin = channel(landed).present.outpoint.serialize()
    assert answer(landed, outpoint=begin) == advance_is_open()


def test_what_is_in_the_way_for_good_is_said_before_that_it_is_not_taken_up() -> None:
    link = channel(before())
    gone = replace(link, state=replace(link.state, is_connected=False))
    said = "channel: expected one that can be closed, received "
    assert answer(with_channel(before(), gone)) == f"{said}not taken up in this connection"
    failed = with_channel(before(), replace(gone, failure="it broke"))
    assert answer(failed) == f"{said}the channel failed: it broke"
    assert answer(with_channel(before(), replace(gone, is_behind=True))) is None


def test_the_nonces_for_a_channel_on_chain_are_of_its_funding_key() -> None:
    path = [node.tx for node in attempt().branch.nodes]
    height = before().chain.height + 1
    block = BlockRef(height=height, block_hash=Txid(bytes(32)))
    landed = replace(before(), chain=before().chain.with_block(block, path))
    link = channel(landed)
    at = stages()
    begin = replace(at.begin, outpoint=link.present.outpoint.serialize())
    decision = client_role.decide(landed, at.heard(begin))
    (prepare,) = [one for one in decision.effects if isinstance(one, fx.PrepareClose)]
    assert prepare == replace(at.prepare, key=link.key)


# A store that lacks state


def paying(tx: Tx, *, extra_sat: int) -> Tx:
    """Return a close that pays the client more than it is due, and the LSP less."""
    script = attempt().join.payout_script
    *payouts, lsp, anchor = tx.outputs
    payouts = [
        replace(one, amount_sat=one.amount_sat + extra_sat) if one.script_pubkey == script else one
        for one in payouts
    ]
    rest = replace(lsp, amount_sat=lsp.amount_sat - extra_sat)
    return replace(tx, outputs=(*payouts, rest, anchor))


def proposed(*change: Callable[[Tx], Tx]) -> Decision[ClientState]:
    """Let a restored client be proposed a close of which each option was changed."""
    at = stages()
    state = with_channel(at.waiting, replace(channel(at.waiting), is_behind=True))
    (under_way,) = state.closing.values()
    closing = state.closing.set(under_way.close_id, replace(under_way, balance_msat=None))
    proposals = tuple(
        replace(one, tx=changed(Tx.parse(one.tx)).serialize())
        for one, changed in zip(at.propose.proposals, change, strict=True)
    )
    message = at.heard(replace(at.propose, proposals=proposals))
    return client_role.decide(replace(state, closing=closing), message)


@pytest.mark.parametrize("extra_sat", [(0, 5), (5, 0), (3, 5)])
def test_a_restored_client_is_bound_by_the_least_that_any_option_pays(
    extra_sat: tuple[int, int],
) -> None:
    """The LSP chooses which to finish."""
    decision = proposed(*(partial(paying, extra_sat=extra) for extra in extra_sat))
    (record,) = [one for one in decision.records if isinstance(one, cl.CloseSigned)]
    paid_sat = channel(before()).state.accepter_msat // MSAT_PER_SAT
    assert record.balance_msat == MSAT_PER_SAT * (paid_sat + min(extra_sat))


def with_more(tx: Tx, *, taken_sat: int = 0) -> Tx:
    """Return a close that pays the client's script once more, out of its payout and the LSP's."""
    *payouts, lsp, anchor = paying(tx, extra_sat=-taken_sat).outputs
    more = TxOut(amount_sat=1_000, script_pubkey=attempt().join.payout_script)
    rest = replace(lsp, amount_sat=lsp.amount_sat - 2_000)
    return replace(tx, outputs=(*payouts, more, rest, anchor))


def test_a_restored_client_is_paid_by_one_output() -> None:
    """A child takes one of them."""
    split, same = partial(with_more, taken_sat=500), partial(paying, extra_sat=0)
    for change in ((split, same), (same, split)):
        decision = proposed(*change)
        (record,) = [one for one in decision.records if isinstance(one, cl.CloseEnded)]
        said = "refused: payout_sat: expected what our restored store says or more"
        assert record.reason.startswith(said)


def test_whoever_is_paid_to_our_script_too_is_not_in_our_way() -> None:
    """Another client may have joined with it: its money is ours then."""
    decision = proposed(with_more, with_more)
    assert any(isinstance(one, cl.CloseSigned) for one in decision.records), "a restored store"
    at = stages()
    proposals = tuple(
        replace(one, tx=with_more(Tx.parse(one.tx)).serialize()) for one in at.propose.proposals
    )
    decision = client_role.decide(at.waiting, at.heard(replace(at.propose, proposals=proposals)))
    assert any(isinstance(one, cl.CloseSigned) for one in decision.records)


def test_clients_with_one_payout_script_close_and_each_is_paid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pump = Pump(2, policy=QUICK)
    alice, other = pump.clients
    script = alice.state.wallet.next_script(RECEIVE)
    monkeypatch.setattr(Wallet, "next_script", lambda _wallet, _change: script)
    open_factory(pump)
    monkeypatch.undo()
    give_money(pump)
    assert [seat.payout_script for seat in pump.attempt.seats] == [script, script]
    close(pump)
    (made,) = finished(pump.lsp)
    assert finished(alice)
    assert finished(other)
    paid_sat = [balance_msat // MSAT_PER_SAT for balance_msat in made.balances_msat]
    for data in made.txs:
        assert [one.amount_sat for one in Tx.parse(data).outputs[:2]] == paid_sat


def test_of_a_forgotten_close_every_transaction_pays_what_the_store_says() -> None:
    cheap, dear = txs()
    for given in ((paying(cheap, extra_sat=-1), dear), (cheap, paying(dear, extra_sat=-1))):
        with pytest.raises(FaultyLsp, match="a finished close that we do not know pays only"):
            check_closed(forgetful(), told(*given))


def test_a_forgotten_close_of_what_is_not_on_our_path_says_nothing() -> None:
    cheap, _ = txs()
    elsewhere = replace(cheap, inputs=(replace(cheap.inputs[0], outpoint=ELSEWHERE),))
    assert check_closed(forgetful(), told(elsewhere)) is None


# Several factories


@cache
def of_two() -> tuple[Pump, bytes, bytes]:
    """Return a client with two factories, of which one is closed, and begins to open a third."""
    pump = closable_factory(1)
    first = pump.attempt.attempt_id
    open_factory(pump)
    second = pump.attempt.attempt_id
    return pump, first, second


def begun_in_both(*, is_first_signed: bool) -> tuple[ClientState, list[bytes]]:
    """Return a client with a close in each factory, one of them signed, by their order."""
    pump, *attempts = of_two()
    (client,) = pump.clients
    state: ClientState = client.state
    for number, attempt_id in enumerate(attempts):
        funding = state.attempts[attempt_id].branch.root_node.tx.inputs[0].outpoint
        begin = m.CloseBegin(
            attempt_id=attempt_id,
            close_id=bytes([number]) * 32,
            outpoint=funding.serialize(),
            options=(m.CloseOption(feerate_sat_per_kw=2_000),),
        )
        event = ev.MessageReceived(node_id=state.lsp_node_id, message=begin)
        state = client_role.decide(state, event).state
    names = sorted(state.closing)
    assert len(names) == 2
    signed = names[0] if is_first_signed else names[1]
    one = replace(state.closing[signed], is_signed=True)
    return replace(state, closing=state.closing.set(signed, one)), names


@pytest.mark.parametrize("is_first_signed", [True, False])
def test_a_block_ends_every_close_that_is_not_signed_and_none_that_is(
    *, is_first_signed: bool
) -> None:
    state, names = begun_in_both(is_first_signed=is_first_signed)
    deadlines = [
        link.remaining(state.chain).exit_deadline_height or 0 for link in state.book.ordered_links
    ]
    facts = replace(FRESH, header_height=max(deadlines))
    block = replace(next_block(), height=state.chain.height + 1)
    decision = client_role.decide(state, block, facts)
    ended = [one.close_id for one in decision.records if isinstance(one, cl.CloseEnded)]
    assert ended == [names[1] if is_first_signed else names[0]]


@cache
def both_closed() -> ClientState:
    """Return the client once both are closed, and a third is being opened."""
    pump, *attempts = of_two()
    (client,) = pump.clients
    for attempt_id in attempts:
        pump.handle(pump.lsp, ev.CloseRequested(attempt_id=attempt_id))
        pump.run()
    pump.join()
    pump.build()
    pump.run(until=lambda: len(client.state.attempts) == 3)
    state: ClientState = client.state
    return state


def test_each_factorys_close_is_published_whatever_else_its_client_has() -> None:
    """Also beside a proposal that it has not checked."""
    state = both_closed()
    *ready, third = state.attempts.values()
    fundings = {one.funding_tx.txid for one in ready}
    assert not third.ready_sent
    for latest in (third, replace(third, stage=Received())):
        for attempts in ((*ready, latest), (latest, *reversed(ready))):
            shuffled = replace(state, attempts={one.attempt_id: one for one in attempts})
            owed = owed_by_client(shuffled, OwnFees())
            assert {one.tx.inputs[0].outpoint.txid for one in owed} == fundings
            assert len(owed) == 2
