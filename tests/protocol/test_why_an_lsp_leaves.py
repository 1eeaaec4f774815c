"""When an LSP brings a channel on chain by itself, to the block, and what keeps it from that."""

from dataclasses import replace
from functools import cache
from typing import Any, Final

from tests.protocol.paying_clients import begin_payment, live_factory, lsp_link, newest_link, pay
from tests.protocol.test_close_limits import spend_of
from tests.protocol.test_leaving import QUICK, mute
from tests.protocol.unanswered import FIRST_MSAT, SMALL_MSAT, WORTH_MSAT

from cromford.bitcoin.tx import Tx, Txid
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.turn import Decision
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

DEAR: Final = replace(FRESH, fees=OwnFees(estimates=((1008, 250_000),)))  # 1,000 sat/vB.
FAILED: Final = "it broke"


@cache
def offering(amount_msat: int, *, by_lsp: bool = False) -> LspState:
    """Return an LSP that offered Bob an HTLC, for Alice or its own, which he never answers."""
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    with pump.tampering(mute(pump.lsp, bob, m.RevokeAndAck)):
        begin_payment(pump, pump.lsp if by_lsp else alice, bob, amount_msat)
    pump.disconnect(bob)
    state: LspState = pump.lsp.state
    assert lsp_link(pump, newest_link(bob)).state.htlcs
    return state


def factory_in(state: LspState) -> Factory:
    (factory,) = state.factories.values()
    return factory


def bobs(state: LspState) -> Link:
    """Return the channel with the client that does not answer."""
    (link,) = (
        link
        for link in factory_in(state).book.links.values()
        if any(live.htlc.offered_by is link.me for live in link.state.htlcs)
    )
    return link


def expiry(state: LspState) -> int:
    (live,) = bobs(state).state.htlcs
    return live.htlc.cltv_expiry


def due(state: LspState) -> int:
    return publish_height(bobs(state), expiry(state), chain=factory_in(state).chain)


def block(state: LspState, *txs: Tx, facts: Facts = FRESH) -> Decision[LspState]:
    height = state.chain.height + 1
    event = ev.BlockAdded(height=height, block_hash=Txid(height.to_bytes(32, "big")), txs=txs)
    return lsp_role.decide(state, event, facts)


def before(state: LspState, height: int, *, facts: Facts = FRESH) -> LspState:
    """Return an LSP that has read the blocks up to the one before a height."""
    while state.chain.height < height - 1:
        decision = block(state, facts=facts)
        assert not reasons(decision)
        state = decision.state
    return state


def reasons(decision: Decision[LspState]) -> list[str]:
    return [one.reason for one in decision.records if isinstance(one, xr.ExitStarted)]


def having(state: LspState, link: Link, **changes: Any) -> LspState:
    """Return an LSP that knows a channel otherwise."""
    ((number, factory),) = state.factories.items()
    links = factory.book.links.set(link.channel_id, replace(link, **changes))
    factory = replace(factory, book=replace(factory.book, links=links))
    return replace(state, factories=state.factories.set(number, factory))


@cache
def early_by(n_blocks: int) -> LspState:
    """Return an LSP that would have to leave for Alice's HTLC after some blocks more."""
    whole = offering(WORTH_MSAT)
    return before(whole, due(whole) - n_blocks + 1)


def test_for_an_htlc_that_it_offered_it_leaves_in_time_whatever_fees_are() -> None:
    early = block(early_by(2))
    assert reasons(early) == []
    for facts in (FRESH, DEAR):
        assert reasons(block(early.state, facts=facts)) == ["an HTLC expires"]


def test_who_is_just_back_waits_six_blocks_for_what_pays_for_somebody_elses() -> None:
    """That has to be back before she leaves; of a payment of its own nothing is lost by waiting."""
    for by_lsp, told in ((False, [[], [], ["an HTLC expires"]]), (True, [[], [], []])):
        whole = offering(WORTH_MSAT, by_lsp=by_lsp)
        reading = replace(FRESH, stale="its blocks are behind")
        state = before(whole, due(whole)) if by_lsp else block(early_by(2)).state
        found = []
        for height in (due(whole), due(whole) + 5, due(whole) + 6):
            state = before(state, height, facts=reading)
            found.append(reasons(block(state, facts=reading)))
        assert found == told


def test_one_without_an_output_is_given_up_and_its_channel_with_it() -> None:
    whole = offering(SMALL_MSAT)
    late = before(whole, expiry(whole) + 12)
    decision = block(late)
    assert reasons(decision) == []
    (lost,) = (one for one in decision.records if isinstance(one, cr.HtlcDecided))
    assert (lost.channel_id, lost.preimage) == (bobs(whole).channel_id, None)
    (failed,) = (one for one in decision.records if isinstance(one, cr.ChannelFailed))
    assert failed.reason == "an HTLC expired without an answer"


def idle() -> tuple[LspState, Link]:
    """Return an LSP, and its channel with Alice, in which nothing is pending."""
    state = offering(SMALL_MSAT, by_lsp=True)
    (link,) = (one for one in factory_in(state).book.links.values() if not one.state.htlcs)
    return state, link


def test_a_channel_that_failed_is_left_a_day_later_if_that_is_worth_it() -> None:
    state, link = idle()
    since = state.chain.height
    patience = factory_in(state).config.policy.failed_channel_blocks
    whole = having(state, link, failure=FAILED, failed_height=since)
    early = block(before(whole, since + patience - 1))
    assert reasons(early) == []
    assert reasons(block(early.state, facts=DEAR)) == []
    why = f"the channel failed at height {since}: {FAILED}"
    assert reasons(block(early.state)) == [why]
    close = SignedClose(
        close_id=b"\x01" * 32,
        outpoint=factory_in(state).attempt.funding_outpoint,
        balance_msat=0,
        is_finished=True,
    )
    (frozen,) = (
        one for one in factory_in(early.state).book.links.values() if one.failure == FAILED
    )
    closing = having(early.state, frozen, closes=(close,))
    assert reasons(block(closing)) == [], "a close of it is on its way"


def test_where_its_funding_went_elsewhere_nobody_leaves() -> None:
    whole = offering(WORTH_MSAT)
    (link,) = (one for one in factory_in(whole).book.links.values() if one == bobs(whole))
    swept = spend_of(factory_in(whole).attempt.funding_outpoint, 1_000)
    spent = block(early_by(2), swept)
    assert reasons(spent) == []
    assert reasons(block(spent.state)) == []
    (failed, *_) = (one for one in spent.records if isinstance(one, cr.ChannelFailed))
    assert "before its expiry it was spent" in failed.reason
    assert link.channel_id in {
        one.channel_id for one in spent.records if isinstance(one, cr.ChannelFailed)
    }


def reasons_by_headers(state: LspState, header_height: int) -> list[str]:
    facts = replace(FRESH, stale="no block comes", header_height=header_height)
    return reasons(lsp_role.decide(state, ev.FactsChanged(), facts))


def test_where_no_block_comes_it_leaves_in_time_by_the_headers() -> None:
    """For an HTLC that could be lost; nothing else hurries."""
    whole = offering(WORTH_MSAT)
    height = due(whole)
    told = [reasons_by_headers(whole, height + after) for after in (-1, 0, 1)]
    assert told == [[], ["an HTLC expires"], ["an HTLC expires"]]
    assert reasons_by_headers(offering(SMALL_MSAT), height + 1) == []
    state, link = idle()
    broken = having(state, link, failure=FAILED, failed_height=state.chain.height)
    assert reasons_by_headers(broken, state.chain.height + 1_000) == []
