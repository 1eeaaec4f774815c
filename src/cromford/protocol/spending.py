"""Payments out of a role's wallet: the same for both roles."""

from collections.abc import Iterable
from typing import assert_never

from cromford import effects as fx
from cromford.bitcoin.fees import sat_per_vb
from cromford.bitcoin.tx import Tx, Txid
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import spending_records as sr
from cromford.protocol.turn import WalletTurn
from cromford.wallet.account import CHANGE, RECEIVE
from cromford.wallet.bumping import CoinsOffChain, ReplacementTooCheap, plan_bump
from cromford.wallet.coins import InsufficientCoins, Wallet
from cromford.wallet.spending import (
    Booking,
    DustSpending,
    SpendingPlan,
    SplitOutOfRange,
    plan_spending,
    plan_split,
)

PAYMENT = "payment"


def planned(
    wallet: Wallet, event: ev.SpendingRequested | ev.SplitRequested, *, tip_height: int
) -> SpendingPlan:
    """Return the payment an operator asks for.

    Raises:
        Rejected: If the wallet cannot pay it.
    """
    try:
        if isinstance(event, ev.SplitRequested):
            return plan_split(
                wallet,
                n_coins=event.n_coins,
                amount_sat=event.amount_sat,
                feerate_sat_per_kw=event.feerate_sat_per_kw,
                tip_height=tip_height,
            )
        return plan_spending(
            wallet,
            script_pubkey=event.script_pubkey,
            amount_sat=event.amount_sat,
            feerate_sat_per_kw=event.feerate_sat_per_kw,
            tip_height=tip_height,
        )
    except InsufficientCoins as error:
        raise Rejected("insufficient_coins", str(error), retryable=True) from error
    except DustSpending as error:
        raise Rejected("dust", str(error)) from error
    except SplitOutOfRange as error:
        raise Rejected("split_out_of_range", str(error)) from error


def take(turn: WalletTurn, event: ev.SpendingEvent) -> None:
    """Take what an operator wants of the wallet, or its signature.

    Raises:
        Rejected: If the wallet cannot pay, or the payment can be neither bumped nor given up.
    """
    match event:
        case ev.AddressRequested():
            issue_address(turn)
        case ev.SpendingRequested() | ev.SplitRequested():
            on_spending_requested(turn, event)
        case ev.SpendingBumpRequested():
            on_bump_requested(turn, event)
        case ev.SpendingSigned():
            on_spending_signed(turn, event)
        case ev.AbandonRequested():
            on_abandon_requested(turn, event)
        case _:
            assert_never(event)


def issue_address(turn: WalletTurn) -> None:
    """Remember that the next receive script was handed out, unless it was before: at the gap."""
    if not turn.state.wallet.is_at_gap(RECEIVE):
        turn.remember(sr.AddressIssued(change=RECEIVE))


def on_spending_requested(
    turn: WalletTurn, event: ev.SpendingRequested | ev.SplitRequested
) -> None:
    """Sign a payment.

    Raises:
        Rejected: If the wallet cannot pay it, or another has its id.
    """
    wallet = turn.state.wallet
    external_id = event.external_id
    if external_id in wallet.newest_called:
        raise Rejected("external_id_taken", f"a payment has the id {external_id!r}")
    plan = planned(wallet, event, tip_height=turn.height)
    change_script = wallet.next_script(CHANGE)
    turn.ask(
        fx.SignSpending(
            tx=plan.tx,
            prevouts=tuple(coin.txout for coin in plan.coins),
            paths=tuple(coin.path for coin in plan.coins),
            booking=Booking(
                has_change=any(out.script_pubkey == change_script for out in plan.tx.outputs),
                external_id=external_id,
                asked_sat=event.amount_sat if external_id else None,
            ),
        )
    )


def planned_bump(
    wallet: Wallet, event: ev.SpendingBumpRequested, *, tip_height: int
) -> SpendingPlan:
    """Return what takes the place of a payment that waits for a block.

    Raises:
        Rejected: If there is none, its change or a coin of it is set aside for something else, a
            coin is off the chain, or what is to pay does not reach.
    """
    tx = wallet.payments.get(event.txid)
    if tx is None:
        raise _no_payment(event.txid)
    if wallet.is_behind(tx.txid) or any(one in wallet.reserved for one in tx.outpoints):
        raise Rejected(
            "change_spent",
            "it came back by a reorganisation, and the change of it, or of what a block had in its "
            "place, is in use since",
        )
    if any(wallet.reserved.get(tx_in.outpoint) != event.txid for tx_in in tx.inputs):
        raise Rejected(
            "coins_taken", "it came back by a reorganisation, and a coin of it is in use since"
        )
    try:
        return plan_bump(
            wallet,
            tx,
            feerate_sat_per_kw=event.feerate_sat_per_kw,
            takes_from_amount=event.takes_from_amount,
            incremental_sat_per_kw=event.incremental_sat_per_kw,
            others_sat=event.others_sat,
            tip_height=tip_height,
        )
    except CoinsOffChain as error:
        raise Rejected("coins_off_chain", str(error), retryable=True) from error
    except ReplacementTooCheap as error:
        beside = " and what hangs on it" if event.others_sat else ""
        raise Rejected(
            "feerate_too_low",
            f"feerate_sat_per_vb: expected at least {sat_per_vb(error.least_sat_per_kw)} to take "
            f"the place of the payment{beside} ({error.least_sat} sat), received "
            f"{sat_per_vb(event.feerate_sat_per_kw)}",
        ) from error
    except DustSpending as error:
        raise Rejected("dust", str(error)) from error
    except InsufficientCoins as error:
        told = f"{error}, beside the change; or out of the amount, from_amount, its payee pays"
        raise Rejected("insufficient_coins", told, retryable=True) from error


def on_bump_requested(turn: WalletTurn, event: ev.SpendingBumpRequested) -> None:
    """Sign what takes the place of a payment. On a stale chain that may be in a block.

    Raises:
        Rejected: If it cannot be bumped, or the chain is stale.
    """
    wallet = turn.state.wallet
    plan = planned_bump(wallet, event, tip_height=turn.height)
    turn.check_fresh()
    known = {out.script_pubkey for out in wallet.payments[event.txid].outputs}
    turn.ask(
        fx.SignSpending(
            tx=plan.tx,
            prevouts=tuple(coin.txout for coin in plan.coins),
            paths=tuple(coin.path for coin in plan.coins),
            booking=Booking(
                has_change=any(out.script_pubkey not in known for out in plan.tx.outputs),
                replaces=event.txid,
            ),
        )
    )


def on_spending_signed(turn: WalletTurn, event: ev.SpendingSigned) -> None:
    """Remember a signed payment, then publish it."""
    booking = event.asked.booking
    turn.remember(
        sr.SpendingWasSigned(
            tx=event.tx.serialize(),
            has_change=booking.has_change,
            replaces=b"" if booking.replaces is None else booking.replaces,
            external_id=booking.external_id,
            asked_sat=booking.asked_sat,
        )
    )
    turn.ask(fx.Broadcast(name=PAYMENT, tx=event.tx))


def on_abandon_requested(turn: WalletTurn, event: ev.AbandonRequested) -> None:
    """Give up a payment, so that its coins are free again.

    On a stale chain it may be in a block that we have not read.

    Raises:
        Rejected: If there is no such payment without a block, or the chain is stale.
    """
    if event.txid not in turn.state.wallet.payments:
        raise _no_payment(event.txid)
    turn.check_fresh()
    turn.remember(sr.SpendingAbandoned(txid=event.txid, reason=event.reason))


def tell_overtaken(turn: WalletTurn, before: Wallet, txs: Iterable[Tx]) -> None:
    """Remember which payments are over because a block spends a coin of theirs otherwise.

    Args:
        turn: The decision, in which the block was remembered.
        before: The wallet before that.
        txs: What the block has for the wallet.
    """
    if not before.payments:
        return
    spent_by = {tx_in.outpoint: tx.txid for tx in txs for tx_in in tx.inputs}
    for txid, payment in before.payments.items():
        spenders = {spent_by.get(tx_in.outpoint, txid) for tx_in in payment.inputs} - {txid}
        if spenders and txid not in turn.state.wallet.payments:
            spender = min(spenders, key=lambda one: (not before.is_same_called(one, txid), one))
            turn.remember(sr.SpendingOvertaken(txid=txid, spent_by=spender))


def _no_payment(txid: Txid) -> Rejected:
    return Rejected("payment_not_found", f"no payment {txid} waits for a block")


def owed_spendings(wallet: Wallet) -> tuple[fx.Broadcast, ...]:
    """Return the payments to publish again: signed, not yet in a block, and none that ends more."""
    return tuple(
        fx.Broadcast(name=PAYMENT, tx=tx)
        for tx in wallet.payments.values()
        if not wallet.is_withheld(tx)
    )
