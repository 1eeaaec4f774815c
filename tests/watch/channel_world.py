"""Two parties of one channel on the embedded chain: everything they say is signed, and mined."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from tests.channel.specimen import payment_hash, preimage

from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW, P2TR_DUST_SAT, fee_sat_of
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.script import ANCHOR_SCRIPT, p2tr_script
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.channel.commitment import ChannelKeys, Commitment, Funding, build_commitment
from cromford.channel.content import CommitmentContent, Htlc
from cromford.channel.finished import FinishedCommitment, finish_commitment
from cromford.channel.htlc_tx import htlc_txs
from cromford.channel.keys import Basepoints
from cromford.channel.terms import ChannelTerms, Party
from cromford.crypto.curve import Keypair
from cromford.crypto.keys import pubkey_of, sha256, xonly_of
from cromford.crypto.musig2 import SecNonce, nonce_agg
from cromford.regtest.ledger import Ledger
from cromford.signing.derivation import ClaimKey
from cromford.signing.keychain import ChannelKey, Keychain
from cromford.signing.signer import Signer
from cromford.signing.task import SigningTask
from cromford.watch.channel_exit import (
    ChannelAction,
    LeftBehind,
    PublishCommitment,
    Wait,
    channel_actions,
    left_behind,
    outpoints_of_interest,
)
from cromford.watch.feerates import OwnFees
from cromford.watch.landed import (
    LandedChannel,
    PeerCommitment,
    RevokedCommitment,
    Sweepable,
    takings,
)
from cromford.watch.sweep import CoinSignatureNeeded, TakingTx

CAPACITY_SAT: Final = 1_000_000
TERMS: Final = ChannelTerms(
    feerate_per_kw=500,
    to_self_delay_opener=5,
    to_self_delay_accepter=8,
    max_accepted_htlcs=12,
    max_in_flight_msat=CAPACITY_SAT * 1000,
)
ZERO_FEE: Final = ChannelTerms(
    feerate_per_kw=0,
    to_self_delay_opener=5,
    to_self_delay_accepter=8,
    max_accepted_htlcs=114,
    max_in_flight_msat=CAPACITY_SAT * 1000,
)
FEERATE_SAT_PER_KW: Final = 777
NAME: Final = ChannelKey(attempt=0, channel=0)
KEYCHAINS: Final = {
    party: Keychain(bytes((party + 1,)) * 32, REGTEST, journal_number=7) for party in Party
}
SIGNERS: Final = {party: Signer(keychain) for party, keychain in KEYCHAINS.items()}
KEYS: Final = ChannelKeys(
    opener=Basepoints.of(SIGNERS[Party.OPENER].channel_pubkeys(NAME)),
    accepter=Basepoints.of(SIGNERS[Party.ACCEPTER].channel_pubkeys(NAME)),
)
FUNDING_PUBKEYS: Final = (
    SIGNERS[Party.OPENER].channel_pubkeys(NAME).funding_pubkey,
    SIGNERS[Party.ACCEPTER].channel_pubkeys(NAME).funding_pubkey,
)
PAYOUTS: Final = {
    party: p2tr_script(xonly_of(pubkey_of(sha256(party.name.encode())))) for party in Party
}
OPEN_SCRIPT: Final = b"\x00\x20" + sha256(b"\x51")
COINBASE_MATURITY: Final = 100
TIME: Final = 1_700_000_000
TRIMMED_MSAT: Final = 900_000


@contextmanager
def fresh_world() -> Iterator["World"]:
    ledger = Ledger(None, lambda: TIME)
    try:
        yield World(ledger)
    finally:
        ledger.close()


def musig_sign(task: SigningTask) -> bytes:
    seckeys = sorted((KEYCHAINS[party].seckey(NAME) for party in Party), key=pubkey_of)
    nonces = [SecNonce(Keypair(seckey)) for seckey in seckeys]
    session = task.session(nonce_agg([nonce.pubnonce for nonce in nonces]))
    return session.partial_sig_agg([nonce.sign(session) for nonce in nonces])


def point(commitment: Commitment) -> bytes:
    content = commitment.content
    return SIGNERS[content.holder].per_commitment_point(NAME, content.number)


def built(
    funding: Funding,
    holder: Party,
    htlcs: Sequence[Htlc] = (),
    *,
    number: int = 5,
    accepter_msat: int = 400_000_000,
    terms: ChannelTerms = TERMS,
) -> Commitment:
    held_msat = sum(htlc.amount_msat for htlc in htlcs)
    content = CommitmentContent(
        holder=holder,
        number=number,
        opener_msat=funding.capacity_sat * 1000 - accepter_msat - held_msat,
        accepter_msat=accepter_msat,
        htlcs=tuple(htlcs),
    )
    return build_commitment(
        content,
        funding=funding,
        terms=terms,
        keys=KEYS,
        per_commitment_point=SIGNERS[holder].per_commitment_point(NAME, number),
    )


def held_of(commitment: Commitment) -> FinishedCommitment:
    """Return a commitment with the peer's signatures, which are checked."""
    peer = SIGNERS[commitment.content.holder.other]
    return finish_commitment(
        commitment,
        signature=musig_sign(commitment.signing_task),
        htlc_signatures=tuple(
            peer.sign_claim(NAME, ClaimKey.HTLC, point(commitment), htlc_tx.peer_sighash)
            for htlc_tx in htlc_txs(commitment)
        ),
    )


def peers(commitment: Commitment) -> PeerCommitment:
    return PeerCommitment(commitment=commitment, per_commitment_point=point(commitment))


def revoked(commitment: Commitment) -> RevokedCommitment:
    content = commitment.content
    secret = SIGNERS[content.holder].per_commitment_secret(NAME, content.number)
    return RevokedCommitment(commitment=commitment, per_commitment_secret=secret)


def sign(party: Party, spend: TakingTx) -> Tx:
    """Return the transaction, signed with what the spend asks for and nothing else."""
    signer = SIGNERS[party]
    return spend.signed(
        [
            signer.sign_coin(one.path.change, one.path.index, one.sighash)
            if isinstance(one, CoinSignatureNeeded)
            else signer.sign_claim(NAME, one.key, one.secret_or_point, one.sighash, tweak=one.tweak)
            for one in spend.signatures_needed
        ]
    )


def knowing(*indices: int) -> dict[bytes, bytes]:
    return {payment_hash(index): preimage(index) for index in indices}


@dataclass
class World:
    """One chain, on which many channels live one after the other."""

    ledger: Ledger
    spenders: dict[OutPoint, Tx] = field(default_factory=dict)
    heights: dict[Txid, int] = field(default_factory=dict)
    pending: dict[OutPoint, Tx] = field(default_factory=dict)
    n_coinbases_used: int = 0

    @property
    def tip_height(self) -> int:
        return self.ledger.chain.tip.height

    def mine(self, n_blocks: int = 1) -> None:
        for _ in range(n_blocks):
            indexed = self.ledger.mine(OPEN_SCRIPT)
            for tx in indexed.block.txs:
                self.heights[tx.txid] = indexed.height
                self.spenders.update({tx_in.outpoint: tx for tx_in in tx.inputs})
        self.pending = {
            outpoint: tx for outpoint, tx in self.pending.items() if tx.txid not in self.heights
        }

    def mine_to(self, height: int) -> None:
        self.mine(height - self.tip_height)

    def submit(self, tx: Tx) -> None:
        """Bring a transaction into the mempool, where all of consensus and policy looks at it."""
        self.ledger.submit(tx)
        self.pending.update({tx_in.outpoint: tx for tx_in in tx.inputs})

    def funded(self, capacity_sat: int = CAPACITY_SAT) -> Funding:
        """Return the funding of a new channel, confirmed."""
        self.n_coinbases_used += 1
        self.mine_to(max(self.tip_height, self.n_coinbases_used + COINBASE_MATURITY))
        indexed = self.ledger.chain.at_height(self.n_coinbases_used)
        assert indexed is not None
        coinbase = indexed.block.txs[0]
        unplaced = Funding(
            outpoint=OutPoint(txid=coinbase.txid, vout=0),
            pubkeys=FUNDING_PUBKEYS,
            capacity_sat=capacity_sat,
        )
        change_sat = coinbase.outputs[0].amount_sat - capacity_sat - 1_000
        tx = Tx(
            version=2,
            inputs=(TxIn(outpoint=coinbase.outpoint(0), nsequence=0, witness=(b"\x51",)),),
            outputs=(
                unplaced.txout,
                TxOut(amount_sat=change_sat, script_pubkey=OPEN_SCRIPT),
            ),
        )
        self.submit(tx)
        self.mine()
        return Funding(outpoint=tx.outpoint(0), pubkeys=FUNDING_PUBKEYS, capacity_sat=capacity_sat)

    def spent_from(self, outpoint: OutPoint) -> list[Tx]:
        """Return the confirmed transactions below an output, once each, parents first."""
        found: dict[Txid, Tx] = {}
        waiting = [outpoint]
        while waiting:
            tx = self.spenders.get(waiting.pop(0))
            if tx is not None and tx.txid not in found:
                found[tx.txid] = tx
                waiting += [tx.outpoint(vout) for vout in range(len(tx.outputs))]
        return list(found.values())


@dataclass
class Side:
    """One party with what it holds."""

    world: World
    finished: FinishedCommitment
    peer_commitments: tuple[PeerCommitment, ...] = ()
    revoked: RevokedCommitment | None = None
    preimages: Mapping[bytes, bytes] = field(default_factory=dict)
    feerate_sat_per_kw: int = FEERATE_SAT_PER_KW
    fees: OwnFees | None = None  # None: those of one feerate
    is_leaving: bool = False

    @property
    def party(self) -> Party:
        return self.finished.commitment.content.holder

    def channel(self) -> LandedChannel:
        """Return what it holds with what the chain shows of the outpoints it asks for."""
        world = self.world
        asked = {self.finished.commitment.funding.outpoint}
        while True:
            spends = {one: world.spenders[one] for one in asked if one in world.spenders}
            txids = {self.finished.commitment.funding.outpoint.txid}
            txids |= {tx.txid for tx in spends.values()}
            channel = LandedChannel(
                finished=self.finished,
                own_point=point(self.finished.commitment),
                peer_commitments=self.peer_commitments,
                revoked=self.revoked,
                preimages=self.preimages,
                spends=spends,
                heights={one: world.heights[one] for one in txids if one in world.heights},
                tip_height=world.tip_height,
                payout_script=PAYOUTS[self.party],
                fees=self.fees or flat(self.feerate_sat_per_kw),
            )
            if asked >= set(outpoints_of_interest(channel)):
                return channel
            asked |= set(outpoints_of_interest(channel))

    def actions(self) -> tuple[ChannelAction, ...]:
        return channel_actions(self.channel())

    def left(self) -> tuple[LeftBehind, ...]:
        return left_behind(self.channel())

    def due(self) -> list[Tx]:
        """Return what it would broadcast now, signed."""
        txs = []
        for action in self.actions():
            if isinstance(action, PublishCommitment) and self.is_leaving:
                txs.append(action.tx)
            elif isinstance(action, TakingTx):
                tx = sign(self.party, action)
                assert tx.vsize == action.vsize
                txs.append(tx)
        return txs

    def next_height(self) -> int | None:
        waits = [action.height for action in self.actions() if isinstance(action, Wait)]
        return min(waits, default=None)


@dataclass(frozen=True)
class Pair:
    """Both sides of one channel, and the expiry of its first HTLC."""

    leaver: Side
    other: Side
    expiry: int

    @property
    def both(self) -> tuple[Side, Side]:
        return self.leaver, self.other


def htlcs_of(expiry: int) -> list[Htlc]:
    """Four HTLCs each way: 0 to 3 the opener's, 4 to 7 the accepter's; 3 and 7 have no output."""
    return [
        Htlc(
            offered_by=party,
            htlc_id=place,
            amount_msat=TRIMMED_MSAT if place == 3 else 10_000_000 * (1 + place + 3 * party),
            payment_hash=payment_hash(4 * party + place),
            cltv_expiry=expiry + place,
        )
        for party in Party
        for place in range(4)
    ]


def pair_of(
    world: World,
    leaver: Party,
    *,
    has_htlcs: bool = True,
    in_blocks: int = 20,
    terms: ChannelTerms = TERMS,
    accepter_msat: int = 400_000_000,
) -> Pair:
    funding = world.funded()
    expiry = world.tip_height + in_blocks
    htlcs = htlcs_of(expiry) if has_htlcs else []
    first, second = (
        built(funding, party, htlcs, terms=terms, accepter_msat=accepter_msat)
        for party in (leaver, leaver.other)
    )
    return Pair(
        leaver=Side(world, held_of(first), (peers(second),), is_leaving=True),
        other=Side(world, held_of(second), (peers(first),)),
        expiry=expiry,
    )


def publish(sides: Iterable[Side]) -> bool:
    """Submit what every side has due, the first to come first; say whether there was anything."""
    is_anything = False
    for side in sides:
        for tx in side.due():
            if any(tx_in.outpoint in side.world.pending for tx_in in tx.inputs):
                continue
            side.world.submit(tx)
            is_anything = True
    return is_anything


def settle(world: World, *sides: Side) -> None:
    """Let every side act until neither has anything to do or to wait for."""
    while True:
        if publish(sides):
            world.mine()
            continue
        waits = [height for side in sides if (height := side.next_height()) is not None]
        if not waits:
            return
        assert min(waits) > world.tip_height + 1
        world.mine_to(min(waits) - 1)


def coins(side: Side) -> list[tuple[OutPoint, TxOut]]:
    """Return what came to its wallet out of this channel."""
    return [
        (tx.outpoint(vout), txout)
        for tx in side.world.spent_from(side.finished.commitment.funding.outpoint)
        for vout, txout in enumerate(tx.outputs)
        if txout.script_pubkey == PAYOUTS[side.party]
    ]


def coins_sat(side: Side) -> list[int]:
    return sorted(txout.amount_sat for _, txout in coins(side))


def flat(feerate_sat_per_kw: int) -> OwnFees:
    """Return the fees of a node that says one feerate, whatever it is asked."""
    return OwnFees(estimates=((1, feerate_sat_per_kw),))


def fee_of(tx: Tx, prevouts: Mapping[OutPoint, TxOut]) -> int:
    spent_sat = sum(prevouts[tx_in.outpoint].amount_sat for tx_in in tx.inputs)
    return spent_sat - sum(txout.amount_sat for txout in tx.outputs)


def is_race(tx: Tx, sides: Sequence[Side]) -> bool:
    """Say whether a transaction takes something that somebody else may take, too."""
    contested = {
        one.outpoint
        for side in sides
        for one in takings(side.channel())
        if isinstance(one, Sweepable) and one.rival_height is not None
    }
    return any(tx_in.outpoint in contested for tx_in in tx.inputs)


def assert_adds_up(world: World, *sides: Side, feerate_sat_per_kw: int = FEERATE_SAT_PER_KW) -> int:
    """Assert where every satoshi went, and that sweeps pay their feerate; return the fees."""
    funding = sides[0].finished.commitment.funding
    txs = world.spent_from(funding.outpoint)
    outputs = {funding.outpoint: funding.txout}
    for tx in txs:
        outputs |= {tx.outpoint(vout): txout for vout, txout in enumerate(tx.outputs)}
    fees_sat = 0
    for tx in txs:
        fee_sat = fee_of(tx, outputs)
        fees_sat += fee_sat
        if tx.version == 2:
            own_sat = fee_sat_of(vsize=tx.vsize, feerate_sat_per_kw=feerate_sat_per_kw)
            assert fee_sat == own_sat or is_race(tx, sides)
            assert fee_sat >= fee_sat_of(vsize=tx.vsize, feerate_sat_per_kw=MIN_RELAY_SAT_PER_KW)
            (output,) = tx.outputs
            assert output.amount_sat >= P2TR_DUST_SAT
    spent = {tx_in.outpoint for tx in txs for tx_in in tx.inputs}
    unspent = {one: txout for one, txout in outputs.items() if one not in spent}
    left = {one.outpoint: one.amount_sat for side in sides for one in side.left()}
    assert {one: unspent[one].amount_sat for one in left} == left
    reached_sat = anchors_sat = 0
    for one, txout in unspent.items():
        assert world.ledger.chain.coin(one) is not None
        if txout.script_pubkey == ANCHOR_SCRIPT:
            anchors_sat += txout.amount_sat
        elif one not in left:
            assert txout.script_pubkey in PAYOUTS.values(), f"{one} was forgotten"
            reached_sat += txout.amount_sat
    assert funding.capacity_sat == reached_sat + fees_sat + anchors_sat + sum(left.values())
    return fees_sat
