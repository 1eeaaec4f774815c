"""What a client knows: the fold of its journal."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from immutables import Map

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.network import Network
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.changed import changed
from cromford.factory.lifetime import Period
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import dying_records as dr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal import handover_records as hr
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import market_records as mk
from cromford.protocol.journal import older
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal import records as r
from cromford.protocol.journal import spending_records as sr
from cromford.protocol.journal.advance_fold import ClientAdvances, with_client_advance
from cromford.protocol.journal.advances import ClientAdvance, without_nonces
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.book_fold import apply_to_book
from cromford.protocol.journal.channel_records import BOOK_RECORDS
from cromford.protocol.journal.client_attempt import (
    ClientAttempt,
    Complete,
    HasExit,
    Received,
    RootSent,
)
from cromford.protocol.journal.client_opening_fold import with_client_opening
from cromford.protocol.journal.close_fold import (
    ClientCloses,
    finished_close,
    with_client_close,
)
from cromford.protocol.journal.closes import FinishedClose
from cromford.protocol.journal.closing import ClientClosing
from cromford.protocol.journal.encoding import decoded
from cromford.protocol.journal.intents import IntentKey, check_intents
from cromford.protocol.journal.kept import KeptJoin, kept_join
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.mark import Restored
from cromford.protocol.journal.marking import after_restore, marked, unmarked
from cromford.protocol.journal.moving import (
    RETRY_BLOCKS,
    Moving,
    with_dying_record,
    with_join_answer,
)
from cromford.protocol.journal.opened import client_link
from cromford.protocol.journal.pause import (
    ABORTS_TO_PAUSE,
    JOINS_TO_PAUSE,
    PAUSE_BLOCKS,
    closed_until,
)
from cromford.protocol.journal.purchases import (
    EndedPurchase,
    Purchases,
    Receipt,
    ended_purchase,
    receipt_of,
    with_agreed,
    with_purchase_record,
)
from cromford.protocol.journal.purses import with_lent, with_settled
from cromford.protocol.journal.quotes import WantedQuotes, with_wanted_record
from cromford.protocol.journal.spent import with_spending_record
from cromford.protocol.journal.state_classes import Older
from cromford.protocol.policy import ClientPolicy
from cromford.wallet.account import Account
from cromford.wallet.coins import Purse, Wallet, new_wallet
from cromford.wire.messages import Join, Lobby


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """What does not change while a client runs."""

    network: Network
    node_id: bytes
    lsp_node_id: bytes
    policy: ClientPolicy
    account: Account


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A channel of `capacity_sat`, at least `capacity_least_sat`, is wanted in the next factory.

    Attributes:
        capacity_sat: What is wanted.
        capacity_least_sat: What is enough.
        moves_from: The factory that the client moves out of by itself; empty where its operator
            wants the channel.
        was_accepted: Whether this LSP let it wait before.
        refused_height: Since when the LSP refuses it all the same; None if it does not.
    """

    capacity_sat: int
    capacity_least_sat: int
    moves_from: bytes = b""
    was_accepted: bool = False
    refused_height: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """A wish that went out on the present connection, with fresh keys and pools."""

    attempt: int
    join: KeptJoin
    is_accepted: bool = False

    older = Older({"join": Join}, lambda join, **held: Joining(join=kept_join(join), **held))


@dataclass(frozen=True, kw_only=True)
class ClientState:
    """A client's state value."""

    config: ClientConfig
    wallet: Wallet
    chain: KnownChain = field(default_factory=KnownChain)
    is_connected: bool = False
    lsp_node_id: bytes = b""  # of the present connection, or of the one before
    lobby: Lobby | None = None
    wish: Wish | None = None
    refusal: str | None = None
    joining: Joining | None = None
    next_attempt: int = 0
    join_heights: tuple[int, ...] = ()  # of the newest joins
    attempts: Mapping[bytes, ClientAttempt] = field(default_factory=dict)
    intents: Mapping[IntentKey, bytes] = field(default_factory=dict)
    book: Book = field(default_factory=Book)
    purses: Map[OutPoint, Purse] = field(default_factory=Map)
    published: Map[OutPoint, int] = field(default_factory=Map)  # what may be bumped: since when
    closed: Map[bytes, FinishedClose] = field(default_factory=Map)  # by close id
    closing: Map[bytes, ClientClosing] = field(default_factory=Map)  # by close id
    close_heights: tuple[int, ...] = ()  # of the newest closes that we agreed to
    moving: Map[bytes, Moving] = field(default_factory=Map)  # by the factory that dies
    restored: Restored = field(default_factory=Restored)
    advances: Map[bytes, ClientAdvance] = field(default_factory=Map)  # by the attempt
    purchases: Purchases = field(default_factory=Map)  # by the quote
    purchase_ended: EndedPurchase | None = None  # the newest
    receipts: Map[bytes, tuple[Receipt, ...]] = field(default_factory=Map)  # by the attempt
    quotes: WantedQuotes = field(default_factory=Map)  # in this connection
    skims: Map[bytes, int] = field(default_factory=Map)  # in msat, by the hash of what pays it
    # Of the newest tries of advances that we took part in, by the attempt.
    advance_heights: Map[bytes, tuple[int, ...]] = field(default_factory=Map)

    # How often we were asked in all factories together is forgotten: it counts for six blocks.
    older = Older(
        {"advance_heights": tuple[int, ...]},
        lambda advance_heights, **held: ClientState(**held),  # noqa: ARG005 - by its name
    )

    @property
    def may_join(self) -> bool:
        """Whether joining now is not one time too many.

        An LSP that makes its clients join over and over would fill their journals.
        """
        return self.paused_until is None

    @property
    def may_close(self) -> bool:
        """Whether agreeing to a close now is not one time too many, as with `may_join`."""
        until = closed_until(self.close_heights, limit=JOINS_TO_PAUSE, window_blocks=PAUSE_BLOCKS)
        return self.chain.height >= until

    def may_advance(self, attempt_id: bytes) -> bool:
        """Say whether taking part in an advance now is not one time too many, as with `may_join`.

        Of each factory by itself: neighbours there who buy in vain are in the way of no other. As
        often for each neighbour: together they must not use up what is left for us.
        """
        heights = self.advance_heights.get(attempt_id)
        if not heights:
            return True  # The attempt may be one that is still checked, or none of ours.
        limit = tries_to_pause(self.attempts[attempt_id])
        until = closed_until(heights, limit=limit, window_blocks=PAUSE_BLOCKS)
        return self.chain.height >= until

    @property
    def paused_until(self) -> int | None:
        """The height from which it joins again by itself, or None if it need not wait."""
        until = closed_until(self.join_heights, limit=ABORTS_TO_PAUSE, window_blocks=PAUSE_BLOCKS)
        refused_height = None if self.wish is None else self.wish.refused_height
        if refused_height is not None:
            until = max(until, refused_height + RETRY_BLOCKS)
        return until if self.chain.height < until else None

    def attempt_with(self, node_id: bytes, attempt_id: bytes) -> ClientAttempt | None:
        """Return an attempt, if it is one with this LSP: no other has a say in it."""
        attempt = self.attempts.get(attempt_id)
        return attempt if attempt is not None and attempt.lsp_node_id == node_id else None

    @property
    def open_attempt(self) -> ClientAttempt | None:
        """The attempt that may still become the factory wished for, if any."""
        return next((attempt for attempt in self.attempts.values() if attempt.is_open), None)

    @property
    def watched_txids(self) -> frozenset[Txid]:
        """Every transaction whose confirmation matters to us."""
        watched: set[Txid] = set()
        for attempt in self.attempts.values():
            if attempt.is_retired:
                continue
            if isinstance(attempt.stage, Complete | RootSent | HasExit):
                watched |= attempt.watched_txids
        for link in self.book.links.values():
            if link.next is not None:
                watched.add(link.next.funding.outpoint.txid)
        return frozenset(watched)


def new_client(config: ClientConfig) -> ClientState:
    """Return the state before the first record."""
    return ClientState(config=config, wallet=new_wallet(config.account))


def apply(state: ClientState, record: r.AnyRecord, at: int = 0) -> ClientState:
    """Return the state after remembering one thing, at a time in unix seconds; 0 if unknown.

    Raises:
        DoubleSigning: If a second sighash is intended for something that may be signed once.
    """
    if BOOK_RECORDS.have(record):
        return changed(state, book=apply_to_book(state.book, record, at))
    if isinstance(record, r.LspOnly):
        raise AssertionError(f"{type(record).__name__} in a client's journal")
    if isinstance(record, sr.SpendingRecord):
        return replace(state, wallet=with_spending_record(state.wallet, record))
    if isinstance(record, cl.SharedCloseRecord | cl.ClientCloseRecord):
        return _with_close(state, record)
    if isinstance(record, ar.SharedAdvanceRecord | ar.ClientAdvanceRecord):
        return _with_advance(state, record, at)
    if isinstance(record, ar.PurchaseRecord | mk.ClientMarketRecord):
        return _with_market(state, record, at)
    if isinstance(record, hr.ClientHandoverRecord):
        return _with_handover(state, record)
    if isinstance(record, dr.ClientDyingRecord | dr.DyingRecord):
        return _with_dying(state, record)
    match record:
        case r.Created():
            return state
        case r.StoreRestored() | r.MarkLifted() | r.KeysSkipped():
            return _with_store_record(state, record, at)
        case r.BlockConnected():
            return _with_block(state, record)
        case r.BlockDisconnected(height=height):
            chain, wallet = state.chain.without_block(height), state.wallet.without_block(height)
            return _on_chain(replace(state, chain=chain, wallet=wallet))
        case r.BroadcastRefusalSeen(txid=txid, reason=reason):
            return replace(state, chain=state.chain.with_refusal(Txid(txid), reason))
        case op.SigningIntended(intents=intents):
            return changed(state, intents=check_intents(state.intents, intents))
        case xr.FirstPublished(outpoint=outpoint, height=height):
            published = state.published.set(OutPoint.parse(outpoint), height)
            return replace(state, published=published)
        case xr.CoinsLent():
            wallet, purses = with_lent(state.wallet, state.purses, record)
            return replace(state, wallet=wallet, purses=purses)
        case xr.CoinsReturned(outpoint=outpoint, cost_sat=cost_sat):
            purses = with_settled(state.purses, OutPoint.parse(outpoint), cost_sat=cost_sat)
            return replace(state, wallet=state.wallet.released(outpoint), purses=purses)
        case r.Started():
            return _with_states_awaited(_connected_anew(state, is_connected=False))
        case r.PeerDisconnected():
            return _connected_anew(state, is_connected=False)
        case r.PeerConnected(node_id=node_id):
            return _connected_to(state, node_id)
        case lr.LobbyGreeted(message=message):
            return replace(state, lobby=decoded(message, Lobby), joining=None)
        case lr.WishMade():
            wish = Wish(
                capacity_sat=record.capacity_sat,
                capacity_least_sat=record.capacity_least_sat,
                moves_from=record.moves_from,
            )
            return replace(state, wish=wish, refusal=None)
        case lr.WishWithdrawn():
            return replace(state, wish=None, joining=None)
        case lr.JoinSent(attempt=number):
            joining = Joining(attempt=number, join=_join_in(record))
            heights = (*state.join_heights, state.chain.height)[-ABORTS_TO_PAUSE:]
            return replace(state, joining=joining, next_attempt=number + 1, join_heights=heights)
        case lr.JoinAnswered():
            return _with_answer(state, record)
        case _:
            return _apply_to_attempt(state, record)


def _join_in(record: lr.JoinSent) -> KeptJoin:
    """Return what is kept of a join: in older journals it is there with its nonces."""
    return record.join or kept_join(decoded(record.message, Join))


def _with_close(
    state: ClientState, record: cl.SharedCloseRecord | cl.ClientCloseRecord
) -> ClientState:
    closing, book = with_client_close(ClientCloses(state.closing, state.book), record)
    after = replace(state, closing=closing, book=book)
    match record:
        case cl.CloseAgreed():
            heights = (*state.close_heights, state.chain.height)[-JOINS_TO_PAUSE:]
            return replace(after, close_heights=heights)
        case cl.CloseSigned(intents=intents):
            return replace(after, intents=check_intents(state.intents, intents))
        case cl.CloseFinished(close_id=close_id):
            return replace(after, closed=state.closed.set(close_id, finished_close(record)))
        case _:
            return after


def _with_advance(
    state: ClientState, record: ar.SharedAdvanceRecord | ar.ClientAdvanceRecord, at: int
) -> ClientState:
    attempt_id, attempts, advances = record.attempt_id, state.attempts, state.advances
    before = ClientAdvances(advances.get(attempt_id), attempts[attempt_id], state.book)
    advance, attempt, book = with_client_advance(before, record)
    if advance is not None:
        advances = advances.set(attempt_id, advance)
    elif attempt_id in advances:
        advances = advances.delete(attempt_id)
    intents, heights, purchases = state.intents, state.advance_heights, state.purchases
    if isinstance(record, ar.AdvanceAgreed) and advance is not None:
        purchases = with_agreed(purchases, advance.quote_id)
    if isinstance(record, ar.AdvanceSigned):
        intents = check_intents(intents, record.intents)
    receipts = state.receipts
    if isinstance(record, ar.LiquidityBought):
        bought_by = None if advance is None else purchases.get(advance.quote_id)
        receipt = receipt_of(record, bought_by, at)
        receipts = receipts.set(attempt_id, (*receipts.get(attempt_id, ()), receipt))
        state = replace(state, skims=_with_skim(state, attempt_id))
    if isinstance(record, ar.AdvancePoolsMade):
        n_kept = tries_to_pause(attempt)
        tries = (*heights.get(attempt_id, ()), state.chain.height)[-n_kept:]
        heights = heights.set(attempt_id, tries)
    return replace(
        state,
        receipts=receipts,
        advances=advances,
        attempts={**attempts, attempt_id: attempt},
        book=book,
        intents=intents,
        advance_heights=heights,
        purchases=purchases,
    )


def _with_skim(state: ClientState, attempt_id: bytes) -> Map[bytes, int]:
    """Return what may be kept of payments to us, with what was just bought out of one."""
    advance = state.advances.get(attempt_id)
    purchase = None if advance is None else state.purchases.get(advance.quote_id)
    if purchase is None or not purchase.payment_hash:
        return state.skims
    kept_msat = state.skims.get(purchase.payment_hash, 0) + purchase.price_msat
    return state.skims.set(purchase.payment_hash, kept_msat)


def _with_purchase(state: ClientState, record: ar.PurchaseRecord, at: int) -> ClientState:
    quote = state.quotes.get(record.attempt_id)
    quoted_at = 0 if quote is None else quote.answered_at
    purchases = with_purchase_record(state.purchases, record, at, quoted_at=quoted_at)
    ended = state.purchase_ended
    if isinstance(record, ar.PurchaseEnded):
        ended = ended_purchase(record)
    return replace(state, purchases=purchases, purchase_ended=ended)


def _with_market(
    state: ClientState, record: ar.PurchaseRecord | mk.ClientMarketRecord, at: int
) -> ClientState:
    if isinstance(record, ar.PurchaseRecord):
        return _with_purchase(state, record, at)
    return replace(state, quotes=with_wanted_record(state.quotes, record, at))


def _with_dying(state: ClientState, record: dr.ClientDyingRecord | dr.DyingRecord) -> ClientState:
    if isinstance(record, dr.ClientDyingRecord):
        moving = with_dying_record(state.moving, record, height=state.chain.height)
        return replace(state, moving=moving)
    return _changed(state, record.attempt_id, period=Period[record.period.upper()])


def _with_store_record(state: ClientState, record: r.StoreRecord, at: int) -> ClientState:
    after = after_restore(state, record, at)
    match record:
        case r.StoreRestored():
            # The wish may have been met since, by a factory that is forgotten.
            return replace(
                after,
                wish=None,
                book=marked(state.book),
                advances=_without_nonces(state.advances),
                attempts={
                    attempt_id: replace(attempt, is_marked=attempt.may_be_used)
                    for attempt_id, attempt in state.attempts.items()
                },
            )
        case r.MarkLifted():
            attempts = {
                attempt_id: replace(attempt, is_marked=False, awaits_states=False)
                for attempt_id, attempt in state.attempts.items()
            }
            return replace(after, book=unmarked(state.book), attempts=attempts)
        case _:
            return after


def _connected_anew(state: ClientState, *, is_connected: bool) -> ClientState:
    return replace(
        state,
        is_connected=is_connected,
        lobby=None,
        joining=None,
        closing=Map(),
        book=state.book.all_disconnected(),
        advances=_without_nonces(state.advances),
        quotes=Map(),
    )


def tries_to_pause(attempt: ClientAttempt) -> int:
    """Return how many tries of advances in a few blocks are too many, by the neighbours."""
    n_neighbours = len(attempt.leaf_pubkeys) - 2  # Besides the LSP and us.
    return JOINS_TO_PAUSE * max(1, n_neighbours)


def _connected_to(state: ClientState, node_id: bytes) -> ClientState:
    """Return the state in a connection with an LSP: what another one said of a wish is past."""
    wish = state.wish
    if wish is not None and node_id != state.lsp_node_id:
        wish = replace(wish, was_accepted=False, refused_height=None)
    return replace(_connected_anew(state, is_connected=True), lsp_node_id=node_id, wish=wish)


def _with_states_awaited(state: ClientState) -> ClientState:
    """Return the state after a start: a store that lost some asks for the states of its leaves."""
    lacking = {link.attempt_id for link in state.book.links.values() if link.may_lack_state}
    attempts = {
        attempt_id: replace(
            attempt,
            awaits_states=isinstance(attempt.stage, Complete)
            and (attempt.is_marked or attempt_id in lacking)
            and attempt.may_lack_states,
        )
        for attempt_id, attempt in state.attempts.items()
    }
    return replace(state, attempts=attempts)


def _without_nonces(advances: Map[bytes, ClientAdvance]) -> Map[bytes, ClientAdvance]:
    for attempt_id, advance in advances.items():
        kept = without_nonces(advance)
        advances = advances.delete(attempt_id) if kept is None else advances.set(attempt_id, kept)
    return advances


def _with_block(state: ClientState, record: r.BlockConnected) -> ClientState:
    wallet, txs = state.wallet, [Tx.parse(data) for data in record.txs]
    for tx in txs:
        wallet = wallet.with_tx(tx, record.height)
    block = BlockRef(height=record.height, block_hash=Txid(record.block_hash))
    after = changed(state, chain=state.chain.with_block(block, txs), wallet=wallet)
    return _on_chain(after) if txs else after


def _on_chain(state: ClientState) -> ClientState:
    """Return the state with the candidate of each funding that its chain shows."""
    attempts = {name: one.on_chain(state.chain) for name, one in state.attempts.items()}
    has_moved = any(one is not state.attempts[name] for name, one in attempts.items())
    return replace(state, attempts=attempts) if has_moved else state


def _apply_to_attempt(
    state: ClientState,
    record: op.SharedOpeningRecord
    | xr.ExitStarted
    | xr.TreePublished
    | xr.ClientExitRecord
    | op.ClientOpeningRecord,
) -> ClientState:
    match record:
        case op.ProposalReceived():
            return _with_proposal(state, record)
        case op.ReadySent(attempt_id=attempt_id):
            return _with_channel(_with_opening(state, record), attempt_id)
        case xr.TreePublished():
            return state
        case xr.ExitStarted(attempt_id=attempt_id):
            return _changed(state, attempt_id, is_exiting=True)
        case xr.ExitPaused(attempt_id=attempt_id):
            return _changed(state, attempt_id, is_paused=True)
        case xr.ExitResumed(attempt_id=attempt_id):
            return _changed(state, attempt_id, is_paused=False)
        case _:
            return _with_opening(state, record)


def _with_opening(
    state: ClientState, record: op.SharedOpeningRecord | op.ClientOpeningRecord
) -> ClientState:
    if isinstance(record, op.ProposalReceived):
        raise AssertionError("a proposal has an attempt of its own")
    before = state.attempts[record.attempt_id]
    after = with_client_opening(before, record).on_chain(state.chain)
    return changed(state, attempts={**state.attempts, record.attempt_id: after})


def _with_handover(state: ClientState, record: hr.ClientHandoverRecord) -> ClientState:
    match record:
        case hr.KeyRetired(attempt_id=attempt_id, height=height):
            return _changed(state, attempt_id, retired_height=height)
        case hr.HandoverAnswered(attempt_id=attempt_id, refusal=""):
            return _changed(state, attempt_id, keys_taken=True, keys_refused="")
        case hr.HandoverAnswered(attempt_id=attempt_id, refusal=refusal):
            refused = {"keys_refused": refusal, "refused_height": state.chain.height}
            return _changed(state, attempt_id, keys_taken=False, **refused)
        case _:
            assert_never(record)


def _with_channel(state: ClientState, attempt_id: bytes) -> ClientState:
    link = client_link(state.attempts[attempt_id])
    # The wish is fulfilled: the next factory is another wish.
    return replace(state, wish=None, book=state.book.with_link(link))


def _with_answer(state: ClientState, record: lr.JoinAnswered) -> ClientState:
    joining = state.joining
    if joining is None:
        raise AssertionError("an answer without a join")
    wish = state.wish
    if wish is not None and wish.moves_from:
        moving = with_join_answer(
            state.moving, wish.moves_from, refusal=record.refusal, height=state.chain.height
        )
        state = replace(state, moving=moving)
    if record.refusal is None:
        accepted = wish and replace(wish, was_accepted=True, refused_height=None)
        return replace(
            state, joining=replace(joining, is_accepted=True), wish=accepted, refusal=None
        )
    return replace(state, joining=None, wish=_refused(state, wish), refusal=record.refusal)


def _refused(state: ClientState, wish: Wish | None) -> Wish | None:
    """Return what is left of a wish that the LSP refused.

    One that it let wait before, its operator's, stays: the lobby may be full for a moment, after an
    abort or a restart with which everybody comes back at once. One that moves out is made anew.
    """
    if wish is None or wish.moves_from or not wish.was_accepted:
        return None
    return replace(wish, refused_height=state.chain.height)


def _with_proposal(state: ClientState, record: op.ProposalReceived) -> ClientState:
    joining = state.joining
    if joining is None:
        raise AssertionError("a proposal without a join")
    said: op.ProposalReceived | older.OlderPropose = record
    stage = Received()
    if record.message:
        said = older.decode_propose(record.message)
        stage = Received(kept=older.kept_of(said, joining.join))
    attempt = ClientAttempt(
        lsp_node_id=state.lsp_node_id,
        key_attempt=joining.attempt,
        join=joining.join,
        attempt_id=said.attempt_id,
        client=said.client,
        terms_hash=said.terms_hash,
        stage=stage,
    )
    return changed(state, attempts={**state.attempts, attempt.attempt_id: attempt}, joining=None)


def _changed(state: ClientState, attempt_id: bytes, **changes: object) -> ClientState:
    old = state.attempts[attempt_id]
    new = replace(old, **changes)  # type: ignore[arg-type]  # names are checked by replace
    return replace(state, attempts={**state.attempts, attempt_id: new})
