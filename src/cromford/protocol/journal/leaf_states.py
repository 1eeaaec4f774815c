"""What of a leaf's states is signed beyond the opening one, and the poisons of those they replaced.

Only what was agreed and signed is kept; transactions follow from it, and from the opening vertex.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from immutables import Map

from cromford.factory.allocation import Allocation
from cromford.factory.leaf import Leaf, advance_id_of, opening_leaf
from cromford.factory.poison import Pubkeys
from cromford.factory.terms import GeneralTerms
from cromford.factory.vertices import Vertex
from cromford.protocol.journal.known_chain import KnownChain
from cromford.wire.seldom import LeafState, LeafStates


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPoisons:
    """The finished signatures of a superseded state's poisons, 64 bytes each.

    Attributes:
        stock: Of its L-stock's.
        channels: Of channels', by client; a client has its own alone.
    """

    stock: bytes
    channels: Mapping[int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreedState:
    """A state that replaced the one before it.

    Attributes:
        advance_id: The advance that made it.
        allocation: What it pays.
        signature: Everybody's, 64 bytes.
        poisons: Of the state before; None where they were never signed.
    """

    advance_id: bytes
    allocation: Allocation
    signature: bytes
    poisons: SignedPoisons | None = None


# Of one leaf, state index 1 first: that of the opening has its signature with the tree's.
AgreedStates = tuple[AgreedState, ...]
NOTHING_AGREED: AgreedStates = ()


def leaf_with(
    states: AgreedStates, vertex: Vertex, *, terms: GeneralTerms, factory_pubkeys: Pubkeys
) -> Leaf:
    """Return a leaf with all the states that were agreed for it.

    Args:
        states: Beyond the opening one.
        vertex: The leaf, as it was opened.
        terms: The factory's.
        factory_pubkeys: By participant index, those of the LSP and of its clients.
    """
    leaf = opening_leaf(vertex, terms=terms, factory_pubkeys=factory_pubkeys)
    for state in states:
        leaf = leaf.advanced(state.allocation)
    return leaf


def index_on_chain(leaf: Leaf, chain: KnownChain) -> int:
    """Return the index of the state that counts: the one in a block, else the newest.

    Args:
        leaf: With every state that was signed.
        chain: What is in blocks.
    """
    newest = len(leaf.states) - 1
    spender = chain.spends.get(leaf.state.tx.inputs[0].outpoint)
    if spender is None or not newest:
        return newest
    landed = (n for n, state in enumerate(leaf.states) if state.tx.txid == spender.txid)
    return next(landed, newest)


def vertex_at(leaf: Leaf, state_index: int) -> Vertex:
    """Return a leaf's vertex with one of its states."""
    return Vertex(first=leaf.kickoff, last=leaf.states[state_index])


def poisons_of(states: AgreedStates, state_index: int) -> SignedPoisons | None:
    """Return the poisons of a state, if it was replaced, and they were signed.

    An LSP has them from the moment on at which a client may have them.
    """
    return states[state_index].poisons if state_index < len(states) else None


def with_poisons(states: AgreedStates, advance_id: bytes, poisons: SignedPoisons) -> AgreedStates:
    """Return the states, the one of an advance with the poisons of the state before it.

    Raises:
        AssertionError: If there is none of that advance.
    """
    if all(state.advance_id != advance_id for state in states):
        raise AssertionError(f"no state of advance {advance_id.hex()} was signed")
    return tuple(
        replace(state, poisons=poisons) if state.advance_id == advance_id else state
        for state in states
    )


def allocation_told(told: LeafState) -> Allocation:
    """Return what a state pays that somebody tells of."""
    return Allocation(
        capacities_sat=tuple(one.capacity_sat for one in told.channels), lstock_sat=told.lstock_sat
    )


def states_after(
    known: AgreedStates, message: LeafStates, *, client: int, leaf: Leaf
) -> AgreedStates:
    """Return the states of a leaf that a client knows once its LSP told of all; nothing is checked.

    What it knows of them stays: a poison that it lacks is added.

    Args:
        known: What its store has.
        message: What the LSP tells.
        client: Its participant index.
        leaf: Its leaf.
    """
    states = [*known]
    for place, told in enumerate(message.states):
        if place == len(states):
            states.append(_agreed(told, message.attempt_id, leaf, state_index=place + 1))
        if states[place].poisons is None and told.stock_poison:
            channels = Map({client: told.channel_poison})
            poisons = SignedPoisons(stock=told.stock_poison, channels=channels)
            states[place] = replace(states[place], poisons=poisons)
    return tuple(states)


def _agreed(told: LeafState, attempt_id: bytes, leaf: Leaf, *, state_index: int) -> AgreedState:
    allocation = allocation_told(told)
    return AgreedState(
        advance_id=advance_id_of(
            leaf, attempt_id=attempt_id, state_index=state_index, allocation=allocation
        ),
        allocation=allocation,
        signature=told.signature,
    )


# By the name of each leaf's vertex that was ever advanced.
Leaves = Map[str, AgreedStates]


def with_state(leaves: Leaves, name: str, state: AgreedState) -> Leaves:
    """Return the leaves after one of them got a newer state."""
    return leaves.set(name, (*leaves.get(name, NOTHING_AGREED), state))
