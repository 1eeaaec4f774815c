"""HTLCs in flight while the candidate that channels are in gives way to another, and comes back."""

from dataclasses import dataclass
from typing import Final

import pytest
from tests.protocol.forked_world import QUICK, ForkedPump
from tests.protocol.ladders import DEPTH, ask_build, asked_for_keys, candidates
from tests.protocol.paying_clients import balance, begin_payment, book, newest_link, pay
from tests.protocol.pump import PumpNode, Tamper
from tests.protocol.test_ladder_reorgs import bury

from cromford.bitcoin.tx import Tx
from cromford.daemon.views import client as client_views
from cromford.protocol.channels.htlc_rules import give_up_height
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import exit_records as xr
from cromford.wire import messages as m

FIRST_MSAT: Final = 30_000_000
PAID_MSAT: Final = 3_000_000


@dataclass(frozen=True, kw_only=True)
class World:
    """Two factories of one LSP: Rose's has a ladder, and is in its first candidate; Sam's has none.

    Sam's is so deep that no reorganisation of a test reaches it.
    """

    pump: ForkedPump
    rungs: list[Tx]

    @property
    def rose(self) -> PumpNode:
        return self.pump.clients[0]

    @property
    def sam(self) -> PumpNode:
        return self.pump.clients[1]

    def to_sibling(self, n_blocks: int) -> None:
        """Let another candidate be in a block, this deep."""
        self.pump.take_back(DEPTH)
        bury(self.pump, self.rungs[1], n_blocks)

    def and_back(self, n_blocks: int) -> None:
        """Take that back, and bury the first candidate once more."""
        self.pump.take_back(n_blocks)
        bury(self.pump, self.rungs[0])
        for client in self.pump.clients:
            self.pump.disconnect(client)
            self.pump.connect(client)
        self.pump.run()

    def word(self, client: PumpNode) -> str:
        return client_views.status_of(client.state, self.pump.held(client))


def world() -> World:
    pump = ForkedPump(2, policy=QUICK)
    rose, sam = pump.clients
    pump.join(sam)
    pump.build()
    pump.run()
    pump.mine(QUICK.min_depth)
    assert pay(pump, pump.lsp, sam, FIRST_MSAT).status == "paid"
    pump.join(rose)
    asked_for_keys(pump, 2)
    ask_build(pump, (500, 2_000))
    pump.run()
    made = World(pump=pump, rungs=candidates(pump))
    bury(pump, made.rungs[0])
    assert pay(pump, pump.lsp, rose, FIRST_MSAT).status == "paid"
    return made


def silent_from_the_preimage_on(payee: PumpNode) -> Tamper:
    """Return what loses all that a payee says, once it would tell a preimage."""
    has_told = False

    def tamper(by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        nonlocal has_told
        has_told = has_told or (by is payee and isinstance(message, m.UpdateFulfillHtlc))
        return () if has_told and by is payee else (message,)

    return tamper


def status(node: PumpNode, payment_hash: bytes) -> str:
    return book(node).payments[payment_hash].status


@pytest.mark.sampled(0)
def test_what_is_in_flight_waits_while_a_sibling_is_shallow_and_is_paid_when_it_is_gone() -> None:
    at = world()
    pump, rose, sam = at.pump, at.rose, at.sam
    with pump.tampering(silent_from_the_preimage_on(rose)):
        begun = begin_payment(pump, sam, rose, PAID_MSAT)
    pump.disconnect(rose)
    assert status(sam, begun.payment_hash) == "pending"
    at.to_sibling(DEPTH - 1)
    assert (at.word(rose), at.word(sam)) == ("waiting_for_funding", "live")
    assert status(sam, begun.payment_hash) == "pending"
    at.and_back(DEPTH - 1)
    assert status(sam, begun.payment_hash) == "paid"
    assert balance(rose).own_msat == FIRST_MSAT + PAID_MSAT
    assert not newest_link(rose).state.htlcs


def test_nothing_goes_on_to_another_factory_out_of_a_channel_whose_candidate_is_gone() -> None:
    """The LSP would pay there, and have nothing here to be paid from."""
    at = world()
    pump, rose, sam = at.pump, at.rose, at.sam
    pump.disconnect(sam)
    begun = begin_payment(pump, rose, sam, PAID_MSAT)
    assert status(rose, begun.payment_hash) == "pending"
    at.to_sibling(2)
    pump.connect(sam)
    pump.run()
    pump.pass_holds()
    offered = [one for one in pump.lsp.store.remembered if isinstance(one, cr.ForwardOffered)]
    assert not offered
    assert balance(sam).own_msat == FIRST_MSAT
    at.and_back(2)
    assert status(rose, begun.payment_hash) != "paid"
    assert balance(rose).own_msat in {FIRST_MSAT, FIRST_MSAT - PAID_MSAT}


@pytest.mark.sampled(0)
def test_who_paid_into_channels_that_are_over_gets_it_back_without_leaving_its_own() -> None:
    """What the LSP offered in them expires; six blocks under a sibling nobody can take it."""
    at = world()
    pump, rose, sam = at.pump, at.rose, at.sam
    with pump.tampering(silent_from_the_preimage_on(rose)):
        begun = begin_payment(pump, sam, rose, PAID_MSAT)
    pump.disconnect(rose)
    at.to_sibling(DEPTH)
    assert at.word(rose) == "displaced"
    assert status(sam, begun.payment_hash) == "pending", "it has not expired"
    (live,) = book(pump.lsp).links[newest_link(rose).channel_id].state.htlcs
    while pump.chain.height < give_up_height(live.htlc.cltv_expiry):
        pump.mine_only()
    pump.pass_holds()
    assert status(sam, begun.payment_hash) == "failed"
    assert balance(sam).own_msat == FIRST_MSAT
    assert newest_link(sam).is_open
    assert not book(pump.lsp).owners, "and nothing keeps it awake"
    assert not [one for one in pump.lsp.store.remembered if isinstance(one, xr.ExitStarted)]
    assert not [one for one in sam.store.remembered if isinstance(one, xr.ExitStarted)]


@pytest.mark.sampled(0)
def test_what_waits_in_channels_that_are_over_is_over_once_it_expired() -> None:
    """Its payer had a channel that nobody brings on chain: nothing of it is anybody's any more."""
    at = world()
    pump, rose, sam = at.pump, at.rose, at.sam
    pump.disconnect(sam)
    begin_payment(pump, rose, sam, PAID_MSAT)
    pump.disconnect(rose)
    (key,) = book(pump.lsp).held
    live = book(pump.lsp).links[key[0]].incoming(key[1])
    assert live is not None
    at.to_sibling(DEPTH)
    while pump.chain.height < give_up_height(live.htlc.cltv_expiry) - 1:
        pump.mine_only()
    assert key in book(pump.lsp).held, "if its funding came back, its payer would hear of it"
    pump.mine_only()
    assert not book(pump.lsp).held
    assert not book(pump.lsp).resolved
    assert book(pump.lsp).links[key[0]].failure is not None, "nothing in it is answered any more"


@pytest.mark.sampled(0)
def test_what_a_client_paid_out_of_a_channel_that_is_over_is_unknown_once_it_expired() -> None:
    at = world()
    pump, rose, sam = at.pump, at.rose, at.sam
    pump.disconnect(sam)
    begun = begin_payment(pump, rose, sam, PAID_MSAT)
    pump.disconnect(rose)
    (live,) = newest_link(rose).state.htlcs
    at.to_sibling(DEPTH)
    while pump.chain.height < give_up_height(live.htlc.cltv_expiry) - 1:
        pump.mine_only()
    assert status(rose, begun.payment_hash) == "pending"
    pump.mine_only()
    assert status(rose, begun.payment_hash) == "unknown"


@pytest.mark.parametrize("answer", ["paid", "failed"])
def test_an_answer_that_comes_after_that_is_not_taken_and_hurts_no_other_channel(
    answer: str,
) -> None:
    """Its operator was told that nothing will ever tell; so its channel takes no update."""
    at = world()
    pump, rose, sam = at.pump, at.rose, at.sam
    pump.disconnect(sam)
    begun = begin_payment(pump, rose, sam, PAID_MSAT)
    link = newest_link(rose)
    (live,) = link.state.htlcs
    preimage = book(sam).invoices[begun.payment_hash].preimage
    with pump.tampering(lambda _by, to, message: () if to is rose else (message,)):
        at.to_sibling(DEPTH)
        while pump.chain.height < give_up_height(live.htlc.cltv_expiry):
            pump.mine_only()
    assert status(rose, begun.payment_hash) == "unknown"
    channel_id, htlc_id = link.channel_id, live.htlc.htlc_id
    said: m.Message = m.UpdateFailHtlc(channel_id=channel_id, htlc_id=htlc_id, reason=b"")
    if answer == "paid":
        said = m.UpdateFulfillHtlc(
            channel_id=channel_id, htlc_id=htlc_id, payment_preimage=preimage
        )
    pump.lsp_says(rose, said)
    assert newest_link(rose).failure is not None
    assert status(rose, begun.payment_hash) == "unknown"
    assert newest_link(rose).state.htlcs == (live,)
