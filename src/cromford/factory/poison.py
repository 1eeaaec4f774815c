"""What takes a superseded leaf state apart in the clients' favour, should it confirm after all.

Both sides revoke their commitments on the old channel outputs when a leaf is advanced, so that
money would be frozen there, and the old L-stock would still be the LSP's to sweep. A poison is
signed with the state that replaces the old one and spends one output of the old one: a channel's
goes to its client, the L-stock to all clients of the leaf. It is never made for a live state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cromford.bitcoin.fees import P2TR_DUST_SAT
from cromford.bitcoin.taproot import taproot_output
from cromford.bitcoin.timelock import NSEQUENCE_REPLACEABLE
from cromford.bitcoin.tx import TRUC_VERSION, Tx, TxIn, TxOut
from cromford.crypto.keys import xonly_of
from cromford.factory.key_path import KeyPathTx
from cromford.factory.outputs import OutputKind, SignersOutput
from cromford.factory.vertices import TreeNode

# Factory keys by participant index: of a whole factory, or of some of it.
Pubkeys = Mapping[int, bytes] | Sequence[bytes]


class PoisonKind(StrEnum):
    """Which output a poison spends. The value begins its name."""

    CHANNEL = "channel_poison"
    STOCK = "stock_poison"


@dataclass(frozen=True, kw_only=True)
class Poison(KeyPathTx):
    """A poison of one output of a superseded state, unsigned.

    It has no anchor: whoever gets an output can pay for it with a child of that output.

    Attributes:
        kind: Whether it spends a channel or the L-stock.
        state: The superseded state.
        tx: The transaction.
        spends: The output that it spends.
        input_amount_sat: What that holds.
        clients: Whom its outputs pay, in their order.
    """

    kind: PoisonKind
    state: TreeNode
    tx: Tx
    spends: SignersOutput
    input_amount_sat: int
    clients: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its name within the factory: `stock_poison_0 v0`, `channel_poison_0 c2 v0`.

        Where the root is the leaf it has no path: `stock_poison v0`.
        """
        path = f"_{self.state.shape.name}" if self.state.shape.path else ""
        whose = ""
        if self.kind is PoisonKind.CHANNEL:
            (client,) = self.clients
            whose = f" c{client}"
        return f"{self.kind.value}{path}{whose} v{self.state.state_index}"

    @property
    def shares_sat(self) -> dict[int, int]:
        """What it pays, by client in placement order; who gets nothing is not in it."""
        paid = (output.amount_sat for output in self.tx.outputs)
        return dict(zip(self.clients, paid, strict=True))

    @property
    def fee_sat(self) -> int:
        """What it pays itself."""
        return self.input_amount_sat - sum(output.amount_sat for output in self.tx.outputs)


def payout_script(factory_pubkey: bytes) -> bytes:
    """Return what pays a client alone: its own factory key, without a script (BIP 86).

    Raises:
        ValueError: If the pubkey is not on the curve.
    """
    return taproot_output(xonly_of(factory_pubkey), None).script_pubkey


def shares_of(payable_sat: int, growths_sat: Sequence[int]) -> tuple[int, ...]:
    """Return what an old L-stock pays each client of the leaf, in placement order, in sat.

    First what the client's channel grew by in the replacing state: it paid for that. If there is
    less, each gets the same part of its growth, rounded down. The rest is for all alike, and what
    cannot be divided for the first. Shares without an output of their own go to the largest.

    Args:
        payable_sat: The L-stock without the poison's fee; at least an output's least.
        growths_sat: By how much each channel grew in the advance that superseded the state.
    """
    n_clients, grown_sat = len(growths_sat), sum(growths_sat)
    shares = list(growths_sat)
    if grown_sat > payable_sat:
        shares = [payable_sat * growth_sat // grown_sat for growth_sat in growths_sat]
    rest_sat = payable_sat - sum(shares)
    shares = [share_sat + rest_sat // n_clients for share_sat in shares]
    shares[0] += rest_sat % n_clients
    largest = shares.index(max(shares))
    for place, share_sat in enumerate(shares):
        if place != largest and share_sat < P2TR_DUST_SAT:
            shares[largest] += share_sat
            shares[place] = 0
    return tuple(shares)


def poison_of(
    state: TreeNode, *, vout: int, shares_sat: Mapping[int, int], factory_pubkeys: Pubkeys
) -> Poison:
    """Return the poison that spends one output of a superseded state.

    Args:
        state: The superseded state.
        vout: A channel's place in it, or the L-stock's.
        shares_sat: What it pays, by client in placement order.
        factory_pubkeys: By participant index, those of whom it pays.

    Raises:
        ValueError: If only the output's script is known, so that it cannot be signed for, or a
            pubkey is not on the curve.
    """
    output = state.outputs[vout]
    if output.signers_output is None:
        raise ValueError(f"{state.name}:{vout}: the keys of another client's channel are not known")
    outputs = (
        TxOut(amount_sat=share_sat, script_pubkey=payout_script(factory_pubkeys[client]))
        for client, share_sat in shares_sat.items()
    )
    return Poison(
        kind=PoisonKind.STOCK if output.kind is OutputKind.LSTOCK else PoisonKind.CHANNEL,
        state=state,
        tx=Tx(
            version=TRUC_VERSION,
            inputs=(TxIn(outpoint=state.tx.outpoint(vout), nsequence=NSEQUENCE_REPLACEABLE),),
            outputs=tuple(outputs),
        ),
        spends=output.signers_output,
        input_amount_sat=output.amount_sat,
        clients=tuple(shares_sat),
    )
