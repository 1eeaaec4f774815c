"""Small factories, really signed by everybody, and one branch of each client."""

from functools import cache
from typing import Final

from tests.factory import oracle
from tests.factory.specimen import tree_of
from tests.signing.cohort import Cohort

from cromford.crypto.curve import Keypair
from cromford.factory.branch import SignedBranch, branch_of
from cromford.factory.terms import FactoryTerms
from cromford.factory.tree import Tree
from cromford.signing.nonces import NoncePool
from cromford.signing.round import SigningRound, SigningSession, aggregate_nonces

# By number of clients: leaf arity, inner arities and kinds. One layer up to three.
SHAPES: Final[dict[int, tuple[int, tuple[int, ...], tuple[str, ...]]]] = {
    1: (1, (), ()),
    2: (2, (), ()),
    3: (2, (2,), ("dw",)),
    4: (2, (2,), ("static",)),
    5: (1, (2, 3), ("dw", "dw")),
    6: (1, (3, 2), ("static", "dw")),
}


def terms_of(n_clients: int) -> FactoryTerms:
    leaf_arity, inner_arities, inner_kinds = SHAPES[n_clients]
    clients = list(range(n_clients))
    n_leaves = len(oracle.split(clients, leaf_arity, inner_arities).leaves())
    return oracle.terms_of(
        [50_000 + 1_000 * client for client in clients],
        [10_000] * n_leaves,
        leaf_arity=leaf_arity,
        inner_arities=inner_arities,
        inner_kinds=inner_kinds,
        states_per_layer=2 + n_clients % 3,
        step_blocks=10 * n_clients,
    )


@cache
def signed_branches(n_clients: int) -> tuple[SignedBranch, ...]:
    """Return the signed branch of every client, each signature made by MuSig2."""
    tree = tree_of(terms_of(n_clients))
    signatures = signatures_of(tree)
    return tuple(
        branch_of(tree, client).with_signatures(signatures) for client in range(1, n_clients + 1)
    )


def signatures_of(tree: Tree) -> dict[str, bytes]:
    """Return the signature of each transaction of a tree of the test keys, made by MuSig2."""
    nodes = list(tree.nodes)
    pools = [
        NoncePool(Keypair(oracle.seckey("factory", participant)), size=len(nodes))
        for participant in range(len(tree.factory_pubkeys))
    ]
    sessions: dict[str, SigningSession] = {}
    cohort = Cohort(sessions=sessions, contributions={pool.public.pubkey: {} for pool in pools})
    for place, node in enumerate(nodes):
        signers = [pools[participant] for participant in node.signers]
        pubnonces = {pool.public.pubkey: pool.public.pubnonces[place] for pool in signers}
        aggnonce = aggregate_nonces(pubnonces)
        sessions[node.name] = SigningSession(task=node.task, pubnonces=pubnonces, aggnonce=aggnonce)
        for pool in signers:
            partial_sig = pool.partial_sign(place, node.task, aggnonce)
            cohort.contributions[pool.public.pubkey][node.name] = partial_sig
    collected: SigningRound = cohort.full_round
    return collected.signatures()
