"""What an LSP's operator asks to close: which output, who signs, what it pays.

Everything is refused by name, before anybody is asked.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cromford import told
from cromford.bitcoin.tx import OutPoint
from cromford.crypto.keys import TaggedHash
from cromford.factory.close import (
    CannotClose,
    CloseScope,
    CloseTx,
    Payout,
    build_close,
    scope_of,
)
from cromford.factory.vertices import Vertex
from cromford.protocol import events as ev
from cromford.protocol.channels.seats import is_own_seat
from cromford.protocol.closing.restored import can_close_though_ended, most_due_msat
from cromford.protocol.closing.rules import (
    NEVER_LATE,
    least_feerate_sat_per_kw,
    problem_on_chain,
    problem_with_channel,
    problem_with_feerates,
)
from cromford.protocol.facts import Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.close_scopes import channel_scope
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.watch.feerates import BELIEVED_SAT_PER_KW, OwnFees

FEERATES: Final = "feerates_sat_per_vb"  # As whoever asks names them.
USUAL_BLOCKS: Final = 36  # A close that nobody waits for: a quarter of a day.
DEARER_FACTOR: Final = 3  # The option for a day when the first does not confirm.

_hash_close: Final = TaggedHash("cromford/close")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosePlan:
    """What would be signed: the scope, and one transaction for each feerate, the lowest first."""

    scope: CloseScope
    feerates_sat_per_kw: tuple[int, ...]
    options: tuple[CloseTx, ...]


def plan_close(state: Factory, facts: Facts, asked: ev.CloseRequested) -> ClosePlan:
    """Return what a request would close, by the balances of now, whoever is here.

    Raises:
        Rejected: If it cannot be closed now; names what is in the way, and whose it is.
    """
    attempt = state.attempt
    if attempt.funded is None:
        raise Rejected("factory_not_found", f"no funded factory {attempt.attempt_id.hex()}")
    if state.closing is not None:
        raise Rejected("close_under_way", f"close {state.closing.close_id.hex()} is under way")
    scope = _scope_of(state, asked)
    given = asked.feerates_sat_per_kw
    feerates = given or usual_feerates(state, facts.fees)
    _check_feerates(state, facts.fees, feerates)
    due = {link.client: most_due_msat(link) for link in _check_clients(state, facts, scope)}
    options: list[CloseTx] = []
    for feerate in feerates:
        try:
            options.append(built_close(state, scope, due, feerate))
        except CannotClose as error:
            # A dearer one that nobody asked for may be more than our part carries.
            if given or not options:
                raise Rejected("cannot_close", str(error)) from error
    return ClosePlan(
        scope=scope,
        feerates_sat_per_kw=feerates[: len(options)],
        options=tuple(options),
    )


def close_name(state: Factory, outpoint: OutPoint, *, height: int) -> bytes:
    """Return the name of a factory's next close: of an output, how many there were, and when.

    With its height: a restored store would give a name again that its clients know.

    Args:
        state: The factory.
        outpoint: What it spends.
        height: Of the chain's tip.
    """
    number = state.n_closes.to_bytes(8, "big") + height.to_bytes(4, "big")
    return _hash_close(state.attempt.attempt_id + outpoint.serialize() + number)


def usual_feerates(state: Factory, fees: OwnFees) -> tuple[int, ...]:
    """Return the feerates at which a close is signed unless its operator names others.

    The larger of what every client asks for and our node's estimate for 36 blocks, and three times
    that.

    Raises:
        Rejected: If the estimate is more than anybody should believe: our part pays all of it, and
            nothing hurries. Whoever knows better names a feerate.
    """
    least, estimate = _least(state, fees), fees.within(USUAL_BLOCKS)
    if estimate > BELIEVED_SAT_PER_KW:
        most = f"at most {told.feerate(BELIEVED_SAT_PER_KW)} for {USUAL_BLOCKS} blocks"
        reason = f"{FEERATES}: expected an estimate of {most}, or one by name, received "
        reason += told.feerate(estimate)
        raise Rejected("bad_feerate", reason, retryable=True)
    first = max(least, estimate)
    return first, DEARER_FACTOR * first


def built_close(
    state: Factory, scope: CloseScope, due: dict[int, int], feerate_sat_per_kw: int
) -> CloseTx:
    """Return the close that pays each client what it is due, in msat.

    Raises:
        CannotClose: If the LSP's part does not carry the fee.
    """
    seats = state.attempt.seats
    return build_close(
        scope,
        [
            Payout(script_pubkey=seats[client - 1].payout_script, due_msat=due[client])
            for client in scope.clients
        ],
        lsp_script=state.attempt.payout_script,
        feerate_sat_per_kw=feerate_sat_per_kw,
    )


def _least(state: Factory, fees: OwnFees) -> int:
    tree = state.attempt.terms.tree_feerate_sat_per_kw
    return least_feerate_sat_per_kw(tree_feerate_sat_per_kw=tree, fees=fees)


def _check_feerates(state: Factory, fees: OwnFees, feerates: tuple[int, ...]) -> None:
    problem = problem_with_feerates(feerates, least_sat_per_kw=_least(state, fees))
    if problem is not None:
        field, expected, received = problem
        told_received = told.shown(field, received)
        raise Rejected("bad_feerate", f"{FEERATES}: expected {expected}, received {told_received}")


def _scope_of(state: Factory, asked: ev.CloseRequested) -> CloseScope:
    attempt = state.attempt
    if asked.client is not None and asked.vertex is not None:
        raise Rejected("bad_scope", "expected a vertex or a client, received both")
    if asked.client is None:
        scope = _vertex_scope(state, asked.vertex)
    elif 1 <= asked.client <= len(attempt.seats):
        scope = channel_scope(state.funding_on_chain(asked.client), asked.client)
    else:
        n_clients = len(attempt.seats)
        reason = f"client: expected 1..{n_clients}, received {asked.client}"
        raise Rejected("client_not_found", reason)
    funded = attempt.funded
    is_confirmed = state.chain.depth(attempt.funding_tx.txid) > 0
    if not is_confirmed or funded is None or not funded.ready_sent:
        reason = "the funding is not as deep as it has to be"
        raise Rejected("factory_not_ready", reason, retryable=True)
    problem = problem_on_chain(scope, state.chain)
    if problem is not None:
        raise Rejected("output_not_there", problem)
    return scope


def _vertex_scope(state: Factory, name: str | None) -> CloseScope:
    """Return the scope of a vertex, or of one of its transactions: the root's without a name.

    Its output is what its first transaction spends; once a kickoff is in a block, what that pays to
    its state.
    """
    vertices = state.attempt.tree.vertices
    vertex = vertices[0] if name is None else _vertex_named(vertices, name)
    if vertex is None:
        known = ", ".join(one.first.shape.name for one in vertices)
        raise Rejected("vertex_not_found", f"vertex: expected one of {known}, received {name}")
    is_kicked_off = not vertex.is_static and vertex.first.tx.txid in state.chain.confirmed
    return scope_of(vertex.last if is_kicked_off else vertex.first)


def _vertex_named(vertices: tuple[Vertex, ...], name: str) -> Vertex | None:
    for vertex in vertices:
        if name in {vertex.first.shape.name, *(node.name for node in vertex.nodes)}:
            return vertex
    return None


def _check_clients(state: Factory, facts: Facts, scope: CloseScope) -> tuple[Link, ...]:
    """Return the channels of a scope, in its order, if everybody can agree now."""
    attempt = state.attempt
    leaving = [client for client in scope.clients if client in state.exits]
    if leaving:
        raise Rejected("exit_under_way", f"being left: the channel of {named_clients(leaving)}")
    seats = {client: attempt.seats[client - 1].node_id for client in scope.clients}
    ready = frozenset() if attempt.funded is None else attempt.funded.ready_received
    waited_for = [client for client, node_id in seats.items() if node_id not in ready]
    if waited_for:
        reason = f"did not find the funding ready yet: {named_clients(waited_for)}"
        raise Rejected("factory_not_ready", reason, retryable=True)
    busy = clients_advancing(state, scope.clients)
    if busy:
        reason = f"an advance of the leaf is under way: {named_clients(busy)}"
        raise Rejected("advance_under_way", reason, retryable=True)
    links = tuple(link_of(state, client) for client in scope.clients)
    for link in links:
        is_ours = is_own_seat(state, link.client)
        height = NEVER_LATE if is_ours else _height(state, facts)
        problem = problem_with_channel(link, state.chain, height=height)
        if problem is not None:
            reason = f"client {link.client}: {problem}"
            raise Rejected("channel_not_ready", reason, retryable=True)
    return links


def clients_advancing(state: Factory, clients: Iterable[int]) -> list[int]:
    """Return those of some clients whose leaf has an advance under way that keeps it from closes.

    One keeps it while everybody is asked, and for good once channels may move: once the poisons are
    signed, or one of the two states is in a block. Also where their own channels are through with
    it, while a neighbour's is not; where no update of that one can follow, it never will be.
    """
    return [client for client in clients if _is_advancing(state, client)]


def _is_advancing(state: Factory, client: int) -> bool:
    advance = state.advances.get(state.attempt.leaf_name(client))
    if advance is None:
        return False
    links = [link_of(state, neighbour) for neighbour in advance.clients]
    is_asked = advance.session is not None or advance.is_asking
    may_move = advance.has_poisons or any(link.landed(state.chain) is not None for link in links)
    if not is_asked and not may_move:
        return False
    return any(link.takes_updates and len(link.superseded) < advance.state_index for link in links)


def check_all_are_here(state: Factory, facts: Facts, scope: CloseScope) -> None:
    """Check that every client of a scope is connected, and its channel taken up.

    Those who moved out and gave us their keys need not be. A channel whose store was restored, here
    or there, is taken up by nobody.

    Raises:
        Rejected: If not; says who is away.
    """
    away = clients_away(state, facts, scope.clients)
    if away:
        raise Rejected("clients_away", f"not connected: {named_clients(away)}", retryable=True)


def clients_away(state: Factory, facts: Facts, clients: Iterable[int]) -> list[int]:
    """Return those of some clients for whom a close has to wait: they are needed, and not here."""
    seats = state.attempt.seats
    return [
        client
        for client in clients
        if not is_own_seat(state, client)
        and not (
            facts.directory.is_connected(seats[client - 1].node_id)
            and _is_taken_up(link_of(state, client))
        )
    ]


def named_clients(clients: Iterable[int]) -> str:
    """Return clients by their numbers, as an operator is told of them."""
    return ", ".join(f"client {client}" for client in clients)


def _is_taken_up(link: Link) -> bool:
    return link.state.is_connected or can_close_though_ended(link)


def link_of(state: Factory, client: int) -> Link:
    """Return the channel with a client of a factory that is ready."""
    return state.book.links[state.attempt.setting(client).channel_id]


def _height(state: Factory, facts: Facts) -> int:
    return max(state.chain.height, facts.header_height)
