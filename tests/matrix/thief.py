"""Participants gone rogue: their secrets, what they once held, their coins, and what they do.

A thief runs no daemon. At each block it publishes whatever it can sign that brings it something,
pays for it with children out of its own coins, and treats a revoked commitment as if it were its
latest: what it may take of it is computed as an honest party computes that of its own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cromford import effects as fx
from cromford.bitcoin.fees import P2TR_DUST_SAT, SAT_PER_KW_OF_SAT_PER_VB, fee_sat_of
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import TRUC_VERSION, OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto.keys import sha256
from cromford.daemon.signing import perform_signing
from cromford.factory.branch import SignedBranch
from cromford.protocol import events as ev
from cromford.signing.handed_over import unsealed
from cromford.signing.keychain import ChannelKey, FactoryKey, HandedOverKey
from cromford.signing.signer import Signer
from cromford.wallet.account import RECEIVE
from cromford.watch.channel_exit import channel_actions
from cromford.watch.exit import Publish, next_exit_action
from cromford.watch.feerates import OwnFees
from cromford.watch.landed import LandedChannel
from cromford.watch.lsp_sweep import FactoryOnChain, PublishState, SweepTx, lsp_actions
from cromford.watch.sweep import TakingTx
from tests.matrix.world import Held, MatrixNode, MatrixWorld
from tests.protocol.pump import PumpNode
from tests.simulation.sim_chain import SimRefused

BUMP_NSEQUENCE: Final = 0xFFFF_FFFD
BLANK: Final = (bytes(64),)
OP_RETURN: Final = b"\x6a"
EMPTY_OUTPUT_VSIZE: Final = 12  # An amount, a length of three bytes, OP_RETURN.

SWEEP_FACTORS: Final = (1, 4, 16)  # How much more than usual a sweep pays, if it has to.

Task = Callable[[], None]


@dataclass
class Thief:
    """One participant, or a coalition that shares everything.

    Attributes:
        world: Where.
        nodes: Who.
        signers: Their secrets, by name.
        preimages: All that any of them knows, by payment hash.
        tasks: What is done at each block.
        refusals: What the chain said of what was tried, by name, the last word of each.
        published: What it published.
        expectations: What the chain has to show in the end: each yields in words what it does not.
        n_refused: How often consensus refused what was tried against it.
        n_pins: How often a child of its own took a place.
    """

    world: MatrixWorld
    nodes: Sequence[MatrixNode]
    signers: dict[str, Signer] = field(default_factory=dict)
    preimages: dict[bytes, bytes] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    published: set[Txid] = field(default_factory=set)
    expectations: list[Callable[[], Iterable[str]]] = field(default_factory=list)
    n_refused: int = 0
    n_pins: int = 0
    _payout: dict[str, bytes] = field(default_factory=dict)
    _sweeps: set[Txid] = field(default_factory=set)
    _attempts: dict[str, int] = field(default_factory=dict)
    _bumped: dict[bytes, Tx] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.nodes:
            assert node.signer is not None
            self.signers[node.name] = node.signer
            self._payout[node.name] = node.state.wallet.next_script(RECEIVE)
            if node is not self.world.lsp:
                self._attempts[node.name] = self.world.attempt_of(node).key_attempt
            for payment_hash, (_, preimage) in self.world.invoices.items():
                if self.world.knows(node, preimage):
                    self.preimages[payment_hash] = preimage
            self.world.go_rogue(node)
        self.world.rogues.append(self.act)

    def act(self) -> None:
        """Do everything that may bring something, once."""
        self._look_for_preimages()
        for task in self.tasks:
            task()

    def _look_for_preimages(self) -> None:
        for tx in self.world.chain.blocks[-1][1]:
            for tx_in in tx.inputs:
                for item in tx_in.witness:
                    if len(item) == 32:
                        self.preimages[sha256(item)] = item

    # What it publishes

    def leave(self, signed: SignedBranch) -> None:
        """Publish what comes next of a branch."""
        chain = self.world.chain
        step = next_exit_action(signed, confirmed=chain.confirmed, tip_height=chain.height)
        if isinstance(step, Publish):
            self.publish(step.step.name, step.step.tx)

    def cheat(self, held: Held) -> None:
        """Publish a commitment as soon as its channel is on chain, and take what it pays."""
        chain, outpoint = self.world.chain, held.funding.outpoint
        if outpoint.txid not in chain.confirmed:
            return
        spender = chain.spends.get(outpoint)
        if spender is None:
            self.publish(f"old commitment {held.number}", held.finished.tx)
        elif spender.txid == held.finished.tx.txid:
            self.claim(held)

    def claim(self, held: Held) -> None:
        """Take what a commitment of the thief's own, once on chain, lets it take now."""
        landed = LandedChannel(
            finished=held.finished,
            own_point=held.own_point,
            preimages=self._preimages_of(held),
            spends=self._spends_of(held.funding.outpoint),
            heights=self.world.chain.confirmed,
            tip_height=self.world.chain.height,
            payout_script=self._payout[held.node.name],
            fees=self._fees,
        )
        self._take(held, landed)

    def claim_from_peer(self, held: Held) -> None:
        """Take what any commitment of the honest peer, once on chain, lets the thief take now."""
        outpoint = held.funding.outpoint
        spender = self.world.chain.spends.get(outpoint)
        if spender is None or spender.txid == held.finished.tx.txid:
            return
        landed = LandedChannel(
            finished=held.finished,
            own_point=held.own_point,
            peer_commitments=held.link.peer_commitments_on(held.funding),
            preimages=self._preimages_of(held),
            spends=self._spends_of(outpoint),
            heights=self.world.chain.confirmed,
            tip_height=self.world.chain.height,
            payout_script=self._payout[held.node.name],
            fees=self._fees,
        )
        self._take(held, landed)

    def _take(self, held: Held, landed: LandedChannel) -> None:
        for action in channel_actions(landed):
            if isinstance(action, TakingTx):
                asked = fx.SignTakingTx(key=held.link.key, spend=action)
                (signed,) = self.sign(held.node.name, asked)
                assert isinstance(signed, ev.TakingTxSigned)
                self.publish(action.name, signed.tx)

    def sweep_tree(self) -> None:
        """Take what the tree gives the LSP alone, as soon as consensus lets it.

        Whatever waits for the same output is outbid.
        """
        for factor in SWEEP_FACTORS:
            fees = OwnFees(estimates=((1, factor * self._sat_per_kw),))
            if all(self._swept(action) for action in lsp_actions(self._factory(fees))):
                return

    def _swept(self, action: SweepTx | PublishState) -> bool:
        if not isinstance(action, SweepTx):
            return True
        ledger, outpoint = self.world.chain.ledger, action.output.outpoint
        if ledger.mempool.spender(outpoint) in self._sweeps:
            return True
        tx = self.signed_sweep(action)
        self._sweeps.add(tx.txid)
        return self.publish(action.name, tx)

    def _factory(self, fees: OwnFees) -> FactoryOnChain:
        chain = self.world.chain
        return FactoryOnChain(
            tree=self.world.tree_now,
            spends=chain.spends,
            heights=chain.confirmed,
            tip_height=chain.height,
            payout_script=self._payout["lsp"],
            fees=fees,
        )

    def signed_sweep(self, spend: SweepTx) -> Tx:
        """Return what takes an output by the LSP's own script, signed."""
        key = FactoryKey(attempt=self.world.factory_attempt.key_attempt)
        (signed,) = self.sign("lsp", fx.SignSweep(key=key, spend=spend))
        assert isinstance(signed, ev.SweepSigned)
        return signed.tx

    def publish(self, name: str, tx: Tx) -> bool:
        """Publish a transaction, with a child where it pays too little; say whether it waits."""
        chain = self.world.chain
        if tx.txid in chain.confirmed:
            return True
        self.published.add(tx.txid)
        try:
            wanted_sat = fee_sat_of(vsize=tx.vsize, feerate_sat_per_kw=self._sat_per_kw)
            if chain.fee_sat(tx) >= wanted_sat or not anchors_of(tx):
                chain.broadcast(tx)
            else:
                self._publish_with_child(tx)
        except SimRefused as refused:
            self.refusals[name] = str(refused)
            return False
        return True

    def _publish_with_child(self, tx: Tx) -> None:
        chain = self.world.chain
        known = self._bumped.get(bytes(tx.txid))
        if known is not None and known.txid in chain.mempool and tx.txid in chain.mempool:
            return
        coins = self.coins()
        if not coins:
            chain.broadcast(tx)
            return
        child = self.child_of(tx, coins[:1], feerate_sat_per_kw=self._sat_per_kw)
        self._bumped[bytes(tx.txid)] = child
        chain.broadcast_package(tx, child)

    def child_of(
        self,
        tx: Tx,
        coins: Sequence[OutPoint],
        *,
        feerate_sat_per_kw: int,
        vsize: int = 0,
        at: OutPoint | None = None,
    ) -> Tx:
        """Return a child that pays, out of coins, what both should pay together.

        Args:
            tx: The parent.
            coins: Confirmed coins of one of the thief's wallets; none are needed with one's own
                output.
            feerate_sat_per_kw: Of both together; of the child alone, where it has a size.
            vsize: How large it is made, if larger than it has to be.
            at: The output of the parent that it spends; the anchor, if none is named.
        """
        chain = self.world.chain
        outpoints = [at or anchors_of(tx)[0], *coins]
        prevouts = [tx.outputs[outpoints[0].vout], *(chain.output(one) for one in coins)]
        name, path = self.world.names[prevouts[-1].script_pubkey]
        is_own = prevouts[0].script_pubkey in self.world.names
        total_sat = sum(prevout.amount_sat for prevout in prevouts)

        def child(fee_sat: int, padding: bytes = b"") -> Tx:
            paid = TxOut(amount_sat=total_sat - fee_sat, script_pubkey=self._payout[name])
            nothing = TxOut(amount_sat=0, script_pubkey=OP_RETURN + padding)
            return Tx(
                version=TRUC_VERSION,
                inputs=tuple(TxIn(outpoint=one, nsequence=BUMP_NSEQUENCE) for one in outpoints),
                outputs=(paid, nothing) if padding else (paid,),
            )

        blank = child(0).with_witnesses(BLANK if is_own else (), *(BLANK for _ in coins))
        padding = _push(vsize - blank.vsize - EMPTY_OUTPUT_VSIZE) if vsize else b""
        wanted_sat = fee_sat_of(
            vsize=vsize or tx.vsize + blank.vsize, feerate_sat_per_kw=feerate_sat_per_kw
        )
        wanted_sat -= 0 if vsize else chain.fee_sat(tx)
        fee_sat = min(wanted_sat, total_sat - P2TR_DUST_SAT)
        key = (path.change, path.index)
        paths = [key if is_own else None, *(key for _ in coins)]
        return self.signers[name].sign_wallet_tx(child(fee_sat, padding), prevouts, paths)

    def coins(self) -> list[OutPoint]:
        """Return the confirmed coins that nothing waiting spends, the largest first."""
        ledger = self.world.chain.ledger
        own = {script for script, (name, _) in self.world.names.items() if name in self.signers}
        found = [
            (coin.txout.amount_sat, outpoint)
            for outpoint, coin in self.world.coins_of(own).items()
            if ledger.mempool.spender(outpoint) is None
        ]
        return [outpoint for _, outpoint in sorted(found, key=lambda one: (-one[0], one[1]))]

    # What it knows

    def payout(self, name: str) -> bytes:
        """Return the script of one of its own to which its gains go."""
        return self._payout[name]

    @property
    def payouts(self) -> list[bytes]:
        """All of these."""
        return [*self._payout.values()]

    def seckeys(self, victim: PumpNode) -> list[bytes]:
        """Return the seckeys that its members have of a factory, and of a victim's channel.

        An LSP has those, too, that clients handed over to it.
        """
        attempt = self.world.factory_attempt
        found = []
        for node in self.nodes:
            keychain = self.signers[node.name]._keychain
            number = attempt.key_attempt if node is self.world.lsp else self._attempts[node.name]
            found.append(keychain.seckey(FactoryKey(attempt=number)))
            if node is self.world.lsp:
                place = attempt.client_of(victim.node_id) or 0
                found.append(keychain.seckey(ChannelKey(attempt=number, channel=place)))
                found += self.handed_over(node)
        return found

    def handed_over(self, lsp: MatrixNode) -> list[bytes]:
        """Return the secrets that an LSP's file holds of clients that moved out."""
        keychain, number = self.signers[lsp.name]._keychain, self.world.factory_attempt.key_attempt
        stored = [one for one in lsp.handed_over_keys.entries.values() if one.attempt == number]
        return [
            unsealed(keychain, one).seckey(
                HandedOverKey(attempt=number, client=one.client, is_funding=is_funding)
            )
            for one in stored
            for is_funding in (False, True)
        ]

    @property
    def _sat_per_kw(self) -> int:
        return self.world.market.thief_sat_per_vb * SAT_PER_KW_OF_SAT_PER_VB

    @property
    def _fees(self) -> OwnFees:
        return OwnFees(estimates=((1, self._sat_per_kw),))

    def _preimages_of(self, held: Held) -> Mapping[bytes, bytes]:
        hashes = {htlc.payment_hash for htlc in held.finished.commitment.content.htlcs}
        hashes |= {live.htlc.payment_hash for live in held.link.state.htlcs}
        return {one: self.preimages[one] for one in hashes if one in self.preimages}

    def _spends_of(self, outpoint: OutPoint) -> dict[OutPoint, Tx]:
        """Return the confirmed spends of an outpoint, and of all that follows within two steps."""
        found: dict[OutPoint, Tx] = {}
        waiting = [outpoint]
        while waiting:
            one = waiting.pop()
            spender = self.world.chain.spends.get(one)
            if spender is not None:
                found[one] = spender
                waiting += [out for out in spender.outpoints if out in self.world.chain.spends]
        return found

    def sign(self, name: str, effect: fx.SignTakingTx | fx.SignSweep) -> tuple[ev.Event, ...]:
        return perform_signing(self.signers[name], lambda: bytes(32), effect)


def _push(size: int) -> bytes:
    """Return a push that takes so many bytes; at least 259 of them (OP_PUSHDATA2)."""
    return b"\x4d" + (size - 3).to_bytes(2, "little") + bytes(size - 3)


def favourite(world: MatrixWorld, thief: MatrixNode, victim: MatrixNode, **choice: bool) -> Held:
    """Return the revoked commitment of a channel that pays its holder most.

    Args:
        world: Where everybody's commitments are kept.
        thief: Who held it.
        victim: Its peer.
        choice: With `has_htlcs`, only those with an HTLC that has an output.
    """
    client = victim if thief is world.lsp else thief
    mine, theirs = world.ends[client.name]
    if thief is not world.lsp:
        mine, theirs = theirs, mine
    found = [
        held
        for held in world.kept.values()
        if held.link.channel_id == mine.channel_id
        and held.party is mine.me
        and held.number < theirs.state.peer_revoked
        and (not choice.get("has_htlcs") or _n_htlcs(held))
    ]
    assert found, "nobody has an old state"
    return max(found, key=lambda held: (worth_sat(held), -held.number))


def worth_sat(held: Held) -> int:
    """Return what a commitment would give its holder if nobody minded: its balance, its HTLCs."""
    peer = held.finished.commitment.keys
    to_peer = held.link.setting.keys.to_peer(held.party.other).taproot.script_pubkey
    assert peer is not None
    return sum(
        out.amount_sat
        for out in held.finished.tx.outputs
        if out.script_pubkey not in {to_peer, ANCHOR_SCRIPT}
    )


def _n_htlcs(held: Held) -> int:
    return sum(output.htlc is not None for output in held.finished.commitment.outputs)


def anchors_of(tx: Tx) -> list[OutPoint]:
    return [
        tx.outpoint(vout)
        for vout, out in enumerate(tx.outputs)
        if out.script_pubkey == ANCHOR_SCRIPT
    ]
