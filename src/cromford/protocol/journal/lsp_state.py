"""What an LSP knows: the fold of its journal."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar, assert_never

from cromford.bitcoin.network import Network
from cromford.bitcoin.tx import Tx, Txid
from cromford.factory.terms import decode_terms
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal import records as r
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.encoding import decoded
from cromford.protocol.journal.intents import IntentKey
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.lsp_attempt import (
    Aborted,
    Acknowledging,
    Funded,
    LspAttempt,
    SigningBelow,
    SigningRoot,
    Stage,
)
from cromford.protocol.journal.lsp_blueprint import LspBlueprint, LspSeat
from cromford.protocol.journal.lsp_candidate import (
    LspCandidate,
    SignaturesBelow,
    SignedCandidate,
)
from cromford.protocol.journal.opened import lsp_links
from cromford.protocol.journal.pause import (
    ABORTS_TO_PAUSE,
    JOINS_TO_PAUSE,
    PAUSE_BLOCKS,
    RELIABLE_UPTIME_BLOCKS,
    closed_until,
)
from cromford.protocol.journal.shared_state import AlikeRecord, SharedState, apply_alike
from cromford.protocol.policy import LspPolicy
from cromford.signing.nonces import PublicPool
from cromford.wallet.account import CHANGE, Account
from cromford.wallet.coins import Wallet, new_wallet
from cromford.wire import messages as m
from cromford.wire.fields import decode_fields

StageT = TypeVar("StageT")

UPTIME_WINDOW_BLOCKS: Final = 2016
FAULTS_TO_BAN: Final = 3
BAN_BLOCKS: Final = 144  # Three faults within this many blocks close the lobby for as many.


@dataclass(frozen=True, slots=True, kw_only=True)
class LspConfig:
    """What does not change while an LSP runs."""

    network: Network
    node_id: bytes
    policy: LspPolicy
    account: Account


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A client in the lobby."""

    node_id: bytes
    join: m.Join
    is_moving: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A build whose keys are being made, or that waits for its clients to come back."""

    attempt: int | None  # None while it waits
    node_ids: tuple[bytes, ...]
    reasons: tuple[str, ...]
    capacity_sat: tuple[int, ...]
    min_clients: int
    max_clients: int


@dataclass(frozen=True, kw_only=True)
class LspState:
    """An LSP's state value."""

    config: LspConfig
    wallet: Wallet
    chain: KnownChain = field(default_factory=KnownChain)
    connected: frozenset[bytes] = frozenset()
    members: Mapping[bytes, Member] = field(default_factory=dict)
    uptime: Mapping[bytes, int] = field(default_factory=dict)  # bit i: connected i blocks ago
    last_seen: Mapping[bytes, int] = field(default_factory=dict)  # heights
    faults: Mapping[bytes, tuple[int, ...]] = field(default_factory=dict)  # their heights
    aborts: Mapping[bytes, tuple[int, ...]] = field(default_factory=dict)  # caused, their heights
    joins: Mapping[bytes, tuple[int, ...]] = field(default_factory=dict)  # the newest, by height
    n_new_joins: int = 0  # since the last block, of clients that never were in a factory of ours
    next_attempt: int = 0
    build: Build | None = None
    build_dropped: str | None = None
    attempts: dict[bytes, LspAttempt] = field(default_factory=dict)
    funded_of: Mapping[bytes, tuple[bytes, ...]] = field(default_factory=dict)  # by client
    intents: Mapping[IntentKey, bytes] = field(default_factory=dict)
    book: Book = field(default_factory=Book)
    exits: frozenset[tuple[bytes, int]] = frozenset()  # the channels that we bring on chain

    @property
    def open_attempt(self) -> LspAttempt | None:
        """The attempt whose ceremony is under way, if any.

        None is proposed before the last one has ended, so it can only be the newest.
        """
        newest = next(reversed(self.attempts.values()), None)
        return newest if newest is not None and newest.is_open else None

    @property
    def watched_txids(self) -> frozenset[Txid]:
        """Every transaction whose confirmation matters to us."""
        watched: set[Txid] = set()
        for attempt in self.attempts.values():
            if attempt.funded is not None:
                watched |= attempt.blueprint.watched_txids
        return frozenset(watched)

    def is_standing(self, attempt: LspAttempt) -> bool:
        """Say whether our coins are in a factory: funded, neither expired nor replaced."""
        if attempt.funded is None or self.chain.height >= attempt.terms.expiry_height:
            return False
        return not self.is_dead(attempt)

    def is_dead(self, attempt: LspAttempt) -> bool:
        """Say whether another transaction took a coin of a factory's funding, for good."""
        is_dead = attempt.funded is not None and attempt.funded.is_dead
        return is_dead and self.chain.depth(attempt.funding_tx.txid) == 0

    def has_seat(self, node_id: bytes) -> bool:
        """Say whether a client has a channel with us, or may get one by what is being signed.

        A factory's expiry ends its channels, except for those that were brought on chain before.
        """
        if any(self.is_standing(self.attempts[i]) for i in self.funded_of.get(node_id, ())):
            return True
        if any(
            link.failure is None and link.is_settled(self.chain)
            for link in self.book.links_with(node_id)
        ):
            return True
        attempt = self.open_attempt
        return attempt is not None and attempt.client_of(node_id) is not None

    def uptime_blocks(self, node_id: bytes) -> int:
        """Return how many of the last `UPTIME_WINDOW_BLOCKS` blocks saw this node connected."""
        return self.uptime.get(node_id, 0).bit_count()

    def is_vanished(self, node_id: bytes) -> bool:
        """Say whether one who has a channel was not seen for `UPTIME_WINDOW_BLOCKS` blocks."""
        if node_id in self.connected:
            return False
        return self.chain.height >= self.last_seen.get(node_id, 0) + UPTIME_WINDOW_BLOCKS

    def is_unsteady(self, node_id: bytes) -> bool:
        """Say whether a client has just ended a ceremony for everybody."""
        heights = self.aborts.get(node_id, ())
        return bool(heights) and heights[-1] >= self.chain.height - PAUSE_BLOCKS

    def is_reliable(self, node_id: bytes) -> bool:
        """Say whether a client has shown that it stays: in a factory, or by a day of uptime."""
        has_shown = (
            node_id in self.funded_of or self.uptime_blocks(node_id) >= RELIABLE_UPTIME_BLOCKS
        )
        return has_shown and not self.is_unsteady(node_id)

    def pause_of(self, node_id: bytes) -> tuple[int, str] | None:
        """Return the height until which a client may not join, and why; None if it may.

        Proven faults close the lobby for a day, spoiled ceremonies and restlessness for about an
        hour.
        """
        until, why = max(
            (closed_until(of.get(node_id, ()), limit=limit, window_blocks=window_blocks), why)
            for of, limit, window_blocks, why in (
                (self.faults, FAULTS_TO_BAN, BAN_BLOCKS, "too many faults"),
                (self.aborts, ABORTS_TO_PAUSE, PAUSE_BLOCKS, "too many ceremonies ended"),
                (self.joins, JOINS_TO_PAUSE, PAUSE_BLOCKS, "too many joins"),
            )
        )
        return (until, why) if self.chain.height < until else None

    def banned_until(self, node_id: bytes) -> int | None:
        """Return the height until which a client may not join, or None."""
        pause = self.pause_of(node_id)
        return None if pause is None else pause[0]


def new_lsp(config: LspConfig) -> LspState:
    """Return the state before the first record."""
    return LspState(config=config, wallet=new_wallet(config.account))


def apply(state: LspState, record: r.AnyRecord) -> LspState:
    """Return the state after remembering one thing."""
    if isinstance(record, r.ClientOnly):
        raise AssertionError(f"{type(record).__name__} in an LSP's journal")
    if isinstance(record, AlikeRecord):
        return _apply_alike(state, record)
    match record:
        case r.Started():
            book = state.book.all_disconnected()
            return replace(
                state,
                connected=frozenset(),
                members={},
                build=None,
                book=book,
                last_seen=_seen_now(state, state.connected),
            )
        case r.PeerConnected(node_id=node_id):
            return _with_connection(state, node_id, state.connected | {node_id})
        case r.PeerDisconnected(node_id=node_id):
            return _with_connection(state, node_id, state.connected - {node_id})
        case lr.ClientJoined():
            return _with_member(state, record)
        case lr.ClientLeft(node_id=node_id):
            return replace(state, members=_without(state.members, node_id))
        case lr.BuildStarted() | lr.RebuildAwaited() | lr.BuildDropped():
            return _with_build(state, record)
        case _:
            return _apply_to_attempt(state, record)


def _with_member(state: LspState, record: lr.ClientJoined) -> LspState:
    node_id = record.node_id
    member = Member(
        node_id=node_id, join=decoded(record.message, m.Join), is_moving=record.is_moving
    )
    heights = (*state.joins.get(node_id, ()), state.chain.height)[-JOINS_TO_PAUSE:]
    return replace(
        state,
        members={**state.members, node_id: member},
        joins={**state.joins, node_id: heights},
        n_new_joins=state.n_new_joins + (node_id not in state.funded_of),
    )


def _apply_alike(state: LspState, record: AlikeRecord) -> LspState:
    shared = apply_alike(
        SharedState(chain=state.chain, wallet=state.wallet, book=state.book, intents=state.intents),
        record,
    )
    after = replace(
        state,
        chain=shared.chain,
        wallet=shared.wallet,
        book=shared.book,
        intents=shared.intents,
    )
    if isinstance(record, r.BlockConnected):
        return _with_height(after, record.height)
    return after


def _apply_to_attempt(
    state: LspState, record: op.SharedOpeningRecord | xr.ExitRecord | op.LspOpeningRecord
) -> LspState:
    match record:
        case op.AttemptProposed():
            return _with_proposed(state, record)
        case op.BelowPartialsReceived() | op.RootPartialReceived() | op.Acknowledged():
            return _with_contribution(state, record)
        case op.BelowSigned(attempt_id=i):
            before = _stage(state, i, SigningBelow)
            below = SignaturesBelow(
                blueprint=state.attempts[i].blueprint,
                signatures=record.signatures,
                commitment_signatures=record.commitment_signatures,
                commitment_partial_sigs=record.commitment_partial_sigs,
            )
            return _at_stage(state, i, SigningRoot(before=before, below=below))
        case op.RootSigned(attempt_id=i, signature=signature):
            root = _stage(state, i, SigningRoot)
            signed = SignedCandidate(below=root.below, root_signature=signature)
            return _at_stage(state, i, Acknowledging(before=root, signed=signed))
        case op.FundingWasSigned():
            return _with_funding(state, record)
        case op.ReadySent(attempt_id=i):
            told = replace(_stage(state, i, Funded), ready_sent=True)
            return _with_channels(_at_stage(state, i, told), i)
        case op.ReadyReceived(attempt_id=i, node_id=node_id):
            funded = _stage(state, i, Funded)
            heard = funded.ready_received | {node_id}
            return _at_stage(state, i, replace(funded, ready_received=heard))
        case op.FundingAbandoned():
            return _with_replacement(state, record)
        case op.FundingDied(attempt_id=i):
            dead = replace(_stage(state, i, Funded), is_dead=True)
            return replace(_at_stage(state, i, dead), wallet=state.wallet.released(i))
        case op.AttemptAborted():
            return _with_aborted(state, record)
        case xr.TreePublished():
            return state
        case xr.ExitStarted(attempt_id=i, client=client):
            return replace(state, exits=state.exits | {(i, client)})
        case _:
            assert_never(record)


def _with_contribution(
    state: LspState, record: op.BelowPartialsReceived | op.RootPartialReceived | op.Acknowledged
) -> LspState:
    i, client = record.attempt_id, record.client
    match record:
        case op.BelowPartialsReceived():
            below = _stage(state, i, SigningBelow)
            half = record.commitment_partial_sig
            stage: Stage = SigningBelow(
                candidate=below.candidate,
                partial_sigs={**below.partial_sigs, client: record.partial_sigs},
                commitment_partial_sigs={**below.commitment_partial_sigs, client: half},
            )
        case op.RootPartialReceived(partial_sig=partial_sig):
            root = _stage(state, i, SigningRoot)
            stage = replace(root, partial_sigs={**root.partial_sigs, client: partial_sig})
        case op.Acknowledged():
            signed = _stage(state, i, Acknowledging)
            stage = replace(signed, done=signed.done | {client})
    return _at_stage(state, i, stage)


def _stage(state: LspState, attempt_id: bytes, kind: type[StageT]) -> StageT:
    stage = state.attempts[attempt_id].stage
    if not isinstance(stage, kind):
        raise AssertionError(f"{type(stage).__name__} where {kind.__name__} was expected")
    return stage


def _at_stage(state: LspState, attempt_id: bytes, stage: Stage) -> LspState:
    attempt = replace(state.attempts[attempt_id], stage=stage)
    return replace(state, attempts={**state.attempts, attempt_id: attempt})


def _with_funding(state: LspState, record: op.FundingWasSigned) -> LspState:
    i = record.attempt_id
    signed = _stage(state, i, Acknowledging).signed
    funded = Funded(signed=signed, funding_tx=Tx.parse(record.tx))
    funded_of = dict(state.funded_of)
    for seat in state.attempts[i].seats:
        funded_of[seat.node_id] = (*funded_of.get(seat.node_id, ()), i)
    return replace(_at_stage(state, i, funded), build=None, funded_of=funded_of)


def _with_channels(state: LspState, attempt_id: bytes) -> LspState:
    book = state.book
    for link in lsp_links(state.attempts[attempt_id]):
        book = book.with_link(link)
    return replace(state, book=book)


def _with_connection(state: LspState, node_id: bytes, connected_now: frozenset[bytes]) -> LspState:
    return replace(
        state,
        connected=connected_now,
        members=_without(state.members, node_id),
        book=state.book.disconnected(node_id),
        last_seen=_seen_now(state, {node_id}),
    )


def _seen_now(state: LspState, node_ids: AbstractSet[bytes]) -> dict[bytes, int]:
    # Of those who have a channel: strangers may come and go without a trace.
    seen = {node_id: state.chain.height for node_id in node_ids if state.book.links_with(node_id)}
    return {**state.last_seen, **seen}


def _with_height(state: LspState, height: int) -> LspState:
    window = (1 << UPTIME_WINDOW_BLOCKS) - 1
    uptime = {
        node_id: seen
        for node_id in {*state.uptime, *state.connected}
        # Whoever was away for the whole window is forgotten.
        if (seen := (state.uptime.get(node_id, 0) << 1 | (node_id in state.connected)) & window)
    }
    return replace(
        state,
        uptime=uptime,
        n_new_joins=0,
        faults=_recent(state.faults, height - BAN_BLOCKS),
        aborts=_recent(state.aborts, height - PAUSE_BLOCKS),
        joins=_recent(state.joins, height - PAUSE_BLOCKS),
    )


def _recent(
    heights: Mapping[bytes, tuple[int, ...]], least_height: int
) -> Mapping[bytes, tuple[int, ...]]:
    """Return what still counts: names cost nothing, so what no longer closes anything goes."""
    return {node_id: of for node_id, of in heights.items() if of and of[-1] >= least_height}


def _with_build(
    state: LspState, record: lr.BuildStarted | lr.RebuildAwaited | lr.BuildDropped
) -> LspState:
    match record:
        case lr.BuildStarted():
            build = Build(
                attempt=record.attempt,
                node_ids=record.node_ids,
                reasons=record.reasons,
                capacity_sat=record.capacity_sat,
                min_clients=record.min_clients,
                max_clients=record.max_clients,
            )
            next_attempt = record.attempt + 1
            return replace(state, build=build, build_dropped=None, next_attempt=next_attempt)
        case lr.RebuildAwaited():
            build = Build(
                attempt=None,
                node_ids=record.node_ids,
                reasons=(),
                capacity_sat=(),
                min_clients=record.min_clients,
                max_clients=record.max_clients,
            )
            return replace(state, build=build)
        case lr.BuildDropped(reason=reason):
            return replace(state, build=None, build_dropped=reason)
        case _:
            assert_never(record)


def candidate_of(record: op.AttemptProposed) -> LspCandidate:
    """Return what a proposal is signed with; its blueprint is what stays of it."""
    joins = tuple(decoded(seat.join, m.Join) for seat in record.seats)
    factory_pool = _pool(record.lsp_factory_pool)
    blueprint = LspBlueprint(
        terms=decode_terms(record.terms),
        seats=tuple(
            LspSeat(
                node_id=seat.node_id,
                factory_pubkey=join.factory_pool.pubkey,
                channel=join.candidates[0].channel,
                payout_script=join.payout_script,
            )
            for seat, join in zip(record.seats, joins, strict=True)
        ),
        lsp_factory_pubkey=factory_pool.pubkey,
        channels=tuple(decode_fields(m.ChannelOffer, data) for data in record.lsp_channels),
        funding_tx=Tx.parse(record.funding_tx),
    )
    return LspCandidate(
        blueprint=blueprint,
        joins=joins,
        factory_pool=factory_pool,
        channel_pools=tuple(_pool(data) for data in record.lsp_channel_pools),
    )


def _pool(data: bytes) -> PublicPool:
    pool = decode_fields(m.Pool, data)
    return PublicPool(pubkey=pool.pubkey, pubnonces=pool.pubnonces)


def _with_proposed(state: LspState, record: op.AttemptProposed) -> LspState:
    reasons = state.build.reasons if state.build is not None else ()
    candidate = candidate_of(record)
    attempt = LspAttempt(
        attempt_id=record.attempt_id,
        key_attempt=record.attempt,
        blueprint=candidate.blueprint,
        reasons=reasons,
        stage=SigningBelow(candidate=candidate),
    )
    wallet = state.wallet.with_address_used(CHANGE).with_reserved(
        [tx_in.outpoint for tx_in in attempt.funding_tx.inputs], attempt.attempt_id
    )
    members = {k: v for k, v in state.members.items() if attempt.client_of(k) is None}
    return replace(
        state,
        attempts={**state.attempts, attempt.attempt_id: attempt},
        wallet=wallet,
        members=members,
    )


def _with_replacement(state: LspState, record: op.FundingAbandoned) -> LspState:
    """Return the state with what is to spend a coin of a funding, in the place of any before it."""
    i, tx = record.attempt_id, Tx.parse(record.tx)
    funded = _stage(state, i, Funded)
    wallet = state.wallet
    if funded.replacement is not None:
        wallet = wallet.without_payment(funded.replacement.txid)
    # Reserved without a gap: a crash may come before the payment is signed.
    wallet = wallet.with_reserved([tx_in.outpoint for tx_in in tx.inputs], i)
    left = _at_stage(state, i, replace(funded, replacement=tx))
    return replace(left, wallet=wallet.with_address_used(CHANGE))


def _with_aborted(state: LspState, record: op.AttemptAborted) -> LspState:
    stage = Aborted(reason=record.reason, culprits=record.culprits)
    aborted = _at_stage(state, record.attempt_id, stage)
    faults, aborts, uptime = dict(state.faults), dict(state.aborts), dict(state.uptime)
    joins = dict(state.joins)
    for seat in state.attempts[record.attempt_id].seats:
        # The others have to join again for no fault of theirs, so that join does not count.
        if seat.node_id not in record.culprits and joins.get(seat.node_id):
            joins[seat.node_id] = joins[seat.node_id][:-1]
    height = state.chain.height
    for culprit in record.culprits:
        aborts[culprit] = (*aborts.get(culprit, ()), height)[-ABORTS_TO_PAUSE:]
        if record.is_fault:
            faults[culprit] = (*faults.get(culprit, ()), height)[-FAULTS_TO_BAN:]
        uptime[culprit] = 0  # The next placement ranks it last.
    return replace(
        aborted,
        wallet=state.wallet.released(record.attempt_id),
        faults=faults,
        aborts=aborts,
        joins=joins,
        uptime=uptime,
    )


def _without(members: Mapping[bytes, Member], node_id: bytes) -> Mapping[bytes, Member]:
    return {key: member for key, member in members.items() if key != node_id}
