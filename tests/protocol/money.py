"""What must be true of money in live channels, judged from the journals alone.

An auditor folds every journal record by record, as a restart would, and checks each signature,
sighash and secret at the record that remembers it. At rest it draws up the accounts.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from tests.channel.specimen import total_msat
from tests.protocol import leaf_audit
from tests.simulation.sim_node import FRESH_NONCE, SimNode

from cromford.bitcoin.script import p2tr_script
from cromford.bitcoin.tx import OutPoint, Tx, TxIn, TxOut
from cromford.channel.claims import penalty_claims
from cromford.channel.commitment import Commitment, Funding
from cromford.channel.finished import finish_commitment
from cromford.channel.stage import Edition
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.crypto.keys import pubkey_of, xonly_of
from cromford.factory.poison import PoisonKind
from cromford.factory.vertices import NodeKind
from cromford.protocol import client as client_role
from cromford.protocol import lsp as lsp_role
from cromford.protocol.channels.forwarding import forwarding_fee_msat
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal import records as r
from cromford.protocol.journal.book import Book, Forward, Payment
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.streams import CREATION
from cromford.regtest.kernel import check_scripts
from cromford.signing.derivation import ClaimKey

PAYOUT: Final = p2tr_script(xonly_of(pubkey_of(b"\x07" * 32)))
TREE_KINDS: Final = frozenset({*NodeKind, *PoisonKind})
CommitmentName = tuple[bytes, OutPoint, Party, int]  # A channel, its funding, a holder, a number.


@dataclass
class Journal:
    """One node's journal, read up to here."""

    node: SimNode
    state: Any
    apply: Callable[[Any, str, r.AnyRecord], Any]
    n_read: int = 0
    signed: dict[CommitmentName, tuple[Commitment, bytes]] = field(default_factory=dict)
    paid: set[bytes] = field(default_factory=set)
    traded: dict[tuple[bytes, bytes], int] = field(default_factory=dict)

    @property
    def book(self) -> Book:
        """Channels and payments, as a restart would find them."""
        found: Book = self.state.book
        return found

    @property
    def payments(self) -> Sequence[Payment]:
        """What this node pays or paid."""
        return tuple(self.book.payments.values())

    @property
    def traded_msat(self) -> int:
        """What was paid for capacity: at the LSP to it, at a client by it."""
        return sum(self.traded.values())

    def trade(self, channel_id: bytes, advance_id: bytes, price_msat: int) -> None:
        """Note a sale, or a purchase; each is remembered once."""
        assert (channel_id, advance_id) not in self.traded, "capacity is paid for twice"
        self.traded[channel_id, advance_id] = price_msat

    def records(self) -> Iterator[tuple[Any, r.AnyRecord, Any]]:
        """Fold what is new; yield each record between the states before and after it."""
        told = self.node.store.told
        while self.n_read < len(told):
            before, (stream, record) = self.state, told[self.n_read]
            self.state = before if stream == CREATION else self.apply(before, stream, record)
            self.n_read += 1
            yield before, record, self.state


def moves_out(state: Any, channel_id: bytes, forward: Forward) -> bool:
    """Say whether a client paid itself out of a factory that dies."""
    link = state.book.links[channel_id]
    dying_blocks = state.attempts[link.attempt_id].terms.dying_blocks
    is_dying = state.chain.height >= link.exit_deadline_height - dying_blocks
    return bool(forward.payee == link.node_id and is_dying)


class Auditor:
    """Reads the journals of an LSP and its clients, and finds out who lost what.

    Args:
        lsp: The LSP.
        clients: All of its clients.
        seed: Decides which transactions the kernel judges; of all, `kernel_rate`.
        kernel_rate: The share of commitments, and of penalties, that the kernel judges.
        honest: Whether no channel may fail.
    """

    def __init__(
        self,
        lsp: SimNode,
        clients: Sequence[SimNode],
        *,
        seed: int = 0,
        kernel_rate: float = 0.1,
        honest: bool = True,
    ) -> None:
        self.rng = random.Random(f"audit {seed}")
        self.kernel_rate = kernel_rate
        self.honest = honest
        self.lsp = Journal(lsp, lsp_role.new_lsp(lsp.state.config), lsp_role.apply)
        self.clients = [
            Journal(node, client_role.new_client(node.state.config), client_role.apply_in)
            for node in clients
        ]
        self.sighashes: dict[CommitmentName, bytes] = {}
        self.held: set[CommitmentName] = set()
        self.intended: dict[tuple[str, str, bytes, int], bytes] = {}
        self.failures: list[str] = []
        self.trees: dict[tuple[bytes, int], frozenset[bytes]] = {}
        self.pinned: dict[bytes, int] = {}
        self.n_held_by_kernel = self.n_punished = self.n_signed_read = 0
        self.read()

    @property
    def journals(self) -> list[Journal]:
        """Everybody's."""
        return [self.lsp, *self.clients]

    # While things happen

    def forget(self, node: SimNode) -> None:
        """Read a journal from its beginning again: its store was put back, and lost the rest.

        What was signed before stays signed: nothing else may take its place.
        """
        (journal,) = (one for one in self.journals if one.node is node)
        journal.state, journal.n_read = node.new_state(), 0
        if journal is self.lsp:
            self.pinned.clear()
            self.trees.clear()  # Newer states of leaves may be among what it lost.
        for _ in journal.records():
            pass

    def read(self) -> None:
        """Judge every record that is new, and what holds at every moment."""
        for journal in self.journals:
            for before, record, after in journal.records():
                self._judge(journal, before, record, after)
        assert self.held <= self.sighashes.keys(), "a commitment is held that nobody signed"
        self._check_signatures_were_intended()
        for journal in self.journals:
            for link in journal.book.links.values():
                check_amounts(link)
                leaf_audit.check_own_claims(link)
                leaf_audit.check_reserve(link)
        leaf_audit.check_lsps_leaves(self.lsp.state)
        for client in self.clients:
            leaf_audit.check_clients_leaves(client.state)
        self._check_forwards()
        self._check_trees()

    def _judge(self, journal: Journal, before: Any, record: r.AnyRecord, after: Any) -> None:
        match record:
            case op.SigningIntended(intents=intents):
                self._judge_intents(journal, intents)
            case cr.CommitmentIntended(channel_id=channel_id):
                self._judge_intended(
                    journal, before.book.links[channel_id], record, after.book.links[channel_id]
                )
            case ar.NextCommitmentIntended(channel_id=channel_id):
                link = after.book.links[channel_id]
                self._note_signed(journal, link, link.next.funding, record.sighash)
            case cr.CommitmentFinished(channel_id=channel_id):
                self._judge_held(
                    before.book.links[channel_id], record, after.book.links[channel_id]
                )
            case ar.NextCommitmentHeld(channel_id=channel_id):
                link = after.book.links[channel_id]
                self._note_held(link, link.next.funding)
            case cr.RevocationReceived(channel_id=channel_id):
                self._judge_revoked(
                    journal, before.book.links[channel_id], after.book.links[channel_id]
                )
            case ar.LiquiditySold() | ar.LiquidityBought():
                journal.trade(record.channel_id, record.advance_id, record.price_msat)
            case cr.FeeEarned(channel_id=channel_id, htlc_id=htlc_id, fee_msat=fee_msat):
                policy = before.config.policy
                forward = before.book.forwards[channel_id, htlc_id]
                if moves_out(before, channel_id, forward):
                    assert fee_msat == 0, "moving out of a factory that dies costs something"
                    return
                assert fee_msat >= forwarding_fee_msat(
                    forward.amount_msat,
                    fee_base_msat=policy.fee_base_msat,
                    fee_proportional_millionths=policy.fee_proportional_millionths,
                ), "the LSP forwarded below its price"
            case cr.InvoicePaid(payment_hash=payment_hash):
                assert payment_hash not in journal.paid, "an invoice is paid twice"
                journal.paid.add(payment_hash)
            case cr.ChannelFailed(reason=reason):
                self.failures.append(f"{journal.node.name}: {reason}")
                assert not self.honest, f"an honest channel failed: {self.failures[-1]}"

    def _judge_intents(self, journal: Journal, intents: Sequence[op.Intent]) -> None:
        """Check that no transaction of a tree has two sighashes, whatever a store has forgotten."""
        for intent in intents:
            if intent.kind in TREE_KINDS:
                key = (journal.node.name, intent.kind, intent.outpoint, intent.state_index)
                known = self.intended.setdefault(key, intent.sighash)
                assert known == intent.sighash, f"two sighashes for {intent.kind} {key[2].hex()}"

    def _judge_intended(
        self, journal: Journal, before: Link, record: cr.CommitmentIntended, after: Link
    ) -> None:
        content = after.state.content(after.state.peer, Edition.SIGNED)
        assert content.number == record.number
        fundings = before.fundings_of(content)
        sighashes = [record.sighash, *([record.next_sighash] if record.next_sighash else [])]
        for funding, sighash in zip(fundings, sighashes, strict=True):
            self._note_signed(journal, after, funding, sighash)

    def _note_signed(self, journal: Journal, link: Link, funding: Funding, sighash: bytes) -> None:
        """Note the peer's latest commitment on a funding: of each number there is one."""
        latest = link.peer_commitments_on(funding)[-1]
        commitment, number = latest.commitment, link.state.peer_signed
        name = (link.channel_id, funding.outpoint, link.state.peer, number)
        assert commitment.content.number == number
        assert commitment.signing_task.sighash == sighash
        assert self.sighashes.setdefault(name, sighash) == sighash, (
            "two commitments of one number were signed"
        )
        journal.signed[name] = (commitment, latest.per_commitment_point)

    def _judge_held(self, before: Link, record: cr.CommitmentFinished, after: Link) -> None:
        assert pubkey_of(record.secret) == before.own_point, "the old one is revoked, no other"
        self._note_held(after, after.finished.commitment.funding)
        if record.next_signature:
            assert after.next is not None
            self._note_held(after, after.next.funding)

    def _note_held(self, link: Link, funding: Funding) -> None:
        """Note our latest commitment on a funding, which is what the peer signed, and valid."""
        held = link.finished_on(funding)
        assert held is not None
        number = held.commitment.content.number
        name = (link.channel_id, funding.outpoint, link.me, number)
        sighash = held.commitment.signing_task.sighash
        assert self.sighashes.setdefault(name, sighash) == sighash, "both sides built one"
        finish_commitment(
            held.commitment, signature=held.signature, htlc_signatures=held.htlc_signatures
        )  # raises unless every signature is valid
        if name[1] == link.present.outpoint or link.next is None:
            assert name not in self.held, "a number is held once"
        self.held.add(name)
        if self._is_drawn():
            self.n_held_by_kernel += 1
            check_scripts(held.tx, [funding.txout])

    def _judge_revoked(self, journal: Journal, before: Link, after: Link) -> None:
        number, peer = before.state.peer_revoked, after.state.peer
        secret = after.state.peer_secrets.secret_of(number)
        if number == 0:
            first = before.setting.first_commitment(peer)
            offer = before.setting.offer_of(peer)
            name = (after.channel_id, first.funding.outpoint, peer, number)
            journal.signed[name] = (first, offer.first_per_commitment_point)
        signed = [
            journal.signed[name]
            for funding in before.fundings
            if (name := (after.channel_id, funding.outpoint, peer, number)) in journal.signed
        ]
        assert signed, "nobody signed what is revoked"
        for commitment, point in signed:
            assert pubkey_of(secret) == point, "the secret of another commitment"
            if self._is_drawn() and journal.node.signer is not None:
                self.n_punished += 1
                punish(journal.node, after, commitment, secret)

    def _is_drawn(self) -> bool:
        return self.rng.random() < self.kernel_rate

    def _check_signatures_were_intended(self) -> None:
        """Whatever a fresh nonce signed was intended before, by that very sighash."""
        notebook = self.lsp.node.notebook
        intended = set(self.sighashes.values())
        for (_, index), signed in islice(notebook.items(), self.n_signed_read, None):
            if index == FRESH_NONCE:
                assert signed[:32] in intended, "a signature that no journal knows"
        self.n_signed_read = len(notebook)

    def _check_forwards(self) -> None:
        """The LSP that knows a preimage claims with it, or still can."""
        book = self.lsp.book
        for forward in book.forwards.values():
            channel_id, htlc_id = forward.incoming
            link = book.links[channel_id]
            assert link.state.find(link.state.peer, htlc_id) is not None, (
                "an incoming HTLC is gone while its forward is pending"
            )

    def _check_trees(self) -> None:
        for attempt in self.lsp.state.attempts.values():
            states = (state for leaf in attempt.advanced_leaves.values() for state in leaf.states)
            txids = frozenset(node.tx.txid for node in (*attempt.tree.nodes, *states))
            # Until channels are in one of its candidates, it is the chain that chooses the tree.
            candidate = (attempt.attempt_id, attempt.rung)
            assert candidate[1] == self.pinned.get(attempt.attempt_id, attempt.rung), "it moved"
            if attempt.is_pinned:
                self.pinned[attempt.attempt_id] = attempt.rung
            known = self.trees.get(candidate, txids)
            assert known <= txids, "the tree moved"
            self.trees[candidate] = txids

    # At rest

    def check_rest(self) -> None:
        """Check the accounts once everybody is connected and no message is on its way."""
        self.read()
        for journal in self.journals:
            book = journal.book
            assert not book.arrived, "an HTLC waits for its answer"
            assert not book.held, "an HTLC waits for its payee"
            assert not book.forwards, "a forward is not resolved"
            assert not book.resolved, "an answer was not passed back"
            assert not book.owners, "an HTLC of ours is not resolved"
            pending = [paid for paid in journal.payments if paid.status == "pending"]
            assert not pending, f"{journal.node.name} still pays"
        for client in self.clients:
            for link in client.book.links.values():
                check_mirror(link, self.lsp.book.links[link.channel_id])
        leaf_audit.check_rest(self.lsp.state, [client.state for client in self.clients])
        self._check_outcomes()
        self._check_accounts()

    def _check_outcomes(self) -> None:
        """A payment is paid exactly where the payee's invoice is, and for its amount."""
        paid: dict[bytes, list[Payment]] = {}
        for journal in self.journals:
            for payment in journal.payments:
                if payment.status == "paid":
                    paid.setdefault(payment.payment_hash, []).append(payment)
        invoices = {
            payment_hash: invoice
            for client in self.clients
            for payment_hash, invoice in client.book.invoices.items()
            if invoice.status == "paid"
        }
        assert paid.keys() == invoices.keys(), "payer and payee disagree about what is paid"
        for payment_hash, payments in paid.items():
            assert len(payments) == 1, "one invoice, paid twice"
            assert payments[0].amount_msat == invoices[payment_hash].paid_msat

    def _check_accounts(self) -> None:
        """Everybody has what came in less what went out, and nothing else."""
        lsp = self.lsp.book
        client_fees_msat = 0
        for client in self.clients:
            expected_msat = sum(invoice.paid_msat for invoice in client.book.invoices.values()) - (
                spent_msat(client) + client.traded_msat
            )
            own_msat = sum(link.state.accepter_msat for link in client.book.links.values())
            assert own_msat == expected_msat, f"{client.node.name} lost or found something"
            client_fees_msat += fees_msat(client)
        capacity_msat = sum(
            link.setting.funding.capacity_sat * MSAT_PER_SAT for link in lsp.links.values()
        )
        in_clients_msat = sum(link.state.accepter_msat for link in lsp.links.values())
        own_msat = sum(link.state.opener_msat for link in lsp.links.values())
        assert own_msat + in_clients_msat == capacity_msat, "money appeared or disappeared"
        assert lsp.earned_msat == client_fees_msat, "the LSP earns the fees of what was paid"
        lsp_msat = capacity_msat - spent_msat(self.lsp) + lsp.earned_msat + self.lsp.traded_msat
        assert own_msat == lsp_msat, "the LSP lost or found something"


def spent_msat(journal: Journal) -> int:
    """Return all that a node paid, with its fees."""
    return fees_msat(journal) + sum(
        payment.amount_msat for payment in journal.payments if payment.status == "paid"
    )


def fees_msat(journal: Journal) -> int:
    """Return the fees that a node paid."""
    return sum(payment.fee_msat for payment in journal.payments if payment.status == "paid")


def check_amounts(link: Link) -> None:
    """Check both commitments, as they are and as they would be next: nothing lost, nobody broke."""
    state = link.state
    for holder in Party:
        for view in Edition:
            content = state.content(holder, view)
            funding = link.present
            if content.is_rebased:
                assert link.next is not None
                funding = link.next.funding
            reserve_sat = state.terms.reserve_sat(Party.OPENER, capacity_sat=funding.capacity_sat)
            assert total_msat(content) == funding.capacity_sat * MSAT_PER_SAT, (
                "money appeared or disappeared"
            )
            assert content.accepter_msat >= 0, "a client's balance is below zero"
            assert content.opener_msat >= reserve_sat * MSAT_PER_SAT, "the LSP's reserve is gone"


def check_mirror(link: Link, other: Link) -> None:
    """Check that both ends of a quiet channel are one channel, byte for byte."""
    assert link.state.is_quiet, "a client's end still moves"
    assert other.state.is_quiet, "the LSP's end still moves"
    assert not link.state.htlcs, "an HTLC is left"
    for mine, theirs in ((link, other), (other, link)):
        assert mine.finished.commitment == theirs.peer_commitments[-1].commitment
        assert mine.finished.tx.txid == theirs.peer_commitments[-1].commitment.tx.txid
        assert len(theirs.peer_commitments) == 1, "everything before it is revoked"
        assert mine.state.own_revoked == theirs.state.peer_revoked
        assert mine.state.next_ids == theirs.state.next_ids
        assert (mine.state.opener_msat, mine.state.accepter_msat) == (
            theirs.state.opener_msat,
            theirs.state.accepter_msat,
        )


def punish(node: SimNode, link: Link, commitment: Commitment, secret: bytes) -> None:
    """Take every output of a revoked commitment with what this node knows; the kernel judges."""
    assert node.signer is not None
    claims = penalty_claims(commitment)
    amount_sat = sum(claim.prevout.amount_sat for claim in claims)
    tx = Tx(
        version=3,
        inputs=tuple(TxIn(outpoint=claim.outpoint, nsequence=claim.nsequence) for claim in claims),
        outputs=(TxOut(amount_sat=amount_sat, script_pubkey=PAYOUT),),
        nlocktime=max(claim.nlocktime_min for claim in claims),
    )
    prevouts = [claim.prevout for claim in claims]
    witnesses = []
    for index, claim in enumerate(claims):
        is_revocation = claim.key is ClaimKey.REVOCATION
        signature = node.signer.sign_claim(
            link.key,
            claim.key,
            secret if is_revocation else pubkey_of(secret),
            claim.sighash(tx, prevouts=prevouts, input_index=index),
            tweak=claim.tweak,
        )
        witnesses.append(claim.witness(signature))
    check_scripts(tx.with_witnesses(*witnesses), prevouts)
    everything = {vout for vout, output in enumerate(commitment.outputs) if output.scripts}
    assert {claim.outpoint.vout for claim in claims} == everything, "a cheater keeps nothing"
