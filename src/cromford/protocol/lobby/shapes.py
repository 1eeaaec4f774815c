"""Which shape a policy gives a number of clients, and what each choice would cost them."""

from dataclasses import dataclass, replace
from typing import Final

from cromford.bitcoin.fees import keypath_tx_vsize
from cromford.factory.kinds import InnerLevels, VertexKind, exit_blocks_of
from cromford.factory.shape import (
    ShapeVertex,
    check_exit_delay,
    check_truc_size,
    default_levels,
    levels_of,
    shape_of,
)
from cromford.factory.terms import InvalidTerms
from cromford.protocol.faults import Refusal
from cromford.protocol.htlc_blocks import payment_blocks
from cromford.protocol.policy import LspPolicy
from cromford.protocol.term_ranges import check_layers, usual_client

BY_NUMBER: Final = "default"
OWN: Final = "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeCost:
    """One choice of shape. Blocks and vB are those of the path that takes longest.

    Attributes:
        choice: `default`, `dw` or `static` as of `lsp.inner`; `own` as of the two lists.
        is_chosen: Whether the policy chooses it.
        inner: Its inner levels; None if it is not possible.
        exit_blocks: How long leaving may take, the commitment included.
        lock_blocks: How long a payment between two such channels may lock its payer's money.
        branch_vsize: What one client publishes to reach its channel.
        tree_vsize: All tree transactions together.
        refusal: Why it is not possible.
    """

    choice: str
    is_chosen: bool
    inner: InnerLevels | None = None
    exit_blocks: int | None = None
    lock_blocks: int | None = None
    branch_vsize: int | None = None
    tree_vsize: int | None = None
    refusal: str | None = None


def shape_by_policy(policy: LspPolicy, n_clients: int) -> tuple[ShapeVertex, InnerLevels]:
    """Return the tree's shape and its inner levels for a number of clients.

    Raises:
        InvalidTerms: If the policy's shape does not fit its own limits.
    """
    inner = policy.inner_levels
    if inner is None:
        inner = default_levels(
            n_clients,
            leaf_arity=policy.leaf_arity,
            kind=policy.inner_kind,
            delay_max_blocks=policy.delay_max_blocks,
            max_exit_delay_blocks=policy.max_exit_delay_blocks,
        )
    shape = shape_of(n_clients, leaf_arity=policy.leaf_arity, inner=inner)
    return shape, levels_of(shape, inner)


def shape_costs(policy: LspPolicy, n_clients: int) -> tuple[ShapeCost, ...]:
    """Return what the shapes cost that a policy could choose, the present one among them."""
    kinds: dict[str, VertexKind | None] = {
        BY_NUMBER: None,
        **{kind.label: kind for kind in VertexKind},
    }
    costs = [
        _cost_of(
            replace(policy, inner_levels=None, inner_kind=kind),
            n_clients,
            choice=choice,
            is_chosen=policy.inner_levels is None and policy.inner_kind is kind,
        )
        for choice, kind in kinds.items()
    ]
    if policy.inner_levels is not None:
        costs.append(_cost_of(policy, n_clients, choice=OWN, is_chosen=True))
    return tuple(costs)


def _cost_of(policy: LspPolicy, n_clients: int, *, choice: str, is_chosen: bool) -> ShapeCost:
    try:
        shape, inner = shape_by_policy(policy, n_clients)
        check_exit_delay(
            shape,
            delay_max_blocks=policy.delay_max_blocks,
            max_exit_delay_blocks=policy.max_exit_delay_blocks,
        )
        check_layers(usual_client(policy), shape.slowest_kinds)
        vsize = {vertex.path: _vertex_vsize(vertex) for vertex in shape.vertices()}
    except (InvalidTerms, Refusal) as error:
        return ShapeCost(choice=choice, is_chosen=is_chosen, refusal=str(error))
    exit_blocks = exit_blocks_of(shape.slowest_kinds, delay_max_blocks=policy.delay_max_blocks)
    slowest = max(shape.leaves(), key=lambda leaf: len(leaf.path))
    return ShapeCost(
        choice=choice,
        is_chosen=is_chosen,
        inner=inner,
        exit_blocks=exit_blocks,
        lock_blocks=payment_blocks(payer_exit_blocks=exit_blocks, payee_exit_blocks=exit_blocks),
        branch_vsize=sum(vsize[vertex.path] for vertex in shape.path_to(slowest.first_client)),
        tree_vsize=sum(vsize.values()),
    )


def _vertex_vsize(vertex: ShapeVertex) -> int:
    """Return the size of a vertex's transactions, an L-stock at each leaf.

    Raises:
        InvalidTerms: If one is beyond BIP 431's limit.
    """
    n_outputs = len(vertex.children) or vertex.n_clients + 1
    check_truc_size(vertex, n_p2tr_outputs=n_outputs)
    last = keypath_tx_vsize(n_p2tr_outputs=n_outputs, n_anchors=1)
    if vertex.kind is VertexKind.STATIC:
        return last
    return keypath_tx_vsize(n_p2tr_outputs=1, n_anchors=1) + last
