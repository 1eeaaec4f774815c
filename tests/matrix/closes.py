"""Cooperative closes of a world: made in time, kept back by the LSP, told of, pinned, outbid."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from cromford import effects as fx
from cromford.bitcoin.fees import SAT_PER_KW_OF_SAT_PER_VB
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.protocol import events as ev
from cromford.protocol.closing.rules import least_feerate_sat_per_kw
from cromford.protocol.journal.closes import FinishedClose
from cromford.wire import messages as m
from tests.matrix.attempts import PIN_DISCOUNT, PIN_VSIZE
from tests.matrix.histories import HTLC_MSAT
from tests.matrix.thief import Thief
from tests.matrix.world import MatrixWorld
from tests.protocol.paying_clients import book
from tests.protocol.pump import PumpNode, Tamper
from tests.simulation.sim_chain import SimRefused

DEARER: Final = 3
SPENT_MSAT: Final = 12_000_000
STEP_MSAT: Final = 1_000_000
MOST_SAT_PER_KW: Final = 100_000  # Nearly all of a coin, or more than anybody else pays.


def feerates(world: MatrixWorld, *factors: int) -> tuple[int, ...]:
    """Return multiples of the least feerate at which everybody signs a close now."""
    least = least_feerate_sat_per_kw(
        tree_feerate_sat_per_kw=world.market.tree_sat_per_kw, fees=world.fees()
    )
    return tuple(factor * least for factor in factors)


def close_together(world: MatrixWorld, *factors: int, **asked: Any) -> None:
    """Let the LSP's operator close; everybody does its part.

    Args:
        world: Where.
        factors: The options' feerates, as multiples of the least.
        asked: What is closed, if not all of it.
    """
    wish = ev.CloseRequested(
        attempt_id=world.attempt.attempt_id,
        feerates_sat_per_kw=feerates(world, *(factors or (1, DEARER))),
        **asked,
    )
    world.handle(world.lsp, wish)
    world.run()


def withhold(world: MatrixWorld, *factors: int, **asked: Any) -> FinishedClose:
    """Let everybody sign a close that the LSP then says came to nothing, and could finish."""
    n_before = len(world.withheld)
    world.withholds = True
    close_together(world, *factors, **asked)
    world.withholds = False
    assert len(world.withheld) == n_before + 1, "everybody signed"
    return world.withheld[-1]


def refuse_at_last(world: MatrixWorld, client: PumpNode) -> None:
    """Let everybody sign a close but one client, whose last message never comes."""
    with world.tampering(_without(client)):
        close_together(world)
    assert not world.withheld
    for node, deadline in world.deadlines_of(fx.CloseDeadline):
        world.pass_deadline(node, deadline)
    world.run()


def _without(client: PumpNode) -> Tamper:
    def tamper(by: PumpNode, _to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        return () if by is client and isinstance(message, m.CloseSign) else (message,)

    return tamper


def pay_surely(world: MatrixWorld, payer: PumpNode, payee: PumpNode, amount_msat: int) -> None:
    """Let one pay another; whoever signed a close is not frozen by it."""
    payment_hash = world.pay(payer, payee, amount_msat)
    world.pass_holds()
    assert book(payer).payments[payment_hash].status == "paid", "nobody is frozen"


def move_balances(world: MatrixWorld, *but: PumpNode, leaves_room: bool = False) -> None:
    """Let everybody spend a part of its balance, and get some of that back, by the dice.

    Only the outsider can be paid more than it had when it signed.
    """
    outsider = world.outsider
    for client in world.members:
        if client in but:
            continue
        pay_surely(world, client, outsider, SPENT_MSAT)
        most_msat = SPENT_MSAT - HTLC_MSAT if leaves_room else SPENT_MSAT
        back_msat = world.dice.randrange(0, most_msat, STEP_MSAT)
        if back_msat:
            pay_surely(world, outsider, client, back_msat)


def closes_next(thief: Thief, close: FinishedClose, *, option: int = 0) -> None:
    """Publish a close that was kept back, as soon as it can be in a block."""
    chain = thief.world.chain
    if close.outpoint in chain.spends or close.outpoint.txid not in chain.confirmed:
        return
    thief.publish("close", close.txs[min(option, len(close.txs) - 1)])


def tell_of(world: MatrixWorld, close: FinishedClose, attempt_id: bytes) -> None:
    """Let the LSP tell everybody of a close; first with another payout and with another signature.

    Nobody believes these.
    """
    true = [*close.txs]
    (tx, *_) = true
    paid = tx.outputs[0]
    less = replace(tx, outputs=(replace(paid, amount_sat=paid.amount_sat - 1), *tx.outputs[1:]))
    for txs, is_believed in (
        ([less], False),
        ([tx.with_witnesses((bytes(64),))], False),
        (true, True),
    ):
        told = m.Closed(
            attempt_id=attempt_id,
            close_id=close.close_id,
            txs=tuple(m.ClosedTx(tx=one.serialize()) for one in txs),
        )
        for client in world.members:
            if client.driver is not None:
                world.tell(client, world.lsp, told)
                assert (close.close_id in client.state.closed) is is_believed


def tell_the_lsp_of(world: MatrixWorld, client: PumpNode, close: FinishedClose) -> None:
    """Let a client tell its LSP of a close, as if that were for a client to say."""
    told = m.Closed(
        attempt_id=world.attempt.attempt_id,
        close_id=close.close_id,
        txs=tuple(m.ClosedTx(tx=one.serialize()) for one in close.txs),
    )
    world.tell(world.lsp, client, told)
    world.run()
    factories = world.lsp.state.all_factories()
    assert not any(close.close_id in factory.closed for factory in factories)


def pin_by_anchor(thief: Thief) -> None:
    """Hang a large, cheap child on the anchor of each close that waits."""
    _pin_closes(thief, at_own_output=False)


def pin_by_own_output(thief: Thief) -> None:
    """Hang such a child on what a close pays the thief."""
    _pin_closes(thief, at_own_output=True)


def _pin_closes(thief: Thief, *, at_own_output: bool) -> None:
    world = thief.world
    for tx in [*world.chain.mempool.values()]:
        if tx.txid in world.closes:
            at = _own_output(thief, tx) if at_own_output else None
            if at is not None or not at_own_output:
                _pin(thief, tx, at)


def _pin(thief: Thief, tx: Tx, at: OutPoint | None) -> None:
    market, chain = thief.world.market, thief.world.chain
    feerate = (market.filled_at_sat_per_vb - PIN_DISCOUNT) * SAT_PER_KW_OF_SAT_PER_VB
    coins = () if at is not None else thief.coins()[:1]
    child = thief.child_of(tx, coins, feerate_sat_per_kw=feerate, vsize=PIN_VSIZE, at=at)
    try:
        chain.broadcast(child)
    except SimRefused as refused:
        thief.refusals["pin"] = str(refused)
    else:
        thief.n_pins += 1


def _own_output(thief: Thief, tx: Tx) -> OutPoint | None:
    for vout, out in enumerate(tx.outputs):
        name, _ = thief.world.names.get(out.script_pubkey, ("", None))
        if name in thief.signers:
            return tx.outpoint(vout)
    return None


def outbid(thief: Thief, name: str, tx: Tx) -> None:
    """Publish a transaction with a child that nobody who is honest pays more than."""
    chain = thief.world.chain
    (spent,) = (tx_in.outpoint for tx_in in tx.inputs)
    if spent in chain.spends or spent.txid not in chain.confirmed or tx.txid in chain.mempool:
        return
    child = thief.child_of(tx, thief.coins()[:1], feerate_sat_per_kw=MOST_SAT_PER_KW)
    try:
        chain.broadcast_package(tx, child)
    except SimRefused as refused:
        thief.refusals[name] = str(refused)
    else:
        thief.published.add(tx.txid)
