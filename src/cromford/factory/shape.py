"""Which clients share which vertex, and what each vertex costs: pure arithmetic on the terms."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cromford.bitcoin.fees import P2TR_DUST_SAT, TRUC_VSIZE_MAX, keypath_tx_vsize
from cromford.bitcoin.tx import MAX_MONEY_SAT
from cromford.changed import changed
from cromford.factory.allocation import Allocation
from cromford.factory.kinds import (
    PICTURE_CLIENTS_MAX,
    InnerLevels,
    VertexKind,
    exit_delay_blocks_of,
)
from cromford.factory.terms import (
    N_INNER_LEVELS_MAX,
    FactoryTerms,
    GeneralTerms,
    InvalidTerms,
    check_levels,
)

LSP_INDEX = 0  # Participant 0 is the LSP; clients count from 1 in placement order.


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeVertex:
    """A vertex before it has amounts: its path, its kind, and how many clients are below it."""

    path: tuple[int, ...]
    kind: VertexKind
    first_client: int
    n_clients: int
    children: tuple["ShapeVertex", ...]

    @property
    def clients(self) -> range:
        """The participant indices of the clients below it."""
        return range(self.first_client, self.first_client + self.n_clients)

    @property
    def name(self) -> str:
        """Its path as it stands in transaction names: `root`, `0`, `0_1`."""
        return "_".join(map(str, self.path)) or "root"

    @property
    def n_layers(self) -> int:
        """How many layers of vertices there are from here down to the deepest leaf."""
        return len(self.slowest_kinds)

    @property
    def slowest_kinds(self) -> tuple[VertexKind, ...]:
        """The kinds of the vertices on the path to the deepest leaf, which takes longest."""
        # The first child is the largest: no other goes deeper.
        return (self.kind, *(self.children[0].slowest_kinds if self.children else ()))

    def leaves(self) -> Iterator["ShapeVertex"]:
        """Yield the leaves, left to right."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()

    def vertices(self) -> Iterator["ShapeVertex"]:
        """Yield this vertex and all below it, depth first."""
        yield self
        for child in self.children:
            yield from child.vertices()

    def path_to(self, client: int) -> tuple["ShapeVertex", ...]:
        """Return the vertices from here down to the client's leaf.

        Raises:
            ValueError: If the client is not below this vertex.
        """
        if client not in self.clients:
            raise ValueError(f"client {client} is not among {self.clients}")
        for child in self.children:
            if client in child.clients:
                return (self, *child.path_to(client))
        return (self,)

    def kinds_to(self, client: int) -> tuple[VertexKind, ...]:
        """Return the kinds of the vertices from here down to the client's leaf.

        Raises:
            ValueError: If the client is not below this vertex.
        """
        return tuple(vertex.kind for vertex in self.path_to(client))


# A shape is looked at by whoever plans it, and by whoever finds its own branch in it.
SHAPES_CACHED: Final = 4


@lru_cache(maxsize=SHAPES_CACHED)
def shape_of(n_clients: int, *, leaf_arity: int, inner: InnerLevels) -> ShapeVertex:
    """Return the tree of vertices for `n_clients`.

    At most `leaf_arity` clients make a leaf, which is always `dw`. More are split into
    min(inner.arities[level], ceil(n / leaf_arity)) contiguous parts whose sizes differ by at
    most one, larger first, each split again one level down.

    Raises:
        InvalidTerms: If the inner arities end before the clients fit their leaves, or a level has
            no kind.
    """
    check_levels(inner)

    def split(path: tuple[int, ...], first_client: int, n: int) -> ShapeVertex:
        if n <= leaf_arity:
            return ShapeVertex(
                path=path,
                kind=VertexKind.DW,
                first_client=first_client,
                n_clients=n,
                children=(),
            )
        if len(path) >= len(inner.arities):
            raise InvalidTerms(
                "inner_arities",
                f"levels enough for leaves of at most {leaf_arity} clients",
                f"{list(inner.arities)}, which leaves {n} clients at {path or 'the root'}",
            )
        n_parts = min(inner.arities[len(path)], -(-n // leaf_arity))
        quotient, remainder = divmod(n, n_parts)
        children: list[ShapeVertex] = []
        first = first_client
        for i in range(n_parts):
            size = quotient + (i < remainder)
            children.append(split((*path, i), first, size))
            first += size
        return ShapeVertex(
            path=path,
            kind=inner.kinds[len(path)],
            first_client=first_client,
            n_clients=n,
            children=tuple(children),
        )

    return split((), 1, n_clients)


def levels_of(shape: ShapeVertex, inner: InnerLevels) -> InnerLevels:
    """Return those of the levels that a tree has; there may be more of them, for more clients.

    Its terms say no others, so that one tree has one hash.
    """
    n_levels = shape.n_layers - 1
    return InnerLevels(arities=inner.arities[:n_levels], kinds=inner.kinds[:n_levels])


STATIC_LEVELS_MAX: Final = 6


def default_levels(
    n_clients: int,
    *,
    leaf_arity: int,
    kind: VertexKind | None,
    delay_max_blocks: int,
    max_exit_delay_blocks: int,
) -> InnerLevels:
    """Return the levels above the leaves for a number of clients.

    Args:
        n_clients: How many.
        leaf_arity: How many share a leaf.
        kind: Of every level; None: the construction's picture up to `PICTURE_CLIENTS_MAX` clients,
            and beyond what leaves quickly, for only leaves advance.
        delay_max_blocks: The delay of a state that was never replaced.
        max_exit_delay_blocks: The most that the delays of a path may sum up to.

    Raises:
        InvalidTerms: If `dw` levels take longer than allowed.
    """
    if n_clients <= leaf_arity:
        return InnerLevels()
    if kind is VertexKind.STATIC or (kind is None and n_clients > PICTURE_CLIENTS_MAX):
        arities = _static_arities(n_clients, leaf_arity=leaf_arity)
        return InnerLevels(arities=arities, kinds=(VertexKind.STATIC,) * len(arities))
    if kind is None:
        arities = _binary_arities(n_clients, leaf_arity=leaf_arity)
    else:
        arities = _dw_arities(
            n_clients,
            leaf_arity=leaf_arity,
            delay_max_blocks=delay_max_blocks,
            max_exit_delay_blocks=max_exit_delay_blocks,
        )
    return InnerLevels(arities=arities, kinds=(VertexKind.DW,) * len(arities))


def _static_arities(n_clients: int, *, leaf_arity: int) -> tuple[int, ...]:
    """Return equal widths: those with the least to publish on the way to a leaf."""

    def width(n_levels: int) -> int:
        least = 2
        while leaf_arity * least**n_levels < n_clients:
            least += 1
        return least

    def path_vsize(n_levels: int) -> int:
        return n_levels * keypath_tx_vsize(n_p2tr_outputs=width(n_levels), n_anchors=1)

    n_levels = min(range(1, STATIC_LEVELS_MAX + 1), key=path_vsize)  # The fewest, at a tie.
    return (width(n_levels),) * n_levels


def _binary_arities(n_clients: int, *, leaf_arity: int) -> tuple[int, ...]:
    n_levels = 0
    while leaf_arity << n_levels < n_clients:
        n_levels += 1
    return (2,) * n_levels


def _dw_arities(
    n_clients: int, *, leaf_arity: int, delay_max_blocks: int, max_exit_delay_blocks: int
) -> tuple[int, ...]:
    """Return binary widths while the exit is short enough, and beyond the smallest equal ones.

    Raises:
        InvalidTerms: If only one layer is allowed.
    """
    n_levels = min(
        len(_binary_arities(n_clients, leaf_arity=leaf_arity)),
        max_exit_delay_blocks // delay_max_blocks - 1,
        N_INNER_LEVELS_MAX,
    )
    if n_levels < 1:
        raise InvalidTerms(
            "max_exit_delay_blocks",
            f"at least {2 * delay_max_blocks} for {n_clients} clients in leaves of {leaf_arity} "
            "under levels of kind dw",
            max_exit_delay_blocks,
        )
    width = 2
    while leaf_arity * width**n_levels < n_clients:
        width += 1
    return (width,) * n_levels


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTx:
    """A transaction of a vertex: what it spends, and the fee it pays of that, in sat."""

    input_sat: int
    fee_sat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedVertex:
    """A vertex with its amounts in sat. Amounts flow upward: from capacities to the funding.

    `txs` are its transactions in the order in which they are published: a kickoff and a state, or
    the one of a static vertex.
    """

    shape: ShapeVertex
    children: tuple["PlannedVertex", ...]
    capacities_sat: tuple[int, ...]
    lstock_sat: int
    txs: tuple[PlannedTx, ...]

    @property
    def input_sat(self) -> int:
        """What its parent pays to it, or the funding output holds."""
        return self.txs[0].input_sat

    @property
    def layer(self) -> int:
        """Its distance from the root."""
        return len(self.shape.path)

    @property
    def last_label(self) -> str:
        """What its last transaction is called: the beginning of its name."""
        return "static" if self.shape.kind is VertexKind.STATIC else "state"

    @property
    def is_leaf(self) -> bool:
        """Whether channels hang from it."""
        return not self.children

    @property
    def n_txs(self) -> int:
        """How many transactions there are from here down."""
        return sum(len(vertex.txs) for vertex in self.vertices())

    @property
    def n_branch_txs(self) -> int:
        """How many transactions the longest way from here to a client has."""
        paths = (self.path_to(leaf.first_client) for leaf in self.shape.leaves())
        return max(sum(len(vertex.txs) for vertex in path) for path in paths)

    def vertices(self) -> Iterator["PlannedVertex"]:
        """Yield this vertex and all below it, depth first."""
        yield self
        for child in self.children:
            yield from child.vertices()

    def path_to(self, client: int) -> tuple["PlannedVertex", ...]:
        """Return the vertices from here down to the client's leaf.

        Raises:
            ValueError: If the client is not below this vertex.
        """
        if client not in self.shape.clients:
            raise ValueError(f"client {client} is not among {self.shape.clients}")
        for child in self.children:
            if client in child.shape.clients:
                return (self, *child.path_to(client))
        return (self,)


# Terms are planned for whoever is looking: to order, to check, to build, for each client in turn.
PLANS_CACHED: Final = 4


@lru_cache(maxsize=PLANS_CACHED)
def plan_of(terms: FactoryTerms) -> PlannedVertex:
    """Return the whole tree's vertices with their amounts.

    The root's `input_sat` is the funding amount: capacities, L-stocks, fees and anchors.

    Raises:
        InvalidTerms: If the shape does not fit the terms' own limits.
    """
    shape = shape_of(terms.n_clients, leaf_arity=terms.leaf_arity, inner=terms.inner_levels)
    n_leaves = sum(1 for _ in shape.leaves())
    if len(terms.lstock_sat) != n_leaves:
        raise InvalidTerms("lstock_sat", f"{n_leaves} leaves", len(terms.lstock_sat))
    check_times(shape, terms)
    lstocks = iter(terms.lstock_sat)

    def plan(vertex: ShapeVertex) -> PlannedVertex:
        children = tuple(plan(child) for child in vertex.children)
        if children:
            amounts = [child.input_sat for child in children]
            capacities: tuple[int, ...] = ()
            lstock_sat = 0
        else:
            capacities = terms.capacity_sat[vertex.clients.start - 1 : vertex.clients.stop - 1]
            lstock_sat = next(lstocks)
            amounts = [*capacities, lstock_sat] if lstock_sat else list(capacities)
        check_truc_size(vertex, n_p2tr_outputs=len(amounts))
        return PlannedVertex(
            shape=vertex,
            children=children,
            capacities_sat=capacities,
            lstock_sat=lstock_sat,
            txs=planned_txs(vertex.kind, amounts, terms),
        )

    root = plan(shape)
    if root.input_sat > MAX_MONEY_SAT:
        raise InvalidTerms("funding", f"at most {MAX_MONEY_SAT} sat", root.input_sat)
    return root


def replanned(
    planned: PlannedVertex, allocations: Mapping[tuple[int, ...], Allocation], terms: FactoryTerms
) -> PlannedVertex:
    """Return a vertex and all below it as they are when leaves have other allocations.

    Args:
        planned: The vertex.
        allocations: By a leaf's path, what its state pays now; those not named stay as they are.
        terms: The agreement.
    """
    if planned.is_leaf:
        allocation = allocations.get(planned.shape.path)
        if allocation is None:
            return planned
        capacities, lstock_sat = allocation.capacities_sat, allocation.lstock_sat
        amounts = [*capacities, lstock_sat] if lstock_sat else list(capacities)
        return changed(
            planned,
            capacities_sat=capacities,
            lstock_sat=lstock_sat,
            txs=planned_txs(planned.shape.kind, amounts, terms),
        )
    children = tuple(replanned(child, allocations, terms) for child in planned.children)
    amounts = [child.input_sat for child in children]
    txs = planned_txs(planned.shape.kind, amounts, terms)
    return changed(planned, children=children, txs=txs)


def planned_txs(
    kind: VertexKind, amounts_sat: Sequence[int], terms: GeneralTerms
) -> tuple[PlannedTx, ...]:
    """Return the transactions of a vertex that pays these amounts, in sat, its first one first."""

    def spending(amounts_sat: Sequence[int]) -> PlannedTx:
        fee_sat = terms.fee_sat(n_p2tr_outputs=len(amounts_sat))
        return PlannedTx(input_sat=sum(amounts_sat) + terms.anchor_sat + fee_sat, fee_sat=fee_sat)

    last = spending(amounts_sat)
    return (last,) if kind is VertexKind.STATIC else (spending([last.input_sat]), last)


def check_times(shape: ShapeVertex, terms: GeneralTerms) -> None:
    """Refuse a shape whose slowest path takes longer than the terms allow, or than there is time.

    Raises:
        InvalidTerms: Naming the term.
    """
    check_exit_delay(
        shape,
        delay_max_blocks=terms.odometer.delay_max_blocks,
        max_exit_delay_blocks=terms.max_exit_delay_blocks,
    )
    expiry_min = terms.expiry_height_min(shape.slowest_kinds)
    if terms.expiry_height < expiry_min:
        raise InvalidTerms("expiry_height", f"at least {expiry_min}", terms.expiry_height)


def check_exit_delay(
    shape: ShapeVertex, *, delay_max_blocks: int, max_exit_delay_blocks: int
) -> None:
    """Refuse a shape whose slowest path has longer delays than allowed.

    Args:
        shape: The whole tree's.
        delay_max_blocks: The delay of a state that was never replaced.
        max_exit_delay_blocks: The most that the delays of a path may sum up to.

    Raises:
        InvalidTerms: With what the path takes, and the kinds of its vertices.
    """
    kinds = shape.slowest_kinds
    exit_delay_blocks = exit_delay_blocks_of(kinds, delay_max_blocks=delay_max_blocks)
    if exit_delay_blocks > max_exit_delay_blocks:
        labels = ", ".join(kind.label for kind in kinds)
        raise InvalidTerms(
            "max_exit_delay_blocks",
            f"at least the slowest path's {exit_delay_blocks} ({labels})",
            max_exit_delay_blocks,
        )


def check_truc_size(vertex: ShapeVertex, *, n_p2tr_outputs: int) -> None:
    """Refuse a transaction beyond TRUC's limit (BIP 431): the widest of a vertex, its last.

    Raises:
        InvalidTerms: With the size it would have.
    """
    vsize = keypath_tx_vsize(n_p2tr_outputs=n_p2tr_outputs, n_anchors=1)
    if vsize > TRUC_VSIZE_MAX:
        label = "static" if vertex.kind is VertexKind.STATIC else "state"
        raise InvalidTerms(f"{label}_{vertex.name}", f"at most {TRUC_VSIZE_MAX} vB", f"{vsize} vB")


def default_lstocks_sat(shape: ShapeVertex, capacities_sat: Sequence[int]) -> tuple[int, ...]:
    """Return half of each leaf's capacities, rounded down.

    Raises:
        InvalidTerms: If that is below the dust limit.
    """
    lstocks: list[int] = []
    for leaf in shape.leaves():
        lstock_sat = sum(capacities_sat[leaf.clients.start - 1 : leaf.clients.stop - 1]) // 2
        if lstock_sat < P2TR_DUST_SAT:
            raise InvalidTerms("lstock_sat", f"at least {P2TR_DUST_SAT}", lstock_sat)
        lstocks.append(lstock_sat)
    return tuple(lstocks)
