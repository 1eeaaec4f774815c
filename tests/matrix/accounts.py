"""Who ends with what, by the chain alone: outpoint, script, amount and height of every output.

Everything that anybody owned when the cheating began is followed through the blocks. Whose an
output is follows from its script: a wallet's, or what the tree, a commitment or an HTLC transaction
makes of it. What somebody was owed follows from the channels as both sides had signed them, and
from who knows which preimage. No daemon is asked.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.channel.commitment import CommitmentOutput, CommitmentOutputKind
from cromford.channel.content import CommitmentContent
from cromford.channel.finished import FinishedCommitment
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.factory.outputs import OutputKind
from cromford.factory.poison import Poison, payout_script
from cromford.protocol.journal.link import Link
from cromford.watch.bumping import NOBODY_SCRIPT
from tests.matrix.world import Held, MatrixWorld

LSP: Final = "lsp"
NOBODY: Final = "anybody"


def poisons_of(world: MatrixWorld) -> dict[Txid, Poison]:
    """Return the poisons of every state of a leaf that another was signed to replace."""
    return {
        poison.tx.txid: poison
        for leaf in world.newest_attempt.advanced_leaves.values()
        for state_index in range(len(leaf.states) - 1)
        for poison in leaf.poisons(state_index)
    }


def finished_by(end: Link) -> list[FinishedCommitment]:
    """Return one side's latest commitment on each output of its channel that it is signed for."""
    found = (end.finished_on(funding) for funding in end.fundings)
    return [one for one in found if one is not None]


@dataclass(frozen=True, kw_only=True)
class Holding:
    """An unspent output: whose, what it is, where, how much, and since when."""

    owner: str
    kind: str
    outpoint: OutPoint
    script: bytes
    amount_sat: int
    height: int


@dataclass(kw_only=True)
class Account:
    """One participant's.

    Attributes:
        name: Whose.
        owned_sat: What was rightly its own when the cheating began.
        holdings: What is its own at the end.
        fees_sat: Of what it published or prepaid.
        anchors_sat: What it left in anchors, which anybody may take.
    """

    name: str
    owned_sat: int = 0
    holdings: list[Holding] = field(default_factory=list)
    fees_sat: int = 0
    anchors_sat: int = 0

    @property
    def held_sat(self) -> int:
        """What it has in the end."""
        return sum(holding.amount_sat for holding in self.holdings)

    @property
    def gain_sat(self) -> int:
        """What it has more than it owned, before its own fees."""
        return self.held_sat + self.fees_sat + self.anchors_sat - self.owned_sat


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """A transaction that moved any of it: what it is, where, who paid how much for it."""

    height: int
    name: str
    payer: str
    fee_sat: int
    txid: Txid


class Accounts:
    """The accounts of a world from the moment the cheating began.

    Args:
        world: What happened.
        cheaters: What only they could sign for is theirs, wherever it still lies.
    """

    def __init__(self, world: MatrixWorld, cheaters: Collection[str]) -> None:
        self.world = world
        self.cheaters = frozenset(cheaters)
        self.story: list[Confirmed] = []
        self.by_name = {node.name: Account(name=node.name) for node in world.everybody}
        self.made: dict[Txid, Held] = {held.finished.tx.txid: held for held in world.kept.values()}
        self.delayed = {
            held.finished.commitment.delayed.taproot.script_pubkey: held
            for held in world.kept.values()
        }
        attempt, nodes = world.factory_attempt, world.tree_nodes()
        self.tree = {
            node.tx.outpoint(vout): output
            for node in nodes
            for vout, output in enumerate(node.outputs)
        }
        self.nodes = {node.tx.txid: node for node in nodes}
        self.poisons = poisons_of(world)
        self.payouts = {
            payout_script(pubkey): self._client(place)
            for place, pubkey in enumerate(attempt.blueprint.factory_pubkeys)
            if place
        }
        self.funding = attempt.funding_outpoint
        self.unspent: dict[OutPoint, tuple[TxOut, int]] = {}
        self.loose: list[Holding] = []  # What nobody owns alone: anchors, what is not decided yet.
        self.shown: set[bytes] = set()
        self.total_sat = 0
        self._start()
        self._follow()
        self._share_out()
        for client in world.members:
            self._owe(client.name)

    # What there was

    def _start(self) -> None:
        chain, height = self.world.chain, self.world.start_height
        for script, (name, _) in self.world.names.items():
            for outpoint in chain.paid_to.get(script, ()):
                if self._was_unspent(outpoint, height):
                    self._own(name, outpoint)
        for outpoint in (self.funding, *self.tree):
            if self._was_unspent(outpoint, height):
                self._own(LSP, outpoint)
        self.total_sat = sum(txout.amount_sat for txout, _ in self.unspent.values())

    def _was_unspent(self, outpoint: OutPoint, height: int) -> bool:
        chain = self.world.chain
        spender = chain.spends.get(outpoint)
        is_spent = spender is not None and chain.confirmed[spender.txid] <= height
        return chain.confirmed.get(outpoint.txid, height + 1) <= height and not is_spent

    def _own(self, name: str, outpoint: OutPoint) -> None:
        txout = self.world.chain.output(outpoint)
        self.unspent[outpoint] = (txout, self.world.chain.confirmed[outpoint.txid])
        # An anchor was paid before, and is anybody's.
        if txout.script_pubkey != ANCHOR_SCRIPT:
            self.by_name[name].owned_sat += txout.amount_sat

    def _owe(self, name: str) -> None:
        """Move what a client owned in its channel from the LSP's account to its own."""
        due_sat = self._due_sat(name)
        self.by_name[name].owned_sat += due_sat
        self.by_name[LSP].owned_sat -= due_sat

    def _due_sat(self, name: str) -> int:
        """Return a client's balance, and HTLCs as they end by who knows their preimages.

        In the middle of an update the two sides' commitments may differ by an HTLC. What is then
        nobody's for certain counts for a cheater, and not against it.
        """
        if name in self.world.dues_msat:
            return self.world.dues_msat[name] // MSAT_PER_SAT
        dues_msat = [
            self._due_msat(end.finished.commitment.content) for end in self.world.ends[name]
        ]
        due_msat = max(dues_msat) if name in self.cheaters else min(dues_msat)
        return (due_msat - self.world.prices_msat.get(name, 0)) // MSAT_PER_SAT

    def _due_msat(self, content: CommitmentContent) -> int:
        due_msat = content.accepter_msat
        for htlc in content.htlcs:
            is_paid = self.is_sold(htlc.payment_hash)
            if is_paid is (htlc.offered_by is Party.OPENER):
                due_msat += htlc.amount_msat
        return due_msat

    def is_sold(self, payment_hash: bytes) -> bool:
        """Say whether anybody but its payee knows the preimage: then the payment was made."""
        payee, preimage = self.world.invoices[payment_hash]
        others = (node for node in self.world.everybody if node.name != payee)
        return preimage in self.shown or any(self.world.knows(node, preimage) for node in others)

    # What became of it

    def _follow(self) -> None:
        chain = self.world.chain
        for height in range(self.world.start_height + 1, chain.height + 1):
            for tx in chain.blocks[height][1]:
                spent = [tx_in.outpoint for tx_in in tx.inputs]
                if any(outpoint in self.unspent for outpoint in spent):
                    for outpoint in spent:
                        if outpoint not in self.unspent:
                            self._bring_in(tx, outpoint)
                    self._pass_on(tx, height)

    def _bring_in(self, tx: Tx, outpoint: OutPoint) -> None:
        """Count what the LSP adds that comes of another factory of its own."""
        assert self._payer(tx) == LSP, "nobody else's coin is in any of this"
        self._own(LSP, outpoint)
        self.total_sat += self.output(outpoint).amount_sat

    def _pass_on(self, tx: Tx, height: int) -> None:
        for tx_in in tx.inputs:
            del self.unspent[tx_in.outpoint]
            self.shown.update(item for item in tx_in.witness if len(item) == 32)
        for vout, txout in enumerate(tx.outputs):
            if txout.amount_sat:
                self.unspent[tx.outpoint(vout)] = (txout, height)
        payer, fee_sat = self.by_name[self._payer(tx)], self.world.chain.fee_sat(tx)
        payer.fees_sat += fee_sat
        self.story.append(
            Confirmed(
                height=height,
                name=self._name_of(tx),
                payer=payer.name,
                fee_sat=fee_sat,
                txid=tx.txid,
            )
        )
        # A child takes back what an anchor holds.
        payer.anchors_sat += sum(
            out.amount_sat for out in tx.outputs if out.script_pubkey == ANCHOR_SCRIPT
        )
        payer.anchors_sat -= sum(
            spent.amount_sat
            for spent in (self.world.chain.output(tx_in.outpoint) for tx_in in tx.inputs)
            if spent.script_pubkey == ANCHOR_SCRIPT
        )

    def _payer(self, tx: Tx) -> str:
        """Return who pays for a transaction: the LSP for what it prepaid, else who gets it.

        A child of anchors alone is paid by what the LSP put into them. An HTLC transaction takes
        its fee, at the terms' feerate, and its anchor out of the HTLC: where the commitment is
        revoked, of what is the other side's.
        """
        if tx.txid in self.nodes or tx.txid in self.made or tx.txid in self.world.closes:
            return LSP
        if tx.txid in self.poisons:
            return LSP
        out = tx.outputs[0]
        if out.script_pubkey in self.world.names:
            return self.world.names[out.script_pubkey][0]
        if out.script_pubkey in self.delayed:
            return self._payer_of_htlc(self.delayed[out.script_pubkey])
        if out.script_pubkey == NOBODY_SCRIPT:
            return LSP
        raise AssertionError(f"{tx.txid} pays nobody who is known")

    def _payer_of_htlc(self, held: Held) -> str:
        for client, pair in self.world.ends.items():
            for mine, theirs in (pair, pair[::-1]):
                if (mine.channel_id, mine.me) == (held.link.channel_id, held.party):
                    is_dead = held.funding in theirs.superseded
                    is_revoked = is_dead or held.number < theirs.state.peer_revoked
                    peer = client if held.node.name == LSP else LSP
                    return peer if is_revoked else held.node.name
        raise AssertionError("an HTLC transaction of no channel")

    def _name_of(self, tx: Tx) -> str:
        if tx.txid in self.nodes:
            return self.nodes[tx.txid].name
        if tx.txid in self.world.closes:
            return self.world.closes[tx.txid]
        if tx.txid in self.poisons:
            return self.poisons[tx.txid].name
        if tx.txid in self.made:
            held = self.made[tx.txid]
            latest = {
                finished.tx.txid
                for pair in self.world.ends.values()
                for end in pair
                for finished in finished_by(end)
            }
            age = "latest" if tx.txid in latest else "old"
            return f"{age} commitment {held.number} of {held.node.name}"
        spent = [tx_in.outpoint for tx_in in tx.inputs]
        if any(self.world.chain.output(one).script_pubkey == ANCHOR_SCRIPT for one in spent):
            return "child"
        if tx.outputs[0].script_pubkey in self.delayed:
            return "HTLC transaction"
        kinds = {kind for one in spent for _, kind, _ in self._owners(one, self.output(one))}
        is_shown = any(len(item) == 32 for tx_in in tx.inputs for item in tx_in.witness)
        return f"spends {', '.join(sorted(kinds))}" + (" by its preimage" if is_shown else "")

    def output(self, outpoint: OutPoint) -> TxOut:
        """Return an output, spent or not."""
        return self.world.chain.output(outpoint)

    def _share_out(self) -> None:
        for outpoint, (txout, height) in self.unspent.items():
            for owner, kind, amount_sat in self._owners(outpoint, txout):
                holding = Holding(
                    owner=owner,
                    kind=kind,
                    outpoint=outpoint,
                    script=txout.script_pubkey,
                    amount_sat=amount_sat,
                    height=height,
                )
                if owner in self.by_name:
                    self.by_name[owner].holdings.append(holding)
                else:
                    self.loose.append(holding)

    @property
    def is_over(self) -> bool:
        """Say whether everything is in somebody's wallet, but for anchors."""
        accounts = self.by_name.values()
        kinds = {holding.kind for account in accounts for holding in account.holdings}
        return not self.undecided and kinds <= {"wallet"}

    @property
    def undecided(self) -> list[Holding]:
        """What more than one may still take, but for anchors."""
        return [holding for holding in self.loose if holding.kind != "anchor"]

    def _owners(self, outpoint: OutPoint, txout: TxOut) -> list[tuple[str, str, int]]:
        """Return whose an output is, what it is, and how much of it."""
        script, amount_sat = txout.script_pubkey, txout.amount_sat
        if script == ANCHOR_SCRIPT:
            return [(NOBODY, "anchor", amount_sat)]
        if script in self.world.names:
            return [(self.world.names[script][0], "wallet", amount_sat)]
        if script in self.payouts:
            return [(self.payouts[script], "of a poison", amount_sat)]
        if outpoint.txid in self.made:
            held = self.made[outpoint.txid]
            return [
                self._owner_of_commitment(held, held.finished.commitment.outputs[outpoint.vout])
            ]
        if script in self.delayed:
            return [(self.delayed[script].node.name, "HTLC, delayed", amount_sat)]
        output = self.tree.get(outpoint)
        if output is not None and output.kind is OutputKind.LSTOCK:
            return [(LSP, "L-stock", amount_sat)]
        kind = "funding" if output is None else output.kind.value
        client = None if output is None else output.client
        if client is not None and {LSP, self._client(client)} <= self.cheaters:
            name = self._client(client)
            due_sat = self._due_sat(name)
            return [(name, kind, due_sat), (LSP, kind, amount_sat - due_sat)]
        return [(NOBODY, kind, amount_sat)]

    def _client(self, place: int) -> str:
        return next(name for name, (_, end) in self.world.ends.items() if end.client == place)

    def _owner_of_commitment(self, held: Held, output: CommitmentOutput) -> tuple[str, str, int]:
        holder = held.node.name
        client = next(
            name
            for name, (end, _) in self.world.ends.items()
            if end.channel_id == held.link.channel_id
        )
        peer = client if holder == LSP else LSP
        match output.kind:
            case CommitmentOutputKind.TO_HOLDER:
                return holder, "to_local", output.amount_sat
            case CommitmentOutputKind.TO_PEER:
                return peer, "to_remote", output.amount_sat
            case _:
                return NOBODY, output.kind.value, output.amount_sat
