"""How a transaction whose fee was agreed long ago gets into a block today: by a child that pays.

Tree transactions, commitments and HTLC transactions carry an anchor, an output that anybody may
spend (BIP 433). A child of it, of version 3 (BIP 431), pays for both. Whose child it is does not
matter: what is there already is left alone while it pays what is wanted, else it is replaced. So
several who want the same do not outbid each other.

Without a coin the anchor itself is one: a child that spends it, and confirmed anchors of the same
path, to nobody.

A poison has no anchor: whoever it pays can pay for it with a child of that output.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Final

from cromford.bitcoin.fees import (
    P2TR_DUST_SAT,
    P2TR_INPUT_WEIGHT,
    P2TR_OUTPUT_VSIZE,
    TRUC_CHILD_VSIZE_MAX,
    fee_sat_of,
)
from cromford.bitcoin.replacement import FeeAndWeight, replacement_fee_sat
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.timelock import NSEQUENCE_REPLACEABLE
from cromford.bitcoin.tx import (
    TRUC_VERSION,
    WITNESS_SCALE,
    OutPoint,
    Tx,
    Txid,
    TxIn,
    TxOut,
    vsize_of,
)
from cromford.signing.keychain import FactoryKey
from cromford.wallet.account import WalletPath
from cromford.wallet.coins import Purse, SpentCoin
from cromford.watch.feerates import MOST_SAT_PER_KW, OwnFees, child_fee_sat, fee_to_offer_sat
from cromford.watch.sweep import BLANK_SIGNATURE

# Nothing smaller than 65 bytes without its witnesses is relayed; `OP_RETURN` of three bytes.
NOBODY_SCRIPT: Final = bytes.fromhex("6a03000000")
N_ANCHORS_MAX: Final = 8  # Of one child; more than a path has.


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnOutput:
    """An output of a transaction without an anchor that our factory key alone takes.

    Attributes:
        vout: Its place.
        key: That key, without a script (BIP 86).
        payout_script: Where a child pays it: our wallet's.
    """

    vout: int
    key: FactoryKey
    payout_script: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bumping:
    """What may be done so that a transaction confirms in time: one with an anchor, or a poison.

    Attributes:
        fee_sat: What the transaction pays itself.
        feerate_sat_per_kw: What it and its child should pay together now.
        budget_sat: What coins of ours may pay for it.
        fees: What our node said last.
        purse: Our coins for its children; None while it has none.
        spare_anchors: Anchors of the same path that are in a block, if nobody spent them.
        gives_way: Whether another transaction in its place is as good, if that pays enough.
        twins: Those that are as good in its place, where not every other one is.
        spares_rivals: Whether it goes alone against any other that pays enough: what both would pay
            to be first helps neither.
        own_script: Where an output of the transaction itself pays us: that is a coin for a child,
            too, and needs no block. Empty where there is none.
        own: Where it has no anchor, the output of ours that alone may have a child.
    """

    fee_sat: int
    feerate_sat_per_kw: int
    budget_sat: int
    fees: OwnFees
    purse: Purse | None = None
    spare_anchors: tuple[OutPoint, ...] = ()
    gives_way: bool = False
    twins: tuple[Txid, ...] = ()
    spares_rivals: bool = False
    own_script: bytes = b""
    own: OwnOutput | None = None

    def is_as_good(self, rival: "Rival") -> bool:
        """Say whether a transaction in the place of this one is left alone if it pays enough."""
        return self.gives_way or rival.txid in self.twins

    def with_own_output(self, tx: Tx, path: WalletPath | None) -> "Bumping":
        """Return the same with what the transaction itself pays us as the coin of its child.

        The child pays it back to the same script: the largest, where somebody else is paid there,
        too. As it was, if there is no such output.

        Args:
            tx: The transaction.
            path: Of the key in our wallet that the output pays; None if it is none of ours.
        """
        ours = [
            (txout.amount_sat, vout)
            for vout, txout in enumerate(tx.outputs)
            if txout.script_pubkey == self.own_script
        ]
        if path is None or not ours:
            return self
        _, vout = max(ours)
        coin = SpentCoin(outpoint=tx.outpoint(vout), txout=tx.outputs[vout], path=path)
        return replace(self, purse=Purse(coins=(coin,), change_script=self.own_script))

    @property
    def wanted_sat_per_kw(self) -> int:
        """What both should pay: no less than our mempool asks for, no more than it takes."""
        wanted = max(self.feerate_sat_per_kw, self.fees.mempool_min_sat_per_kw)
        return min(wanted, MOST_SAT_PER_KW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """What waits in a mempool and spends what a transaction of ours spends.

    Attributes:
        fee_sat: What it and all that hangs on it pay.
        family: What it and those it would be mined with pay, and weigh.
        txid: Its own.
    """

    fee_sat: int
    family: FeeAndWeight
    txid: Txid | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What a mempool has of a transaction: whether it waits, with which child, against whom."""

    is_waiting: bool = False
    child: FeeAndWeight | None = None
    rival: Rival | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildTx:
    """A child, unsigned: what its inputs spend, and for those of ours the key that signs."""

    tx: Tx
    prevouts: tuple[TxOut, ...]
    paths: tuple[WalletPath | FactoryKey | None, ...]

    @property
    def fee_sat(self) -> int:
        """What it pays."""
        spent_sat = sum(prevout.amount_sat for prevout in self.prevouts)
        return spent_sat - sum(txout.amount_sat for txout in self.tx.outputs)

    @property
    def weight(self) -> int:
        """The weight units of the signed transaction."""
        blank = [() if path is None else (BLANK_SIGNATURE,) for path in self.paths]
        return self.tx.with_witnesses(*blank).weight


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishWith:
    """PublishWith the transaction, and with it this child, if there is one."""

    child: ChildTx | None = None


def anchor_of(tx: Tx) -> OutPoint | None:
    """Return the anchor of a transaction, or None."""
    for vout, txout in enumerate(tx.outputs):
        if txout.script_pubkey == ANCHOR_SCRIPT:
            return tx.outpoint(vout)
    return None


def next_move(tx: Tx, bumping: Bumping, family: Family) -> PublishWith | None:
    """Return what to publish now; None while what waits pays enough, or nothing better can be had.

    Args:
        tx: The signed transaction. None of its inputs is spent in a block.
        bumping: What may be done for it.
        family: What our node's mempool has of it.
    """
    own = FeeAndWeight(bumping.fee_sat, tx.weight)
    wanted, rival = bumping.wanted_sat_per_kw, family.rival
    if rival is not None and _pays(rival.family, wanted):
        if bumping.is_as_good(rival):
            return None
        if bumping.spares_rivals:
            return PublishWith()
    if family.is_waiting:
        together = own if family.child is None else _both(own, family.child)
        if _pays(own, wanted) or _pays(together, wanted):
            return None
    elif rival is None and _pays(own, wanted):
        return PublishWith()
    anchor = anchor_of(tx)
    child = None
    if bumping.own is not None:
        output = tx.outpoint(bumping.own.vout)
        parent = _Parent(tx=tx, anchor=output, own=own, bumping=bumping, family=family)
        child = parent.child_of_own(bumping.own)
    elif anchor is not None:
        parent = _Parent(tx=tx, anchor=anchor, own=own, bumping=bumping, family=family)
        child = parent.paid_child() or parent.child_of_anchors()
    return None if child is None and family.is_waiting else PublishWith(child=child)


def coin_needed_sat(tx: Tx, bumping: Bumping) -> int:
    """Return what a coin must hold to pay for a transaction what is wanted now; 0 if it need not.

    In a child, or where there is no anchor in the transaction itself. Within the budget, and with a
    change that is relayed. Nobody else's child is counted on.

    Args:
        tx: The signed transaction, without coins.
        bumping: What may be done for it; of its purse nothing is read.
    """
    own = FeeAndWeight(bumping.fee_sat, tx.weight)
    minimum = bumping.fees.mempool_min_sat_per_kw
    if bumping.own is not None or _pays(own, bumping.wanted_sat_per_kw):
        return 0
    if anchor_of(tx) is None:
        vsize = vsize_of(tx.weight + P2TR_INPUT_WEIGHT + WITNESS_SCALE * P2TR_OUTPUT_VSIZE)
        fee_sat = fee_sat_of(vsize=vsize, feerate_sat_per_kw=bumping.wanted_sat_per_kw)
    else:
        vsize = vsize_of(ONE_COIN_WEIGHT)
        fee_sat = child_fee_sat(
            ONE_COIN_WEIGHT,
            parent=own,
            feerate_sat_per_kw=bumping.wanted_sat_per_kw,
            mempool_min_sat_per_kw=minimum,
        )
    if bumping.budget_sat < fee_sat_of(vsize=vsize, feerate_sat_per_kw=minimum):
        return 0
    return min(fee_sat, bumping.budget_sat) + P2TR_DUST_SAT


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parent:
    """What a child is made for. `anchor` is what a child spends of it: of a poison, our output."""

    tx: Tx
    anchor: OutPoint
    own: FeeAndWeight
    bumping: Bumping
    family: Family

    @property
    def anchor_txout(self) -> TxOut:
        return self.tx.outputs[self.anchor.vout]

    def paid_child(self) -> ChildTx | None:
        """Return the child of the fewest coins that pay what is wanted; else the best.

        A coin may hold less than its input costs. None if the budget, or all coins, do not reach
        for what a mempool takes.
        """
        best: ChildTx | None = None
        best_rate = Fraction(0)
        bumping, purse = self.bumping, self.bumping.purse
        if purse is None:
            return None
        coins = purse.largest_first
        for n_coins in range(1, len(coins) + 1):
            draft = self._with_coins(coins[:n_coins], purse.change_script, fee_sat=0)
            if vsize_of(draft.weight) > TRUC_CHILD_VSIZE_MAX:
                break
            held_sat = draft.fee_sat + draft.tx.outputs[0].amount_sat - P2TR_DUST_SAT
            least_sat = self._least_fee_sat(draft.weight)
            wanted_sat = child_fee_sat(
                draft.weight,
                parent=self.own,
                feerate_sat_per_kw=bumping.wanted_sat_per_kw,
                mempool_min_sat_per_kw=bumping.fees.mempool_min_sat_per_kw,
            )
            most_sat = fee_sat_of(vsize=vsize_of(draft.weight), feerate_sat_per_kw=MOST_SAT_PER_KW)
            fee_sat = fee_to_offer_sat(
                wanted_sat,
                least_sat=least_sat,
                budget_sat=min(bumping.budget_sat, held_sat, most_sat),
            )
            if fee_sat is None:
                continue
            rate = _rate(_both(self.own, FeeAndWeight(fee_sat, draft.weight)))
            if rate > best_rate:
                best_rate = rate
                best = self._with_coins(coins[:n_coins], purse.change_script, fee_sat=fee_sat)
            if held_sat >= max(wanted_sat, least_sat):
                break
        return best

    def child_of_anchors(self) -> ChildTx | None:
        """Return the child of the fewest anchors that do what is wanted; else of the best.

        None if no mempool would take it, or it would do nothing.
        """
        best: ChildTx | None = None
        best_rate = Fraction(0)
        spare = self.bumping.spare_anchors[: N_ANCHORS_MAX - 1]
        for n_spare in range(len(spare) + 1):
            child = self._of_anchors(spare[:n_spare])
            if child.fee_sat < self._least_fee_sat(child.weight):
                continue
            together = _both(self.own, FeeAndWeight(child.fee_sat, child.weight))
            if _rate(together) > best_rate:
                best, best_rate = child, _rate(together)
            if _pays(together, self.bumping.wanted_sat_per_kw):
                break
        return best

    def child_of_own(self, own: OwnOutput) -> ChildTx | None:
        """Return the child that takes our own output, and pays what is wanted out of it.

        None if the budget, or the output, does not reach for what a mempool takes.
        """
        draft, bumping = self._taking(own, fee_sat=0), self.bumping
        wanted_sat = child_fee_sat(
            draft.weight,
            parent=self.own,
            feerate_sat_per_kw=bumping.wanted_sat_per_kw,
            mempool_min_sat_per_kw=bumping.fees.mempool_min_sat_per_kw,
        )
        most_sat = fee_sat_of(vsize=vsize_of(draft.weight), feerate_sat_per_kw=MOST_SAT_PER_KW)
        held_sat = self.anchor_txout.amount_sat - P2TR_DUST_SAT
        fee_sat = fee_to_offer_sat(
            wanted_sat,
            least_sat=self._least_fee_sat(draft.weight),
            budget_sat=min(bumping.budget_sat, held_sat, most_sat),
        )
        return None if fee_sat is None else self._taking(own, fee_sat=fee_sat)

    def _taking(self, own: OwnOutput, *, fee_sat: int) -> ChildTx:
        left_sat = self.anchor_txout.amount_sat - fee_sat
        return ChildTx(
            tx=_spending(
                (self.anchor,), TxOut(amount_sat=left_sat, script_pubkey=own.payout_script)
            ),
            prevouts=(self.anchor_txout,),
            paths=(own.key,),
        )

    def _with_coins(
        self, coins: Sequence[SpentCoin], change_script: bytes, *, fee_sat: int
    ) -> ChildTx:
        amount_sat = self.anchor_txout.amount_sat + sum(coin.txout.amount_sat for coin in coins)
        return ChildTx(
            tx=_spending(
                (self.anchor, *(coin.outpoint for coin in coins)),
                TxOut(amount_sat=amount_sat - fee_sat, script_pubkey=change_script),
            ),
            prevouts=(self.anchor_txout, *(coin.txout for coin in coins)),
            paths=(None, *(coin.path for coin in coins)),
        )

    def _of_anchors(self, spare: Sequence[OutPoint]) -> ChildTx:
        n_anchors = 1 + len(spare)
        return ChildTx(
            tx=_spending((self.anchor, *spare), TxOut(amount_sat=0, script_pubkey=NOBODY_SCRIPT)),
            prevouts=(self.anchor_txout,) * n_anchors,  # Those of one path are alike.
            paths=(None,) * n_anchors,
        )

    def _least_fee_sat(self, weight: int) -> int:
        """Return the least fee with which a child of this weight gets in, and does something."""
        fees, family = self.bumping.fees, self.family
        vsize = vsize_of(weight)
        alone_sat = fee_sat_of(vsize=vsize, feerate_sat_per_kw=fees.mempool_min_sat_per_kw)
        if family.child is not None:
            replacing_sat = replacement_fee_sat(
                weight,
                parent=self.own,
                rival=family.child,
                incremental_sat_per_kw=fees.incremental_sat_per_kw,
            )
            return max(alone_sat, replacing_sat)
        # Below its parent's own rate a child lifts nothing.
        lifting_sat = ceil(_rate(self.own) * weight) + 1
        if family.is_waiting:
            return max(alone_sat, lifting_sat)
        vsize_of_both = vsize_of(self.own.weight) + vsize
        together_sat = fee_sat_of(
            vsize=vsize_of_both, feerate_sat_per_kw=fees.mempool_min_sat_per_kw
        )
        if family.rival is not None:
            # BIP 125, rules 3 and 4, for both together; and a miner has to gain by it.
            relay_sat = fee_sat_of(
                vsize=vsize_of_both, feerate_sat_per_kw=fees.incremental_sat_per_kw
            )
            better_sat = ceil(_rate(family.rival.family) * (self.own.weight + weight)) + 1
            together_sat = max(together_sat, family.rival.fee_sat + relay_sat, better_sat)
        return max(lifting_sat, together_sat - self.own.fee_sat)


def _spending(outpoints: Iterable[OutPoint], output: TxOut) -> Tx:
    return Tx(
        version=TRUC_VERSION,
        inputs=tuple(
            TxIn(outpoint=outpoint, nsequence=NSEQUENCE_REPLACEABLE) for outpoint in outpoints
        ),
        outputs=(output,),
    )


def _both(one: FeeAndWeight, other: FeeAndWeight) -> FeeAndWeight:
    return FeeAndWeight(one.fee_sat + other.fee_sat, one.weight + other.weight)


def _rate(paid: FeeAndWeight) -> Fraction:
    return Fraction(paid.fee_sat, paid.weight)


def _pays(paid: FeeAndWeight, feerate_sat_per_kw: int) -> bool:
    """Say whether a feerate is paid, by virtual bytes: a fee is never less than a node counts."""
    return paid.fee_sat >= fee_sat_of(
        vsize=vsize_of(paid.weight), feerate_sat_per_kw=feerate_sat_per_kw
    )


# Of a child of an anchor and one coin.
ONE_COIN_WEIGHT: Final = ChildTx(
    tx=_spending(
        (OutPoint(txid=Txid(bytes(32)), vout=vout) for vout in range(2)),
        TxOut(amount_sat=0, script_pubkey=bytes(34)),
    ),
    prevouts=(),
    paths=(None, WalletPath(change=0, index=0)),
).weight
# Of a child of one anchor, which pays to nobody.
ANCHOR_CHILD_WEIGHT: Final = _spending(
    (OutPoint(txid=Txid(bytes(32)), vout=0),), TxOut(amount_sat=0, script_pubkey=NOBODY_SCRIPT)
).weight
