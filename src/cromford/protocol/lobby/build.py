"""The lobby: who may wait in it, whom a build takes, and what that would cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cromford import told
from cromford.bitcoin.fees import P2TR_OUTPUT_VSIZE, SEGWIT_DUST_SAT
from cromford.bitcoin.network import Network
from cromford.bitcoin.script import is_usual_segwit
from cromford.channel.errors import InvalidChannelTerms
from cromford.channel.terms import HTLCS_MAX, MSAT_PER_SAT, ChannelTerms
from cromford.crypto import schnorr
from cromford.crypto.keys import is_pubkey, xonly_of
from cromford.crypto.musig2 import is_pubnonce
from cromford.factory.kinds import InnerLevels, exit_blocks_of
from cromford.factory.placement import Applicant, Placed, place, ranked
from cromford.factory.shape import ShapeVertex, default_lstocks_sat, plan_of
from cromford.factory.terms import (
    N_CLIENTS_MAX,
    SAFETY_BLOCKS,
    FactoryTerms,
    FeePolicy,
    InvalidTerms,
)
from cromford.protocol.faults import Refusal, Rejected
from cromford.protocol.journal.entries import DEAD, FUNDED
from cromford.protocol.journal.first_commitments import channel_terms_of, least_capacity_sat
from cromford.protocol.journal.gathered import Member
from cromford.protocol.journal.house import House
from cromford.protocol.lobby.choosing import (
    Wishes,
    capacity_ceiling_sat,
    chosen,
    join_refusal,
    least_sat,
    room_sat,
)
from cromford.protocol.lobby.fees import check_fees, check_funding_is_taken
from cromford.protocol.lobby.ladder import (
    Ladder,
    candidates_asked,
    check_feerates,
    check_keys,
    check_nonces_reach,
    select_ladder,
)
from cromford.protocol.lobby.move import move_digest
from cromford.protocol.lobby.shapes import shape_by_policy
from cromford.protocol.lobby.states_size import check_states_fit
from cromford.protocol.policy import CANDIDATES_MAX, LspPolicy, least_depth
from cromford.protocol.term_ranges import check_usual_client_signs
from cromford.wallet.coins import N_INPUTS_MAX, InsufficientCoins, Selection
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

CLTV_MARGIN_BLOCKS: Final = 720  # A payment may outlast two exits by this much: it may be held.
N_HTLCS_ENDOGENOUS: Final = 12  # Each way; the opener pays the fee of all of them.
# What a proposal holds besides keys, outputs and terms, rounded up.
VERTEX_FRAME_SIZE: Final = 500  # two transactions' frames, the anchors, two nonces, lengths
FUNDING_INPUT_SIZE: Final = 41
PROPOSAL_FRAME_SIZE: Final = 1_000
MEMBERS_MAX: Final = 2 * N_CLIENTS_MAX  # Clients in one lobby; each costs a few kilobytes.
ANY_FEES: Final = OwnFees()
NO_ATTEMPT_ID: Final = bytes(32)  # Stands in the terms of a plan, which is never proposed.


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """What a build would do: who sits where, for how much, out of which coins."""

    placed: tuple[Placed, ...]
    shape: ShapeVertex
    terms: FactoryTerms
    ladder: Ladder
    funding_amount_sat: int

    @property
    def selection(self) -> Selection:
        """The coins with what the first candidate leaves of them."""
        return self.ladder.selection

    @property
    def node_ids(self) -> tuple[bytes, ...]:
        """The clients in placement order."""
        return tuple(seat.applicant.node_id for seat in self.placed)


def greeting(state: House) -> m.Lobby:
    """Return what a client hears first."""
    policy = state.config.policy
    return m.Lobby(
        network=state.config.network.genesis_hash,
        candidates=candidates_asked(state),
        capacity_min_sat=capacity_floor_sat(policy),
        capacity_max_sat=capacity_ceiling_sat(policy),
        min_clients=policy.min_clients,
        max_clients=policy.max_clients,
        pool_size=policy.pool_size,
        deadline_seconds=policy.deadline_seconds,
        fee_base_msat=policy.fee_base_msat,
        fee_proportional_millionths=policy.fee_proportional_millionths,
    )


def capacity_floor_sat(policy: LspPolicy) -> int:
    """Return the smallest channel this policy offers: one that bears what the terms' fees take."""
    try:
        terms = ChannelTerms(
            feerate_per_kw=policy.tree_feerate_sat_per_kw,
            to_self_delay_opener=policy.to_self_delay_lsp,
            to_self_delay_accepter=policy.to_self_delay_client,
            max_accepted_htlcs=_max_accepted_htlcs(policy),
            max_in_flight_msat=MSAT_PER_SAT * policy.capacity_max_sat,
            dust_limit_sat=SEGWIT_DUST_SAT,
        )
    except InvalidChannelTerms:
        return policy.capacity_min_sat  # A build by such a policy is refused by name.
    burn_floor_sat = policy.burn_limit.capacity_min_sat(terms)
    return max(policy.capacity_min_sat, least_capacity_sat(terms), burn_floor_sat)


def _max_accepted_htlcs(policy: LspPolicy) -> int:
    if policy.fee_policy is FeePolicy.ENDOGENOUS:
        return N_HTLCS_ENDOGENOUS
    return HTLCS_MAX


def refusal_of(state: House, node_id: bytes, join: m.Join) -> str | None:
    """Return why a wish cannot be met, naming the field, or None if it can."""
    policy = state.config.policy
    pause = state.pause_of(node_id)
    if pause is not None:
        return f"{pause.why}: join again from height {pause.until_height}"
    if node_id in state.members:
        # Otherwise one connection could fill the journal.
        return "already waiting in the lobby: leave first"
    if len(state.members) >= MEMBERS_MAX and not state.is_awaited(node_id):
        return f"the lobby is full: {MEMBERS_MAX} clients wait"
    floor_sat, ceiling_sat = capacity_floor_sat(policy), capacity_ceiling_sat(policy)
    if not (
        join.capacity_least_sat <= join.capacity_sat
        and join.capacity_sat >= floor_sat
        and join.capacity_least_sat <= ceiling_sat
    ):
        return (
            f"capacity_sat: expected {floor_sat}..{ceiling_sat}, "
            f"received {join.capacity_least_sat}..{join.capacity_sat}"
        )
    reason = join_refusal(state, node_id, max(join.capacity_least_sat, floor_sat))
    if reason is not None:
        return reason
    if not is_usual_segwit(join.payout_script):
        received = join.payout_script.hex()
        return f"payout_script: expected P2WPKH, P2WSH or P2TR, received {received}"
    least = candidates_asked(state)
    if not least <= len(join.candidates) <= CANDIDATES_MAX:
        return f"candidates: expected {least}..{CANDIDATES_MAX}, received {len(join.candidates)}"
    reason = _pool_refusal("factory_pool", join.factory_pool, policy.pool_size)
    for rung, offer in enumerate(join.candidates):
        if reason is None:
            reason = _channel_refusal(f"candidates[{rung}]", offer, policy.pool_size)
    if reason is None and _is_key_taken(state, node_id, join):
        reason = "factory_pool.pubkey: another participant has this key"
    return reason


def _pool_refusal(field: str, pool: m.Pool, pool_size: int) -> str | None:
    if not is_pubkey(pool.pubkey):
        return f"{field}.pubkey: expected a point, received {pool.pubkey.hex()}"
    if len(pool.pubnonces) != pool_size:
        return f"{field}: expected {pool_size} nonces, received {len(pool.pubnonces)}"
    if len(set(pool.pubnonces)) != len(pool.pubnonces):
        return f"{field}: the same nonce twice"
    for i, pubnonce in enumerate(pool.pubnonces):
        if not is_pubnonce(pubnonce):
            return f"{field}[{i}]: expected a public nonce, received {pubnonce.hex()}"
    return None


def _channel_refusal(field: str, offer: m.CandidateOffer, pool_size: int) -> str | None:
    if offer.pool.pubkey != offer.channel.funding_pubkey:
        return f"{field}.pool.pubkey: expected the channel's funding key"
    for name in (
        "revocation_basepoint",
        "payment_basepoint",
        "delayed_payment_basepoint",
        "htlc_basepoint",
        "first_per_commitment_point",
        "second_per_commitment_point",
    ):
        if not is_pubkey(getattr(offer.channel, name)):
            return f"{field}.channel.{name}: expected a point"
    return _pool_refusal(f"{field}.pool", offer.pool, pool_size)


def _is_key_taken(state: House, node_id: bytes, join: m.Join) -> bool:
    pubkey = join.factory_pool.pubkey
    return (
        any(
            member.join.factory_pool.pubkey == pubkey
            for member in state.members.values()
            if member.node_id != node_id
        )
        or pubkey in state.keys
    )


def is_move_proven(state: House, node_id: bytes, join: m.Join) -> bool:
    """Say whether a client proved with its old key that it moves from a dying factory of ours."""
    for move in join.moves:
        entry = state.entries.get(move.attempt_id)
        client = None if entry is None else entry.client_of(node_id)
        if entry is None or client is None or entry.status not in {FUNDED, DEAD}:
            continue
        is_dying = entry.is_dying(client, height=state.chain.height)
        if client in entry.moved_out or not is_dying:
            continue
        digest = move_digest(
            client_node_id=node_id,
            lsp_node_id=state.config.node_id,
            old_attempt_id=move.attempt_id,
        )
        old_key = xonly_of(entry.factory_pubkeys[client - 1])
        if schnorr.verify(move.signature, digest, old_key):
            return True
    return False


def plan_build(
    state: House,
    *,
    min_clients: int,
    max_clients: int,
    only: Sequence[bytes] | None = None,
    fees: OwnFees = ANY_FEES,
    feerates_sat_per_kw: Sequence[int] = (),
    needs_keys: bool = True,
) -> BuildPlan:
    """Return what a build with the present lobby would do.

    Args:
        state: What the LSP knows.
        min_clients: Fewer waiting clients make no factory.
        max_clients: At most this many are taken, the most reliable first.
        only: If given, take nobody else.
        fees: What our node says of feerates.
        feerates_sat_per_kw: Of a fee ladder's candidates, lowest first; empty: the policy's one.
        needs_keys: Whether everybody has to have joined with keys for all of them.

    Raises:
        Rejected: If it cannot be built, with the reason.
    """
    policy = state.config.policy
    if not 1 <= min_clients <= max_clients <= N_CLIENTS_MAX:
        raise Rejected(
            "invalid_clients",
            f"expected 1 <= min <= max <= {N_CLIENTS_MAX}, received {min_clients}, {max_clients}",
        )
    check_feerates(feerates_sat_per_kw)
    waiting = [
        member
        for member in state.members.values()
        if member.node_id in state.connected and (only is None or member.node_id in only)
    ]
    if len(waiting) < min_clients:
        raise Rejected(
            "too_few_clients",
            f"{told.counted(len(waiting), 'client waits', 'clients wait')} in the lobby, "
            f"{told.counted(min_clients, 'is', 'are')} needed",
            retryable=True,
        )
    plan = _reached(
        state,
        waiting,
        min_clients=min_clients,
        max_clients=max_clients,
        feerates_sat_per_kw=feerates_sat_per_kw,
        needs_keys=needs_keys,
    )
    check_funding_is_taken([rung.feerate_sat_per_kw for rung in plan.ladder.rungs], fees)
    try:
        check_fees(plan.terms, policy.burn_limit, fees)
        check_usual_client_signs(
            plan.terms, policy, state.config.network, slowest_kinds=plan.shape.slowest_kinds
        )
    except InvalidTerms as error:
        raise Rejected("invalid_terms", str(error)) from error
    except Refusal as refusal:
        raise Rejected("invalid_terms", f"a usual client refuses {refusal}") from refusal
    return plan


def _reached(
    state: House,
    waiting: Sequence[Member],
    *,
    min_clients: int,
    max_clients: int,
    feerates_sat_per_kw: Sequence[int],
    needs_keys: bool,
) -> BuildPlan:
    """Return the plan for those whom the coins reach for, besides the limits of capital.

    Whoever asks for more than there is must not keep the others from a factory.

    Raises:
        Rejected: If coins, or capital, do not reach for `min_clients`.
    """
    floor_sat = capacity_floor_sat(state.config.policy)
    room, failure = room_sat(state), None
    while True:
        try:
            members = chosen(
                state,
                waiting,
                min_clients=min_clients,
                max_clients=max_clients,
                floor_sat=floor_sat,
                room_sat=room,
            )
        except Rejected:
            if failure is None:
                raise
            raise Rejected("insufficient_coins", str(failure), retryable=True) from failure
        if needs_keys:
            check_keys(members, n_candidates=max(1, len(feerates_sat_per_kw)))
        try:
            return _placed(state, members, feerates_sat_per_kw)
        except InsufficientCoins as error:
            failure = failure or error
            all_sat = sum(least_sat(one, floor_sat) for one in members)
            room = min(all_sat - 1, all_sat * error.available_sat // error.needed_sat)


def _placed(
    state: House, members: Sequence[Member], feerates_sat_per_kw: Sequence[int]
) -> BuildPlan:
    """Return the plan for these clients.

    Raises:
        InsufficientCoins: If the coins do not reach for them.
        Rejected: If no factory can have such terms.
    """
    applicants = ranked([_applicant(state, member) for member in members])
    try:
        shape, inner = shape_by_policy(state.config.policy, len(applicants))
        placed = place(applicants, shape)
        return _affordable(state, placed, shape, inner, feerates_sat_per_kw)
    except InvalidTerms as error:
        raise Rejected("invalid_terms", str(error)) from error


def _applicant(state: House, member: Member) -> Applicant:
    return Applicant(
        node_id=member.node_id,
        is_moving=member.is_moving,
        uptime_blocks=state.uptime_blocks(member.node_id),
    )


def _affordable(
    state: House,
    placed: tuple[Placed, ...],
    shape: ShapeVertex,
    inner: InnerLevels,
    feerates_sat_per_kw: Sequence[int],
) -> BuildPlan:
    """Return the plan in which as many as the coins reach for get what they want.

    The others get the least that they would take.

    Raises:
        InsufficientCoins: If they do not reach for the least of everybody.
        InvalidTerms: If no factory can have such terms.
    """
    policy = state.config.policy
    wishes = Wishes(
        state,
        [state.members[seat.applicant.node_id] for seat in placed],
        floor_sat=capacity_floor_sat(policy),
    )

    def planned(n_met: int) -> BuildPlan:
        terms = terms_of(
            state,
            wishes.capacities_sat(n_met),
            shape,
            inner,
            attempt_id=NO_ATTEMPT_ID,
            candidates=max(1, len(feerates_sat_per_kw)),
        )
        check_buildable(terms, shape, pool_size=policy.pool_size)
        funding_amount_sat = plan_of(terms).input_sat
        return BuildPlan(
            placed=placed,
            shape=shape,
            terms=terms,
            ladder=select_ladder(state, funding_amount_sat, feerates_sat_per_kw),
            funding_amount_sat=funding_amount_sat,
        )

    n_over = wishes.n_within_room
    try:
        return planned(n_over)
    except InsufficientCoins:
        plan, n_met = planned(0), 0
    while n_over - n_met > 1:
        n_between = (n_met + n_over) // 2
        try:
            plan, n_met = planned(n_between), n_between
        except InsufficientCoins:
            n_over = n_between
    return plan


def check_buildable(terms: FactoryTerms, shape: ShapeVertex, *, pool_size: int) -> None:
    """Check what no ceremony could be held for, whoever joins.

    Args:
        terms: What is planned.
        shape: Of its tree.
        pool_size: How many nonces each client brings along for a key.

    Raises:
        InvalidTerms: With a channel too small for its fees, a proposal or a leaf's states too long
            for a message, or more sessions than nonces.
    """
    _check_capacities(terms)
    _check_proposal_fits(terms, shape)
    check_states_fit(terms, shape)
    _check_nonces(terms, pool_size)


def check_can_build(policy: LspPolicy, network: Network, *, n_clients: int) -> None:
    """Check that a factory of this many clients, with the least channels, could be built at all.

    Raises:
        InvalidTerms: If the policy's own limits contradict each other.
        Refusal: If usual clients would not sign it.
    """
    shape, inner = shape_by_policy(policy, n_clients)
    terms = terms_by_policy(
        policy,
        (capacity_floor_sat(policy),) * n_clients,
        shape,
        inner,
        attempt_id=NO_ATTEMPT_ID,
        network=network,
        build_height=0,
    )
    check_buildable(terms, shape, pool_size=policy.pool_size)
    check_usual_client_signs(terms, policy, network, slowest_kinds=shape.slowest_kinds)


def _check_capacities(terms: FactoryTerms) -> None:
    """Refuse a build with a channel that could not carry its commitments' fees.

    Raises:
        InvalidTerms: With the capacity, or the term that no channel can have.
    """
    try:
        least_sat = least_capacity_sat(channel_terms_of(terms))
    except InvalidChannelTerms as error:
        raise InvalidTerms(error.field, str(error.expected), error.received) from error
    if min(terms.capacity_sat) < least_sat:
        raise InvalidTerms("capacity_sat", f"at least {least_sat}", min(terms.capacity_sat))


def _check_proposal_fits(terms: FactoryTerms, shape: ShapeVertex) -> None:
    """Refuse a build whose largest proposal would not fit one message.

    Raises:
        InvalidTerms: With the size, estimated from above.
    """
    size = proposal_size(terms, shape)
    if size > m.MESSAGE_SIZE_MAX:
        raise InvalidTerms(
            "clients", f"a proposal of at most {m.MESSAGE_SIZE_MAX} bytes", f"{size} bytes"
        )


def proposal_size(terms: FactoryTerms, shape: ShapeVertex) -> int:
    """Return the bytes of the largest proposal, estimated from above: all of its candidates."""
    deepest = max(
        sum(
            P2TR_OUTPUT_VSIZE * (len(vertex.children) or vertex.n_clients + 1) + VERTEX_FRAME_SIZE
            for vertex in shape.path_to(leaf.first_client)
        )
        for leaf in shape.leaves()
    )
    each = deepest + FUNDING_INPUT_SIZE * N_INPUTS_MAX + PROPOSAL_FRAME_SIZE
    pubkeys_size = m.PUBKEY_SIZE * (terms.n_clients + 1)
    return len(terms.encode()) + pubkeys_size + terms.candidates * each


def _check_nonces(terms: FactoryTerms, pool_size: int) -> None:
    """Refuse a ladder with more sessions than a pool has nonces.

    Raises:
        InvalidTerms: With how many candidates there are too many.
    """
    plan = plan_of(terms)
    check_nonces_reach(
        n_candidates=terms.candidates,
        n_txs=plan.n_txs,
        n_branch_txs=plan.n_branch_txs,
        pool_size=pool_size,
    )


def terms_of(
    state: House,
    capacities_sat: tuple[int, ...],
    shape: ShapeVertex,
    inner: InnerLevels,
    *,
    attempt_id: bytes,
    candidates: int = 1,
) -> FactoryTerms:
    """Return the terms of a factory with these capacities, by the LSP's policy.

    Raises:
        InvalidTerms: If the policy gives terms that no factory can have.
    """
    return terms_by_policy(
        state.config.policy,
        capacities_sat,
        shape,
        inner,
        attempt_id=attempt_id,
        network=state.config.network,
        build_height=state.chain.height,
        candidates=candidates,
    )


def terms_by_policy(
    policy: LspPolicy,
    capacities_sat: tuple[int, ...],
    shape: ShapeVertex,
    inner: InnerLevels,
    *,
    attempt_id: bytes,
    network: Network,
    build_height: int,
    candidates: int = 1,
) -> FactoryTerms:
    """Return the terms of a factory with these capacities, by a policy.

    Raises:
        InvalidTerms: If the policy gives terms that no factory can have.
    """
    exit_blocks = exit_blocks_of(shape.slowest_kinds, delay_max_blocks=policy.delay_max_blocks)
    lstocks_sat = default_lstocks_sat(shape, capacities_sat)
    return FactoryTerms(
        attempt_id=attempt_id,
        network=network.genesis_hash,
        build_height=build_height,
        expiry_height=build_height
        + policy.active_blocks
        + policy.dying_blocks
        + exit_blocks
        + SAFETY_BLOCKS,
        active_blocks=policy.active_blocks,
        dying_blocks=policy.dying_blocks,
        ready_min_blocks=policy.ready_min_blocks,
        step_blocks=policy.step_blocks,
        states_per_layer=policy.states_per_layer,
        leaf_arity=policy.leaf_arity,
        inner_arities=inner.arities,
        inner_kinds=inner.said_kinds,
        max_exit_delay_blocks=policy.max_exit_delay_blocks,
        max_cltv_blocks=2 * exit_blocks + CLTV_MARGIN_BLOCKS,
        patience_blocks=policy.patience_blocks,
        fee_policy=policy.fee_policy,
        tree_feerate_sat_per_kw=policy.tree_feerate_sat_per_kw,
        lstock_csv_blocks=max(policy.lstock_csv_blocks, policy.step_blocks),
        min_depth=least_depth(policy.min_depth, capacities_sat, candidates=candidates),
        candidates=candidates,
        to_self_delay_lsp=max(policy.to_self_delay_lsp, policy.step_blocks),
        to_self_delay_client=max(policy.to_self_delay_client, policy.step_blocks),
        dust_limit_sat=SEGWIT_DUST_SAT,
        max_accepted_htlcs=_max_accepted_htlcs(policy),
        # A channel may grow by its leaf's L-stock, and is left in one payment then, too.
        max_in_flight_msat=MSAT_PER_SAT * (max(capacities_sat) + max(lstocks_sat)),
        capacity_sat=capacities_sat,
        lstock_sat=lstocks_sat,
    )
