"""Which terms lie within a client's policy: asked by the client, and by an LSP before it proposes.

An LSP that plans what no usual client signs would find out from refusals, one ceremony after
another; so it asks the usual client's policy first.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cromford.bitcoin.network import REGTEST, Network
from cromford.factory.kinds import VertexKind
from cromford.factory.terms import FactoryTerms, GeneralTerms
from cromford.protocol.faults import Refusal
from cromford.protocol.policy import ClientPolicy, LspPolicy, least_depth
from cromford.protocol.refusing import check_range

RANGES: Final = (
    "step_blocks",
    "states_per_layer",
    "active_blocks",
    "dying_blocks",
    "ready_min_blocks",
    "patience_blocks",
    "lstock_csv_blocks",
    "max_accepted_htlcs",
    "max_cltv_blocks",
    "max_in_flight_msat",
    "dust_limit_sat",
)


def check_term_ranges(
    terms: GeneralTerms,
    policy: ClientPolicy,
    *,
    tip_height: int,
    capacities_sat: Sequence[int],
) -> None:
    """Check each term against a client's policy.

    Args:
        terms: What is proposed.
        policy: The client's.
        tip_height: Of its chain.
        capacities_sat: Of the channels, as far as they are known.

    Raises:
        Refusal: Naming the term.
    """
    slack = policy.build_height_slack_blocks
    check_range("build_height", (tip_height - slack, tip_height + slack), terms.build_height)
    if terms.fee_policy not in policy.fee_policies:
        allowed = [allowed.label for allowed in policy.fee_policies]
        raise Refusal("fee_policy", expected=allowed, received=terms.fee_policy.label)
    if terms.tree_feerate_sat_per_kw:
        check_range(
            "tree_feerate_sat_per_kw", policy.tree_feerate_sat_per_kw, terms.tree_feerate_sat_per_kw
        )
    for name in RANGES:
        check_range(name, getattr(policy, name), getattr(terms, name))
    for name in ("to_self_delay_lsp", "to_self_delay_client"):
        check_range(name, policy.to_self_delay_blocks, getattr(terms, name))
    least, most = policy.min_depth
    least = least_depth(least, capacities_sat, candidates=terms.candidates)
    check_range("min_depth", (least, most), terms.min_depth)
    check_range(
        "max_exit_delay_blocks", (0, policy.exit_delay_blocks_max), terms.max_exit_delay_blocks
    )
    check_range(
        "expiry_height", (tip_height, tip_height + policy.expiry_blocks_max), terms.expiry_height
    )


def check_layers(policy: ClientPolicy, kinds: Sequence[VertexKind]) -> None:
    """Check how many layers of vertices lie between the funding and a client's channel.

    Raises:
        Refusal: With their number.
    """
    check_range("layers", (1, policy.layers_max), len(kinds))


def max_cltv_blocks_for(exit_delay_blocks_max: int) -> int:
    """Return how long payments may be in flight for a client whose way out may take so long.

    A payment outlasts an exit at its beginning and one at its end, so whoever accepts a longer way
    out accepts this too.
    """
    usual = ClientPolicy()
    longer = max(0, exit_delay_blocks_max - usual.exit_delay_blocks_max)
    return usual.max_cltv_blocks[1] + 2 * longer


def usual_client(policy: LspPolicy) -> ClientPolicy:
    """Return the policy of the clients that an LSP builds for: the default one.

    But for the longest way out, which operators of both sides raise by one name: whoever raised it
    here has clients that did the same.
    """
    usual = ClientPolicy()
    delay_max = max(usual.exit_delay_blocks_max, policy.max_exit_delay_blocks)
    return replace(
        usual,
        exit_delay_blocks_max=delay_max,
        max_cltv_blocks=(usual.max_cltv_blocks[0], max_cltv_blocks_for(delay_max)),
    )


def check_usual_client_signs(
    terms: FactoryTerms, policy: LspPolicy, network: Network, *, slowest_kinds: Sequence[VertexKind]
) -> None:
    """Check that the clients that an LSP builds for would not refuse its terms.

    On regtest, where worlds are quick, only what follows from the shape is checked: how many
    layers there are, and how long a payment may take through them.

    Args:
        terms: What is planned, at the height of the tip.
        policy: The LSP's.
        network: The LSP's.
        slowest_kinds: Of the vertices on the longest way out.

    Raises:
        Refusal: As the client would say it.
    """
    client = usual_client(policy)
    check_range("candidates", (1, client.candidates_max), terms.candidates)
    check_layers(client, slowest_kinds)
    check_range("max_cltv_blocks", client.max_cltv_blocks, terms.max_cltv_blocks)
    if network != REGTEST:
        check_term_ranges(
            terms, client, tip_height=terms.build_height, capacities_sat=terms.capacity_sat
        )
