"""A turn in which the peer's signature came, and more: it is answered first, then we sign."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.protocol.advances import (
    advancing_factory,
    both_links,
    check_nothing_is_left,
    check_payments_work,
    check_sold,
    market,
    quote_for,
    remembered,
)
from tests.protocol.paying_clients import book, make_invoice
from tests.protocol.pump import Letter, Pump, PumpNode

from cromford import effects as fx
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.signing.task import SigningTask
from cromford.wire import messages as m

BUYER, NEIGHBOUR = 1, 2


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


def check_a_nonce_is_for_one_session(pump: Pump) -> None:
    """Check that nobody ever used a nonce, its own or the peer's, for two sessions."""
    for node in (pump.lsp, *pump.clients):
        own: dict[tuple[bytes, int], tuple[bytes, bytes]] = {}
        for pool_id, index, task, aggnonce in own_sessions(pump, node):
            session = task.sighash, aggnonce
            assert own.setdefault((pool_id, index), session) == session, node.name
        signed = pump.wishes(node, fx.SignCommitment)
        theirs = [part.pubnonce for asked in signed for part in asked.parts]
        theirs += [one.pubnonce for one in pump.wishes(node, fx.SignNext)]
        assert own
        assert theirs
        assert len(theirs) == len(set(theirs)), node.name


def own_sessions(pump: Pump, node: PumpNode) -> Iterator[tuple[bytes, int, SigningTask, bytes]]:
    """Yield each nonce of its own that a node asked its signer to use, and the session."""
    for asked in pump.wishes(node, fx.PartialSign):
        for request in asked.requests:
            yield request.pool_id, request.nonce_index, request.task, request.aggnonce
    for finished in pump.wishes(node, fx.FinishCommitment):
        for part in finished.parts:
            yield part.pool_id, part.nonce_index, part.commitment.signing_task, part.aggnonce
    for one in pump.wishes(node, fx.FinishNext):
        yield one.pool_id, one.nonce_index, one.commitment.signing_task, one.aggnonce


def take(pump: Pump, kind: type[m.Message], sender: PumpNode) -> None:
    """Deliver messages from a node up to the first of a kind; nobody else's."""
    while True:
        letter: Letter = next(one for one in pump.wire if one.sender is sender)
        pump.wire.remove(letter)
        pump.tell(letter.receiver, sender, letter.message)
        if isinstance(letter.message, kind):
            return


def test_a_rebase_that_becomes_possible_as_the_clients_signature_comes_follows_its_answer() -> None:
    """Our revocation leaves first: to the client, its HTLC is on what we sign next.

    The LSP's chain was stale when the client said that it holds the poisons, and is fresh again
    between two messages of a payment; so the rebase is begun in the turn of the second.
    """
    pump = advancing_factory(2, watches_folds=True)
    buyer = pump.client_at(BUYER)
    quote = quote_for(pump, BUYER)
    pump.lsp_says(buyer, quote)
    pump.run_to(m.AdvanceHeld)
    pump.lsp.facts_at = lambda _own_height: replace(FRESH, stale="no block for hours")
    pump.run()
    assert remembered(pump.lsp, ar.AdvanceAcknowledged)
    assert not pump.sent(pump.lsp, m.UpdateRebase)

    request = make_invoice(pump, pump.client_at(NEIGHBOUR), 1_000_000)
    pump.handle(buyer, request)
    take(pump, m.UpdateAddHtlc, buyer)
    pump.lsp.facts_at = lambda _own_height: FRESH
    n_before = len(pump.lsp.store.remembered)
    take(pump, m.CommitmentSigned, buyer)
    channel_id = both_links(pump, BUYER)[1].channel_id
    order = [
        type(one)
        for one in pump.lsp.store.remembered[n_before:]
        if getattr(one, "channel_id", b"") == channel_id
    ]
    assert order == [cr.UpdateProposed, cr.CommitmentFinished, cr.CommitmentIntended]
    told = [type(one.message) for one in pump.wire if one.receiver is buyer]
    assert told == [m.RevokeAndAck, m.UpdateRebase, m.CommitmentSigned]

    pump.run()
    assert all(link.failure is None for seat in (1, 2) for link in both_links(pump, seat))
    assert book(buyer).payments[request.payment_hash].status == "paid"
    check_sold(pump, BUYER, quote)
    check_nothing_is_left(pump)
    check_payments_work(pump, BUYER, NEIGHBOUR)
    check_a_nonce_is_for_one_session(pump)
