"""What an LSP has in hand of a channel, what it could lose there, and what it leaves."""

from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from tests.protocol.paying_clients import (
    begin_payment,
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump
from tests.protocol.test_leaving import QUICK, mute
from tests.protocol.unanswered import FIRST_MSAT, WORTH_MSAT

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.exiting.in_hand import Risk
from cromford.protocol.exiting.lsp import exit_effects, in_hand, preimages_of
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import exit_records as xr
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

ALICE, BOB = 1, 2
FEES: Final = OwnFees()


@cache
def untouched() -> Pump:
    """Return a factory in which Alice has money; tests only look at it."""
    pump = live_factory(2, policy=QUICK)
    assert pay(pump, pump.lsp, pump.client_at(ALICE), FIRST_MSAT).status == "paid"
    return pump


def test_without_an_htlc_nothing_of_an_lsps_balance_hurries() -> None:
    """The expiry takes nothing from it: from then on all that nobody claimed is its own."""
    pump = untouched()
    for client in (ALICE, BOB):
        stake = in_hand(pump.factory, client).stake
        own_sat = lsp_link(pump, newest_link(pump.client_at(client))).state.opener_msat // 1000
        assert (stake.amount_sat, stake.risks, stake.forwarded) == (own_sat, (), frozenset())


def unanswered(*, by_lsp: bool) -> tuple[Pump, int, int]:
    """Return an HTLC that Bob does not answer, for Alice's or the LSP's own: its id and expiry."""
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.client_at(ALICE), pump.client_at(BOB)
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    with pump.tampering(mute(pump.lsp, bob, m.RevokeAndAck)):
        begin_payment(pump, pump.lsp if by_lsp else alice, bob, WORTH_MSAT)
    (live,) = lsp_link(pump, newest_link(bob)).state.htlcs
    return pump, live.htlc.htlc_id, live.htlc.cltv_expiry


@pytest.mark.parametrize("by_lsp", [False, True])
def test_what_was_forwarded_has_to_be_back_in_time_and_ones_own_payment_has_not(
    *, by_lsp: bool
) -> None:
    pump, htlc_id, expiry = unanswered(by_lsp=by_lsp)
    stake = in_hand(pump.factory, BOB).stake
    assert stake.forwarded == (frozenset() if by_lsp else {htlc_id})
    assert stake.risks == (Risk(end_height=expiry - 18, amount_sat=WORTH_MSAT // 1000),)
    assert in_hand(pump.factory, ALICE).stake.forwarded == frozenset()


def test_a_preimage_claims_only_the_htlc_that_it_was_paid_for() -> None:
    """Another client's HTLC with that hash pays for nothing: nobody was paid for it."""
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.client_at(ALICE), pump.client_at(BOB)
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pump.handle(alice, make_invoice(pump, bob, WORTH_MSAT))
    pump.run_to(m.UpdateFulfillHtlc)
    pump.disconnect(alice)
    pump.run()
    (forward,) = book(pump.lsp).forwards.values()
    assert forward.preimage is not None
    of_alice, of_bob = (lsp_link(pump, newest_link(client)) for client in (alice, bob))
    assert preimages_of(pump.factory, of_alice) == {forward.payment_hash: forward.preimage}
    assert preimages_of(pump.factory, of_bob) == {}


REFUSED: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "nobody is named": ({"client": None}, "client: expected 1..2, received None"),
    "below the first": ({"client": 0}, "client: expected 1..2, received 0"),
    "beyond the last": ({"client": 3}, "client: expected 1..2, received 3"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_exit_is_of_one_client_of_the_factory(what: str) -> None:
    changes, said = REFUSED[what]
    pump = untouched()
    request = ev.ExitRequested(attempt_id=pump.attempt.attempt_id, client=ALICE)
    with pytest.raises(Rejected, match=said) as refused:
        lsp_role.decide(pump.lsp.state, replace(request, **changes))
    assert refused.value.code == "client_not_found"


def test_nothing_is_withheld_of_a_store_that_was_never_restored() -> None:
    pump = untouched()
    request = ev.ExitRequested(
        attempt_id=pump.attempt.attempt_id, client=ALICE, publishes_stale=True
    )
    with pytest.raises(Rejected) as refused:
        lsp_role.decide(pump.lsp.state, request)
    assert refused.value.code == "store_not_restored"


def test_only_of_a_channel_that_is_left_something_is_published() -> None:
    """It is asked for once, by name, and again at each start; the others' channels go on."""
    pump = untouched()
    assert exit_effects(pump.factory, ALICE, FEES) == ()
    request = ev.ExitRequested(attempt_id=pump.attempt.attempt_id, client=ALICE)
    decision = lsp_role.decide(pump.lsp.state, request)
    (started,) = (one for one in decision.records if isinstance(one, xr.ExitStarted))
    assert (started.client, started.reason) == (ALICE, "the operator's wish")
    told = [one.message for one in decision.effects if isinstance(one, fx.Send)]
    channel_id = newest_link(pump.client_at(ALICE)).channel_id
    reason = "the LSP brings the channel on chain"
    assert told == [m.ChannelFailure(channel_id=channel_id, reason=reason)]
    (factory,) = decision.state.factories.values()
    (root,) = exit_effects(factory, ALICE, FEES)
    assert isinstance(root, fx.Broadcast)
    assert (root.name, root.bumping is not None) == ("kickoff_root", True)
    assert root in decision.effects
    assert exit_effects(factory, BOB, FEES) == ()
    again = lsp_role.decide(decision.state, request)
    assert not [one for one in again.records if isinstance(one, xr.ExitStarted)]
    assert root in again.effects
