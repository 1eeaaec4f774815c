"""The LSP's side of the lobby: greets, takes joins, and starts builds when asked or due."""

from typing import assert_never

from cromford import effects as fx
from cromford import told
from cromford.factory.shape import plan_of
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import records as r
from cromford.protocol.journal.gathered import Build
from cromford.protocol.journal.house import House
from cromford.protocol.journal.mail import CeremonyEnded
from cromford.protocol.lobby import banning
from cromford.protocol.lobby.build import (
    BuildPlan,
    greeting,
    is_move_proven,
    plan_build,
    refusal_of,
)
from cromford.protocol.lobby.ladder import candidates_asked, check_join_fits
from cromford.protocol.lobby.schedule import is_build_due, is_move_due
from cromford.protocol.turn import Turn
from cromford.wire import messages as m
from cromford.wire.messages import encode_message


def take(turn: Turn[House], event: ev.LobbyEvent) -> None:
    """Take the operator's wish: to build, to have more keys, to ban somebody, or to end a ban.

    Raises:
        Rejected: If nothing can be built now, or a ban cannot be had or ended.
    """
    match event:
        case ev.BuildRequested():
            on_build_requested(turn, event)
        case ev.LadderRequested():
            on_ladder_requested(turn, event)
        case ev.BanRequested():
            banning.on_ban_requested(turn, event)
        case ev.BanEndRequested():
            banning.on_ban_end_requested(turn, event)
        case ev.JoinRequested() | ev.LeaveRequested() | ev.JoinPrepared():
            raise AssertionError(f"{type(event).__name__} is a client's event")
        case _:
            assert_never(event)


def take_message(turn: Turn[House], node_id: bytes, message: m.Join | m.Leave) -> None:
    """Take a client's word that it waits, or no longer does."""
    match message:
        case m.Join():
            on_join(turn, node_id, message)
        case m.Leave():
            on_leave(turn, node_id, message)
        case _:
            assert_never(message)


def on_connection(turn: Turn[House], node_id: bytes) -> None:
    """Greet a peer. That it is here is true of this run: names cost nothing, the journal does.

    That one who has a channel was seen is remembered, once a block at the most.
    """
    turn.note(r.PeerConnected(node_id=node_id))
    if node_id in turn.state.of_client and node_id not in turn.state.present:
        turn.remember(lr.Attendance(came=(node_id,), went=()))
    turn.send(node_id, greeting(turn.state))


def on_join(turn: Turn[House], node_id: bytes, join: m.Join) -> None:
    """Let a client wait in the lobby, or tell it why not."""
    pubkey = join.factory_pool.pubkey
    member = turn.state.members.get(node_id)
    if member is not None and member.join == join:
        turn.send(node_id, m.Joined(factory_pubkey=pubkey, waiting=len(turn.state.members)))
        return
    reason = refusal_of(turn.state, node_id, join)
    if reason is not None:
        turn.send(node_id, m.Refused(factory_pubkey=pubkey, reason=reason))
        return
    is_moving = is_move_proven(turn.state, node_id, join)
    turn.note(lr.ClientJoined(node_id=node_id, message=encode_message(join), is_moving=is_moving))
    members = turn.state.members
    turn.send(node_id, m.Joined(factory_pubkey=pubkey, waiting=len(members)))
    build = turn.state.build
    if build is not None and build.attempt is None and set(build.node_ids) <= set(members):
        rebuild(turn)
    else:
        build_if_due(turn, at_height=None, joined=node_id)


def on_leave(turn: Turn[House], node_id: bytes, message: m.Leave) -> None:
    """Let a client go that waits; whoever joined anew meanwhile stays."""
    member = turn.state.members.get(node_id)
    if member is not None and member.join.factory_pool.pubkey == message.factory_pubkey:
        turn.note(lr.ClientLeft(node_id=node_id))


def build_if_due(turn: Turn[House], *, at_height: int | None, joined: bytes | None = None) -> None:
    """Start the build that the schedule asks for, or who moves; what hinders it is remembered.

    Args:
        turn: The decision so far.
        at_height: The height of a block that has just been added; None between blocks.
        joined: Who has just joined; None if nobody did.
    """
    state, policy = turn.state, turn.state.config.policy
    if state.under_way is not None or state.build is not None or not turn.facts.may_risk:
        return
    is_due = is_build_due(policy, n_waiting=len(state.members), at_height=at_height)
    if not (is_due or is_move_due(state, joined=joined)):
        return
    try:
        plan = plan_build(
            state,
            min_clients=policy.min_clients,
            max_clients=policy.max_clients,
            fees=turn.facts.fees,
        )
    except Rejected as rejected:
        # Once: what hinders it may last, and a schedule asks again and again. By its code: the
        # numbers differ with whoever comes and goes, which costs nothing.
        if rejected.code != state.hindered_by:
            turn.remember(lr.BuildDropped(reason=str(rejected), code=rejected.code))
        return
    asked = ev.BuildRequested(min_clients=policy.min_clients, max_clients=policy.max_clients)
    _start_build(turn, plan, asked)


def part_from_idle(turn: Turn[House]) -> None:
    """Part from whoever was asked for more keys and did not join again by this block.

    Who comes back is asked once more. Else one client alone could keep an LSP from every ladder.
    """
    state = turn.state
    if state.under_way is not None or state.build is not None:
        return
    n_candidates = candidates_asked(state)
    for node_id, member in sorted(state.members.items()):
        if len(member.join.candidates) < n_candidates:
            turn.note(lr.ClientLeft(node_id=node_id))
            turn.ask(fx.Disconnect(node_id=node_id, reason="it brings too few keys for a ladder"))


def on_build_requested(turn: Turn[House], event: ev.BuildRequested) -> None:
    """Build because the operator says so.

    Raises:
        Rejected: If a build is under way, none can be planned, another had its id, or no risk may
            be taken.
    """
    turn.check_risk()
    state = turn.state
    if state.built_as(event.external_id) is not None:
        raise Rejected("external_id_taken", f"a build has the id {event.external_id!r}")
    if state.under_way is not None or state.build is not None:
        raise Rejected("build_under_way", "a factory is being built", retryable=True)
    plan = plan_build(
        state,
        min_clients=event.min_clients,
        max_clients=event.max_clients,
        fees=turn.facts.fees,
        feerates_sat_per_kw=event.feerates_sat_per_kw,
    )
    _start_build(turn, plan, event)


def on_ladder_requested(turn: Turn[House], event: ev.LadderRequested) -> None:
    """Ask whoever is connected for keys of more candidates: who waits joins again by itself.

    What is asked for stays so, whatever is built: who joins later is asked for as many.

    Raises:
        Rejected: If a build is under way, which needs the keys of those who wait, or they would
            not fit a message.
    """
    state = turn.state
    if event.n_candidates <= candidates_asked(state):
        return
    if state.under_way is not None or state.build is not None:
        raise Rejected("build_under_way", "a factory is being built", retryable=True)
    check_join_fits(n_candidates=event.n_candidates, pool_size=state.config.policy.pool_size)
    turn.remember(lr.LadderWanted(candidates=event.n_candidates))
    for node_id in sorted(state.connected):
        turn.send(node_id, greeting(turn.state))


def _start_build(turn: Turn[House], plan: BuildPlan, asked: ev.BuildRequested | Build) -> None:
    started = lr.BuildStarted(
        attempt=turn.state.next_attempt,
        node_ids=plan.node_ids,
        reasons=tuple(seat.reason for seat in plan.placed),
        capacity_sat=plan.terms.capacity_sat,
        min_clients=asked.min_clients,
        max_clients=asked.max_clients,
        feerates_sat_per_kw=asked.feerates_sat_per_kw,
        external_id=asked.external_id,
    )
    turn.remember(started)
    n_txs = plan_of(plan.terms).n_txs
    turn.ask(
        fx.ClearDeadline(deadline=fx.RejoinDeadline()),
        fx.PrepareAttempt(
            attempt=started.attempt,
            n_clients=len(plan.placed),
            pool_size=plan.terms.candidates * n_txs,
            n_candidates=plan.terms.candidates,
        ),
    )


def on_disconnection(turn: Turn[House], node_id: bytes) -> None:
    """Hear that a peer is gone; who waited, waits no more."""
    if node_id in turn.state.connected:
        turn.note(r.PeerDisconnected(node_id=node_id))


def note_attendance(turn: Turn[House]) -> None:
    """Remember who is here as a block is about to be counted: of those for whom it matters."""
    house = turn.state
    if not house.is_stirred:
        return
    here = {node_id for node_id in house.connected if house.counts_attendance(node_id)}
    came, went = here - house.present, house.present - here
    if came or went:
        turn.remember(lr.Attendance(came=tuple(sorted(came)), went=tuple(sorted(went))))


def on_ceremony_ended(turn: Turn[House], ended: CeremonyEnded, build: Build | None) -> None:
    """Build again with those who did not end a ceremony, if another try may go better.

    Args:
        turn: The decision so far.
        ended: How it ended.
        build: What was being built.
    """
    if ended.aborted is None or build is None:
        return
    if ended.tries_again:
        await_rejoin(turn, build, without=ended.culprits)
    else:
        turn.remember(lr.BuildDropped(reason=ended.aborted))


def await_rejoin(turn: Turn[House], build: Build, *, without: tuple[bytes, ...]) -> None:
    """Wait for the clients of a build that stay to join again, unless too few are left.

    Args:
        turn: The decision so far.
        build: What was being built.
        without: Who caused its end: they are left out of the next try.
    """
    staying = tuple(
        node_id
        for node_id in build.node_ids
        if node_id not in without
        and node_id in turn.state.connected
        and turn.state.pause_of(node_id) is None
    )
    # Whoever makes names to spoil ceremonies spoils one of each build: the next is waited for, and
    # made, with those who have shown that they stay, if they are enough.
    reliable = tuple(node_id for node_id in staying if turn.state.is_reliable(node_id))
    if len(reliable) >= build.min_clients:
        staying = reliable
    if len(staying) < build.min_clients:
        left = told.counted(len(staying), "client is", "clients are")
        needed = told.counted(build.min_clients, "is", "are")
        reason = f"{left} left, {needed} needed"
        turn.remember(lr.BuildDropped(reason=reason))
        return
    turn.remember(
        lr.RebuildAwaited(
            node_ids=staying,
            min_clients=build.min_clients,
            max_clients=build.max_clients,
            feerates_sat_per_kw=build.feerates_sat_per_kw,
            external_id=build.external_id,
        )
    )
    seconds = turn.state.config.policy.deadline_seconds
    turn.ask(fx.SetDeadline(deadline=fx.RejoinDeadline(), seconds=seconds))
    # Where nothing was proposed their keys are still fresh, and nobody has to join again.
    if set(staying) <= set(turn.state.members):
        rebuild(turn)


def on_deadline(turn: Turn[House]) -> None:
    """Go on with those who joined again in time; whoever stayed connected and did not pays for it.

    Whoever is gone is not waited for; nor does it pay whom others made join so often that it rests.
    """
    state, build = turn.state, turn.state.build
    if build is not None and build.attempt is None:
        awaited = [one for one in build.node_ids if one in state.connected]
        missed = tuple(one for one in awaited if not (one in state.members or state.rests(one)))
        if missed:
            turn.remember(lr.RejoinMissed(node_ids=missed))
    rebuild(turn)


def rebuild(turn: Turn[House]) -> None:
    """Start again with those of the last attempt who came back."""
    state, build = turn.state, turn.state.build
    if build is None or build.attempt is not None or state.under_way is not None:
        return
    if not turn.facts.may_risk:
        # Whoever came back stays in the lobby, for the schedule or the operator.
        reason = "no mark can be written" if turn.facts.is_fresh else "the chain is stale"
        turn.remember(lr.BuildDropped(reason=reason))
        turn.ask(fx.ClearDeadline(deadline=fx.RejoinDeadline()))
        return
    try:
        plan = plan_build(
            state,
            min_clients=build.min_clients,
            max_clients=build.max_clients,
            only=build.node_ids,
            fees=turn.facts.fees,
            feerates_sat_per_kw=build.feerates_sat_per_kw,
        )
    except Rejected as rejected:
        turn.remember(lr.BuildDropped(reason=str(rejected)))
        turn.ask(fx.ClearDeadline(deadline=fx.RejoinDeadline()))
        return
    _start_build(turn, plan, build)
