"""A funding that no block takes is paid for by a child of its change (CPFP).

Replacing it would change its txid, and void every signature of its factory. So another transaction
of the wallet spends its change, and pays enough for both: a miner takes them together.
"""

from collections.abc import Iterable, Iterator

from cromford import effects as fx
from cromford import told
from cromford.bitcoin.fees import sat_per_vb
from cromford.bitcoin.replacement import FeeAndWeight, replacement_fee_sat
from cromford.bitcoin.tx import Tx, Txid, vsize_of
from cromford.factory.funding import CHANGE_VOUT
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import spending_records as sr
from cromford.protocol.journal.bumps import FundingBump
from cromford.protocol.journal.entries import ABORTED, BUILDING, DEAD, FactoryEntry
from cromford.protocol.journal.house import House
from cromford.protocol.turn import Turn
from cromford.wallet.account import CHANGE
from cromford.wallet.child import ChildPlan, plan_child
from cromford.wallet.coins import InsufficientCoins, WalletCoin, wallet_tx_weight
from cromford.watch.feerates import BELIEVED_SAT_PER_KW, OwnFees, child_fee_sat

BUMP = "funding_child"


def planned(
    house: House,
    attempt_id: bytes,
    funding: Tx | None,
    *,
    feerate_sat_per_kw: int,
    fees: OwnFees,
) -> ChildPlan:
    """Return a child with which a funding pays this feerate; it replaces any before it.

    Args:
        house: The house.
        attempt_id: The factory's name.
        funding: Its funding transaction, if that is signed.
        feerate_sat_per_kw: What both together should pay.
        fees: What our own node asks for.

    Raises:
        Rejected: If there is no such funding without a block, it pays that already, its change is
            in use, the coins do not reach, or our mempool asks for what nobody should believe.
    """
    entry = signed_entry(house, attempt_id)
    if funding is None:
        raise not_signed(attempt_id)
    check_waits(house, entry)
    check_change_is_free(house, attempt_id, [funding])
    parent = FeeAndWeight(funding_fee_sat(house, entry, funding), funding.weight)
    known = house.bumps.get(attempt_id)
    before = None if known is None else FeeAndWeight(known.fee_sat, _weight(known.child))
    _check_pays_more(parent, before, feerate_sat_per_kw)
    _check_is_open(fees)

    def fee_sat_of_weight(weight: int) -> int:
        fee_sat = child_fee_sat(
            weight,
            parent=parent,
            feerate_sat_per_kw=feerate_sat_per_kw,
            mempool_min_sat_per_kw=fees.mempool_min_sat_per_kw,
        )
        return fee_sat if before is None else max(fee_sat, _replacing(weight, parent, before, fees))

    wallet = house.wallet
    script = wallet.next_script(CHANGE) if known is None else known.child.outputs[0].script_pubkey
    try:
        return plan_child(
            funding.outpoint(CHANGE_VOUT),
            funding.outputs[CHANGE_VOUT].amount_sat,
            script_pubkey=script,
            coins=_usable(house, known),
            fee_sat_of_weight=fee_sat_of_weight,
        )
    except InsufficientCoins as error:
        raise Rejected("insufficient_coins", str(error), retryable=True) from error


def on_bump_requested(
    turn: Turn[House], event: ev.FundingBumpRequested, funding: Tx | None
) -> None:
    """Remember a child for a funding, and have it signed.

    Raises:
        Rejected: If it cannot be bumped; on a stale chain it may be in a block.
    """
    plan = planned(
        turn.state,
        event.attempt_id,
        funding,
        feerate_sat_per_kw=event.feerate_sat_per_kw,
        fees=turn.facts.fees,
    )
    turn.check_fresh()
    if funding is None:
        raise AssertionError("a funding that is not signed is not found")
    turn.remember(
        lr.FundingBumped(
            attempt_id=event.attempt_id,
            funding=funding.serialize(),
            tx=plan.tx.serialize(),
            fee_sat=plan.fee_sat,
        )
    )
    turn.ask(*_owed(turn.state, turn.state.bumps[event.attempt_id]))


def on_signed(turn: Turn[House], event: ev.SpendingSigned) -> None:
    """Remember a signed child, then publish it together with its funding."""
    turn.remember(sr.SpendingWasSigned(tx=event.tx.serialize(), has_change=False))
    turn.ask(*owed(turn.state))


def is_child(house: House, txid: Txid) -> bool:
    """Say whether a transaction is the child of a funding that is in no block."""
    return any(bump.child.txid == txid for bump in _waiting(house))


def owed(house: House) -> Iterator[fx.Effect]:
    """Yield what signs children, or publishes them, whose fundings are in no block."""
    for bump in _waiting(house):
        yield from _owed(house, bump)


def without_children(house: House, payments: Iterable[fx.Broadcast]) -> Iterator[fx.Broadcast]:
    """Yield the payments that need no funding beside them."""
    children = {bump.child.txid for bump in _waiting(house)}
    return (payment for payment in payments if payment.tx.txid not in children)


def check_is_no_child(house: House, txid: Txid) -> None:
    """Check that a payment which the operator bumps, or gives up, pays for no funding.

    Raises:
        Rejected: If it does: it can be replaced, and ends with the funding.
    """
    if is_child(house, txid):
        raise Rejected(
            "pays_for_a_funding",
            "it pays for a factory's funding: `factory bump` with a higher feerate replaces it",
        )


def paid_sat_per_kw(house: House, attempt_id: bytes) -> int | None:
    """Return the feerate that a funding pays together with its child; None without one.

    Nor is it known while a reorganisation has taken a coin of the funding away.
    """
    bump, entry = house.bumps.get(attempt_id), house.entries[attempt_id]
    if bump is None or any(outpoint not in house.wallet.coins for outpoint in entry.coins):
        return None
    fee_sat = funding_fee_sat(house, entry, bump.funding)
    child = FeeAndWeight(bump.fee_sat, _weight(bump.child))
    return _paid_sat_per_kw(FeeAndWeight(fee_sat, bump.funding.weight), child)


def funding_sat_per_kw(house: House, attempt_id: bytes, funding: Tx) -> int:
    """Return the feerate that a funding pays now, with a child that it has."""
    paid = paid_sat_per_kw(house, attempt_id)
    if paid is not None:
        return paid
    fee_sat = funding_fee_sat(house, house.entries[attempt_id], funding)
    return _paid_sat_per_kw(FeeAndWeight(fee_sat, funding.weight), None)


def _waiting(house: House) -> Iterator[FundingBump]:
    for attempt_id in sorted(house.bumps):
        if not house.is_confirmed(house.entries[attempt_id]):
            yield house.bumps[attempt_id]


def _owed(house: House, bump: FundingBump) -> Iterator[fx.Effect]:
    wallet, txid = house.wallet, bump.child.txid
    signed = wallet.payments.get(txid)
    if signed is not None and wallet.is_withheld(signed):
        return
    if signed is not None:
        yield fx.PublishBumped(name=BUMP, funding=bump.funding, child=signed)
        return
    path = wallet.scripts.get(bump.change.script_pubkey)
    coins = [wallet.coins.get(tx_in.outpoint) for tx_in in bump.child.inputs[1:]]
    there = [coin for coin in coins if coin is not None and coin.spent_height is None]
    if path is not None and len(there) == len(coins) and txid not in wallet.ended_payments:
        yield fx.SignSpending(
            tx=bump.child,
            prevouts=(bump.change, *(coin.txout for coin in there)),
            paths=(path, *(coin.path for coin in there)),
        )


def signed_entry(house: House, attempt_id: bytes) -> FactoryEntry:
    """Return the entry of a factory whose funding is signed.

    Raises:
        Rejected: If there is none.
    """
    entry = house.entries.get(attempt_id)
    if entry is None or entry.status in {BUILDING, ABORTED}:
        raise not_signed(attempt_id)
    return entry


def not_signed(attempt_id: bytes) -> Rejected:
    """Return what is said of a factory without a signed funding that may be looked at."""
    return Rejected("factory_not_found", f"no signed funding of {attempt_id.hex()}")


def check_waits(house: House, entry: FactoryEntry) -> None:
    """Check that a funding waits for a block, and that one may have it.

    Raises:
        Rejected: If one has it, it was given up, or a coin of it is gone, or off the chain.
    """
    if house.is_confirmed(entry):
        raise Rejected("factory_funded", "the funding is in a block")
    if entry.replacement is not None:
        raise Rejected("factory_abandoned", "the funding was given up")
    coins = [house.wallet.coins.get(outpoint) for outpoint in entry.coins]
    is_spent = any(coin is not None and coin.spent_height is not None for coin in coins)
    if entry.status == DEAD or is_spent:
        raise Rejected("factory_dead", "a coin of the funding is spent already")
    check_coins_are_known(house, entry)


def check_change_is_free(house: House, attempt_id: bytes, fundings: Iterable[Tx]) -> None:
    """Check that nothing spends the change of a funding, or of its child, that would end with it.

    A block had it, the change was paid with, and a reorganisation took the block away.

    Args:
        house: The house.
        attempt_id: The factory's name.
        fundings: Its candidates of which a block may have had one.

    Raises:
        Rejected: If something does.
    """
    known = house.bumps.get(attempt_id)
    child = None if known is None else known.child
    changes = [funding.outpoint(CHANGE_VOUT) for funding in fundings]
    if child is not None:
        changes = [one for one in changes if house.wallet.reserved.get(one) != child.txid]
        changes += child.outpoints
    if any(one in house.wallet.reserved for one in changes):
        raise Rejected(
            "change_spent",
            "the funding came back by a reorganisation, and its change, or that of its child, is "
            "in use since",
        )


def check_coins_are_known(house: House, entry: FactoryEntry) -> None:
    """Check that all coins of a funding are in blocks: else nobody knows what it pays.

    Raises:
        Rejected: If a reorganisation has taken one away.
    """
    if any(outpoint not in house.wallet.coins for outpoint in entry.coins):
        raise Rejected(
            "coins_off_chain",
            "a coin of the funding is in no block: a reorganisation took it away",
            retryable=True,
        )


def _check_pays_more(
    parent: FeeAndWeight, before: FeeAndWeight | None, feerate_sat_per_kw: int
) -> None:
    paid = _paid_sat_per_kw(parent, before)
    if feerate_sat_per_kw <= paid:
        whose = "the funding pays" if before is None else "the funding and its child pay"
        raise Rejected(
            "feerate_too_low",
            f"feerate_sat_per_vb: expected more than {sat_per_vb(paid)}, which {whose} now, "
            f"received {sat_per_vb(feerate_sat_per_kw)}",
        )


def _check_is_open(fees: OwnFees) -> None:
    """Check that our mempool asks for no more than anybody should believe: a child pays that, too.

    Raises:
        Rejected: If it does.
    """
    if fees.is_shut:
        raise Rejected(
            "feerate_too_high",
            f"our node's mempool: expected at most {told.feerate(BELIEVED_SAT_PER_KW)}, received "
            f"{told.feerate(fees.mempool_min_sat_per_kw)}",
            retryable=True,
        )


def _paid_sat_per_kw(parent: FeeAndWeight, child: FeeAndWeight | None) -> int:
    own = [parent] if child is None else [parent, child]
    return 1000 * sum(one.fee_sat for one in own) // sum(one.weight for one in own)


def _replacing(weight: int, parent: FeeAndWeight, before: FeeAndWeight, fees: OwnFees) -> int:
    """Return the least fee that takes a former child's place, by BIP 125 and by feerate diagrams.

    By its rules a newcomer pays more than what it replaces for itself, too.
    """
    dearer_sat = before.fee_sat * vsize_of(weight) // vsize_of(before.weight) + 1
    replacing_sat = replacement_fee_sat(
        weight,
        parent=parent,
        rival=before,
        incremental_sat_per_kw=fees.incremental_sat_per_kw,
    )
    return max(dearer_sat, replacing_sat)


def funding_fee_sat(house: House, entry: FactoryEntry, funding: Tx) -> int:
    """Return what a funding pays, in sat: its coins are in the wallet."""
    coins = (house.wallet.coins[outpoint] for outpoint in entry.coins)
    return sum(coin.txout.amount_sat for coin in coins) - sum(
        txout.amount_sat for txout in funding.outputs
    )


def _usable(house: House, known: FundingBump | None) -> list[WalletCoin]:
    """Return the coins that may help: free ones, but first those that a former child spends."""
    wallet = house.wallet
    spent = () if known is None else known.child.inputs[1:]
    held = (wallet.coins.get(tx_in.outpoint) for tx_in in spent)
    own = [
        coin
        for coin in held
        if coin is not None
        and coin.spent_height is None
        and (known is None or wallet.reserved.get(coin.outpoint) in {None, known.child.txid})
    ]
    return [*own, *wallet.free(house.chain.height)]


def _weight(child: Tx) -> int:
    return wallet_tx_weight(n_inputs=len(child.inputs), n_outputs=len(child.outputs))
