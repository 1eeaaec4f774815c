"""Leaves that are advanced: a market that sells at once, and what must be true of every advance."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pytest
from tests.protocol.closes import give_money
from tests.protocol.leaf_audit import check_own_claims
from tests.protocol.paying_clients import live_factory, newest_link, pay
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.factory.allocation import Purchase
from cromford.factory.leaf import Leaf
from cromford.protocol.advancing import buying, selling
from cromford.protocol.advancing.lsp import begin
from cromford.protocol.advancing.sales import NotSold, Sale
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.advances import LspAdvance
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.policy import LspPolicy
from cromford.protocol.turn import Turn
from cromford.wire import messages as m

ADVANCING: Final = LspPolicy(
    min_clients=1, min_depth=1, step_blocks=8, states_per_layer=4, lstock_csv_blocks=8
)
STEPS: Final = (
    m.AdvancePropose,
    m.AdvanceAgree,
    m.AdvanceCommit,
    m.AdvanceSign,
    m.AdvanceDone,
    m.AdvanceHeld,
    m.UpdateRebase,
)
PRICE_MSAT: Final = 500_000
SOLD_SAT: Final = 30_000
QUOTE_ID: Final = bytes([7]) * 32
NEVER: Final = 2**32


def advancing_factory(n_clients: int = 2, *, policy: LspPolicy = ADVANCING, **options: Any) -> Pump:
    """Return a pump whose clients have some money each, and whose leaves have L-stock."""
    pump = live_factory(n_clients, policy=policy, **options)
    give_money(pump)
    return pump


@contextmanager
def market() -> Iterator[None]:
    """Let clients buy whatever is quoted to them, and the LSP sell to whoever buys."""
    patch = pytest.MonkeyPatch()
    patch.setattr(buying, "take_message", _buy)
    patch.setattr(selling, "take_message", _sell)
    try:
        yield
    finally:
        patch.undo()


def _buy(turn: Turn[ClientState], message: m.QuoteMessage) -> None:
    if not isinstance(message, m.Quote):
        return
    turn.remember(
        ar.PurchaseOrdered(
            attempt_id=message.attempt_id,
            quote_id=message.quote_id,
            amount_sat=message.amount_sat,
            capacity_sat=message.capacity_sat,
            price_msat=message.price_msat,
        )
    )
    buy = m.Buy(attempt_id=message.attempt_id, quote_id=message.quote_id, payment_hash=b"")
    turn.send(turn.state.lsp_node_id, buy)


def _sell(turn: Turn[Factory], node_id: bytes, message: m.QuoteRequest | m.Buy) -> None:
    buyer = turn.state.attempt.client_of(node_id)
    if buyer is None or not isinstance(message, m.Buy):
        return
    sale = Sale(
        buyer=buyer,
        amount_sat=int.from_bytes(message.quote_id[:8], "big") or None,
        quote_id=message.quote_id,
        state_index=message.quote_id[8],
        price_msat=int.from_bytes(message.quote_id[9:17], "big"),
    )
    try:
        begin(turn, sale)
    except NotSold as refused:
        refusal = m.QuoteRefused(
            attempt_id=message.attempt_id,
            quote_id=message.quote_id,
            code=refused.code,
            reason=refused.reason,
            missing_msat=refused.missing_msat,
            next_factory=0,
        )
        turn.send(node_id, refusal)


def quote_for(
    pump: Pump, seat: int, *, amount_sat: int | None = SOLD_SAT, price_msat: int = PRICE_MSAT
) -> m.Quote:
    """Return what the LSP would quote a client; its name says what it is for."""
    leaf = leaf_of(pump, seat)
    after = leaf.sold(Purchase(buyer=seat, amount_sat=amount_sat))
    state_index = len(leaf.states)
    quote_id = b"".join(
        (
            (amount_sat or 0).to_bytes(8, "big"),
            state_index.to_bytes(1, "big"),
            price_msat.to_bytes(8, "big"),
            bytes(15),
        )
    )
    sold_sat = leaf.allocation.lstock_sat - after.allocation.lstock_sat
    return m.Quote(
        attempt_id=pump.attempt.attempt_id,
        quote_id=quote_id,
        amount_sat=sold_sat,
        capacity_sat=after.allocation.capacities_sat[leaf.clients.index(seat)],
        price_msat=price_msat,
        state_index=state_index,
        needed=(),
        sales_left=0,
        covered_sat=0,
        valid_until_height=NEVER,
        usable_blocks=1,
    )


def buy(pump: Pump, seat: int, **quoted: Any) -> m.Quote:
    """Let a client buy; nothing of the advance is delivered yet."""
    quote = quote_for(pump, seat, **quoted)
    pump.lsp_says(pump.client_at(seat), quote)
    pump.run_to(m.AdvancePropose)
    return quote


def sell(pump: Pump, seat: int, **quoted: Any) -> m.Quote:
    """Let a client buy, and everybody do its part."""
    quote = quote_for(pump, seat, **quoted)
    pump.lsp_says(pump.client_at(seat), quote)
    pump.run()
    return quote


def deliver(pump: Pump, n_messages: int = 1) -> bool:
    """Deliver some messages; say whether there were that many."""
    left = n_messages

    def is_enough() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    pump.run(until=is_enough)
    return left < 0


def settle(pump: Pump) -> None:
    """Let everybody come back, and blocks come, until nothing is under way."""
    for _ in range(8):
        connect_again(pump)
        pump.run()
        check_claims(pump)
        if under_way(pump) is None and not any(one.state.advances for one in pump.clients):
            return
        pump.mine(1)
    raise AssertionError("an advance never ends")


def connect_again(pump: Pump) -> None:
    """Let whoever was hung up on come back."""
    for client in pump.clients:
        if client.name not in pump.links:
            pump.connect(client)


def n_pools(pump: Pump) -> list[int]:
    """Return how many pools of nonces each participant holds, the LSP first."""
    held = []
    for node in (pump.lsp, *pump.clients):
        assert node.signer is not None
        held.append(len(node.signer._pools))
    return held


def check_nothing_is_left(pump: Pump) -> None:
    """Check that no advance is under way, nobody quiet, and nothing set aside."""
    assert not pump.factory.advances
    assert not pump.deadlines_of(fx.AdvanceDeadline)
    for seat, client in enumerate(pump.clients, start=1):
        assert not client.state.advances
        for link in both_links(pump, seat):
            assert link.next is None
            assert link.quiet_for == b""
            assert link.state.reserved_msat == 0


def leaf_of(pump: Pump, seat: int) -> Leaf:
    """Return a client's leaf as the LSP has it."""
    return pump.attempt.leaf(seat)


def under_way(pump: Pump) -> LspAdvance | None:
    """Return the LSP's advance under way, if there is one."""
    advances = list(pump.factory.advances.values())
    return advances[0] if advances else None


def remembered(node: PumpNode, kind: type[Any]) -> list[Any]:
    """Return what a node remembers of one kind."""
    return [one for one in node.store.remembered if isinstance(one, kind)]


def both_links(pump: Pump, seat: int) -> tuple[Link, Link]:
    """Return a channel as its client and as the LSP see it."""
    link = newest_link(pump.client_at(seat))
    return link, pump.lsp.state.book.links[link.channel_id]


def check_claims(pump: Pump) -> None:
    """Check of each channel, on both sides, on which fundings there is a claim of its own."""
    for seat in range(1, len(pump.clients) + 1):
        for link in both_links(pump, seat):
            check_own_claims(link)


def check_sold(pump: Pump, seat: int, quote: m.Quote, *, in_leaf: Sequence[int] = ()) -> None:
    """Check that a purchase is done, for all in the leaf alike, down to every signature."""
    clients = in_leaf or tuple(leaf_of(pump, seat).clients)
    leaf = leaf_of(pump, seat)
    assert len(leaf.states) == quote.state_index + 1
    assert under_way(pump) is None
    assert [one.quote_id for one in remembered(pump.lsp, ar.AdvanceProposed)][-1] == quote.quote_id
    (sold,) = [
        one
        for one in remembered(pump.lsp, ar.LiquiditySold)
        if one.capacity_sat == quote.capacity_sat and one.client == seat
    ]
    assert (sold.amount_sat, sold.price_msat) == (quote.amount_sat, quote.price_msat)
    for client in clients:
        check_is_rebased(pump, client, leaf)
    bought = remembered(pump.client_at(seat), ar.LiquidityBought)
    assert bought[-1].capacity_sat == quote.capacity_sat
    assert not pump.client_at(seat).state.purchases
    check_claims(pump)


def check_is_rebased(pump: Pump, client: int, leaf: Leaf) -> None:
    """Check that both sides of a channel are on the newest state, with the old one's poisons."""
    link, lsp_link = both_links(pump, client)
    held = pump.held(pump.client_at(client))
    assert not pump.client_at(client).state.advances
    assert link.present == lsp_link.present
    assert link.present.outpoint.txid == leaf.state.tx.txid
    assert link.next is None is lsp_link.next
    assert link.present.capacity_sat == link.state.capacity_sat
    assert link.finished.commitment.signing_task.sighash == lsp_link.signed_sighash
    assert lsp_link.finished.commitment.signing_task.sighash == link.signed_sighash
    assert link.is_open
    assert lsp_link.is_open
    assert not link.quiet_for
    assert not lsp_link.quiet_for
    assert held.leaf.state.tx == leaf.state.tx
    newest = held.leaf_states[-1]
    state_index = len(leaf.states) - 1
    task = leaf.state.task
    assert task.is_signed_by(newest.signature, task.key_agg.output_key)
    assert newest.poisons is not None
    for poison in held.leaf.poisons(state_index - 1):
        signature = newest.poisons.channels.get(client, b"")
        if poison.name == leaf.stock_poison(state_index - 1).name:
            signature = newest.poisons.stock
        assert poison.task.is_signed_by(signature, poison.task.key_agg.output_key)


def check_payments_work(pump: Pump, *seats: int) -> None:
    """Check that each of these clients is paid by the LSP, and pays the next."""
    for seat in seats:
        paid = pay(pump, pump.lsp, pump.client_at(seat), 10_000)
        assert paid.status == "paid", seat
    for payer, payee in itertools.pairwise(seats):
        assert pay(pump, pump.client_at(payer), pump.client_at(payee), 5_000).status == "paid"
    check_claims(pump)
