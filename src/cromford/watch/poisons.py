"""What a client publishes when a state of its leaf is in a block that was replaced long ago.

It holds the poisons of that state: its channel's, and that of the L-stock. Each can be published at
once, and pays to the client's factory key, without a script. So the client alone can pay for it, by
a child of its own output, and takes that output into its wallet, with the child or later.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cromford.bitcoin.fees import P2TR_DUST_SAT, P2TR_INPUT_WEIGHT, fee_sat_of
from cromford.bitcoin.timelock import NSEQUENCE_REPLACEABLE
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut, vsize_of
from cromford.factory.leaf import Leaf
from cromford.factory.poison import Poison
from cromford.watch.channel_exit import LeftBehind
from cromford.watch.feerates import OwnFees
from cromford.watch.sweep import BLANK_SIGNATURE, SWEEP_VERSION

SWEEP_NAME: Final = "poison_sweep"


@dataclass(frozen=True, kw_only=True)
class SignedPoison:
    """A poison that can be published, as one client holds it.

    Attributes:
        poison: What it is.
        tx: It, signed.
        client: Whose it is.
    """

    poison: Poison
    tx: Tx
    client: int

    @property
    def name(self) -> str:
        """Its name within the factory."""
        return self.poison.name

    @property
    def spends(self) -> OutPoint:
        """The output of the old state that it takes."""
        return self.tx.inputs[0].outpoint

    @property
    def own_sat(self) -> int:
        """What it pays the client; 0 where that is too little for an output."""
        return self.poison.shares_sat.get(self.client, 0)

    @property
    def own_vout(self) -> int | None:
        """The place of the client's output; None where it has none."""
        clients = self.poison.clients
        return clients.index(self.client) if self.client in clients else None

    @property
    def own_outpoint(self) -> OutPoint | None:
        """The client's output."""
        return None if self.own_vout is None else self.tx.outpoint(self.own_vout)


def signed_poisons(
    leaf: Leaf, state_index: int, client: int, *, channel: bytes | None, stock: bytes | None
) -> tuple[SignedPoison, ...]:
    """Return the poisons of a replaced state that a client holds: its channel's, the L-stock's.

    Args:
        leaf: The client's, with every state.
        state_index: The state that was replaced.
        client: The client.
        channel: The signature of its channel's poison; None if it has none.
        stock: That of the L-stock's.

    Raises:
        ValueError: If that state was not replaced, or a signature does not verify.
    """
    held: list[tuple[Poison, bytes]] = []
    if channel is not None:
        held.append((leaf.channel_poison(state_index, client), channel))
    if stock is not None:
        held.append((leaf.stock_poison(state_index), stock))
    return tuple(
        SignedPoison(poison=poison, tx=poison.signed(signature), client=client)
        for poison, signature in held
    )


def to_publish(
    poisons: Sequence[SignedPoison], spends: Mapping[OutPoint, Tx]
) -> Iterator[SignedPoison]:
    """Yield the poisons whose output nobody has taken yet."""
    return (one for one in poisons if one.spends not in spends)


def arriving_sat(poisons: Sequence[SignedPoison], spends: Mapping[OutPoint, Tx]) -> int:
    """Return what poisons still bring to the wallet, before its own fees.

    Nothing of one in whose place something else took the output.
    """
    return sum(one.own_sat for one in poisons if _is_coming(one, spends))


def _is_coming(one: SignedPoison, spends: Mapping[OutPoint, Tx]) -> bool:
    spender = spends.get(one.spends)
    if spender is not None and spender.txid != one.tx.txid:
        return False
    return one.own_outpoint not in spends


@dataclass(frozen=True, kw_only=True)
class PayoutTx:
    """Sign this by the factory key alone, and broadcast it: it can be in the next block.

    Attributes:
        name: For logs and lists.
        tx: Without signatures.
        prevouts: What its inputs spend: outputs that pay the factory key, without a script.
    """

    name: str
    tx: Tx
    prevouts: tuple[TxOut, ...]

    def signed(self, signatures: Sequence[bytes]) -> Tx:
        """Return the transaction with a signature for each input, which are not checked here."""
        return self.tx.with_witnesses(*((signature,) for signature in signatures))

    @cached_property
    def vsize(self) -> int:
        """The virtual bytes of the signed transaction."""
        return self.signed([BLANK_SIGNATURE] * len(self.prevouts)).vsize

    @property
    def fee_sat(self) -> int:
        """What it pays."""
        spent_sat = sum(prevout.amount_sat for prevout in self.prevouts)
        return spent_sat - sum(output.amount_sat for output in self.tx.outputs)


def sweep_of(
    poisons: Sequence[SignedPoison],
    *,
    spends: Mapping[OutPoint, Tx],
    heights: Mapping[Txid, int],
    payout_script: bytes,
    fees: OwnFees,
) -> PayoutTx | None:
    """Return what takes the client's outputs of poisons in blocks to its wallet, at a day's rate.

    Nobody else can ever take them, so they can wait.

    Args:
        poisons: Those that it holds.
        spends: By outpoint, the confirmed transaction that spends it.
        heights: Where transactions confirmed.
        payout_script: Its wallet's, a taproot output.
        fees: Its own node's.

    Returns:
        The transaction; None if there is nothing to take that is worth its fee.
    """
    feerate = fees.day_sat_per_kw
    worth = [one for one in _unspent(poisons, spends, heights) if _is_worth_it(one, feerate)]
    if not worth or feerate is None:
        return None
    draft = _payout(worth, payout_script, fee_sat=0)
    fee_sat = fee_sat_of(vsize=draft.vsize, feerate_sat_per_kw=feerate)
    if draft.tx.outputs[0].amount_sat - fee_sat < P2TR_DUST_SAT:
        return None
    return _payout(worth, payout_script, fee_sat=fee_sat)


def left_behind(
    poisons: Sequence[SignedPoison],
    *,
    spends: Mapping[OutPoint, Tx],
    heights: Mapping[Txid, int],
    fees: OwnFees,
) -> tuple[LeftBehind, ...]:
    """Return the client's outputs of poisons in blocks that are not worth their fee today."""
    feerate = fees.day_sat_per_kw
    return tuple(
        LeftBehind(name=one.name, outpoint=one.own_outpoint, amount_sat=one.own_sat)
        for one in _unspent(poisons, spends, heights)
        if one.own_outpoint is not None and not _is_worth_it(one, feerate)
    )


def _unspent(
    poisons: Sequence[SignedPoison], spends: Mapping[OutPoint, Tx], heights: Mapping[Txid, int]
) -> list[SignedPoison]:
    return [
        one
        for one in poisons
        if one.own_outpoint is not None
        and one.tx.txid in heights
        and one.own_outpoint not in spends
    ]


def _is_worth_it(one: SignedPoison, feerate_sat_per_kw: int | None) -> bool:
    if feerate_sat_per_kw is None:
        return False
    vsize = vsize_of(P2TR_INPUT_WEIGHT)
    return one.own_sat > fee_sat_of(vsize=vsize, feerate_sat_per_kw=feerate_sat_per_kw)


def _payout(poisons: Sequence[SignedPoison], script: bytes, *, fee_sat: int) -> PayoutTx:
    outpoints = [one.own_outpoint for one in poisons if one.own_outpoint is not None]
    prevouts = tuple(
        one.tx.outputs[outpoint.vout] for one, outpoint in zip(poisons, outpoints, strict=True)
    )
    held_sat = sum(prevout.amount_sat for prevout in prevouts)
    return PayoutTx(
        name=SWEEP_NAME,
        tx=Tx(
            version=SWEEP_VERSION,
            inputs=tuple(
                TxIn(outpoint=outpoint, nsequence=NSEQUENCE_REPLACEABLE) for outpoint in outpoints
            ),
            outputs=(TxOut(amount_sat=held_sat - fee_sat, script_pubkey=script),),
        ),
        prevouts=prevouts,
    )
