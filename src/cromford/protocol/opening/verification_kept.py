"""What can be checked again of a factory, long after it was accepted: what a client kept of it.

Who signs above its leaf, and what others have, a client checked before it signed, and forgot. What
it kept has to be possible, within its policy, its own, and paid by the funding.
"""

from collections.abc import Mapping, Sequence

from cromford.bitcoin.block import Coin
from cromford.bitcoin.tx import OutPoint
from cromford.factory.branch import Branch
from cromford.factory.leaf import allocation_of
from cromford.factory.shape import check_times, shape_of
from cromford.factory.terms import InvalidTerms
from cromford.protocol.faults import Refusal
from cromford.protocol.journal.client_candidate import ClientCandidate
from cromford.protocol.opening.verification import (
    ClientFacts,
    check_funding_output,
    check_funding_tx,
)
from cromford.protocol.opening.verification_channel import (
    check_burns,
    check_capacity,
    check_channel_offer,
    check_first_commitments,
    check_max_cltv,
)
from cromford.protocol.opening.verification_ladder import check_keys_of_ladder, check_rising
from cromford.protocol.refusing import check_equal, check_range
from cromford.protocol.term_ranges import check_layers, check_term_ranges


def check_kept(
    candidates: Sequence[ClientCandidate],
    facts: ClientFacts,
    coins: Mapping[OutPoint, Coin | None],
) -> tuple[Branch, ...]:
    """Return the client's branch under each candidate, if it could have accepted what it kept.

    Args:
        candidates: What was kept, lowest feerate first.
        facts: What the client knows itself; of its chain the height counts that the terms name.
        coins: What each funding spends, as it was remembered.

    Raises:
        Refusal: At the first difference, by name, with the expected and the received value.
        ValueError: If what was kept is no branch.
    """
    branches = tuple(_check_candidate(candidate, facts, coins) for candidate in candidates)
    check_equal("candidates", expected=candidates[0].terms.candidates, received=len(candidates))
    check_rising(candidates, coins)
    check_keys_of_ladder(candidates)
    return branches


def _check_candidate(
    candidate: ClientCandidate, facts: ClientFacts, coins: Mapping[OutPoint, Coin | None]
) -> Branch:
    terms, join, client = candidate.terms, candidate.join, candidate.proposal.client
    check_equal("network", expected=facts.network.genesis_hash, received=terms.network)
    check_range("clients", (1, facts.policy.max_clients), terms.n_clients)
    check_range("client", (1, terms.n_clients), client)
    shape = shape_of(terms.n_clients, leaf_arity=terms.leaf_arity, inner=terms.inner_levels)
    try:
        check_times(shape, terms)
    except InvalidTerms as error:
        raise Refusal(error.field, expected=error.expected, received=error.received) from error
    kinds = shape.kinds_to(client)
    check_layers(facts.policy, kinds)
    check_max_cltv(terms, kinds=kinds, slowest_kinds=shape.slowest_kinds)
    funding_tx = check_funding_tx(candidate.kept.funding_tx, coins)
    check_channel_offer(candidate.setting.lsp, own=join.candidates[candidate.rung].channel)
    branch = candidate.branch
    check_funding_output(funding_tx, branch)
    capacities_sat = allocation_of(branch.vertices[-1].last).capacities_sat
    check_term_ranges(
        terms, facts.policy, tip_height=terms.build_height, capacities_sat=capacities_sat
    )
    capacity_sat = branch.channel.amount_sat
    check_range("capacity_sat", (join.capacity_least_sat, join.capacity_sat), capacity_sat)
    check_capacity(terms, capacity_sat)
    check_burns(terms, capacity_sat, limit=facts.policy.burn_limit)
    check_first_commitments(candidate.setting)
    return branch
