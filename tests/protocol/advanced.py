"""Leaves that were advanced by hand: every record as both sides write it, every signature real.

No message is sent before the rebase. So a test may stop after any step, and let anybody have, or
lack, what the step gives.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from tests.protocol.paying_clients import lsp_link, newest_link
from tests.protocol.pump import Pump, PumpNode

from cromford.channel.commitment import Commitment
from cromford.channel.finished import FinishedCommitment
from cromford.channel.htlc_tx import htlc_txs
from cromford.channel.stage import Edition
from cromford.channel.terms import Party
from cromford.crypto.keys import sha256
from cromford.crypto.musig2 import PUBNONCE_SIZE, SecNonce, nonce_agg
from cromford.factory.allocation import Purchase
from cromford.factory.leaf import Leaf
from cromford.protocol import events as ev
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.encoding import encoded_pool
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.records import AnyRecord
from cromford.protocol.journal.streams import CLIENT
from cromford.protocol.turn import Decision, Remembered
from cromford.signing.derivation import ClaimKey
from cromford.signing.keychain import FactoryKey, Keychain, KeyName
from cromford.signing.task import SigningTask
from cromford.wire import messages as m
from cromford.wire.selling import NextHalf, NextNonces

NO_NONCE: Final = bytes(PUBNONCE_SIZE)  # Both halves are at hand: nothing is made of it.


class Step(IntEnum):
    """How far an advance went, by the numbers of its messages."""

    BEGUN = 0
    AGREED = 2
    COMMITTED = 3
    SIGNED = 4
    STATE = 5
    POISONS = 6
    ACKNOWLEDGED = 7
    REBASED = 8


def remember(pump: Pump, node: PumpNode, *records: AnyRecord) -> None:
    """Let a node remember what it did not decide."""
    driver = node.driver
    assert driver is not None
    role = node.lsp_role if node is pump.lsp else node.client_role
    stream = pump.factory.stream if node is pump.lsp else CLIENT
    for record in records:
        state = role.apply(driver.state, stream, record)
        driver._remember(Decision(state=state, entries=(Remembered(stream, record),)), [])


def keychain_of(node: PumpNode) -> Keychain:
    """Return a node's keys, as its signer has them."""
    assert node.signer is not None
    return node.signer._keychain


def signature_of(task: SigningTask, *signers: tuple[PumpNode, KeyName]) -> bytes:
    """Return everybody's signature of a task."""
    seckeys = {
        keychain_of(node).pubkey(name): keychain_of(node).seckey(name) for node, name in signers
    }
    nonces = {pubkey: SecNonce(pubkey=pubkey, seckey=seckeys[pubkey]) for pubkey in task.signers}
    session = task.session(nonce_agg([nonce.pubnonce for nonce in nonces.values()]))
    return session.partial_sig_agg(
        [nonce.sign(session, seckeys[pubkey]) for pubkey, nonce in nonces.items()]
    )


@dataclass(frozen=True, kw_only=True)
class Advance:
    """An advance of one leaf, done by hand.

    Attributes:
        pump: Where.
        before: The leaf as it was.
        leaf: The leaf with its next state.
        advance_id: The advance's name.
        clients: The leaf's clients, by participant index.
        buyer: Who buys.
        price_msat: What it pays.
    """

    pump: Pump
    before: Leaf
    leaf: Leaf
    advance_id: bytes
    clients: Mapping[int, PumpNode]
    buyer: int
    price_msat: int

    @property
    def attempt_id(self) -> bytes:
        return self.pump.attempt.attempt_id

    @property
    def state_index(self) -> int:
        return len(self.leaf.states) - 1

    @property
    def everybody(self) -> tuple[tuple[PumpNode, KeyName], ...]:
        """All signers of the leaf, with the names of their factory keys."""
        lsp = (self.pump.lsp, FactoryKey(attempt=self.pump.attempt.key_attempt))
        own = (
            (client, FactoryKey(attempt=self.pump.held(client).key_attempt))
            for client in self.clients.values()
        )
        return (lsp, *own)

    def ends_of(self, client: PumpNode) -> tuple[Link, Link]:
        """Return the LSP's and the client's end of its channel."""
        link = newest_link(client)
        return lsp_link(self.pump, link), link

    def take(
        self, until: Step, *, since: Step = Step.BEGUN, unaware: Collection[PumpNode] = ()
    ) -> None:
        """Go on to the end of a step; who is `unaware` never hears of what is finished."""
        if since < Step.AGREED <= until:
            self._agree()
        if since < Step.COMMITTED <= until:
            self._commit()
        if since < Step.SIGNED <= until:
            self._sign()
        if since < Step.STATE <= until:
            self._finish_state(unaware)
        if since < Step.POISONS <= until:
            self._finish_poisons(unaware)
        if since < Step.ACKNOWLEDGED <= until:
            for number in self.clients:
                self._lsp(ar.AdvanceAcknowledged(client=number, **self._named))
        if since < Step.REBASED <= until:
            self._rebase()

    @property
    def _named(self) -> dict[str, Any]:
        return {"attempt_id": self.attempt_id, "advance_id": self.advance_id}

    def _lsp(self, *records: AnyRecord) -> None:
        remember(self.pump, self.pump.lsp, *records)

    def _agree(self) -> None:
        allocation = self.leaf.allocation
        sale: dict[str, Any] = {
            "state_index": self.state_index,
            "capacities_sat": allocation.capacities_sat,
            "lstock_sat": allocation.lstock_sat,
            "quote_id": bytes(32),
        }
        signer = self.pump.lsp.signer
        assert signer is not None
        links = {number: self.ends_of(client) for number, client in self.clients.items()}
        pools = tuple(
            encoded_pool(signer.make_pool(links[number][0].key, 2)) for number in self.clients
        )
        factory_key = FactoryKey(attempt=self.pump.attempt.key_attempt)
        self._lsp(
            ar.AdvanceProposed(
                clients=tuple(self.clients),
                buyer=self.buyer,
                price_msat=self.price_msat,
                **sale,
                **self._named,
            ),
            ar.AdvancePoolsMade(
                factory_pool=encoded_pool(signer.make_pool(factory_key, 2)),
                channel_pools=pools,
                **self._named,
            ),
        )
        for number, client in self.clients.items():
            self._agree_as(number, client, sale)

    def _agree_as(self, number: int, client: PumpNode, sale: Mapping[str, Any]) -> None:
        link = newest_link(client)
        assert client.signer is not None
        pool = client.signer.make_pool(link.key, 2)
        factory_key = FactoryKey(attempt=self.pump.held(client).key_attempt)
        factory_pool = client.signer.make_pool(factory_key, 2)
        received = ar.AdvanceReceived(
            channel_id=link.channel_id,
            price_msat=self.price_msat if number == self.buyer else 0,
            **sale,
            **self._named,
        )
        made = ar.AdvancePoolsMade(
            factory_pool=encoded_pool(factory_pool),
            channel_pools=(encoded_pool(pool),),
            **self._named,
        )
        remember(self.pump, client, received, made, ar.AdvanceAgreed(**self._named))
        agreed = m.AdvanceAgree(
            factory_pubkey=factory_pool.pubkey,
            pubnonces=factory_pool.pubnonces,
            channel=(
                NextNonces(
                    number=link.state.own_signed,
                    pubnonce=pool.pubnonces[0],
                    following_pubnonce=pool.pubnonces[1],
                ),
            ),
            session=bytes(32),
            **self._named,
        )
        message = m.encode_message(agreed)
        self._lsp(ar.AdvanceAgreementReceived(client=number, message=message, **self._named))

    def _commit(self) -> None:
        self._lsp(ar.AdvanceCommitted(**self._named))
        for client in self.clients.values():
            ours, theirs = self.ends_of(client)
            finished = self._latest(client, theirs)
            self._lsp(_intended(ours, finished))
            # What the LSP's nonces are for is told with its half.
            remember(self.pump, client, _held(theirs, finished))

    def _sign(self) -> None:
        for number, client in self.clients.items():
            ours, theirs = self.ends_of(client)
            finished = self._latest(client, ours)
            remember(
                self.pump,
                client,
                ar.AdvanceSigned(intents=(), **self._named),
                _intended(theirs, finished),
            )
            half = NextHalf(
                number=finished.commitment.content.number,
                pubnonce=NO_NONCE,
                partial_sig=bytes(32),
                htlc_signatures=finished.htlc_signatures,
            )
            signed = m.AdvanceSign(half=(half,), partials=(), **self._named)
            message = m.encode_message(signed)
            self._lsp(
                ar.AdvancePartialsReceived(client=number, message=message, **self._named),
                _held(ours, finished),
            )

    def _latest(self, client: PumpNode, link: Link) -> FinishedCommitment:
        """Return a holder's latest commitment on the next funding, signed by both."""
        assert link.next is not None
        content = link.state.content(link.me, Edition.SIGNED)
        commitment = link.commitment(content, link.own_point, link.next.funding)
        return finished_by(self.pump, client, link, commitment)

    def _finish_state(self, unaware: Collection[PumpNode]) -> None:
        signature = signature_of(self.leaf.state.task, *self.everybody)
        signed = ar.StateSigned(signature=signature, **self._named)
        self._lsp(signed)
        for client in self.clients.values():
            if client not in unaware:
                remember(self.pump, client, signed)

    def _finish_poisons(self, unaware: Collection[PumpNode]) -> None:
        old = self.state_index - 1
        leaf = self.pump.attempt.leaf(self.buyer)  # The LSP knows every channel's keys.
        stock = signature_of(leaf.stock_poison(old).task, *self.everybody)
        channels = []
        for number, client in self.clients.items():
            ours, theirs = self.ends_of(client)
            task = leaf.channel_poison(old, number).task
            channels.append(signature_of(task, (self.pump.lsp, ours.key), (client, theirs.key)))
        self._lsp(
            ar.PoisonHeld(
                stock_signature=stock,
                clients=tuple(self.clients),
                channel_signatures=tuple(channels),
                **self._named,
            )
        )
        for (number, client), channel in zip(self.clients.items(), channels, strict=True):
            held = ar.PoisonHeld(
                stock_signature=stock,
                clients=(number,),
                channel_signatures=(channel,),
                **self._named,
            )
            if client not in unaware:
                remember(self.pump, client, held)

    def _rebase(self) -> None:
        self._go_on()
        for number, client in self.clients.items():
            ours, theirs = self.ends_of(client)
            if ours.next is None or ours.state.rebase is not None:
                continue
            self.tell_nonces(client)
            update = m.UpdateRebase(
                channel_id=theirs.channel_id,
                advance_id=self.advance_id,
                capacity_sat=ours.next.funding.capacity_sat,
                price_msat=self.price_msat if number == self.buyer else 0,
            )
            message = m.encode_message(update)
            self._lsp(cr.UpdateProposed(channel_id=ours.channel_id, message=message))
        self._go_on()
        for node in (self.pump.lsp, *self.clients.values()):
            if is_under_way(self.pump, node, self.advance_id):
                remember(self.pump, node, ar.AdvanceEnded(**self._named))

    def _go_on(self) -> None:
        self.pump.handle(self.pump.lsp, ev.FactsChanged())
        self.pump.run()

    def tell_nonces(self, client: PumpNode) -> None:
        """Begin the connection anew: both sides tell their nonces for both outputs."""
        following = newest_link(client).next
        if following is not None and not following.peer_nonces:
            self.pump.disconnect(client)
            self.pump.connect(client)
            self.pump.run()


def is_under_way(pump: Pump, node: PumpNode, advance_id: bytes) -> bool:
    """Say whether a node has an advance under way."""
    held = pump.factory if node is pump.lsp else node.state
    return any(advance.advance_id == advance_id for _, advance in held.advances.items())


def finished_by(
    pump: Pump, client: PumpNode, link: Link, commitment: Commitment
) -> FinishedCommitment:
    """Return a commitment of a channel with every signature of both sides.

    Args:
        pump: Where.
        client: Whose channel it is.
        link: The end of it that holds the commitment.
        commitment: Any of its commitments.
    """
    key = newest_link(client).key
    lsp_key = lsp_link(pump, newest_link(client)).key
    signature = signature_of(commitment.signing_task, (pump.lsp, lsp_key), (client, key))
    is_lsps = commitment.content.holder is Party.OPENER
    peer, name = (client, key) if is_lsps else (pump.lsp, lsp_key)
    assert peer.signer is not None
    return FinishedCommitment(
        commitment=commitment,
        signature=signature,
        htlc_signatures=tuple(
            peer.signer.sign_claim(name, ClaimKey.HTLC, link.own_point, htlc.peer_sighash)
            for htlc in htlc_txs(commitment)
        ),
    )


def _intended(link: Link, finished: FinishedCommitment) -> ar.NextCommitmentIntended:
    return ar.NextCommitmentIntended(
        channel_id=link.channel_id,
        number=finished.commitment.content.number,
        sighash=finished.commitment.signing_task.sighash,
    )


def _held(link: Link, finished: FinishedCommitment) -> ar.NextCommitmentHeld:
    return ar.NextCommitmentHeld(
        channel_id=link.channel_id,
        number=finished.commitment.content.number,
        signature=finished.signature,
        htlc_signatures=finished.htlc_signatures,
    )


def advance(
    pump: Pump,
    buyer: PumpNode,
    amount_sat: int | None,
    *,
    price_msat: int = 0,
    until: Step = Step.REBASED,
    unaware: Collection[PumpNode] = (),
) -> Advance:
    """Sell L-stock of a client's leaf to it, by hand; return what was done."""
    number = newest_link(buyer).client
    before = pump.attempt.leaf(number)
    leaf = before.sold(Purchase(buyer=number, amount_sat=amount_sat))
    done = Advance(
        pump=pump,
        before=before,
        leaf=leaf,
        advance_id=sha256(leaf.state.tx.txid),
        clients={one: pump.client_at(one) for one in leaf.clients},
        buyer=number,
        price_msat=price_msat,
    )
    done.take(until, unaware=unaware)
    return done
