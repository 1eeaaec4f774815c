"""Which clients share which vertex, and what each vertex costs: pure arithmetic on the terms."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cromford.bitcoin.fees import P2TR_DUST_SAT, TRUC_VSIZE_MAX, keypath_tx_vsize
from cromford.bitcoin.tx import MAX_MONEY_SAT
from cromford.factory.terms import N_INNER_LEVELS_MAX, FactoryTerms, InvalidTerms

LSP_INDEX = 0  # Participant 0 is the LSP; clients count from 1 in placement order.


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeVertex:
    """A vertex before it has amounts: its path, and how many clients are below it."""

    path: tuple[int, ...]
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
        """How many layers of states there are from here down to the deepest leaf."""
        return 1 + max((child.n_layers for child in self.children), default=0)

    def leaves(self) -> Iterator["ShapeVertex"]:
        """Yield the leaves, left to right."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()

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


def shape_of(n_clients: int, *, leaf_arity: int, inner_arities: Sequence[int]) -> ShapeVertex:
    """Return the tree of vertices for `n_clients`.

    At most `leaf_arity` clients make a leaf. More are split into
    min(inner_arities[level], ceil(n / leaf_arity)) contiguous parts whose sizes differ by at
    most one, larger first, each split again one level down.

    Raises:
        InvalidTerms: If the inner arities end before the clients fit their leaves.
    """

    def split(path: tuple[int, ...], first_client: int, n: int) -> ShapeVertex:
        if n <= leaf_arity:
            return ShapeVertex(path=path, first_client=first_client, n_clients=n, children=())
        if len(path) >= len(inner_arities):
            raise InvalidTerms(
                "inner_arities",
                f"levels enough for leaves of at most {leaf_arity} clients",
                f"{list(inner_arities)}, which leaves {n} clients at {path or 'the root'}",
            )
        n_parts = min(inner_arities[len(path)], -(-n // leaf_arity))
        quotient, remainder = divmod(n, n_parts)
        children: list[ShapeVertex] = []
        first = first_client
        for i in range(n_parts):
            size = quotient + (i < remainder)
            children.append(split((*path, i), first, size))
            first += size
        return ShapeVertex(
            path=path, first_client=first_client, n_clients=n, children=tuple(children)
        )

    return split((), 1, n_clients)


def default_inner_arities(
    n_clients: int, *, leaf_arity: int, delay_max_blocks: int, max_exit_delay_blocks: int
) -> tuple[int, ...]:
    """Return the inner arities for a number of clients: binary while the exit is short enough.

    Beyond that, every inner level gets the smallest width w with
    leaf_arity x w^levels >= n_clients.

    Raises:
        InvalidTerms: If even one layer takes longer than allowed, or a single layer is
            allowed and the clients do not fit one leaf.
    """
    n_layers_max = max_exit_delay_blocks // delay_max_blocks
    if n_layers_max < 1:
        raise InvalidTerms(
            "max_exit_delay_blocks",
            f"at least one layer's {delay_max_blocks}",
            max_exit_delay_blocks,
        )
    n_levels = 0
    while leaf_arity << n_levels < n_clients:
        n_levels += 1
    if n_levels + 1 <= n_layers_max:
        return (2,) * n_levels
    n_levels = min(n_layers_max - 1, N_INNER_LEVELS_MAX)
    if n_levels == 0:
        raise InvalidTerms(
            "max_exit_delay_blocks",
            f"at least {2 * delay_max_blocks} for {n_clients} clients in leaves of {leaf_arity}",
            max_exit_delay_blocks,
        )
    width = 2
    while leaf_arity * width**n_levels < n_clients:
        width += 1
    return (width,) * n_levels


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedVertex:
    """A vertex with its amounts in sat. Amounts flow upward: from capacities to the funding."""

    shape: ShapeVertex
    children: tuple["PlannedVertex", ...]
    capacities_sat: tuple[int, ...]
    lstock_sat: int
    kickoff_fee_sat: int
    state_fee_sat: int
    state_input_sat: int
    kickoff_input_sat: int

    @property
    def layer(self) -> int:
        """Its distance from the root."""
        return len(self.shape.path)

    @property
    def is_leaf(self) -> bool:
        """Whether channels hang from it."""
        return not self.children

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


def plan_of(terms: FactoryTerms) -> PlannedVertex:
    """Return the whole tree's vertices with their amounts.

    The root's `kickoff_input_sat` is the funding amount: capacities, L-stocks, fees and anchors.

    Raises:
        InvalidTerms: If the shape does not fit the terms' own limits.
    """
    shape = shape_of(
        terms.n_clients, leaf_arity=terms.leaf_arity, inner_arities=terms.inner_arities
    )
    n_leaves = sum(1 for _ in shape.leaves())
    if len(terms.lstock_sat) != n_leaves:
        raise InvalidTerms("lstock_sat", f"{n_leaves} leaves", len(terms.lstock_sat))
    exit_delay = terms.exit_delay_blocks(shape.n_layers)
    if exit_delay > terms.max_exit_delay_blocks:
        raise InvalidTerms(
            "max_exit_delay_blocks",
            f"at least the deepest path's {exit_delay} ({shape.n_layers} layers)",
            terms.max_exit_delay_blocks,
        )
    expiry_min = terms.expiry_height_min(shape.n_layers)
    if terms.expiry_height < expiry_min:
        raise InvalidTerms("expiry_height", f"at least {expiry_min}", terms.expiry_height)
    lstocks = iter(terms.lstock_sat)

    def plan(vertex: ShapeVertex) -> PlannedVertex:
        children = tuple(plan(child) for child in vertex.children)
        if children:
            amounts = [child.kickoff_input_sat for child in children]
            capacities: tuple[int, ...] = ()
            lstock_sat = 0
        else:
            capacities = terms.capacity_sat[vertex.clients.start - 1 : vertex.clients.stop - 1]
            lstock_sat = next(lstocks)
            amounts = [*capacities, lstock_sat] if lstock_sat else list(capacities)
        check_truc_size(vertex.name, n_p2tr_outputs=len(amounts))
        kickoff_fee_sat = terms.fee_sat(n_p2tr_outputs=1)
        state_fee_sat = terms.fee_sat(n_p2tr_outputs=len(amounts))
        state_input_sat = sum(amounts) + terms.anchor_sat + state_fee_sat
        return PlannedVertex(
            shape=vertex,
            children=children,
            capacities_sat=capacities,
            lstock_sat=lstock_sat,
            kickoff_fee_sat=kickoff_fee_sat,
            state_fee_sat=state_fee_sat,
            state_input_sat=state_input_sat,
            kickoff_input_sat=state_input_sat + terms.anchor_sat + kickoff_fee_sat,
        )

    root = plan(shape)
    if root.kickoff_input_sat > MAX_MONEY_SAT:
        raise InvalidTerms("funding", f"at most {MAX_MONEY_SAT} sat", root.kickoff_input_sat)
    return root


def check_truc_size(vertex_name: str, *, n_p2tr_outputs: int) -> None:
    """Refuse a state transaction beyond TRUC's limit (BIP 431).

    Raises:
        InvalidTerms: With the size it would have.
    """
    vsize = keypath_tx_vsize(n_p2tr_outputs=n_p2tr_outputs, n_anchors=1)
    if vsize > TRUC_VSIZE_MAX:
        raise InvalidTerms(f"state_{vertex_name}", f"at most {TRUC_VSIZE_MAX} vB", f"{vsize} vB")


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
