"""What an LSP knows of one factory: its ceremony, its tree, its channels, what the chain has of it.

A factory knows nothing of other factories, nor of the house: what it hears of them is mail.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from immutables import Map

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.changed import changed
from cromford.channel.commitment import Funding
from cromford.factory.lifetime import Lifetime, Period
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import dying_records as dr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal import handover_records as hr
from cromford.protocol.journal import mail
from cromford.protocol.journal import market_records as mk
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal import records as r
from cromford.protocol.journal.advance_fold import (
    LspAdvances,
    with_committed_only,
    with_lsp_advance,
    without_lsp_sessions,
)
from cromford.protocol.journal.advances import LspAdvance, Stalls, with_stalls
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.book_fold import (
    apply_to_book,
    with_answered_forward,
    with_refused_forward,
)
from cromford.protocol.journal.channel_records import (
    BOOK_RECORDS,
    BookRecord,
    ForwardWithdrawn,
)
from cromford.protocol.journal.close_fold import LspCloses, finished_close, with_lsp_close
from cromford.protocol.journal.closes import FinishedClose
from cromford.protocol.journal.closing import Closing, EndedClose
from cromford.protocol.journal.intents import IntentKey, check_intents
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.lsp_attempt import Funded, LspAttempt
from cromford.protocol.journal.lsp_config import LspConfig
from cromford.protocol.journal.mail import Letter, Post
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.marking import marked, unmarked
from cromford.protocol.journal.opened import lsp_link
from cromford.protocol.journal.opening_fold import ordered_attempt, stage_of, with_opening
from cromford.protocol.journal.purses import filled, with_settled, without
from cromford.protocol.journal.quotes import (
    NOTHING_QUOTED,
    Quoted,
    SkimDue,
    with_quote_record,
    with_vain_purchase,
    without_quote,
)
from cromford.protocol.journal.record import Kinds
from cromford.protocol.journal.state_classes import Older
from cromford.protocol.journal.streams import CHAIN, HOUSE, factory_stream
from cromford.wallet.account import WalletPath
from cromford.wallet.coins import Purse, SpentCoin


@dataclass(frozen=True, kw_only=True)
class Factory:
    """A factory's state value.

    Attributes:
        config: The LSP's.
        number: The factory's.
        chain: What the chain has of it. Its tip is a fact, and no part of the fold.
        begun: Its ceremony, and what came of it; None before the first record.
        coins: What funds it.
        book: Its channels, and the payments in them.
        intents: What was signed, or is about to be.
        exits: The clients whose channels we bring on chain.
        watch: What the chain was asked to watch for it.
        is_watched: Whether the chain said that it does.
        purses: The house's coins for children of our transactions, by what these spend.
        coins_asked: What was asked of the house and not lent yet, in sat, likewise.
        published: Since which height what may be bumped is published, likewise.
        closed: The closes that everybody signed, by their names.
        closed_seats: The clients whose channels they ended for good: the house knows.
        settled: What was in the channels that went on chain and are settled there, in sat, by
            client: the house knows.
        closing: The close under way.
        n_closes: How many were ever begun.
        close_ended: The newest, if it came to nothing.
        held_keys: The clients that moved out, and whose keys we keep.
        lost_keys: Those whose keys we had, and have to ask for.
        period: The newest period of its life that was told, from dying on.
        close_height: When its policy asked for a close the last time; None if never.
        post: Its mail.
        is_marked: Whether its store was put back from a backup, and what came after is unknown.
        advances: Those under way, by the names of their leaves.
        quoted: What clients were told that they may buy; true of one run.
        skims: What is kept of payments, in msat, by the client that bought out of them, and by
            hash: two payees may name one hash. One for each sale at most, so a leaf has no more
            than its states allow, and they stay as these do.
        stalls: Who let deadlines of advances pass.
    """

    config: LspConfig
    number: int
    chain: KnownChain = field(default_factory=KnownChain)
    begun: LspAttempt | None = None
    coins: tuple[SpentCoin, ...] = ()
    book: Book = field(default_factory=Book)
    intents: Mapping[IntentKey, bytes] = field(default_factory=dict)
    exits: frozenset[int] = frozenset()
    watch: frozenset[OutPoint] = frozenset()
    is_watched: bool = False
    purses: Map[OutPoint, Purse] = field(default_factory=Map)
    coins_asked: Map[OutPoint, int] = field(default_factory=Map)
    published: Map[OutPoint, int] = field(default_factory=Map)
    closed: Map[bytes, FinishedClose] = field(default_factory=Map)
    closed_seats: frozenset[int] = frozenset()
    settled: Map[int, int] = field(default_factory=Map)
    closing: Closing | None = None
    n_closes: int = 0
    close_ended: EndedClose | None = None
    held_keys: frozenset[int] = frozenset()
    lost_keys: frozenset[int] = frozenset()
    period: Period = Period.WAITING
    close_height: int | None = None
    post: Post = field(default_factory=Post)
    is_marked: bool = False
    advances: Map[str, LspAdvance] = field(default_factory=Map)
    quoted: Quoted = field(default_factory=Quoted)
    skims: Map[int, Map[bytes, int]] = field(default_factory=Map)
    stalls: Stalls = field(default_factory=Map)

    older = Older(
        {"skims": Map[bytes, SkimDue]},
        lambda skims, **held: Factory(skims=_skims_of(skims), **held),
    )

    @property
    def stream(self) -> str:
        """The name of its stream."""
        return factory_stream(self.number)

    @property
    def attempt(self) -> LspAttempt:
        """Its ceremony, and what came of it.

        Raises:
            AssertionError: Before the first record.
        """
        if self.begun is None:
            raise AssertionError(f"{self.stream} has not begun")
        return self.begun

    @property
    def lifetime(self) -> Lifetime:
        """The heights at which its life changes, by its slowest path."""
        return self.attempt.blueprint.lifetime

    @property
    def is_dead(self) -> bool:
        """Whether it was found that another transaction took a coin of its funding, and did so.

        A reorganisation may have undone that.
        """
        attempt, funded = self.attempt, self.attempt.funded
        was_found = funded is not None and funded.is_dead
        return was_found and attempt.is_overtaken(self.chain)

    @property
    def landed(self) -> "Factory":
        """The factory as the chain has it: itself, but where another candidate is in a block.

        Once channels are in one candidate, another that confirms has a tree of its own in which
        nobody has anything but us. Then this is that tree, without channels.
        """
        attempt = self.begun
        if attempt is None or not attempt.others or not attempt.is_pinned:
            return self
        rung = attempt.rung_in(self.chain)
        if rung is None or rung == attempt.rung:
            return self
        return changed(
            self,
            begun=attempt.sibling(rung),
            book=Book(),
            closed=Map(),
            closing=None,
            advances=Map(),
            closed_seats=frozenset(),
            settled=Map(),
        )

    def funding_on_chain(self, client: int) -> Funding:
        """Return where a client's channel is: in a block, or else by its newest signed state."""
        setting = self.attempt.setting(client)
        link = self.book.links.get(setting.channel_id)
        return setting.funding if link is None else link.funding_on(self.chain)

    def kept_msat(self, client: int, payment_hash: bytes) -> int:
        """Return what is kept of a payment for all that its payee has bought out of it by now."""
        dues = self.skims.get(client)
        return 0 if dues is None else dues.get(payment_hash, 0)

    def is_unproven(self, client: int) -> bool:
        """Say whether a client's channel that the store does not know yet may have been used.

        None that we were leaving: it takes no update from then on.
        """
        return self.is_marked and client not in self.exits

    @property
    def durable(self) -> "Factory":
        """The part that a restart finds: without the tip, which is a fact, and without quotes."""
        return changed(self.at(()), quoted=NOTHING_QUOTED)

    def at(self, tip: tuple[BlockRef, ...]) -> "Factory":
        """Return the factory as it stands with this block as the chain's tip."""
        recent = self.chain.recent
        if recent is tip or (len(recent) == 1 and recent[-1:] == tip[-1:]):
            return self
        return changed(self, chain=changed(self.chain, recent=tip[-1:]))


def new_factory(config: LspConfig, number: int) -> Factory:
    """Return the state before the first record."""
    return Factory(config=config, number=number)


FactoryRecord = (
    r.Started
    | r.StoreRestored
    | r.MarkLifted
    | r.PeerDisconnected
    | r.BroadcastRefusalSeen
    | op.SigningIntended
    | op.SharedOpeningRecord
    | op.LspOpeningRecord
    | xr.ExitRecord
    | xr.LspExitRecord
    | cl.SharedCloseRecord
    | cl.LspCloseRecord
    | ar.SharedAdvanceRecord
    | ar.LspAdvanceRecord
    | hr.LspHandoverRecord
    | dr.DyingRecord
    | dr.LspDyingRecord
    | mk.LspMarketRecord
    | BookRecord
    | MailTaken
)
_FACTORY_RECORDS: Final[Kinds[FactoryRecord]] = Kinds(FactoryRecord)


def apply_to_factory(factory: Factory, record: r.AnyRecord, at: int = 0) -> Factory:
    """Return the factory after remembering one thing, at a time in unix seconds; 0 if unknown.

    Raises:
        DoubleSigning: If a second sighash is intended for something that may be signed once.
    """
    if BOOK_RECORDS.have(record):
        return _with_book(_without_void(factory, record), apply_to_book(factory.book, record, at))
    if isinstance(record, MailTaken):
        taken = changed(factory, post=factory.post.with_taken(record.sender, record.number))
        return _with_mail(taken, record.mail)
    if isinstance(record, cl.PartClosed | cl.SharedCloseRecord | cl.LspCloseRecord):
        return _with_close(factory, record)
    if isinstance(record, ar.SharedAdvanceRecord | ar.LspAdvanceRecord):
        return _with_advance(factory, record, at)
    if isinstance(record, mk.LspMarketRecord):
        return _with_quote(factory, record, at)
    if not _FACTORY_RECORDS.have(record):
        raise AssertionError(f"{type(record).__name__} is no record of a factory")
    match record:
        case r.Started():
            book, advances = factory.book, without_lsp_sessions(factory.advances)
            return replace(factory, book=book.all_disconnected(), advances=advances)
        case r.PeerDisconnected(node_id=node_id):
            return replace(factory, book=factory.book.disconnected(node_id))
        case r.BroadcastRefusalSeen(txid=txid, reason=reason):
            return replace(factory, chain=factory.chain.with_refusal(Txid(txid), reason))
        case op.SigningIntended(intents=intents):
            return replace(factory, intents=check_intents(factory.intents, intents))
        case xr.TreePublished() | xr.OutputsSwept():
            return factory
        case dr.PeriodBegan(period=period):
            return replace(factory, period=Period[period.upper()])
        case dr.CloseWanted(height=height):
            return replace(factory, close_height=height)
        case r.StoreRestored():
            kept = with_committed_only(factory.advances)
            return replace(factory, book=marked(factory.book), is_marked=True, advances=kept)
        case r.MarkLifted():
            return replace(factory, book=unmarked(factory.book), is_marked=False)
        case xr.ExitStarted(client=client):
            return replace(factory, exits=factory.exits | {client})
        case xr.ExitSettled():
            return _with_settled(factory, record)
        case xr.FirstPublished(outpoint=outpoint, height=height):
            published = factory.published.set(OutPoint.parse(outpoint), height)
            return replace(factory, published=published)
        case hr.KeysHeld() | hr.KeysLost():
            return _with_keys(factory, record)
        case xr.Watching(height=height, outpoints=outpoints):
            watch = frozenset(OutPoint.parse(outpoint) for outpoint in outpoints)
            heard = factory.post.taken.get(CHAIN, 0)
            asked = mail.Watch(height=height, outpoints=outpoints, heard=heard)
            return _telling(replace(factory, watch=watch, is_watched=False), CHAIN, asked)
        case xr.CoinsAsked(outpoint=outpoint, needed_sat=needed_sat, feerate_sat_per_kw=feerate):
            asked_for = factory.coins_asked.set(OutPoint.parse(outpoint), needed_sat)
            wish = mail.CoinsRequested(
                outpoint=outpoint, needed_sat=needed_sat, feerate_sat_per_kw=feerate
            )
            return _telling(replace(factory, coins_asked=asked_for), HOUSE, wish)
        case xr.CoinsReturned(outpoint=outpoint, cost_sat=cost_sat):
            settled = OutPoint.parse(outpoint)
            returned = replace(
                factory,
                purses=with_settled(factory.purses, settled, cost_sat=cost_sat),
                coins_asked=without(factory.coins_asked, settled),
            )
            return _telling(returned, HOUSE, mail.CoinsGivenBack(outpoint=outpoint))
        case _:
            return _with_opening(factory, record)


def _with_keys(factory: Factory, record: hr.KeysHeld | hr.KeysLost) -> Factory:
    seat = {record.client}
    if isinstance(record, hr.KeysLost):
        held, lost = factory.held_keys - seat, factory.lost_keys | seat
        return replace(factory, held_keys=held, lost_keys=lost)
    held, lost = factory.held_keys | seat, factory.lost_keys - seat
    left = mail.SeatLeft(attempt_id=record.attempt_id, client=record.client)
    return _telling(replace(factory, held_keys=held, lost_keys=lost), HOUSE, left)


def _with_skim(
    skims: Map[int, Map[bytes, int]], client: int, payment_hash: bytes, due_msat: int
) -> Map[int, Map[bytes, int]]:
    return skims.set(client, skims.get(client, Map()).set(payment_hash, due_msat))


def _skims_of(older: Map[bytes, SkimDue]) -> Map[int, Map[bytes, int]]:
    """Return what is kept of payments, as checkpoints had it that knew one payee of each hash."""
    skims: Map[int, Map[bytes, int]] = Map()
    for payment_hash, due in older.items():
        skims = _with_skim(skims, due.client, payment_hash, due.price_msat)
    return skims


def _with_sale(factory: Factory, sold: ar.LiquiditySold) -> Factory:
    """Return the factory after a sale: the house hears of it, and it may be paid for later."""
    under_way = factory.advances.values()
    advance = next(one for one in under_way if one.advance_id == sold.advance_id)
    if advance.payment_hash:
        due_msat = factory.kept_msat(sold.client, advance.payment_hash) + sold.price_msat
        skims = _with_skim(factory.skims, sold.client, advance.payment_hash, due_msat)
        factory = replace(factory, skims=skims)
    booked = mail.SaleBooked(
        attempt_id=sold.attempt_id,
        client=sold.client,
        height=sold.height,
        amount_sat=sold.amount_sat,
        capacity_sat=sold.capacity_sat,
        price_msat=sold.price_msat,
        advance_id=sold.advance_id,
        quoted_at=advance.quoted_at,
        ordered_at=advance.ordered_at,
        payment_hash=advance.payment_hash,
    )
    return _telling(factory, HOUSE, booked)


def _with_close(
    factory: Factory, record: cl.PartClosed | cl.SharedCloseRecord | cl.LspCloseRecord
) -> Factory:
    if isinstance(record, cl.PartClosed):
        return _with_part_closed(factory, record)
    closes = LspCloses(factory.closing, factory.n_closes, factory.close_ended, factory.book)
    closing, n_closes, ended, book = with_lsp_close(closes, record)
    closed = factory.closed
    if isinstance(record, cl.CloseFinished):
        closed = closed.set(record.close_id, finished_close(record))
    return replace(
        factory,
        closing=closing,
        n_closes=n_closes,
        close_ended=ended,
        book=book,
        closed=closed,
    )


def _with_quote(factory: Factory, record: mk.LspMarketRecord, at: int) -> Factory:
    height = factory.chain.height
    return replace(factory, quoted=with_quote_record(factory.quoted, record, at, height=height))


def _with_advance(
    factory: Factory, record: ar.SharedAdvanceRecord | ar.LspAdvanceRecord, at: int
) -> Factory:
    before = LspAdvances(factory.advances, factory.attempt, factory.book)
    advances, attempt, book = with_lsp_advance(before, record)
    stalls = with_stalls(factory.stalls, record)
    after = replace(factory, advances=advances, begun=attempt, book=book, stalls=stalls)
    if isinstance(record, ar.AdvanceProposed):
        name, quote = attempt.leaf_name(record.buyer), factory.quoted.newest.get(record.buyer)
        quoted_at = 0 if quote is None else quote.given_at
        begun = replace(advances[name], quoted_at=quoted_at, ordered_at=at)
        quoted = without_quote(factory.quoted, record.buyer)
        return replace(after, advances=advances.set(name, begun), quoted=quoted)
    if isinstance(record, ar.AdvanceDropped):
        (dropped,) = (
            one for one in factory.advances.values() if one.advance_id == record.advance_id
        )
        height = factory.chain.height
        return replace(
            after, quoted=with_vain_purchase(factory.quoted, dropped.buyer, height=height)
        )
    return _with_sale(after, record) if isinstance(record, ar.LiquiditySold) else after


def _with_part_closed(factory: Factory, record: cl.PartClosed) -> Factory:
    told = mail.ChannelsClosed(
        attempt_id=record.attempt_id, clients=record.clients, amount_sat=record.amount_sat
    )
    closed_seats = factory.closed_seats | frozenset(record.clients)
    return _telling(replace(factory, closed_seats=closed_seats), HOUSE, told)


def _with_settled(factory: Factory, record: xr.ExitSettled) -> Factory:
    told = mail.ChannelSettled(
        attempt_id=record.attempt_id, client=record.client, amount_sat=record.amount_sat
    )
    settled = factory.settled.set(record.client, record.amount_sat)
    return _telling(replace(factory, settled=settled), HOUSE, told)


def _with_mail(factory: Factory, content: mail.AnyMail) -> Factory:
    match content:
        case mail.Ordered():
            return _with_order(factory, content)
        case mail.FundingGivenUp(tx=tx):
            attempt = factory.attempt
            stage = replace(stage_of(attempt, Funded), replacement=Tx.parse(tx))
            return replace(factory, begun=replace(attempt, stage=stage))
        case mail.FundingRaised(rung=rung):
            raised = replace(factory.attempt, published=rung)
            return replace(factory, begun=raised.on_chain(factory.chain))
        case mail.Watched():
            return replace(factory, is_watched=True)
        case mail.Found(height=height, block_hash=block_hash):
            txs = [Tx.parse(data) for data in content.txs]
            block = BlockRef(height=height, block_hash=Txid(block_hash))
            tip = factory.chain.recent
            chain = factory.chain.with_block(block, txs)
            return _on_chain(replace(factory, chain=replace(chain, recent=tip)))
        case mail.Lost(height=height):
            tip = factory.chain.recent
            chain = factory.chain.without_block(height)
            return _on_chain(replace(factory, chain=replace(chain, recent=tip)))
        case mail.ForwardRefused():
            return _with_book(factory, with_refused_forward(factory.book, content))
        case mail.ForwardAnswered():
            return _with_book(factory, with_answered_forward(factory.book, content))
        case mail.CoinsSent():
            return _with_purse(factory, content)
        case mail.Withdrawn() | mail.ForwardAsked() | mail.PayAsked():
            return factory  # What is decided about it is the next record.
        case _:
            raise AssertionError(f"{type(content).__name__} is no mail for a factory")


def _on_chain(factory: Factory) -> Factory:
    """Return the factory with the candidate of its funding that its chain shows."""
    begun = factory.begun
    attempt = None if begun is None else begun.on_chain(factory.chain)
    return factory if attempt is begun else replace(factory, begun=attempt)


def _with_purse(factory: Factory, lent: mail.CoinsSent) -> Factory:
    outpoint = OutPoint.parse(lent.outpoint)
    coins = tuple(
        _spent_coin(OutPoint.parse(data), coin)
        for data, coin in zip(lent.outpoints, lent.coins, strict=True)
    )
    purse = filled(factory.purses.get(outpoint), coins, change_script=lent.change_script)
    asked = factory.coins_asked
    if purse.amount_sat >= asked.get(outpoint, 0):
        asked = without(asked, outpoint)
    return replace(factory, purses=factory.purses.set(outpoint, purse), coins_asked=asked)


def _spent_coin(outpoint: OutPoint, coin: mail.FundingCoin) -> SpentCoin:
    return SpentCoin(
        outpoint=outpoint,
        txout=TxOut(amount_sat=coin.amount_sat, script_pubkey=coin.script_pubkey),
        path=WalletPath(change=coin.change, index=coin.index),
    )


def _without_void(factory: Factory, record: BookRecord) -> Factory:
    """Return the factory with the letter void that a record takes back."""
    if not isinstance(record, ForwardWithdrawn):
        return factory
    post = factory.post.without_forward(record.channel_id, record.htlc_id)
    return changed(factory, post=post)


def _with_book(factory: Factory, book: Book) -> Factory:
    if not book.letters:
        return changed(factory, book=book)
    post = factory.post.with_sent(book.letters)
    return changed(factory, book=changed(book, letters=()), post=post)


def _telling(factory: Factory, receiver: str, content: mail.AnyMail) -> Factory:
    return replace(factory, post=factory.post.with_sent((Letter(receiver, content),)))


def _with_opening(
    factory: Factory, record: op.SharedOpeningRecord | op.LspOpeningRecord
) -> Factory:
    after = changed(factory, begun=with_opening(factory.attempt, record))
    match record:
        case op.FundingWasSigned(attempt_id=attempt_id):
            return _telling(after, HOUSE, mail.CeremonyEnded(attempt_id=attempt_id))
        case op.ReadySent():
            return _with_channels(after)
        case op.FundingDied(attempt_id=attempt_id):
            return _telling(after, HOUSE, mail.FactoryDied(attempt_id=attempt_id))
        case op.AttemptAborted():
            over = mail.CeremonyEnded(
                attempt_id=record.attempt_id,
                aborted=record.reason,
                culprits=record.culprits,
                is_fault=record.is_fault,
                tries_again=record.tries_again,
            )
            return _telling(after, HOUSE, over)
        case _:
            return after


def _with_channels(factory: Factory) -> Factory:
    book, attempt = factory.book, factory.attempt
    for client in range(1, len(attempt.seats) + 1):
        book = book.with_link(lsp_link(attempt, client, is_marked=factory.is_unproven(client)))
    return replace(factory, book=book)


def _with_order(factory: Factory, order: mail.Ordered) -> Factory:
    if factory.begun is not None:
        raise AssertionError(f"{factory.stream} was ordered before")
    attempt = ordered_attempt(order)
    coins = tuple(
        _spent_coin(tx_in.outpoint, coin)
        for tx_in, coin in zip(attempt.funding_tx.inputs, order.coins, strict=True)
    )
    return replace(factory, begun=attempt, coins=coins)
