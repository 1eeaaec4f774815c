"""Closes of a factory whose clients have money, and what must be true of each of them."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.protocol.paying_clients import live_factory, newest_link, pay
from tests.protocol.pump import Pump, PumpNode, Tamper

from cromford import effects as fx
from cromford.bitcoin.fees import ANCHOR_DUST_SAT
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.factory.close import CLOSE_NSEQUENCE, CloseScope
from cromford.factory.vertices import Vertex
from cromford.protocol import events as ev
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.close_scopes import lsp_scope
from cromford.protocol.journal.closes import is_frozen, limit_msat
from cromford.protocol.journal.closing import Closing
from cromford.protocol.journal.link import Link
from cromford.protocol.policy import LspPolicy
from cromford.regtest.kernel import check_scripts
from cromford.wire import messages as m

QUICK: Final = LspPolicy(
    min_clients=1, min_depth=1, step_blocks=4, states_per_layer=2, lstock_csv_blocks=4
)
# From much to nothing worth an output: 330 sat and a msat less are one of each.
BALANCES_MSAT: Final = (30_000_123, 12_345_678, 329_999, 330_000, 1, 20_000_000, 999, 5_000_500)
STEPS: Final = (m.CloseBegin, m.CloseAgree, m.ClosePropose, m.CloseSign, m.Closed)


def closable_factory(n_clients: int, *, policy: LspPolicy = QUICK, **options: Any) -> Pump:
    """Return a pump whose clients have some money each."""
    pump = live_factory(n_clients, policy=policy, **options)
    give_money(pump)
    return pump


def give_money(pump: Pump) -> None:
    for seat, amount_msat in zip(range(1, len(pump.clients) + 1), BALANCES_MSAT, strict=False):
        assert pay(pump, pump.lsp, pump.client_at(seat), amount_msat) is not None


def ask_for_close(pump: Pump, **asked: Any) -> None:
    """Let the LSP's operator ask for a close; nothing is delivered yet."""
    attempt_id = pump.attempt.attempt_id
    pump.handle(pump.lsp, ev.CloseRequested(attempt_id=attempt_id, **asked))


def close(pump: Pump, **asked: Any) -> None:
    """Ask for a close, and let everybody do its part."""
    ask_for_close(pump, **asked)
    pump.run()


def under_way(pump: Pump) -> Closing:
    """Return the close under way."""
    closing = pump.factory.closing
    assert closing is not None
    return closing


def ended(node: PumpNode) -> list[cl.CloseEnded]:
    """Return what a node remembers of closes that came to nothing."""
    return [one for one in node.store.remembered if isinstance(one, cl.CloseEnded)]


def finished(node: PumpNode) -> list[cl.CloseFinished]:
    """Return what a node remembers of closes that were finished."""
    return [one for one in node.store.remembered if isinstance(one, cl.CloseFinished)]


def links(pump: Pump) -> dict[int, tuple[Link, Link]]:
    """Return each channel as its client and as the LSP see it, by seat."""
    both = {}
    for seat in range(1, len(pump.clients) + 1):
        link = newest_link(pump.client_at(seat))
        both[seat] = link, pump.lsp.state.book.links[link.channel_id]
    return both


def scope_in(pump: Pump, outpoint: OutPoint) -> CloseScope:
    return lsp_scope(pump.attempt, outpoint)


def check_all_is_paid(pump: Pump) -> None:
    """Check every finished close against the journals alone: sums, payouts, scripts, shape."""
    for record in finished(pump.lsp):
        scope = scope_in(pump, OutPoint.parse(record.outpoint))
        for data in record.txs:
            check_close_tx(pump, scope, Tx.parse(data), record.balances_msat)
    for client in pump.clients:
        for record in finished(client):
            assert set(record.txs) <= {tx for one in finished(pump.lsp) for tx in one.txs}


def check_close_tx(pump: Pump, scope: CloseScope, tx: Tx, balances_msat: Sequence[int]) -> None:
    """Check that a close pays whole balances to agreed scripts, and looks like one signer's."""
    check_scripts(tx, [scope.prevout])
    (tx_in,) = tx.inputs
    assert [len(item) for item in tx_in.witness] == [64]
    assert (tx.version, tx.nlocktime, tx_in.nsequence) == (3, 0, CLOSE_NSEQUENCE)
    owed = [
        (balance_msat // 1000, pump.attempt.seats[client - 1].payout_script)
        for client, balance_msat in zip(scope.clients, balances_msat, strict=True)
        if balance_msat >= 330_000
    ]
    paid = [(output.amount_sat, output.script_pubkey) for output in tx.outputs]
    assert paid[: len(owed)] == owed
    assert paid[-1] == (ANCHOR_DUST_SAT, ANCHOR_SCRIPT)
    assert [script for _, script in paid[len(owed) : -1]] == [pump.attempt.payout_script]
    fee_sat = scope.amount_sat - sum(amount_sat for amount_sat, _ in paid)
    assert 4 * tx.vsize * 1_000 > 0 < fee_sat


def check_nobody_is_stuck(pump: Pump) -> None:
    """Check that nothing is under way, nobody quiet, and only finished closes freeze a channel."""
    assert pump.factory.closing is None
    assert not pump.deadlines_of(fx.CloseDeadline)
    closed = {channel for one in finished(pump.lsp) for channel in one.channels}
    for link, lsp_link in links(pump).values():
        for one, chain in ((link, pump.clients[0].state.chain), (lsp_link, pump.factory.chain)):
            assert one.quiet_for == b""
            if one.channel_id not in closed:
                assert not is_frozen(one.closes, chain)
    for client in pump.clients:
        assert not client.state.closing


def below_the_other_child(pump: Pump) -> Vertex:
    """Let client 1 leave, and return a whole vertex below the root that it is not in.

    Client 1's neighbour in its leaf has a channel still, which no close of that vertex binds.
    """
    pump.handle(pump.client_at(1), ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    pump.run()
    vertices = pump.attempt.tree.vertices[1:]
    other = next(vertex for vertex in vertices if 1 not in vertex.first.shape.clients)
    mine_until_on_chain(pump, other.first.tx.inputs[0].outpoint)
    return other


def mine_until_on_chain(pump: Pump, outpoint: OutPoint) -> None:
    for _ in range(60):
        if pump.factory.chain.depth(outpoint.txid):
            return
        pump.mine(1)
    raise AssertionError(f"{outpoint} never came")


def limit_of(pump: Pump, link: Link) -> int | None:
    return limit_msat(link.closes, pump.factory.chain)


def losing(*message_types: type[m.Message], of: Callable[[PumpNode], bool]) -> Tamper:
    """Return what loses messages of these types that concern a client."""

    def lose(sender: PumpNode, receiver: PumpNode, message: m.Message) -> Sequence[m.Message]:
        concerns = of(sender) or of(receiver)
        return () if concerns and isinstance(message, message_types) else (message,)

    return lose


def changing(
    sender_of: PumpNode, kind: type[m.Message], change: Callable[[Any], Sequence[m.Message]]
) -> Tamper:
    """Return what puts other messages in the place of one sender's of a type."""

    def tamper(sender: PumpNode, _receiver: PumpNode, message: m.Message) -> Sequence[m.Message]:
        is_it = sender is sender_of and isinstance(message, kind)
        return change(message) if is_it else (message,)

    return tamper
