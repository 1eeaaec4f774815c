"""What one stream tells another: a value in the sender's fold, a cursor in the receiver's.

The record that causes a letter puts it into the sender's outbox, so it is as durable as its cause.
Letters from one stream to another are numbered from 1 and taken in this order; one that was taken
before means nothing. So it does not matter how late, or how often, a letter is delivered.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from immutables import Map

from cromford.changed import changed
from cromford.shelf import Shelf
from cromford.wallet.coins import SpentCoin, WalletCoin


class Mail(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One letter's content."""


class Seat(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One client of an attempt, as it joined; `reason` says why it has this seat."""

    node_id: bytes
    join: bytes
    reason: str


class FundingCoin(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A coin that a funding or a child spends: its output, and the wallet's path to its key."""

    amount_sat: int
    script_pubkey: bytes
    change: int
    index: int


def coin_of(coin: WalletCoin | SpentCoin) -> FundingCoin:
    """Return a coin of the wallet as a letter holds it, its outpoint apart."""
    return FundingCoin(
        amount_sat=coin.txout.amount_sat,
        script_pubkey=coin.txout.script_pubkey,
        change=coin.path.change,
        index=coin.path.index,
    )


class OrderedRung(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a fee ladder's candidate has of its own: our channel keys and pools, the funding."""

    lsp_channels: tuple[bytes, ...]
    lsp_channel_pools: tuple[bytes, ...]
    funding_tx: bytes


class Ordered(Mail, frozen=True, kw_only=True, tag="attempt_proposed"):
    """House to a new factory: all that its tree is computed from, and the coins that fund it.

    `higher` are the candidates of a fee ladder after the first. All of them spend the same coins.
    """

    attempt_id: bytes
    attempt: int
    terms: bytes
    seats: tuple[Seat, ...]
    lsp_factory_pool: bytes
    lsp_channels: tuple[bytes, ...]
    lsp_channel_pools: tuple[bytes, ...]
    funding_tx: bytes
    coins: tuple[FundingCoin, ...]
    higher: tuple[OrderedRung, ...] = ()

    @property
    def of_each(self) -> "tuple[Ordered | OrderedRung, ...]":
        """What is of each candidate, lowest feerate first."""
        return (self, *self.higher)


class CeremonyEnded(Mail, frozen=True, kw_only=True, tag="ceremony_ended"):
    """Factory to house: its ceremony is over. Without an `aborted` reason it was funded.

    `culprits` are the node ids of those who caused an abort; `is_fault` says that it was proven;
    `tries_again` is false where another try would fail alike.
    """

    attempt_id: bytes
    aborted: str | None = None
    culprits: tuple[bytes, ...] = ()
    is_fault: bool = False
    tries_again: bool = True


class FundingGivenUp(Mail, frozen=True, kw_only=True, tag="funding_given_up"):
    """House to factory: its funding is published no more; `tx`, unsigned, takes a coin of it."""

    attempt_id: bytes
    tx: bytes


class FundingRaised(Mail, frozen=True, kw_only=True, tag="funding_raised"):
    """House to factory: from here on this candidate of its funding is published."""

    attempt_id: bytes
    rung: int


class FactoryDied(Mail, frozen=True, kw_only=True, tag="factory_died"):
    """Factory to house: its funding will never confirm, so its coins are free again."""

    attempt_id: bytes


class Watch(Mail, frozen=True, kw_only=True, tag="watch_asked"):
    """Factory to chain: whatever spends these outpoints is news.

    `heard` is how many letters of the chain it had taken: what the chain watched for it by itself,
    because of what these told, is what is named here. A height would not say it, for blocks of
    lower heights may be news that is still on its way.
    """

    height: int
    outpoints: tuple[bytes, ...]
    heard: int


class Watched(Mail, frozen=True, kw_only=True, tag="watched"):
    """Chain to factory: what it asked for is watched."""

    height: int


class Found(Mail, frozen=True, kw_only=True, tag="block_connected"):
    """Chain to whom it concerns: a block, and what it has for the receiver."""

    height: int
    block_hash: bytes
    txs: tuple[bytes, ...]


class Lost(Mail, frozen=True, kw_only=True, tag="block_disconnected"):
    """Chain to whom it concerns: the block at this height left the active chain."""

    height: int


class ForwardAsked(Mail, frozen=True, kw_only=True, tag="forward_asked"):
    """The payer's factory to the payee's: may an HTLC go on? A channel and an id name it."""

    channel_id: bytes
    htlc_id: int
    payment_hash: bytes
    cltv_expiry: int
    delivery: bytes


class ForwardRefused(Mail, frozen=True, kw_only=True, tag="forward_refused"):
    """The payee's factory to the payer's: not here, or not now; `reason` is for the operator."""

    channel_id: bytes
    htlc_id: int
    reason: str


class ForwardAnswered(Mail, frozen=True, kw_only=True, tag="forward_answered"):
    """The payee's factory to the payer's: what became of an HTLC that went on."""

    channel_id: bytes
    htlc_id: int
    out_channel_id: bytes
    preimage: bytes | None = None
    failure: bytes | None = None


class Withdrawn(Mail, frozen=True, kw_only=True, tag="withdrawn"):
    """Whoever wrote this letter took back what it said, before anybody had taken it."""


class PayAsked(Mail, frozen=True, kw_only=True, tag="pay_asked"):
    """House to a payee's factory: pay an invoice out of the LSP's side of its channel."""

    payment_hash: bytes
    payment_secret: bytes
    payee: bytes
    amount_msat: int
    description: str
    min_final_cltv_expiry_delta: int
    text: str


class PayAnswered(Mail, frozen=True, kw_only=True, tag="pay_answered"):
    """Factory to house: what became of a payment; `refused` if no HTLC was ever offered."""

    payment_hash: bytes
    preimage: bytes | None = None
    failure: bytes | None = None
    refused: str | None = None


class AnnouncedPaid(Mail, frozen=True, kw_only=True, tag="announced_paid"):
    """Factory to house: a payment that a client had announced was paid to it."""

    node_id: bytes
    payment_hash: bytes


class CoinsRequested(Mail, frozen=True, kw_only=True, tag="coins_requested"):
    """Factory to house: coins that hold this much, for children of what spends this outpoint.

    Asked again with another sum, it takes the place of what was asked before. The higher the
    feerate that is wanted, the more it hurries.
    """

    outpoint: bytes
    needed_sat: int
    feerate_sat_per_kw: int = 0


class CoinsSent(Mail, frozen=True, kw_only=True, tag="coins_sent"):
    """House to factory: these coins, by their outpoints, are set aside for it, and more it had."""

    outpoint: bytes
    outpoints: tuple[bytes, ...]
    coins: tuple[FundingCoin, ...]
    change_script: bytes


class CoinsGivenBack(Mail, frozen=True, kw_only=True, tag="coins_given_back"):
    """Factory to house: what spends this outpoint is settled, and needs no coin any more."""

    outpoint: bytes


class SeatLeft(Mail, frozen=True, kw_only=True, tag="seat_left"):
    """Factory to house: a client moved out, and its keys are not its own alone any more."""

    attempt_id: bytes
    client: int


class ChannelsClosed(Mail, frozen=True, kw_only=True, tag="channels_closed"):
    """Factory to house: these clients' channels were closed together for good, six blocks deep.

    `amount_sat` is what was in the output that the close spent.
    """

    attempt_id: bytes
    clients: tuple[int, ...]
    amount_sat: int


class ChannelSettled(Mail, frozen=True, kw_only=True, tag="channel_settled"):
    """Factory to house: a client's channel went on chain, and all that was ours of it is taken.

    `amount_sat` is what the channel held.
    """

    attempt_id: bytes
    client: int
    amount_sat: int


class SaleBooked(Mail, frozen=True, kw_only=True, tag="sale_booked"):
    """Factory to house: L-stock became channel capacity, and this was paid for it.

    `quoted_at` and `ordered_at` are when its price was told, and when its advance was begun, in
    unix seconds; 0 if unknown. With a `payment_hash` the price is kept of that payment.
    """

    attempt_id: bytes
    client: int
    height: int
    amount_sat: int
    capacity_sat: int
    price_msat: int
    advance_id: bytes
    quoted_at: int = 0
    ordered_at: int = 0
    payment_hash: bytes = b""


AnyMail = (
    Ordered
    | CeremonyEnded
    | FundingGivenUp
    | FundingRaised
    | FactoryDied
    | Watch
    | Watched
    | Found
    | Lost
    | ForwardAsked
    | ForwardRefused
    | ForwardAnswered
    | Withdrawn
    | PayAsked
    | PayAnswered
    | AnnouncedPaid
    | CoinsRequested
    | CoinsSent
    | CoinsGivenBack
    | SeatLeft
    | ChannelsClosed
    | ChannelSettled
    | SaleBooked
)


@dataclass(frozen=True, slots=True)
class Letter:
    """Mail with its address: what a record gives out."""

    receiver: str
    mail: AnyMail


class Posted(NamedTuple):
    """Mail on its way, with its number among those of one sender to one receiver."""

    sender: str
    receiver: str
    number: int
    mail: AnyMail


@dataclass(frozen=True, kw_only=True)
class Post:
    """The mail of one stream.

    Attributes:
        n_sent: How many letters went to each receiver.
        outbox: What each may not have taken yet, oldest first; the last has number `n_sent`.
        taken: The number of the last letter taken from each sender.
    """

    n_sent: Shelf[str, int] = field(default_factory=Shelf)
    outbox: Map[str, tuple[AnyMail, ...]] = field(default_factory=Map)
    taken: Shelf[str, int] = field(default_factory=Shelf)

    def with_sent(self, letters: Iterable[Letter]) -> "Post":
        """Return the post with more letters in its outbox."""
        post = self
        for letter in letters:
            receiver, mail = letter.receiver, letter.mail
            post = changed(
                post,
                n_sent=post.n_sent.set(receiver, post.n_sent.get(receiver, 0) + 1),
                outbox=post.outbox.set(receiver, (*post.outbox.get(receiver, ()), mail)),
            )
        return post

    def with_taken(self, sender: str, number: int) -> "Post":
        """Return the post after a letter was taken.

        Raises:
            AssertionError: If it is not the next one of this sender.
        """
        if number != self.taken.get(sender, 0) + 1:
            raise AssertionError(f"letter {number} of {sender} is not the next")
        return changed(self, taken=self.taken.set(sender, number))

    def is_next(self, sender: str, number: int) -> bool:
        """Say whether a letter is the next of its sender; any other means nothing now."""
        return number == self.taken.get(sender, 0) + 1

    def pending(self, sender: str) -> Iterator[Posted]:
        """Yield what is in the outbox of this stream, whose name is `sender`, in a fixed order."""
        for receiver in sorted(self.outbox):
            yield from self.pending_for(sender, receiver)

    def pending_for(self, sender: str, receiver: str) -> Iterator[Posted]:
        """Yield what is in the outbox of this stream for one receiver, oldest first."""
        mails = self.outbox.get(receiver, ())
        first = self.n_sent.get(receiver, 0) - len(mails) + 1
        for number, mail in enumerate(mails, start=first):
            yield Posted(sender=sender, receiver=receiver, number=number, mail=mail)

    def asked_to_forward(self) -> Iterator[ForwardAsked]:
        """Yield the HTLCs that others were asked to take, as far as nobody has taken the letter."""
        for receiver in sorted(self.outbox):
            yield from (one for one in self.outbox[receiver] if isinstance(one, ForwardAsked))

    def asked_to_pay(self) -> Iterator[tuple[str, PayAsked]]:
        """Yield who was asked to pay an invoice, and which, as far as nobody took the letter."""
        for receiver in sorted(self.outbox):
            mails = self.outbox[receiver]
            yield from ((receiver, one) for one in mails if isinstance(one, PayAsked))

    def without_forward(self, channel_id: bytes, htlc_id: int) -> "Post":
        """Return the post with the letter void that asks to take an HTLC; its number stays."""
        return self._without(lambda one: _asks_for(one, channel_id, htlc_id))

    def without_payment(self, payment_hash: bytes) -> "Post":
        """Return the post with the letter void that asks to pay an invoice; its number stays."""
        return self._without(
            lambda one: isinstance(one, PayAsked) and one.payment_hash == payment_hash
        )

    def _without(self, is_void: Callable[[AnyMail], bool]) -> "Post":
        outbox = self.outbox
        for receiver, mails in self.outbox.items():
            left = tuple(Withdrawn() if is_void(one) else one for one in mails)
            if left != mails:
                outbox = outbox.set(receiver, left)
        return changed(self, outbox=outbox)

    def untaken(self, receiver: str, *, taken: int) -> tuple[AnyMail, ...]:
        """Return what a receiver has not taken yet, by the number of the last letter it took."""
        mails = self.outbox.get(receiver, ())
        n_left = self.n_sent.get(receiver, 0) - taken
        return mails[len(mails) - n_left :] if 0 < n_left <= len(mails) else ()

    def settled(self, receiver: str, *, taken: int) -> "Post":
        """Return the post without what a receiver took; it needs no record, the cursor says it."""
        left = self.untaken(receiver, taken=taken)
        if len(left) == len(self.outbox.get(receiver, ())):
            return self
        outbox = self.outbox.set(receiver, left) if left else self.outbox.delete(receiver)
        return changed(self, outbox=outbox)


def _asks_for(mail: AnyMail, channel_id: bytes, htlc_id: int) -> bool:
    return isinstance(mail, ForwardAsked) and (mail.channel_id, mail.htlc_id) == (
        channel_id,
        htlc_id,
    )
