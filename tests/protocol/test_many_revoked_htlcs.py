"""What is archived of revoked commitments with many HTLCs: each of these once."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.decisions import remembered
from tests.protocol.paying_clients import book, live_factory, make_invoice, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.samples import plain
from tests.protocol.test_exit_guards import ask_to_leave
from tests.protocol.test_leaving import QUICK

from cromford import effects as fx
from cromford.bitcoin.fees import ANCHOR_DUST_SAT
from cromford.channel.content import CommitmentContent, Htlc
from cromford.channel.terms import Party
from cromford.daemon import parts
from cromford.protocol.channels.signing import on_revoke_and_ack
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.channel_records import RevocationReceived
from cromford.protocol.journal.link_fold import applied
from cromford.protocol.journal.revoked import (
    HTLC_ID_SIZE,
    HTLCS_IN_FULL_MAX,
    NUMBER_SIZE,
    Kept,
    encode_content,
    has_many_htlcs,
    read_revoked,
    revoked_by,
    revoked_key,
)
from cromford.wire.messages import encode_message

FIRST_MSAT: Final = 30_000_000
AMOUNT_MSAT: Final = 1_500_000  # It has an output.
N_PARKED: Final = 12
CHANNEL_ID_SIZE: Final = 32


def park(pump: Pump, n_htlcs: int = N_PARKED) -> None:
    """Let Alice pay somebody who is away: all of it waits, and is in each commitment."""
    alice, bob = pump.clients
    assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    pump.disconnect(bob)
    for _ in range(n_htlcs):
        pump.handle(alice, make_invoice(pump, bob, AMOUNT_MSAT))
        pump.run()
    assert len(book(pump.lsp).held) == n_htlcs


def pass_one(pump: Pump) -> None:
    """Let a payment pass Alice's channel beside what waits there."""
    alice, _ = pump.clients
    invoice = make_invoice(pump, alice, AMOUNT_MSAT)
    pump.handle(pump.lsp, invoice)
    pump.run()
    assert book(alice).invoices[invoice.payment_hash].status == "paid"


def rows_of(node: PumpNode, channel_id: bytes) -> dict[bytes, bytes]:
    """Return what a node has archived of a channel, by its keys."""
    rows = {key: value for (_, key), value in node.store.archive.items()}
    return {key: value for key, value in rows.items() if key.startswith(channel_id)}


@pytest.mark.parametrize("holder", Party)
@pytest.mark.parametrize("n_parked", [HTLCS_IN_FULL_MAX - 1, N_PARKED])
def test_whatever_was_revoked_is_read_as_it_was(
    n_parked: int, holder: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[int, CommitmentContent] = {}
    channel_id = b""

    def noted(known: Book, record: RevocationReceived) -> tuple[Kept, ...]:
        content = known.links[record.channel_id].peer_unrevoked
        if content is not None and (record.channel_id, content.holder) == (channel_id, holder):
            said[content.number] = content
        return revoked_by(known, record)

    pump = live_factory(2, watches_folds=True)
    channel_id = newest_link(pump.clients[0]).channel_id
    peer = pump.lsp if holder is Party.ACCEPTER else pump.clients[0]
    monkeypatch.setattr(parts, "revoked_by", noted)
    park(pump, n_parked)
    for _ in range(3):
        pass_one(pump)
        pump.restart(peer)
        pump.run()
    rows = rows_of(peer, channel_id)
    for number, content in said.items():
        assert read_revoked(channel_id, number, rows.get) == content
        value = rows[revoked_key(channel_id, number)]
        assert (value == encode_content(content)) is not has_many_htlcs(content)
    many = [content for content in said.values() if has_many_htlcs(content)]
    named = {(one.offered_by, one.htlc_id) for content in many for one in content.htlcs}
    sizes = {len(key) - CHANNEL_ID_SIZE for key in rows}
    assert sizes == ({NUMBER_SIZE, 1 + HTLC_ID_SIZE} if named else {NUMBER_SIZE})
    assert len(rows) == len(said) + len(named), "each is archived once"
    assert bool(named) is (n_parked == N_PARKED)
    for content in many:
        assert len(rows[revoked_key(channel_id, content.number)]) < 100


def test_of_a_commitment_with_many_htlcs_all_is_taken_once_it_was_revoked() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, _ = pump.clients
    park(pump)
    pass_one(pump)
    old = newest_link(alice)
    published = old.finished.tx
    pass_one(pump)
    ask_to_leave(pump, alice, alice)
    while pump.chain.coin(old.setting.funding.outpoint) is None:
        pump.mine()
    pump.restart(pump.lsp)
    pump.run()
    pump.chain.mempool.clear()
    pump.chain.broadcast(published)
    pump.mine()
    assert len(old.finished.commitment.content.htlcs) == N_PARKED
    spender = pump.lsp.state.chain.spends[old.present.outpoint]
    assert spender.txid == published.txid
    names = [one.spend.name for one in pump.wishes(pump.lsp, fx.SignTakingTx)]
    assert "penalty" in names
    taken = {
        one
        for one, txout in zip(spender.outpoints, spender.outputs, strict=True)
        if txout.amount_sat > ANCHOR_DUST_SAT
    }
    assert len(taken) > N_PARKED
    assert set(pump.chain.spenders(spender.outpoints)) == taken, "all of it waits for a block"


@pytest.mark.parametrize(("n_htlcs", "names_them"), [(8, False), (9, True)])
@pytest.mark.parametrize("of_lsp", [True, False])
def test_a_revocation_says_whether_what_it_revokes_names_its_htlcs(
    n_htlcs: int, *, names_them: bool, of_lsp: bool
) -> None:
    sample = plain().first("on_revoke_and_ack", of_lsp=of_lsp)
    htlcs = tuple(
        Htlc(
            offered_by=Party.OPENER,
            htlc_id=htlc_id,
            amount_msat=1,
            payment_hash=bytes(32),
            cltv_expiry=2,
        )
        for htlc_id in range(3, n_htlcs + 3)
    )
    content = sample.link.peer_unrevoked
    assert content is not None
    known = sample.with_link(peer_unrevoked=replace(content, htlcs=htlcs), archived_below=(5, 1))
    turn = known.turn()
    on_revoke_and_ack(turn, known.link, known.met)
    (record,) = remembered(turn, RevocationReceived)
    assert record.names_htlcs is names_them
    below = turn.link(sample.channel_id).archived_below
    assert below == ((n_htlcs + 3, 1) if names_them else (5, 1))


def test_what_is_not_known_names_no_htlcs() -> None:
    sample = plain().first("on_revoke_and_ack", of_lsp=True)
    record = RevocationReceived(
        channel_id=sample.channel_id, message=encode_message(sample.met), names_htlcs=True
    )
    unknown = sample.with_link(peer_unrevoked=None).link
    with pytest.raises(AssertionError, match="what names its HTLCs is not known"):
        applied(unknown, record)
