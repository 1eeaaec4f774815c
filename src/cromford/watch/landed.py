"""A channel whose output reached the chain: what one party can take of it, from which block on.

Whichever commitment confirmed, its outputs become a list of takings: a balance after its delay,
an HTLC by preimage or expiry, everything if the peer cheated. What is not spent yet is what is
left to do.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cromford.bitcoin.script import is_p2tr
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.channel.claims import (
    Claim,
    delayed_claim,
    holder_claims,
    htlc_tx_penalties,
    peer_claims,
    penalty_claims,
)
from cromford.channel.commitment import Commitment
from cromford.channel.content import Htlc
from cromford.channel.finished import FinishedCommitment
from cromford.channel.htlc_tx import HtlcTx, htlc_txs
from cromford.channel.terms import Party
from cromford.crypto.keys import sha256
from cromford.signing.derivation import ClaimKey
from cromford.watch.feerates import OwnFees
from cromford.watch.sweep import ClaimInput, HtlcInput


@dataclass(frozen=True, kw_only=True)
class PeerCommitment:
    """A commitment of the peer that it may publish, with its per-commitment point."""

    commitment: Commitment
    per_commitment_point: bytes


@dataclass(frozen=True, kw_only=True)
class RevokedCommitment:
    """A commitment that the peer must no longer publish, with the secret that revoked it."""

    commitment: Commitment
    per_commitment_secret: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SupersededOutput:
    """A channel's output for which this party has revoked every commitment of its own."""

    me: Party
    outpoint: OutPoint


@dataclass(frozen=True, kw_only=True)
class UnknownSpender:
    """What spent the channel's output and is no commitment that is known here.

    It may be one of the peer's that this party forgot: then `claims` pay it all the same.
    """

    tx: Tx
    claims: tuple[Claim, ...]


@dataclass(frozen=True, kw_only=True)
class LandedChannel:
    """What one party holds of a channel, and what the chain shows.

    Attributes:
        finished: This party's latest commitment. Once published, it takes no further update. None
            where all of them are revoked: then `superseded` says of which output.
        own_point: This party's per-commitment point of that commitment.
        peer_commitments: Those of the peer that are not revoked: its latest, and until it has
            revoked that one, the one before.
        revoked: A revoked commitment of the peer, if one was seen to spend the channel's output.
        unknown: What spent the channel's output, if it is no revoked commitment and not known.
        preimages: By payment hash.
        spends: By outpoint, the confirmed transaction that spends it; of all that
            `outpoints_of_interest` names.
        heights: Where transactions confirmed: the one that makes the channel's output, and
            every one in `spends`.
        tip_height: The height of the chain's tip.
        payout_script: Where everything goes: a script of the wallet, taproot.
        fees: What this party's own node asks for: a counterparty's number prices nothing here.
        superseded: The channel's output, where this party has no commitment to publish.

    Raises:
        ValueError: If an attribute contradicts another, or is out of range; names it.
    """

    finished: FinishedCommitment | None
    own_point: bytes
    peer_commitments: tuple[PeerCommitment, ...] = ()
    revoked: RevokedCommitment | None = None
    unknown: UnknownSpender | None = None
    preimages: Mapping[bytes, bytes] = field(default_factory=lambda: MappingProxyType({}))
    spends: Mapping[OutPoint, Tx] = field(default_factory=lambda: MappingProxyType({}))
    heights: Mapping[Txid, int]
    tip_height: int
    payout_script: bytes
    fees: OwnFees
    superseded: SupersededOutput | None = None

    def __post_init__(self) -> None:
        if (self.finished is None) is (self.superseded is None):
            raise ValueError("finished: one commitment, or an output without any, was expected")
        theirs = [one.commitment for one in self.peer_commitments]
        theirs += [] if self.revoked is None else [self.revoked.commitment]
        for commitment in theirs:
            if commitment.content.holder is self.me:
                raise ValueError("a commitment of the peer was expected, received one of its own")
        for payment_hash, preimage in self.preimages.items():
            if sha256(preimage) != payment_hash:
                raise ValueError(
                    f"preimages: one of {payment_hash.hex()} was expected, received another"
                )
        for outpoint, spender in self.spends.items():
            if outpoint not in {tx_in.outpoint for tx_in in spender.inputs}:
                raise ValueError(f"spends: {spender.txid} does not spend {outpoint}")
            if spender.txid not in self.heights:
                raise ValueError(f"heights: that of {spender.txid} is missing")
        if not is_p2tr(self.payout_script):
            raise ValueError(
                f"payout_script: a taproot output was expected, received {self.payout_script.hex()}"
            )

    @property
    def me(self) -> Party:
        """Which party this is."""
        if self.finished is not None:
            return self.finished.commitment.content.holder
        return self._superseded.me

    @property
    def _superseded(self) -> SupersededOutput:
        if self.superseded is None:
            raise AssertionError("neither a commitment nor an output")
        return self.superseded

    @property
    def outpoint(self) -> OutPoint:
        """What the commitments spend: the channel's funding outpoint."""
        if self.finished is not None:
            return self.finished.commitment.funding.outpoint
        return self._superseded.outpoint

    @property
    def landed(self) -> FinishedCommitment | PeerCommitment | RevokedCommitment | None:
        """The commitment that confirmed, if one did that is known here."""
        spender = self.spends.get(self.outpoint)
        if spender is None:
            return None
        if self.revoked is not None and self.revoked.commitment.tx.txid == spender.txid:
            return self.revoked
        own = () if self.finished is None else (self.finished,)
        known: tuple[FinishedCommitment | PeerCommitment, ...] = (*own, *self.peer_commitments)
        return next((one for one in known if one.commitment.tx.txid == spender.txid), None)


@dataclass(frozen=True, kw_only=True)
class Sweepable:
    """An output that can go to the wallet.

    Attributes:
        name: For logs and lists.
        input: How it is spent.
        height: The first block that can hold a transaction that takes it.
        rival_height: The first block in which the peer may take it too; None for never.
    """

    name: str
    input: ClaimInput
    height: int
    rival_height: int | None = None

    @property
    def outpoint(self) -> OutPoint:
        """What is taken."""
        return self.input.outpoint


@dataclass(frozen=True, kw_only=True)
class HtlcTxDue:
    """An HTLC of this party's commitment that its HTLC transaction takes, from `height` on."""

    name: str
    input: HtlcInput
    height: int

    @property
    def outpoint(self) -> OutPoint:
        """What is taken."""
        return self.input.outpoint


@dataclass(frozen=True, kw_only=True)
class PreimageMissing:
    """An HTLC that the peer offered: only its preimage would take it."""

    name: str
    outpoint: OutPoint
    htlc: Htlc


Taking = Sweepable | HtlcTxDue | PreimageMissing


def takings(channel: LandedChannel) -> tuple[Taking, ...]:
    """Return everything that is or was this party's to take of the commitment that confirmed.

    It includes what is spent by now, by whomever. Of a commitment that is not known here, it is
    only what pays to a key that never changes.
    """
    landed = channel.landed
    if landed is None:
        return tuple(_of_unknown(channel))
    height = channel.heights[landed.commitment.tx.txid]
    if isinstance(landed, FinishedCommitment):
        return tuple(_of_own(channel, landed, height))
    if isinstance(landed, PeerCommitment):
        return tuple(_of_peer(channel, landed, height))
    return tuple(_of_revoked(channel, landed, height))


def _of_own(channel: LandedChannel, finished: FinishedCommitment, height: int) -> Iterator[Taking]:
    commitment = finished.commitment
    delay = commitment.terms.to_self_delay(channel.me)
    for claim in holder_claims(commitment):
        yield Sweepable(
            name=_name_of(claim),
            input=ClaimInput(claim=claim, secret_or_point=channel.own_point),
            height=height + delay,
        )
    for htlc_tx, signature in zip(htlc_txs(commitment), finished.htlc_signatures, strict=True):
        yield _htlc_tx_taking(channel, htlc_tx, signature, height)
        made = _delayed_output(channel, commitment, htlc_tx)
        if made is not None:
            outpoint, prevout = made
            claim = delayed_claim(commitment, outpoint=outpoint, prevout=prevout)
            yield Sweepable(
                name=f"{_htlc_tx_name(htlc_tx)} output",
                input=ClaimInput(claim=claim, secret_or_point=channel.own_point),
                height=channel.heights[outpoint.txid] + delay,
            )


def _htlc_tx_taking(
    channel: LandedChannel, htlc_tx: HtlcTx, peer_signature: bytes, height: int
) -> Taking:
    name, htlc = _htlc_tx_name(htlc_tx), htlc_tx.htlc
    preimage = None if htlc_tx.is_offered else channel.preimages.get(htlc.payment_hash)
    if preimage is None and not htlc_tx.is_offered:
        return PreimageMissing(name=name, outpoint=htlc_tx.tx.inputs[0].outpoint, htlc=htlc)
    return HtlcTxDue(
        name=name,
        input=HtlcInput(
            htlc_tx=htlc_tx,
            peer_signature=peer_signature,
            secret_or_point=channel.own_point,
            preimage=preimage,
        ),
        height=max(height, htlc_tx.tx.nlocktime) + 1,
    )


def _delayed_output(
    channel: LandedChannel, commitment: Commitment, htlc_tx: HtlcTx
) -> tuple[OutPoint, TxOut] | None:
    """Find what this party's HTLC transaction made of an HTLC, even if merged with others.

    Of the published channel type it may be: input and output are at the same place then.
    """
    outpoint = htlc_tx.tx.inputs[0].outpoint
    spender = channel.spends.get(outpoint)
    if spender is None:
        return None
    place = _place_of(spender, outpoint)
    is_own = (
        place < len(spender.outputs)
        and spender.outputs[place].script_pubkey == commitment.delayed.taproot.script_pubkey
    )
    return (spender.outpoint(place), spender.outputs[place]) if is_own else None


def _of_peer(channel: LandedChannel, theirs: PeerCommitment, height: int) -> Iterator[Taking]:
    for claim in peer_claims(theirs.commitment):
        preimage = _preimage_for(channel, claim)
        if claim.htlc is not None and claim.needs_preimage and preimage is None:
            yield PreimageMissing(name=_name_of(claim), outpoint=claim.outpoint, htlc=claim.htlc)
            continue
        yield Sweepable(
            name=_name_of(claim),
            input=ClaimInput(
                claim=claim, secret_or_point=theirs.per_commitment_point, preimage=preimage
            ),
            height=max(height, claim.nlocktime_min) + 1,
            rival_height=_rival_height(claim, holder=channel.me.other),
        )


def _of_unknown(channel: LandedChannel) -> Iterator[Taking]:
    unknown = channel.unknown
    if unknown is None or channel.spends.get(channel.outpoint) != unknown.tx:
        return
    for claim in unknown.claims:
        yield Sweepable(
            name=_name_of(claim),
            input=ClaimInput(claim=claim, secret_or_point=channel.own_point),
            height=channel.heights[unknown.tx.txid] + 1,
        )


def _of_revoked(
    channel: LandedChannel, revoked: RevokedCommitment, height: int
) -> Iterator[Taking]:
    commitment, secret = revoked.commitment, revoked.per_commitment_secret
    cheater = commitment.content.holder
    delay = commitment.terms.to_self_delay(cheater)
    spenders: dict[Txid, Tx] = {}
    for claim in penalty_claims(commitment):
        is_delayed = claim.htlc is None and claim.key is ClaimKey.REVOCATION
        yield Sweepable(
            name=_name_of(claim),
            input=ClaimInput(claim=claim, secret_or_point=secret),
            height=height + 1,
            rival_height=height + delay if is_delayed else _rival_height(claim, holder=cheater),
        )
        spender = channel.spends.get(claim.outpoint)
        if spender is not None:
            spenders[spender.txid] = spender
    for txid, spender in spenders.items():
        for claim in htlc_tx_penalties(commitment, spender):
            yield Sweepable(
                name=f"{_name_of(claim)} output",
                input=ClaimInput(claim=claim, secret_or_point=secret),
                height=channel.heights[txid] + 1,
                rival_height=channel.heights[txid] + delay,
            )


def _preimage_for(channel: LandedChannel, claim: Claim) -> bytes | None:
    if claim.htlc is None or not claim.needs_preimage:
        return None
    return channel.preimages.get(claim.htlc.payment_hash)


def _rival_height(claim: Claim, *, holder: Party) -> int | None:
    """Return the first block in which the holder may take an HTLC's output.

    What it offered, after the expiry; what it accepted, as soon as it has the preimage.
    """
    if claim.htlc is None:
        return None
    return claim.htlc.cltv_expiry + 1 if claim.htlc.offered_by is holder else 0


def _place_of(spender: Tx, outpoint: OutPoint) -> int:
    return [tx_in.outpoint for tx_in in spender.inputs].index(outpoint)


def _htlc_name(htlc: Htlc) -> str:
    return f"{htlc.offered_by.name.lower()} {htlc.htlc_id}"


def _htlc_tx_name(htlc_tx: HtlcTx) -> str:
    kind = "htlc_timeout" if htlc_tx.is_offered else "htlc_success"
    return f"{kind} {_htlc_name(htlc_tx.htlc)}"


def _name_of(claim: Claim) -> str:
    if claim.htlc is not None:
        return f"htlc {_htlc_name(claim.htlc)}"
    return "to_remote" if claim.key is ClaimKey.PAYMENT else "to_local"
