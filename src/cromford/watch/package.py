"""The exit package: one client's way down to its channel, for whoever is to publish it.

It holds no key and needs none: the transactions of a branch, signed by everybody, and what shows
that the funding output expires when they say. Whoever has it can start that exit, and sees the
amounts on the way; nobody can change where the money goes. The format is in docs/exit-package.md.

Nothing in it is believed that can be told from the transactions: delays, names, fees, amounts and
txids follow from them. The expiry height, which cannot, is committed to by the script of the
funding output, so the chain says whether it is true; with it the exit deadline follows, too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from cromford.bitcoin.fees import ANCHOR_DUST_SAT
from cromford.bitcoin.network import Network
from cromford.bitcoin.replacement import FeeAndWeight
from cromford.bitcoin.timelock import DELAY_BLOCKS_MAX
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.crypto.keys import TaggedHash
from cromford.factory.branch import SignedBranch
from cromford.factory.exit_path import ExitStep
from cromford.factory.terms import N_INNER_LEVELS_MAX
from cromford.factory.vertices import NodeKind
from cromford.watch.children_cost import without_coins_sat_per_kw
from cromford.watch.remaining import PathStep, Remaining, remaining_of

PACKAGE_FORMAT: Final = "cromford-exit-package"
PACKAGE_VERSION: Final = 1
PACKAGE_TXS_MAX: Final = 2 * (N_INNER_LEVELS_MAX + 1)  # A kickoff and a state on each level.
COMMITMENT_STEP: Final = "commitment"
PACKAGE_TAG: Final = "cromford/exit-package"

_hash_package: Final = TaggedHash(PACKAGE_TAG)


@dataclass(frozen=True, kw_only=True)
class ReplacedState:
    """A state of the leaf that was replaced, and what takes it apart if it confirms all the same.

    Attributes:
        tx: It, without its signature: it is not for anybody to publish.
        poisons: Of the client's channel and of the L-stock, signed.
    """

    tx: Tx
    poisons: tuple[Tx, ...]


@dataclass(frozen=True, kw_only=True)
class ExitPackage:
    """A path from a funding output down to one channel, every transaction signed.

    Attributes:
        network: The chain it is for.
        funding_outpoint: What the root spends.
        funding_txout: That output.
        internal_key: Of that output, x-only: the aggregate of all participants.
        lsp_xonly_pubkey: Who may take it alone after the expiry.
        expiry_height: That height, as the output's tapleaf says it.
        txs: From the root down to the leaf's state, in the order they are published.
        channel_vout: Which output of the last one is the channel's.
        funding_pubkeys: The two keys of that output, the smaller one first.
        commitment: What spends it in the end; None while the exit has not been started, for the
            next payment would revoke it.
        replaced: The states that the last one replaced, the oldest first.
    """

    network: Network
    funding_outpoint: OutPoint
    funding_txout: TxOut
    internal_key: bytes
    lsp_xonly_pubkey: bytes
    expiry_height: int
    txs: tuple[Tx, ...]
    channel_vout: int
    funding_pubkeys: tuple[bytes, bytes]
    commitment: Tx | None = None
    replaced: tuple[ReplacedState, ...] = ()

    @property
    def poisons(self) -> tuple[Tx, ...]:
        """What takes replaced states apart, the oldest state's first."""
        return tuple(poison for state in self.replaced for poison in state.poisons)

    def may_replace(self, held: "ExitPackage") -> bool:
        """Say whether it takes the place of a package of the same channel: it says all, and more.

        It has the commitment, a newer state of the leaf, or poisons that the other lacks.
        """
        (*path, state), (*held_path, held_state) = self.txs, held.txs
        delay, held_delay = delay_of(state), delay_of(held_state)
        is_newer = (
            state.inputs[0].outpoint == held_state.inputs[0].outpoint
            and delay is not None
            and held_delay is not None
            and delay < held_delay
        )
        if path != held_path or not (is_newer or state == held_state):
            return False
        is_lost = held.commitment not in (None, self.commitment) and not is_newer
        return not is_lost and set(held.poisons) <= set(self.poisons)

    @property
    def channel_outpoint(self) -> OutPoint:
        """Where the channel's output is once the path is on chain."""
        return self.txs[-1].outpoint(self.channel_vout)

    @property
    def channel_txout(self) -> TxOut:
        """The channel's output."""
        return self.txs[-1].outputs[self.channel_vout]

    @cached_property
    def package_id(self) -> bytes:
        """Its name: of a funding output and the channel in it, whatever version of the states.

        So that nobody is asked to publish two versions of one way.
        """
        keys = b"".join(self.funding_pubkeys)
        return _hash_package(self.network.genesis_hash + self.funding_outpoint.serialize() + keys)

    @cached_property
    def steps(self) -> tuple[ExitStep, ...]:
        """What is published, in order; the commitment last, if it is there."""
        path = tuple(_steps_of(self.txs, self.funding_txout.amount_sat))
        if self.commitment is None:
            return path
        fee_sat = self.channel_txout.amount_sat - _sum_sat(self.commitment)
        last = ExitStep(name=COMMITMENT_STEP, tx=self.commitment, delay_blocks=0, fee_sat=fee_sat)
        return (*path, last)

    @cached_property
    def path_outpoints(self) -> tuple[OutPoint, ...]:
        """What each transaction of the path spends, and the channel's outpoint last."""
        spent = (tx.inputs[0].outpoint for tx in self.txs)
        return (*spent, self.channel_outpoint)

    @property
    def lowest_sat_per_kw(self) -> int:
        """The least that one of its transactions pays for its weight, rounded down."""
        return min(1000 * step.fee_sat // step.tx.weight for step in self.steps)

    @property
    def lifted_sat_per_kw(self) -> int:
        """The feerate up to which each of its transactions gets in with its own anchor's help."""
        parents = [FeeAndWeight(step.fee_sat, step.tx.weight) for step in self.steps]
        return without_coins_sat_per_kw(parents, anchor_sat=ANCHOR_DUST_SAT)

    def remaining(self, *, confirmed: Mapping[Txid, int], tip_height: int) -> Remaining:
        """Return how long the exit may still take, and until when it must begin."""
        path = tuple(
            PathStep(txid=tx.txid, outpoint=tx.inputs[0].outpoint, delay_blocks=delay_of(tx) or 0)
            for tx in self.txs
        )
        return remaining_of(
            path,
            expiry_height=self.expiry_height,
            confirmed=confirmed,
            tip_height=tip_height,
        )


def delay_of(tx: Tx) -> int | None:
    """Return a state's delay in blocks, from its nSequence (BIP 68); None of any other."""
    nsequence = tx.inputs[0].nsequence
    return nsequence if nsequence <= DELAY_BLOCKS_MAX else None


def _sum_sat(tx: Tx) -> int:
    return sum(output.amount_sat for output in tx.outputs)


def _steps_of(txs: tuple[Tx, ...], funding_sat: int) -> Iterator[ExitStep]:
    """Yield the transactions of a path, each with the name that it has in its factory."""
    place: tuple[int, ...] = ()
    spent_sat = funding_sat
    for n, tx in enumerate(txs):
        delay_blocks = delay_of(tx)
        is_kickoff = n + 1 < len(txs) and delay_of(txs[n + 1]) is not None
        kind = NodeKind.KICKOFF if is_kickoff else NodeKind.STATIC
        if delay_blocks is not None:
            kind = NodeKind.STATE
        elif n:
            # A parent's outputs are its child vertices, in their order.
            place = (*place, tx.inputs[0].outpoint.vout)
        yield ExitStep(
            name=f"{kind.value}_{'_'.join(map(str, place)) or 'root'}",
            tx=tx,
            delay_blocks=delay_blocks or 0,
            fee_sat=spent_sat - _sum_sat(tx),
        )
        if n + 1 < len(txs):
            spent_sat = tx.outputs[txs[n + 1].inputs[0].outpoint.vout].amount_sat


def package_of(
    signed: SignedBranch,
    network: Network,
    *,
    commitment: Tx | None = None,
    replaced: tuple[ReplacedState, ...] = (),
) -> ExitPackage:
    """Return a client's exit package.

    Args:
        signed: Its branch.
        network: The chain it is on.
        commitment: Its own latest, if no update follows it any more.
        replaced: The states that its leaf's newest one replaced, with their poisons.

    Raises:
        ValueError: If it is not the client's own branch: the channel's keys are not known.
    """
    branch = signed.branch
    tapleaf, channel = branch.funding_output.tapleaf, branch.channel.signers_output
    if tapleaf is None or channel is None:
        raise ValueError("a package is made by the client whose branch it is")
    first, second = sorted(channel.signers)
    return ExitPackage(
        network=network,
        funding_outpoint=branch.funding_outpoint,
        funding_txout=TxOut(
            amount_sat=branch.funding_amount_sat,
            script_pubkey=branch.funding_output.script_pubkey,
        ),
        internal_key=branch.funding_output.key_agg.internal_key,
        lsp_xonly_pubkey=tapleaf.xonly_pubkey,
        expiry_height=branch.terms.expiry_height,
        txs=signed.txs,
        channel_vout=branch.channel_outpoint.vout,
        funding_pubkeys=(first, second),
        commitment=commitment,
        replaced=replaced,
    )


def package_document(package: ExitPackage) -> dict[str, Any]:
    """Return a package as the JSON document that `read_package` reads."""
    document: dict[str, Any] = {
        "format": PACKAGE_FORMAT,
        "version": PACKAGE_VERSION,
        "network": package.network.name,
        "funding": {
            "txid": str(package.funding_outpoint.txid),
            "vout": package.funding_outpoint.vout,
            "amount_sat": package.funding_txout.amount_sat,
            "script_pubkey": package.funding_txout.script_pubkey.hex(),
            "internal_key": package.internal_key.hex(),
            "lsp_pubkey": package.lsp_xonly_pubkey.hex(),
            "expiry_height": package.expiry_height,
        },
        "transactions": [tx.serialize().hex() for tx in package.txs],
        "channel": {
            "vout": package.channel_vout,
            "funding_pubkeys": [pubkey.hex() for pubkey in package.funding_pubkeys],
        },
    }
    if package.commitment is not None:
        document["commitment"] = package.commitment.serialize().hex()
    if package.replaced:
        document["replaced"] = [
            {
                "state": state.tx.serialize().hex(),
                "poisons": [poison.serialize().hex() for poison in state.poisons],
            }
            for state in package.replaced
        ]
    return document
