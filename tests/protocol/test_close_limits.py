"""A signed close freezes nobody: what is paid under it, up to the millisatoshi that it pays."""

import random
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from tests.protocol.paying_clients import (
    balance,
    begin_payment,
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.signed_closes import CLOSE_ID, change_link, sign_close
from tests.protocol.test_exit_guards import show_blocks
from tests.protocol.test_leaving import QUICK, mute

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.changed import changed
from cromford.channel.stage import Edition
from cromford.channel.terms import Party
from cromford.protocol import events as ev
from cromford.protocol.channels.balances import balance_now
from cromford.protocol.channels.close_rules import is_beyond_close, owed_msat, room_msat
from cromford.protocol.channels.finish import NOT_DELIVERED
from cromford.protocol.channels.htlc_rules import is_alive
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.book import Payment
from cromford.protocol.journal.closes import (
    SETTLED_DEPTH,
    SignedClose,
    is_frozen,
    limit_msat,
    with_close,
)
from cromford.protocol.journal.known_chain import KnownChain
from cromford.told import msat
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(8)

FIRST_MSAT: Final = 30_000_000
SPENT_MSAT: Final = 10_000_000
FEE_MSAT: Final = 1_000 + SPENT_MSAT // 1_000
ROOM_MSAT: Final = SPENT_MSAT + FEE_MSAT
OUTPOINT: Final = OutPoint(txid=Txid(b"\x05" * 32), vout=0)


@pytest.fixture
def pump() -> Pump:
    """Alice and Bob have money."""
    pump = live_factory(3, policy=QUICK)
    for client in pump.clients[:2]:
        assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
    return pump


def spend_some(pump: Pump) -> None:
    """Let Alice sign a close, and then pay Bob: so much may she be paid again."""
    alice, bob, _ = pump.clients
    assert sign_close(pump, alice) == FIRST_MSAT
    assert pay(pump, alice, bob, SPENT_MSAT).status == "paid"
    assert room_msat(newest_link(alice), alice.state.chain) == ROOM_MSAT


@pytest.mark.parametrize("over_msat", [-1, 0])
def test_a_client_may_be_paid_up_to_what_its_close_pays(pump: Pump, over_msat: int) -> None:
    spend_some(pump)
    alice = pump.clients[0]
    assert pay(pump, pump.lsp, alice, ROOM_MSAT + over_msat).status == "paid"
    assert balance(alice).own_msat == FIRST_MSAT + over_msat
    assert not book(alice).arrived


def test_an_lsp_offers_not_one_millisatoshi_beyond_it(pump: Pump) -> None:
    spend_some(pump)
    alice = pump.clients[0]
    request = make_invoice(pump, alice, ROOM_MSAT + 1)
    assert pump.lsp.driver is not None
    with pytest.raises(Rejected, match=f"close: expected at most {msat(ROOM_MSAT)} more"):
        pump.lsp.driver.handle(request)
    assert not lsp_link(pump, newest_link(alice)).state.htlcs


@pytest.mark.parametrize(("over_msat", "status"), [(-1, "paid"), (0, "paid"), (1, "failed")])
def test_a_client_gives_back_what_an_lsp_offers_beyond_it(
    pump: Pump, over_msat: int, status: str
) -> None:
    """The LSP forgot the close, or says so: its client does not."""
    alice, bob, _ = pump.clients
    sign_close(pump, alice, is_known_to_lsp=False)
    assert pay(pump, alice, bob, SPENT_MSAT).status == "paid"
    assert pay(pump, pump.lsp, alice, ROOM_MSAT + over_msat).status == status
    assert newest_link(alice).failure is None, "nobody is blamed: chains differ"


def test_the_theft_by_an_htlc_that_comes_back_finds_no_preimage(pump: Pump) -> None:
    """Alice offers 10, the LSP offers 10, Alice shows her preimage, the LSP fails the first.

    With incoming HTLCs counted alone, 20 + 10 are no more than 30, and the close would then pay 30
    to whom 40 are due.
    """
    alice, bob, _ = pump.clients
    assert sign_close(pump, alice, is_known_to_lsp=False) == FIRST_MSAT
    pump.disconnect(bob)
    first = begin_payment(pump, alice, bob, SPENT_MSAT)
    assert first.status == "pending"
    assert balance(alice).own_msat == FIRST_MSAT - ROOM_MSAT
    second = begin_payment(pump, pump.lsp, alice, SPENT_MSAT)
    assert (second.status, book(alice).invoices[second.payment_hash].status) == ("failed", "open")
    pump.pass_holds()
    assert book(alice).payments[first.payment_hash].status == "failed"
    assert owed_msat(newest_link(alice).state) == FIRST_MSAT


def test_an_honest_lsp_would_not_even_offer_it(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    sign_close(pump, alice)
    pump.disconnect(bob)
    assert begin_payment(pump, alice, bob, SPENT_MSAT).status == "pending"
    assert room_msat(lsp_link(pump, newest_link(alice)), pump.lsp.state.house.chain) == 0
    request = make_invoice(pump, alice, 1)
    assert pump.lsp.driver is not None
    with pytest.raises(Rejected, match="close: expected at most 0 sat more"):
        pump.lsp.driver.handle(request)


@pytest.mark.parametrize("is_known_to_lsp", [True, False])
def test_htlcs_without_an_output_count_as_well(pump: Pump, *, is_known_to_lsp: bool) -> None:
    """Of 900 sat none has an output; together they are money."""
    alice, bob, _ = pump.clients
    sign_close(pump, alice, is_known_to_lsp=is_known_to_lsp)
    assert pay(pump, alice, bob, 900_000).status == "paid"
    payments = [begin_payment(pump, bob, alice, 450_000) for _ in range(3)]
    pump.pass_holds()
    statuses = [book(bob).payments[one.payment_hash].status for one in payments]
    assert statuses == ["paid", "paid", "failed"]
    assert owed_msat(newest_link(alice).state) <= FIRST_MSAT


def test_what_has_no_room_under_a_close_waits_for_it(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    sign_close(pump, alice)
    waiting = begin_payment(pump, bob, alice, 2_000_000)
    (held,) = book(pump.lsp).held.values()
    assert held.reason.startswith("the payee's channel cannot carry it: close: expected at most 0")
    assert pay(pump, alice, pump.clients[2], 3_000_000).status == "paid"
    assert book(bob).payments[waiting.payment_hash].status == "paid"


def test_and_not_for_ever(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    sign_close(pump, alice)
    payment = pay(pump, bob, alice, 2_000_000)
    assert (payment.status, payment.failure) == ("failed", NOT_DELIVERED.reason)


def test_the_least_of_several_closes_is_the_limit(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    sign_close(pump, alice)
    assert pay(pump, alice, bob, SPENT_MSAT).status == "paid"
    sign_close(pump, alice, close_id=b"d" * 32)
    assert room_msat(newest_link(alice), alice.state.chain) == 0
    sign_close(pump, alice, close_id=b"e" * 32, balance_msat=FIRST_MSAT)
    assert room_msat(newest_link(alice), alice.state.chain) == 0


@pytest.mark.parametrize(("depth", "room"), [(SETTLED_DEPTH - 1, ROOM_MSAT), (SETTLED_DEPTH, None)])
def test_the_limit_ends_once_something_else_spent_the_outpoint_for_good(
    pump: Pump, depth: int, room: int | None
) -> None:
    spend_some(pump)
    alice = pump.clients[0]
    show_blocks(
        pump,
        alice,
        until=alice.state.chain.height + depth,
        txs=(pump.attempt.tree.root_node.tx,),
    )
    link = newest_link(alice)
    assert room_msat(link, alice.state.chain) == room
    balance_before = balance_now(link, alice.state.chain).receivable_msat
    assert (balance_before == ROOM_MSAT) is (room is not None)


def test_a_reorganisation_makes_the_limit_bind_again(pump: Pump) -> None:
    """Meanwhile the client was paid more: nothing new goes on until it owns less."""
    alice, bob, _ = pump.clients
    link = newest_link(alice)
    sign_close(pump, alice, balance_msat=FIRST_MSAT - 1)
    assert is_beyond_close(newest_link(alice), alice.state.chain)
    assert pay(pump, pump.lsp, bob, 1_000_000).status == "paid", "others are not concerned"
    with pytest.raises(Rejected, match="close: expected at most 0 sat more"):
        refused(pump, alice, bob, SPENT_MSAT)
    assert newest_link(alice).state == link.state


def refused(pump: Pump, payer: PumpNode, payee: PumpNode, amount_msat: int) -> None:
    assert payer.driver is not None
    payer.driver.handle(make_invoice(pump, payee, amount_msat))


# Quiet


def quiet(node: PumpNode, client: PumpNode) -> None:
    """Let one side of a client's channel be agreeing on a close."""
    channel_id = newest_link(client).channel_id
    change_link(node, channel_id, lambda link: changed(link, quiet_for=CLOSE_ID))


def test_while_a_close_is_agreed_on_nothing_is_offered(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    quiet(alice, alice)
    quiet(pump.lsp, alice)
    with pytest.raises(
        Rejected, match="close: expected none, received one that is being agreed on"
    ):
        refused(pump, alice, bob, SPENT_MSAT)
    with pytest.raises(
        Rejected, match="close: expected none, received one that is being agreed on"
    ):
        refused(pump, pump.lsp, alice, SPENT_MSAT)
    assert balance_now(newest_link(alice), alice.state.chain).spendable_msat == 0
    assert balance_now(newest_link(bob), bob.state.chain).spendable_msat > 0
    pump.disconnect(alice)
    pump.connect(alice)
    pump.run()
    assert pay(pump, alice, bob, SPENT_MSAT).status == "paid", "quiet ends with the connection"


def test_what_comes_while_a_client_is_quiet_waits_for_its_answer(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    quiet(alice, alice)
    payment = begin_payment(pump, bob, alice, SPENT_MSAT)
    assert (payment.status, len(book(alice).arrived)) == ("pending", 1)
    assert newest_link(alice).state.htlcs, "it was signed, and is not answered"
    channel_id = newest_link(alice).channel_id
    change_link(alice, channel_id, lambda link: changed(link, quiet_for=b""))
    pump.handle(alice, ev.FactsChanged())
    pump.run()
    assert book(bob).payments[payment.payment_hash].status == "paid"


def test_an_answer_is_passed_back_once_quiet_ends(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    request = make_invoice(pump, bob, SPENT_MSAT)
    with pump.tampering(mute(bob, pump.lsp, m.UpdateFulfillHtlc, m.CommitmentSigned)):
        pump.handle(alice, request)
        pump.run()
    quiet(pump.lsp, alice)
    pump.disconnect(bob)
    pump.connect(bob)
    pump.run()
    assert len(book(pump.lsp).resolved) == 1, "the LSP knows the preimage, and keeps still"
    assert book(alice).payments[request.payment_hash].status == "pending"
    channel_id = newest_link(alice).channel_id
    change_link(pump.lsp, channel_id, lambda link: changed(link, quiet_for=b""))
    pump.handle(pump.lsp, ev.FactsChanged())
    pump.run()
    assert book(alice).payments[request.payment_hash].status == "paid"


def test_a_close_of_an_output_that_never_comes_binds_no_channel_that_goes_on(pump: Pump) -> None:
    """A reorganisation lets another state of the leaf take the place of the one that was closed.

    Nothing ever spends what the close does. The channel is cut off in that state: no limit counts.
    """
    alice = pump.clients[0]
    chain = alice.state.chain
    sign_close(pump, alice)
    link = newest_link(alice)
    assert is_alive(link, chain)
    (close,) = link.closes
    other = changed(
        spend_of(link.path[-1].outpoint, 1_000),
        outputs=(TxOut(amount_sat=1_000, script_pubkey=link.present.txout.script_pubkey),),
    )
    deep = BlockRef(height=chain.height + 1, block_hash=Txid(b"\x07" * 32))
    landed = chain.with_block(deep, (other,))
    for number in range(SETTLED_DEPTH):
        empty = BlockRef(height=deep.height + 1 + number, block_hash=Txid(bytes((number,)) * 32))
        landed = landed.with_block(empty, ())
    assert close.is_live(landed), "no block spends it, nor will one"
    assert not is_alive(link, landed)


# At random


def dues_msat(client: PumpNode) -> Iterator[int]:
    """Yield what each commitment that may come on chain could bring a client at best.

    Its balance, all that it offered, and what it showed the preimage of.
    """
    link = newest_link(client)
    state = link.state
    shown = {
        invoice.paid_by
        for invoice in book(client).invoices.values()
        if invoice.paid_by is not None and invoice.paid_by[0] == link.channel_id
    }
    for holder in Party:
        for edition in Edition:
            content = state.content(holder, edition)
            yield content.balance_msat(Party.ACCEPTER) + sum(
                htlc.amount_msat
                for htlc in content.htlcs
                if htlc.offered_by is Party.ACCEPTER or (link.channel_id, htlc.htlc_id) in shown
            )


@pytest.mark.sampled(1)
@pytest.mark.parametrize("is_known_to_lsp", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_whenever_the_lsp_finishes_a_close_its_client_loses_nothing(
    seed: int, *, is_known_to_lsp: bool
) -> None:
    """In any order of payments, answers, silences and disconnections; an LSP may overlook it."""
    dice = random.Random(f"closes {seed}")
    pump = live_factory(3, policy=QUICK, order=seed)
    for client in pump.clients:
        pay(pump, pump.lsp, client, FIRST_MSAT)
    alice, bob, carol = pump.clients
    signed_msat = sign_close(pump, alice, is_known_to_lsp=is_known_to_lsp)

    def check() -> None:
        assert max(dues_msat(alice)) <= signed_msat, "the close would take something from her"

    for _ in range(60):
        payer, payee = dice.choice(
            [(alice, bob), (alice, carol), (bob, alice), (carol, alice), (pump.lsp, alice)]
        )
        happens = dice.choice(["pay", "pay", "run", "time", "away", "back"])
        if happens == "pay":
            amount_msat = dice.randrange(1_000, 9_000_000)
            pump.handle(payer, make_invoice(pump, payee, amount_msat))
        elif happens == "run":
            run_some(pump, dice, check)
        elif happens == "time":
            pump.pass_holds()
        elif happens == "away":
            pump.disconnect(dice.choice(pump.clients))
        else:
            come_back(pump)
        check()
    come_back(pump)
    pump.pass_holds()
    check()
    n_paid = sum(one.status == "paid" for node in pump.clients for one in payments_of(node))
    assert n_paid, "some payments went through under it"


def payments_of(node: PumpNode) -> Iterator[Payment]:
    yield from book(node).payments.values()


def run_some(pump: Pump, dice: random.Random, check: Callable[[], None]) -> None:
    n_left = [dice.randint(1, 8)]

    def enough() -> bool:
        check()
        n_left[0] -= 1
        return n_left[0] < 0

    pump.run(until=enough)


def come_back(pump: Pump) -> None:
    for client in pump.clients:
        if client.name not in pump.links:
            pump.connect(client)
    pump.run()


# As values


def a_close(name: bytes, balance_msat: int, *, is_finished: bool = False) -> SignedClose:
    tx = spend_of(OUTPOINT, balance_msat)
    return SignedClose(
        close_id=name * 32,
        outpoint=OUTPOINT,
        balance_msat=balance_msat,
        is_finished=is_finished,
        txids=(tx.txid,),
    )


def spend_of(outpoint: OutPoint, amount_sat: int) -> Tx:
    return Tx(
        version=3,
        inputs=(TxIn(outpoint=outpoint, nsequence=0xFFFFFFFD),),
        outputs=(TxOut(amount_sat=amount_sat, script_pubkey=bytes(34)),),
    )


def chain_with(tx: Tx, depth: int) -> KnownChain:
    chain = KnownChain().with_block(BlockRef(height=9, block_hash=Txid(bytes(32))), (tx,))
    for height in range(10, 9 + depth):
        chain = chain.with_block(BlockRef(height=height, block_hash=Txid(bytes(32))), ())
    return chain


def test_an_earlier_close_that_a_later_one_covers_is_known_in_a_block_all_the_same() -> None:
    """The LSP may finish any that was signed; the least of them is the limit."""
    closes = with_close(with_close((), a_close(b"1", 5_000)), a_close(b"2", 4_000))
    assert [one.balance_msat for one in closes] == [4_000]
    for amount_sat in (5_000, 4_000):
        chain = chain_with(spend_of(OUTPOINT, amount_sat), 1)
        assert is_frozen(closes, chain)
        assert closes[0].is_confirmed(chain)
    assert not is_frozen(closes, KnownChain())
    assert not is_frozen(closes, chain_with(spend_of(OUTPOINT, 3_000), 1)), "one that nobody signed"


@pytest.mark.parametrize("depth", [1, SETTLED_DEPTH - 1, SETTLED_DEPTH, 100])
def test_a_finished_close_binds_until_something_else_is_settled(depth: int) -> None:
    closes = (a_close(b"1", 5_000, is_finished=True),)
    another = chain_with(spend_of(OUTPOINT, 3_000), depth)
    assert is_frozen(closes, another) is (depth < SETTLED_DEPTH)
    assert (limit_msat(closes, another) is None) is (depth >= SETTLED_DEPTH)
    assert is_frozen(closes, chain_with(spend_of(OUTPOINT, 5_000), depth)), "itself, for good"
