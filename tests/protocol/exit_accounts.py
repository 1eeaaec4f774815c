"""Where every satoshi of a channel went that ended on chain, and whether it went where it must.

Everything is computed from the transactions on the chain and the terms: amounts, fees, owners.
What the roles remember of their payments is compared with it afterwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.protocol.exits import POLICY, Ended, ExitPump, ends_of
from tests.protocol.paying_clients import book
from tests.protocol.pump import PumpNode

from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.channel.commitment import Commitment, CommitmentOutput, CommitmentOutputKind
from cromford.channel.content import Htlc
from cromford.channel.scripts import PREIMAGE_SIZE
from cromford.channel.stage import HtlcStage
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.crypto.keys import sha256
from cromford.factory.funding import CHANGE_VOUT
from cromford.factory.outputs import OutputKind
from cromford.protocol.journal.advance_records import LiquidityBought

SWEEP_VERSION: Final = 2
FEERATE_SAT_PER_KW: Final = POLICY.tree_feerate_sat_per_kw  # Of sweeps too.
WORTHLESS_SAT: Final = 400  # What a sweep of one output costs, and dust, together.


@dataclass
class Index:
    """What the chain says, by outpoint and by txid."""

    txs: dict[Txid, Tx] = field(default_factory=dict)
    spenders: dict[OutPoint, Tx] = field(default_factory=dict)
    heights: dict[Txid, int] = field(default_factory=dict)

    @classmethod
    def of(cls, pump: ExitPump) -> "Index":
        """Read a chain."""
        index = cls()
        for height, (_, txs) in enumerate(pump.chain.blocks):
            for tx in txs:
                index.txs[tx.txid] = tx
                index.heights[tx.txid] = height
                index.spenders.update({tx_in.outpoint: tx for tx_in in tx.inputs})
        return index


@dataclass
class Settled:
    """What one channel became.

    Attributes:
        client: Whose.
        commitment: The one that confirmed; None if the channel is not on chain.
        paid: The HTLCs that their recipient took.
        back: Those that their offerer took.
        unclaimed: Those that nobody took yet.
        trimmed: Those that have no output.
        coins_sat: What reached each wallet.
        fees_sat: Of the commitment, the HTLC transactions and the sweeps.
        anchors_sat: In outputs that anybody may take.
        left_sat: In outputs that are not worth their fee.
    """

    client: PumpNode
    commitment: Commitment | None = None
    paid: list[Htlc] = field(default_factory=list)
    back: list[Htlc] = field(default_factory=list)
    unclaimed: list[Htlc] = field(default_factory=list)
    trimmed: list[Htlc] = field(default_factory=list)
    coins_sat: dict[Party, int] = field(default_factory=lambda: dict.fromkeys(Party, 0))
    fees_sat: int = 0
    anchors_sat: int = 0
    left_sat: int = 0


class Books:
    """Draws up the accounts of a story that is over."""

    def __init__(self, ended: Ended) -> None:
        self.ended = ended
        self.pump = ended.pump
        self.index = Index.of(ended.pump)
        self.settled = [self._settle(client) for client in self.pump.clients]

    def check(self) -> None:
        """Check every channel, every wallet and every payment."""
        for settled in self.settled:
            if settled.commitment is not None:
                self._check_channel(settled)
        self._check_wallets()
        self._check_payments()
        for settled in self.settled:
            self._check_client(settled)

    # What became of a channel

    def _settle(self, client: PumpNode) -> Settled:
        lsp_end, client_end = ends_of(self.pump, client)
        settled = Settled(client=client)
        spent = [one for one in client_end.fundings if one.outpoint in self.index.spenders]
        if not spent:
            return settled
        (funding,) = spent
        tx = self.index.spenders[funding.outpoint]
        held = [end.finished_on(funding) for end in (lsp_end, client_end)]
        (commitment,) = (
            one.commitment for one in held if one is not None and one.tx.txid == tx.txid
        )
        settled.commitment = commitment
        settled.fees_sat = funding.capacity_sat - sum(out.amount_sat for out in tx.outputs)
        n_htlcs = sum(1 for output in commitment.outputs if output.htlc is not None)
        terms = commitment.terms
        least_sat = terms.commitment_fee_sat(n_htlc_outputs=n_htlcs)
        content = commitment.content
        on_outputs = {output.htlc for output in commitment.outputs if output.htlc is not None}
        settled.trimmed = [htlc for htlc in content.htlcs if htlc not in on_outputs]
        lost_msat = sum(htlc.amount_msat for htlc in settled.trimmed)
        lost_msat += sum(htlc.amount_msat % MSAT_PER_SAT for htlc in on_outputs)
        for amount_msat, kept_sat in (
            (content.accepter_msat, 0),
            (content.opener_msat, least_sat + terms.paid_anchor_sat),
        ):
            kept = amount_msat - kept_sat * MSAT_PER_SAT
            is_dust = kept // MSAT_PER_SAT < terms.dust_limit_sat
            lost_msat += kept if is_dust else kept % MSAT_PER_SAT
        assert settled.fees_sat == least_sat + lost_msat // MSAT_PER_SAT, "the commitment's fee"
        for vout, output in enumerate(commitment.outputs):
            self._follow(settled, commitment, tx.outpoint(vout), output)
        return settled

    def _follow(
        self, settled: Settled, commitment: Commitment, outpoint: OutPoint, output: CommitmentOutput
    ) -> None:
        holder = commitment.content.holder
        match output.kind:
            case CommitmentOutputKind.ANCHOR:
                assert outpoint not in self.index.spenders
                settled.anchors_sat += output.amount_sat
            case CommitmentOutputKind.TO_HOLDER:
                self._follow_coin(settled, outpoint, output.txout, holder)
            case CommitmentOutputKind.TO_PEER:
                self._follow_coin(settled, outpoint, output.txout, holder.other)
            case _:
                self._follow_htlc(settled, commitment, outpoint, output)

    def _follow_htlc(
        self, settled: Settled, commitment: Commitment, outpoint: OutPoint, output: CommitmentOutput
    ) -> None:
        htlc, terms = output.htlc, commitment.terms
        assert htlc is not None
        holder = commitment.content.holder
        tx = self.index.spenders.get(outpoint)
        if tx is None:
            settled.unclaimed.append(htlc)
            settled.left_sat += output.amount_sat
            return
        place = [tx_in.outpoint for tx_in in tx.inputs].index(outpoint)
        is_paid = any(
            len(item) == PREIMAGE_SIZE and sha256(item) == htlc.payment_hash
            for item in tx.inputs[place].witness
        )
        (settled.paid if is_paid else settled.back).append(htlc)
        taker = htlc.offered_by.other if is_paid else htlc.offered_by
        if not is_paid:
            assert self.index.heights[tx.txid] > htlc.cltv_expiry, "given back before its expiry"
        if taker is not holder:
            self._follow_coin(settled, outpoint, output.txout, taker)
            return
        made, anchor = tx.outputs
        cost_sat = terms.htlc_tx_cost_sat(is_offered=not is_paid)
        assert made.amount_sat == output.amount_sat - cost_sat
        settled.anchors_sat += anchor.amount_sat
        settled.fees_sat += cost_sat - anchor.amount_sat
        self._follow_coin(settled, tx.outpoint(0), made, taker)

    def _follow_coin(
        self, settled: Settled, outpoint: OutPoint, txout: TxOut, owner: Party
    ) -> None:
        """Follow an output that is one party's alone into its wallet."""
        tx = self.index.spenders.get(outpoint)
        if tx is None:
            assert txout.amount_sat <= WORTHLESS_SAT, f"{txout.amount_sat} sat were forgotten"
            settled.left_sat += txout.amount_sat
            return
        (paid,) = tx.outputs
        assert tx.version == SWEEP_VERSION
        assert paid.script_pubkey == self._payout(settled.client, owner), "another's wallet"
        if tx.inputs[0].outpoint == outpoint:  # Once for each sweep, whatever it takes together.
            settled.coins_sat[owner] += paid.amount_sat
            spent_sat = self._spent_sat(tx)
            fee_sat = spent_sat - paid.amount_sat
            own_sat = fee_sat_of(vsize=tx.vsize, feerate_sat_per_kw=FEERATE_SAT_PER_KW)
            # What the peer may take later is raced for, with half of it at most.
            is_race = own_sat < fee_sat <= spent_sat // 2
            assert fee_sat == own_sat or is_race, "a sweep's fee"
            settled.fees_sat += fee_sat

    def _spent_sat(self, tx: Tx) -> int:
        return sum(
            self.index.txs[tx_in.outpoint.txid].outputs[tx_in.outpoint.vout].amount_sat
            for tx_in in tx.inputs
        )

    def _payout(self, client: PumpNode, owner: Party) -> bytes:
        attempt = self.pump.held(client)
        script: bytes
        if owner is Party.ACCEPTER:
            script = attempt.join.payout_script
        else:
            script = self.pump.attempt.funding_tx.outputs[CHANGE_VOUT].script_pubkey
        return script

    # What must hold

    def _check_channel(self, settled: Settled) -> None:
        assert settled.commitment is not None
        capacity_sat = settled.commitment.funding.capacity_sat
        accounted_sat = (
            sum(settled.coins_sat.values())
            + settled.fees_sat
            + settled.anchors_sat
            + settled.left_sat
        )
        assert capacity_sat == accounted_sat, "a channel's satoshis went somewhere else"
        assert not settled.unclaimed, f"nobody took {settled.unclaimed}"

    def _check_wallets(self) -> None:
        """Each client's wallet holds what its channel gave, the LSP's what all of them gave."""
        for settled in self.settled:
            coins_sat = settled.client.state.wallet.confirmed_sat()
            assert coins_sat == settled.coins_sat[Party.ACCEPTER], "a client's wallet"
        script = self._payout(self.pump.clients[0], Party.OPENER)
        change = self.pump.attempt.funding_tx.outputs[CHANGE_VOUT]
        got_sat = sum(
            coin.txout.amount_sat
            for coin in self.pump.lsp.state.wallet.coins.values()
            if coin.txout.script_pubkey == script
        )
        gave_sat = sum(settled.coins_sat[Party.OPENER] for settled in self.settled)
        gave_sat += self._lstocks_sat(script)
        assert got_sat == change.amount_sat + gave_sat, "the LSP's wallet"

    def _lstocks_sat(self, script: bytes) -> int:
        """Return what reached the LSP of the L-stocks on chain: a sweep takes one, or several."""
        attempt, got_sat = self.pump.attempt, 0
        states = (state for leaf in attempt.advanced_leaves.values() for state in leaf.states)
        lstocks = {
            node.tx.outpoint(vout): output.amount_sat
            for node in {one.tx.txid: one for one in (*attempt.tree.nodes, *states)}.values()
            for vout, output in enumerate(node.outputs)
            if output.kind is OutputKind.LSTOCK
        }
        spenders = (self.index.spenders.get(outpoint) for outpoint in lstocks)
        for sweep in {tx.txid: tx for tx in spenders if tx is not None}.values():
            (coin,) = sweep.outputs
            assert coin.script_pubkey == script, "an L-stock is the LSP's"
            assert {one.nsequence for one in sweep.inputs} == {attempt.terms.lstock_csv_blocks}
            fee_sat = fee_sat_of(vsize=sweep.vsize, feerate_sat_per_kw=FEERATE_SAT_PER_KW)
            taken_sat = sum(lstocks[one.outpoint] for one in sweep.inputs)
            assert taken_sat - coin.amount_sat in {fee_sat, *self._in_the_place_of_joint_sat(sweep)}
            got_sat += coin.amount_sat
        return got_sat

    def _in_the_place_of_joint_sat(self, sweep: Tx) -> Iterator[int]:
        """Yield what a sweep pays for the place of a joint one that waited in vain.

        A reorganisation took a member of that off the chain, and the other waited with it.
        """
        lsp = self.pump.lsp
        incremental = lsp.fees.incremental_sat_per_kw
        relay_sat = fee_sat_of(vsize=sweep.vsize, feerate_sat_per_kw=incremental)
        for joint in lsp.state.house.joint_sweeps.values():
            if joint.is_parted and sweep.inputs[0].outpoint in joint.outpoints:
                yield joint.fee_sat + relay_sat

    def _check_payments(self) -> None:
        """What the payee has, the payer knows to be paid, and nothing waits any more."""
        gone = self.ended.story.gone
        for node in (self.pump.lsp, *self.pump.clients):
            for payment in book(node).payments.values():
                if payment.status == "pending":
                    link = book(node).links[payment.htlc[0]]
                    is_unknown = self._is_trimmed(payment.payment_hash) and link.failure is not None
                    assert is_unknown, f"{node.name} still pays"
                    continue
                is_paid = payment.status == "paid"
                payee = self.pump.by_id[payment.payee]
                invoice = book(payee).invoices[payment.payment_hash]
                if self._is_trimmed(payment.payment_hash) or gone == "lsp":
                    continue
                has_it = invoice.status == "paid"
                if gone == payee.name:
                    # It lost what it did not take in time; what it took, it took from its payer.
                    assert is_paid or not has_it or self._is_back(payee, payment.payment_hash)
                    continue
                assert is_paid == has_it, (
                    f"{node.name} and {payee.name} disagree: {payment.status}, {invoice.status}"
                )

    def _is_back(self, payee: PumpNode, payment_hash: bytes) -> bool:
        (settled,) = (one for one in self.settled if one.client is payee)
        return any(htlc.payment_hash == payment_hash for htlc in settled.back)

    def _is_trimmed(self, payment_hash: bytes) -> bool:
        """Say whether an HTLC was too small for an output, where its channel ended."""
        return any(
            htlc.payment_hash == payment_hash
            for settled in self.settled
            for htlc in (*settled.trimmed, *self._left_off_chain(settled))
        )

    def _left_off_chain(self, settled: Settled) -> list[Htlc]:
        """Return the small HTLCs of a channel that failed, and that nobody brought on chain."""
        _, client_end = ends_of(self.pump, settled.client)
        if settled.commitment is not None or client_end.failure is None:
            return []
        terms = client_end.setting.terms
        return [
            live.htlc
            for live in client_end.state.htlcs
            if terms.is_trimmed(
                live.htlc.amount_msat, is_offered=live.htlc.offered_by is Party.ACCEPTER
            )
        ]

    def _check_client(self, settled: Settled) -> None:
        """A client has what it was paid less what it paid, but for HTLCs that are too small."""
        own = book(settled.client)
        expected_msat = sum(invoice.paid_msat for invoice in own.invoices.values())
        paid = [payment for payment in own.payments.values() if payment.status == "paid"]
        expected_msat -= sum(payment.amount_msat + payment.fee_msat for payment in paid)
        expected_msat -= self._prices_msat(settled)
        if settled.commitment is None:
            (link,) = own.links.values()
            small = {htlc.payment_hash for htlc in self._left_off_chain(settled)}
            expected_msat -= sum(
                invoice.paid_msat
                for invoice in own.invoices.values()
                if invoice.payment_hash in small
            )
            assert link.state.accepter_msat == expected_msat
            signed = [live for live in link.state.htlcs if live.stage is not HtlcStage.ADD_PROPOSED]
            assert {live.htlc.payment_hash for live in signed} <= small
            return
        expected_msat -= self._excused_msat(settled, {one.payment_hash for one in paid})
        content = settled.commitment.content
        gained = [htlc for htlc in settled.paid if htlc.offered_by is Party.OPENER]
        kept = [htlc for htlc in settled.back if htlc.offered_by is Party.ACCEPTER]
        has_msat = content.accepter_msat + sum(htlc.amount_msat for htlc in (*gained, *kept))
        assert has_msat == expected_msat, f"{settled.client.name} lost or found something"

    def _prices_msat(self, settled: Settled) -> int:
        """Return what a client paid for capacity, on the commitment that landed included."""
        records = settled.client.store.remembered
        paid_msat = sum(one.price_msat for one in records if isinstance(one, LiquidityBought))
        (link,) = book(settled.client).links.values()
        commitment = settled.commitment
        if link.next is not None and commitment is not None and commitment.content.is_rebased:
            paid_msat += link.next.price_msat
        return paid_msat

    def _excused_msat(self, settled: Settled, paid: set[bytes]) -> int:
        """Return what HTLCs without an output, and whose recipient was away, took from a client."""
        gone = self.ended.story.gone
        invoices = book(settled.client).invoices
        lost = [
            htlc
            for htlc in settled.trimmed
            if htlc.offered_by is Party.ACCEPTER and htlc.payment_hash not in paid
        ]
        unclaimed = settled.trimmed + (settled.back if gone == settled.client.name else [])
        lost += [
            htlc
            for htlc in unclaimed
            if htlc.offered_by is Party.OPENER and invoices[htlc.payment_hash].paid_by is not None
        ]
        # The LSP showed the preimage and never came for the money.
        gifts = [
            htlc
            for htlc in settled.back
            if htlc.offered_by is Party.ACCEPTER and htlc.payment_hash in paid and gone == "lsp"
        ]
        return sum(htlc.amount_msat for htlc in lost) - sum(htlc.amount_msat for htlc in gifts)
