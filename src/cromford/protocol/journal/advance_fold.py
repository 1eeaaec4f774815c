"""How advances under way, attempts and channels change by what is remembered of an advance."""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from immutables import Map

from cromford.changed import changed
from cromford.channel.commitment import Funding
from cromford.channel.rebase import reserve
from cromford.factory.allocation import Allocation
from cromford.factory.leaf import Leaf
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.advances import (
    ClientAdvance,
    LspAdvance,
    asked_session,
    client_advance_after,
    client_advance_of,
    lsp_advance_after,
    lsp_advance_of,
    without_session,
)
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.encoding import decoded
from cromford.protocol.journal.leaf_states import (
    AgreedState,
    SignedPoisons,
    states_after,
    with_poisons,
    with_state,
)
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.journal.next_funding import (
    POISONS_HELD,
    SIGNED,
    STATE_HELD,
    NextFunding,
    OwnNonce,
    nonces_in,
)
from cromford.signing.nonces import PublicPool
from cromford.watch.remaining import PathStep, step_of
from cromford.wire import messages as m
from cromford.wire.selling import NextNonces


class LspAdvances(NamedTuple):
    """What of a factory's state is about advances: those under way by their leaf's name."""

    advances: Map[str, LspAdvance]
    attempt: LspAttempt
    book: Book


def with_lsp_advance(
    state: LspAdvances, record: ar.SharedAdvanceRecord | ar.LspAdvanceRecord
) -> LspAdvances:
    """Return an LSP's advances after a record.

    Raises:
        AssertionError: If it is about another advance than the one under way in the leaf.
    """
    if isinstance(record, ar.AdvanceProposed):
        begun = lsp_advance_of(record)
        name = state.attempt.leaf_name(begun.buyer)
        book = _quiet(state.book, _lsp_links(state.book, begun), begun.advance_id)
        return state._replace(advances=state.advances.set(name, begun), book=book)
    name, advance = _under_way(state.advances, record.advance_id)
    match record:
        case ar.AdvanceEnded():
            return state._replace(advances=state.advances.delete(name))
        case ar.AdvanceDropped():
            book = _without_next(state.book, _lsp_links(state.book, advance))
            return state._replace(advances=state.advances.delete(name), book=book)
        case ar.AdvanceSessionEnded():
            ended = state.advances.set(name, without_session(advance))
            return state._replace(advances=ended, book=_without_session(state.book, advance))
        case ar.AdvanceDeclined(client=client):
            link = _let_go(_link_of(state.book, client))
            following = None if link.next is None else changed(link.next, peer_stage=0)
            return state._replace(book=_put(state.book, changed(link, next=following)))
    after = lsp_advance_after(advance, record)
    state = state._replace(advances=state.advances.set(name, after))
    match record:
        case ar.LiquiditySold():
            return state
        case ar.AdvanceResumed() | ar.AdvancePoolsMade():
            links = [one for one in _lsp_links(state.book, after) if is_to_be_quiet(one)]
            return state._replace(book=_quiet(state.book, links, after.advance_id))
        case ar.AdvanceAgreementReceived(client=client, message=data):
            channel = decoded(data, m.AdvanceAgree).channel
            if not channel:
                return state
            link = _with_lsp_next(state, after, client, channel[0])
            return state._replace(book=_put(state.book, link))
        case ar.AdvanceCommitted():
            links = _lsp_links(state.book, after)
            return state._replace(book=_at_stage(state.book, links, SIGNED))
        case ar.AdvancePartialsReceived(client=client, message=data):
            if not decoded(data, m.AdvanceSign).half:
                return state
            return state._replace(book=_put(state.book, _dual(_link_of(state.book, client))))
        case ar.StateSigned(signature=signature):
            agreed = AgreedState(
                advance_id=after.advance_id, allocation=after.allocation, signature=signature
            )
            leaves = state.attempt.leaves
            if all(one.advance_id != after.advance_id for one in leaves.get(name, ())):
                leaves = with_state(leaves, name, agreed)
            book = _at_stage(state.book, _lsp_links(state.book, after), STATE_HELD)
            return state._replace(attempt=replace(state.attempt, leaves=leaves), book=book)
        case ar.PoisonHeld():
            leaves = state.attempt.leaves
            held = with_poisons(leaves[name], after.advance_id, _poisons(record))
            attempt = replace(state.attempt, leaves=leaves.set(name, held))
            book = _without_session(state.book, advance)
            book = _at_stage(book, _lsp_links(book, after), POISONS_HELD)
            return state._replace(attempt=attempt, book=book)
        case ar.AdvanceAcknowledged(client=client):
            link = _with_may_rebase(_link_of(state.book, client))
            return state._replace(book=_put(state.book, link))


def without_lsp_sessions(advances: Map[str, LspAdvance]) -> Map[str, LspAdvance]:
    """Return the advances after a start: every nonce is gone."""
    for name, advance in advances.items():
        advances = advances.set(name, without_session(advance))
    return advances


def with_committed_only(advances: Map[str, LspAdvance]) -> Map[str, LspAdvance]:
    """Return the advances after a restore: one that bound nobody is not gone on with."""
    for name, advance in advances.items():
        if not advance.is_committed:
            advances = advances.delete(name)
    return advances


class ClientAdvances(NamedTuple):
    """What of a client's state is about an advance: the one under way, its attempt, its channels.

    An attempt has at most one.
    """

    advance: ClientAdvance | None
    attempt: ClientAttempt
    book: Book


def with_client_advance(
    state: ClientAdvances, record: ar.SharedAdvanceRecord | ar.ClientAdvanceRecord
) -> ClientAdvances:
    """Return a client's advance after a record.

    Raises:
        AssertionError: If it is about another advance than the one under way.
    """
    if isinstance(record, ar.LiquidityBought):
        return state
    if isinstance(record, ar.LeafStatesTold):
        return state._replace(attempt=_with_told(state.attempt, record))
    if isinstance(record, ar.AdvanceReceived):
        begun = client_advance_of(record)
        link = changed(state.book.links[begun.channel_id], quiet_for=begun.advance_id)
        return state._replace(advance=begun, book=_put(state.book, link))
    advance = state.advance
    if advance is None or advance.advance_id != record.advance_id:
        raise AssertionError(f"advance {record.advance_id.hex()} is not under way")
    link = state.book.links[advance.channel_id]
    match record:
        case ar.AdvanceEnded():
            return state._replace(advance=None)
        case ar.AdvanceDropped():
            return state._replace(advance=None, book=_without_next(state.book, [link]))
        case ar.AdvancePoolsMade():
            return state._replace(advance=client_advance_after(advance, record))
        case ar.AdvanceAgreed():
            agreed = client_advance_after(advance, record)
            if advance.is_signed:
                return state._replace(advance=agreed)
            book = _put(state.book, _with_client_next(state.attempt, agreed, link))
            return state._replace(advance=agreed, book=book)
        case ar.AdvanceSigned():
            signed = client_advance_after(advance, record)
            book = _at_stage(state.book, [_with_lsp_nonces(link, record)], SIGNED)
            return state._replace(advance=signed, book=book)
        case ar.AdvanceSent():
            sent = client_advance_after(advance, record)
            return state._replace(advance=sent, book=_put(state.book, _sent(link)))
        case ar.StateSigned(signature=signature):
            states = state.attempt.leaf_states
            if all(one.advance_id != advance.advance_id for one in states):
                agreed_state = AgreedState(
                    advance_id=advance.advance_id,
                    allocation=advance.allocation,
                    signature=signature,
                )
                states = (*states, agreed_state)
            book = _at_stage(state.book, [link], STATE_HELD)
            return state._replace(attempt=replace(state.attempt, leaf_states=states), book=book)
        case ar.PoisonHeld():
            states = with_poisons(state.attempt.leaf_states, advance.advance_id, _poisons(record))
            attempt = replace(state.attempt, leaf_states=states)
            book = _at_stage(state.book, [_with_may_rebase(link)], POISONS_HELD)
            return state._replace(attempt=attempt, book=book)


def _with_told(attempt: ClientAttempt, record: ar.LeafStatesTold) -> ClientAttempt:
    states = attempt.leaf_states
    if record.message:
        told = decoded(record.message, m.LeafStates)
        states = states_after(states, told, client=attempt.client, leaf=attempt.leaf)
    return replace(attempt, leaf_states=states, awaits_states=False)


def next_funding_of(leaf: Leaf, allocation: Allocation, link: Link) -> Funding:
    """Return the funding of a channel in its leaf's next state.

    Args:
        leaf: With its newest signed state: the one that is replaced, or the next itself.
        allocation: What the next one pays.
        link: The channel.

    Raises:
        AdvanceRefused: If no sale leads there.
    """
    leaf = _with_next(leaf, allocation)
    vout = leaf.clients.index(link.client)
    return Funding(
        outpoint=leaf.state.tx.outpoint(vout),
        pubkeys=link.present.pubkeys,
        capacity_sat=allocation.capacities_sat[vout],
    )


def next_step_of(leaf: Leaf, allocation: Allocation) -> PathStep:
    """Return a leaf's next state as a step of the way out; arguments and errors as above."""
    return step_of(_with_next(leaf, allocation).state)


def _with_next(leaf: Leaf, allocation: Allocation) -> Leaf:
    return leaf if leaf.allocation == allocation else leaf.advanced(allocation)


def _under_way(advances: Map[str, LspAdvance], advance_id: bytes) -> tuple[str, LspAdvance]:
    for name, advance in advances.items():
        if advance.advance_id == advance_id:
            return name, advance
    raise AssertionError(f"advance {advance_id.hex()} is not under way")


def _poisons(record: ar.PoisonHeld) -> SignedPoisons:
    signatures = zip(record.clients, record.channel_signatures, strict=True)
    return SignedPoisons(stock=record.stock_signature, channels=Map(signatures))


def _lsp_links(book: Book, advance: LspAdvance) -> list[Link]:
    return [link for link in book.ordered_links if link.client in advance.clients]


def _link_of(book: Book, client: int) -> Link:
    return next(link for link in book.ordered_links if link.client == client)


def _put(book: Book, link: Link) -> Book:
    return changed(book, links=book.links.set(link.channel_id, link))


def is_to_be_quiet(link: Link) -> bool:
    """Say whether a channel has nothing on a next funding yet, so that it has to stand still."""
    return link.next is None or not link.next.is_dual


def _quiet(book: Book, links: Iterable[Link], advance_id: bytes) -> Book:
    for link in links:
        book = _put(book, changed(link, quiet_for=advance_id))
    return book


def _without_session(book: Book, advance: LspAdvance) -> Book:
    """Return the channels after the nonces of a session are gone.

    Whoever got our half may sign with it still, in this connection: its channel stays as it is.
    """
    is_committed = advance.session is not None and advance.session.is_committed
    for link in _lsp_links(book, advance):
        ended = link
        if ended.next is not None:
            ended = changed(ended, next=changed(ended.next, session_pool=b""))
        if is_to_be_quiet(ended) and not is_committed:
            ended = _let_go(ended)
        book = _put(book, ended)
    return book


def _let_go(link: Link) -> Link:
    """Return a channel that goes on on one outpoint, until its next funding is begun again."""
    following = link.next
    if following is not None:
        following = changed(
            following,
            is_agreed=False,
            own_nonces=Map(),
            peer_nonces=Map(),
            session_pool=b"",
        )
    return changed(link, quiet_for=b"", next=following, state=reserve(link.state, 0))


def _without_next(book: Book, links: Iterable[Link]) -> Book:
    for link in links:
        ended = changed(link, quiet_for=b"", next=None, state=reserve(link.state, 0))
        book = _put(book, ended)
    return book


def _dual(link: Link) -> Link:
    if link.next is None:
        return link
    return changed(link, quiet_for=b"", next=changed(link.next, is_dual=True))


def _with_may_rebase(link: Link) -> Link:
    if link.next is None:
        return link
    return changed(link, next=changed(link.next, may_rebase=True))


def _at_stage(book: Book, links: Iterable[Link], stage: int) -> Book:
    """Return the channels, each with what it says of its next funding after a reconnection."""
    for link in links:
        if link.next is not None:
            following = changed(link.next, stage=max(link.next.stage, stage))
            book = _put(book, changed(link, next=following))
    return book


def _with_lsp_next(
    state: LspAdvances, advance: LspAdvance, client: int, theirs: NextNonces
) -> Link:
    """Return a channel whose client agreed to its next funding, and set the price aside."""
    link, session = _link_of(state.book, client), asked_session(advance)
    leaf = state.attempt.leaf(client)
    following = link.next or NextFunding(
        advance_id=advance.advance_id,
        funding=next_funding_of(leaf, advance.allocation, link),
        price_msat=advance.price_of(client),
        step=next_step_of(leaf, advance.allocation),
    )
    numbers = {theirs.number: theirs.pubnonce, theirs.number + 1: theirs.following_pubnonce}
    following = changed(
        following,
        is_agreed=True,
        own_nonces=_own_nonces(link, session.channel_pools[client]),
        peer_nonces=Map(numbers),
        session_pool=session.channel_pools[client].pool_id,
    )
    return changed(link, next=following, state=reserve(link.state, following.price_msat))


def _with_client_next(attempt: ClientAttempt, advance: ClientAdvance, link: Link) -> Link:
    if advance.channel_pool is None:
        raise AssertionError("a client agreed without nonces")
    leaf = attempt.leaf
    following = NextFunding(
        advance_id=advance.advance_id,
        funding=next_funding_of(leaf, advance.allocation, link),
        step=next_step_of(leaf, advance.allocation),
        price_msat=advance.price_msat,
        is_agreed=True,
        own_nonces=_own_nonces(link, advance.channel_pool),
    )
    return changed(link, next=following, state=reserve(link.state, advance.price_msat))


def _with_lsp_nonces(link: Link, record: ar.AdvanceSigned) -> Link:
    (theirs,) = decoded(record.message, m.AdvanceCommit).channel
    if link.next is None:
        raise AssertionError("an advance is signed that was never agreed to")
    numbers = {theirs.number: theirs.pubnonce, theirs.number + 1: theirs.following_pubnonce}
    following = changed(link.next, is_dual=True, is_leaving=True, peer_nonces=Map(numbers))
    return changed(link, next=following)


def _sent(link: Link) -> Link:
    following = None if link.next is None else changed(link.next, is_leaving=False)
    return changed(link, quiet_for=b"", next=following)


def _own_nonces(link: Link, pool: PublicPool) -> Map[int, OwnNonce]:
    latest = link.state.own_signed
    return nonces_in(pool, {latest: 0, latest + 1: 1})
