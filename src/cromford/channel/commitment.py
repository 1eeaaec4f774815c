"""Commitment transactions: from balances, keys and a funding outpoint to bytes and sighashes.

The funding is an argument, so the same content can be built for several outpoints, as it must
while the output that funds a channel is being replaced.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from cromford.bitcoin.fees import ANCHOR_DUST_SAT
from cromford.bitcoin.script import ANCHOR_SCRIPT, p2tr_script
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.taproot import tweaked_key_agg
from cromford.bitcoin.tx import TRUC_VERSION, OutPoint, Tx, TxIn, TxOut
from cromford.changed import computed
from cromford.channel.content import CommitmentContent, Htlc
from cromford.channel.keys import Basepoints, CommitmentKeys, commitment_keys
from cromford.channel.scripts import (
    ScriptOutput,
    accepted_htlc_output,
    delayed_output,
    offered_htlc_output,
    to_peer_output,
)
from cromford.channel.terms import MSAT_PER_SAT, ChannelTerms, Party
from cromford.crypto.keys import sha256
from cromford.crypto.musig2 import KeyAgg
from cromford.signing.task import SigningTask

N_OBSCURED_BITS: Final = 48
LOW_HALF: Final = (1 << 24) - 1
NLOCKTIME_MARK: Final = 0x20 << 24  # BOLT 3: a time long past, so nothing waits for it.
NSEQUENCE_MARK: Final = 0x80 << 24  # BOLT 3: no relative timelock (BIP 68).


class UnpayableFee(ValueError):
    """The opener's balance does not carry the commitment's fee and anchor."""

    def __init__(self, *, balance_sat: int, cost_sat: int) -> None:
        super().__init__(f"the opener has {balance_sat} sat, fee and anchor take {cost_sat} sat")
        self.balance_sat = balance_sat
        self.cost_sat = cost_sat


class NegativeBalance(ValueError):
    """The accepter's balance is below 0: such a commitment cannot be written."""

    def __init__(self, balance_msat: int) -> None:
        super().__init__(f"the accepter has {balance_msat} msat")
        self.balance_msat = balance_msat


class CommitmentOutputKind(Enum):
    """What an output of a commitment is for."""

    TO_HOLDER = "to_local"
    TO_PEER = "to_remote"
    OFFERED_HTLC = "offered_htlc"
    ACCEPTED_HTLC = "accepted_htlc"
    ANCHOR = "anchor"


@dataclass(frozen=True, kw_only=True)
class Funding:
    """Where a channel's money lies.

    `pubkeys` are both parties' funding pubkeys, in any order. `txout` is the output that the
    outpoint must turn out to be: key path only, BIP 86 tweak.
    """

    outpoint: OutPoint
    pubkeys: tuple[bytes, bytes]
    capacity_sat: int

    @computed
    def key_agg(self) -> KeyAgg:
        """The tweaked aggregate of both, which signs every commitment of the channel."""
        return tweaked_key_agg(KeyAgg(self.pubkeys), None)

    def take_key_agg(self, key_agg: KeyAgg) -> None:
        """Take the tweaked aggregate from whoever made it for the output, and do not make it."""
        self.__dict__["key_agg"] = key_agg

    @computed
    def txout(self) -> TxOut:
        """The funding output."""
        script_pubkey = p2tr_script(self.key_agg.output_key)
        return TxOut(amount_sat=self.capacity_sat, script_pubkey=script_pubkey)


@dataclass(frozen=True, kw_only=True)
class ChannelKeys:
    """Both parties' basepoints: all the keys of a channel but those of its funding."""

    opener: Basepoints
    accepter: Basepoints

    def of(self, party: Party) -> Basepoints:
        """Return one party's."""
        return self.opener if party is Party.OPENER else self.accepter

    @computed
    def _to_peers(self) -> tuple[ScriptOutput, ScriptOutput]:
        return to_peer_output(self.opener), to_peer_output(self.accepter)

    def to_peer(self, peer: Party) -> ScriptOutput:
        """Return what pays a party at once on every commitment that the other holds."""
        return self._to_peers[peer]

    @computed
    def obscuring_factor(self) -> int:
        """What a commitment number is combined with, so that outsiders cannot count (BOLT 3)."""
        digest = sha256(self.opener.payment + self.accepter.payment)
        return int.from_bytes(digest[-N_OBSCURED_BITS // 8 :], "big")

    def for_commitment(self, holder: Party, per_commitment_point: bytes) -> CommitmentKeys:
        """Return the keys of one commitment.

        Raises:
            ValueError: If a point is not on the curve.
        """
        return commitment_keys(
            holder=self.of(holder),
            peer=self.of(holder.other),
            per_commitment_point=per_commitment_point,
        )


@dataclass(frozen=True, kw_only=True)
class CommitmentOutput:
    """One output of a commitment, with what can spend it; `scripts` is None for the anchor."""

    kind: CommitmentOutputKind
    amount_sat: int
    scripts: ScriptOutput | None = None
    htlc: Htlc | None = None

    @computed
    def txout(self) -> TxOut:
        """The output's bytes as a value."""
        script = ANCHOR_SCRIPT if self.scripts is None else self.scripts.taproot.script_pubkey
        return TxOut(amount_sat=self.amount_sat, script_pubkey=script)


@dataclass(frozen=True, kw_only=True)
class Commitment:
    """A commitment transaction without its signature.

    `outputs` are in the transaction's order. `delayed` is the script of the holder's delayed
    outputs: its own balance's and those of its HTLC transactions.
    """

    content: CommitmentContent
    funding: Funding
    terms: ChannelTerms
    keys: CommitmentKeys
    delayed: ScriptOutput
    outputs: tuple[CommitmentOutput, ...]
    tx: Tx

    @computed
    def signing_task(self) -> SigningTask:
        """What both funding keys sign together (BIP 327): the key path of the funding output."""
        return SigningTask(
            name=f"commitment {self.funding.outpoint} {self.content.holder.name.lower()} "
            f"{self.content.number}",
            sighash=taproot_sighash(self.tx, prevouts=(self.funding.txout,), input_index=0),
            key_agg=self.funding.key_agg,
        )

    def signed(self, signature: bytes) -> Tx:
        """Return the transaction with its 64-byte signature, which is not checked here."""
        return self.tx.with_witnesses((signature,))


def build_commitment(
    content: CommitmentContent,
    *,
    funding: Funding,
    terms: ChannelTerms,
    keys: ChannelKeys,
    per_commitment_point: bytes,
) -> Commitment:
    """Return the commitment that says `content` and spends `funding` (BOLT 3).

    If the funding holds more than the content's total, the opener gets the rest; if less, the
    opener bears it.

    Args:
        content: Balances and HTLCs.
        funding: The output to spend.
        terms: What the parties agreed.
        keys: Both parties' basepoints.
        per_commitment_point: The holder's, for this commitment's number.

    Raises:
        UnpayableFee: If the opener's balance does not carry fee and anchor.
        ValueError: If a point is not on the curve, or the number is out of range.
    """
    commitment_key_set = keys.for_commitment(content.holder, per_commitment_point)
    delayed = delayed_output(commitment_key_set, to_self_delay=terms.to_self_delay(content.holder))
    outputs = _htlc_outputs(content, terms, commitment_key_set)
    outputs += _balance_outputs(
        content,
        funding,
        terms,
        delayed=delayed,
        to_peer=keys.to_peer(content.holder.other),
        n_htlc_outputs=len(outputs),
    )
    # bolts#1228: what is left over stays in the anchor up to the amount that is no longer dust.
    left_sat = funding.capacity_sat - sum(output.amount_sat for output in outputs)
    outputs.append(
        CommitmentOutput(
            kind=CommitmentOutputKind.ANCHOR, amount_sat=min(left_sat, ANCHOR_DUST_SAT)
        )
    )
    outputs.sort(key=_output_order)
    return Commitment(
        content=content,
        funding=funding,
        terms=terms,
        keys=commitment_key_set,
        delayed=delayed,
        outputs=tuple(outputs),
        tx=_transaction(funding, content.number ^ keys.obscuring_factor, outputs),
    )


def commitment_number_of(tx: Tx, keys: ChannelKeys) -> int:
    """Return the number of a commitment of this channel that was seen on chain (BOLT 3).

    Raises:
        ValueError: If the transaction is not marked as a commitment.
    """
    nsequence = tx.inputs[0].nsequence
    if nsequence & ~LOW_HALF != NSEQUENCE_MARK or tx.nlocktime & ~LOW_HALF != NLOCKTIME_MARK:
        raise ValueError(f"transaction {tx.txid} is not a commitment")
    obscured = (nsequence & LOW_HALF) << 24 | tx.nlocktime & LOW_HALF
    return obscured ^ keys.obscuring_factor


def _transaction(funding: Funding, obscured_number: int, outputs: list[CommitmentOutput]) -> Tx:
    if not 0 <= obscured_number < 1 << N_OBSCURED_BITS:
        raise ValueError(f"a commitment number has {N_OBSCURED_BITS} bits")
    tx_in = TxIn(outpoint=funding.outpoint, nsequence=NSEQUENCE_MARK | obscured_number >> 24)
    return Tx(
        version=TRUC_VERSION,
        inputs=(tx_in,),
        outputs=tuple(output.txout for output in outputs),
        nlocktime=NLOCKTIME_MARK | obscured_number & LOW_HALF,
    )


def _htlc_outputs(
    content: CommitmentContent, terms: ChannelTerms, keys: CommitmentKeys
) -> list[CommitmentOutput]:
    outputs = []
    for htlc in untrimmed_htlcs(content, terms):
        is_offered = htlc.offered_by is content.holder
        scripts = (
            offered_htlc_output(keys, htlc) if is_offered else accepted_htlc_output(keys, htlc)
        )
        outputs.append(
            CommitmentOutput(
                kind=CommitmentOutputKind.OFFERED_HTLC
                if is_offered
                else CommitmentOutputKind.ACCEPTED_HTLC,
                amount_sat=htlc.amount_msat // MSAT_PER_SAT,
                scripts=scripts,
                htlc=htlc,
            )
        )
    return outputs


def _balance_outputs(
    content: CommitmentContent,
    funding: Funding,
    terms: ChannelTerms,
    *,
    delayed: ScriptOutput,
    to_peer: ScriptOutput,
    n_htlc_outputs: int,
) -> list[CommitmentOutput]:
    amounts_sat = balances_sat(
        content, terms, capacity_sat=funding.capacity_sat, n_htlc_outputs=n_htlc_outputs
    )
    candidates = (
        CommitmentOutput(
            kind=CommitmentOutputKind.TO_HOLDER,
            amount_sat=amounts_sat[content.holder],
            scripts=delayed,
        ),
        CommitmentOutput(
            kind=CommitmentOutputKind.TO_PEER,
            amount_sat=amounts_sat[content.holder.other],
            scripts=to_peer,
        ),
    )
    return [output for output in candidates if output.amount_sat >= terms.dust_limit_sat]


def balances_sat(
    content: CommitmentContent, terms: ChannelTerms, *, capacity_sat: int, n_htlc_outputs: int
) -> tuple[int, int]:
    """Return what a commitment leaves of each party's balance, by party: the opener pays for it.

    Below the dust limit it has no output.

    Raises:
        UnpayableFee: If the opener's balance does not carry fee and anchor.
        NegativeBalance: If the accepter's is below 0.
    """
    if content.accepter_msat < 0:
        raise NegativeBalance(content.accepter_msat)
    opener_msat = capacity_sat * MSAT_PER_SAT - content.accepter_msat - content.htlcs_msat
    opener_sat = opener_msat // MSAT_PER_SAT
    cost_sat = terms.commitment_fee_sat(n_htlc_outputs=n_htlc_outputs) + terms.paid_anchor_sat
    if opener_sat < cost_sat:
        raise UnpayableFee(balance_sat=opener_sat, cost_sat=cost_sat)
    return opener_sat - cost_sat, content.accepter_msat // MSAT_PER_SAT


def untrimmed_htlcs(content: CommitmentContent, terms: ChannelTerms) -> tuple[Htlc, ...]:
    """Return the HTLCs that have an output on a commitment."""
    return tuple(
        htlc
        for htlc in content.htlcs
        if not terms.is_trimmed(htlc.amount_msat, is_offered=htlc.offered_by is content.holder)
    )


def _output_order(output: CommitmentOutput) -> tuple[int, bytes, *tuple[int, ...]]:
    """BOLT 3: amount, script, expiry. HTLCs equal in all three go by id: the order is arbitrary."""
    htlc = output.htlc
    last = () if htlc is None else (htlc.cltv_expiry, htlc.htlc_id)
    return output.amount_sat, output.txout.script_pubkey, *last
