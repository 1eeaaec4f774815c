"""How many states a leaf may have: one message tells them all to a client whose store was lost."""

from functools import lru_cache

from cromford.codec.reader import MalformedBytes
from cromford.codec.tlv import U64_MAX
from cromford.crypto.schnorr import SIGNATURE_SIZE
from cromford.factory.shape import ShapeVertex
from cromford.factory.terms import HASH_SIZE, FactoryTerms, InvalidTerms
from cromford.wire import messages as m
from cromford.wire.seldom import N_LEAF_STATES_MAX, LeafState
from cromford.wire.selling import AllocatedChannel


def check_states_fit(terms: FactoryTerms, shape: ShapeVertex) -> None:
    """Check that `LeafStates` of the largest leaf fits a message, once every state was sold of.

    One that does not would leave a client with a restored store without its leaf's states: its
    connection ends each time that it is told of them.

    Raises:
        InvalidTerms: With how many states such a leaf may have.
    """
    n_clients = max(leaf.n_clients for leaf in shape.leaves())
    if not _fit(n_clients, terms.states_per_layer):
        most = min(terms.states_per_layer - 1, N_LEAF_STATES_MAX + 1)
        fits = next(n for n in range(most, 0, -1) if _fit(n_clients, n))
        raise InvalidTerms(
            "states_per_layer",
            f"at most {fits} in leaves of {n_clients} clients, by the message that tells them",
            terms.states_per_layer,
        )


@lru_cache(maxsize=1_024)
def _fit(n_clients: int, n_states: int) -> bool:
    """Say whether all states but the first fit one message, with the largest of what they hold."""
    state = LeafState(
        channels=(AllocatedChannel(capacity_sat=U64_MAX),) * n_clients,
        lstock_sat=U64_MAX,
        signature=bytes(SIGNATURE_SIZE),
        stock_poison=bytes(SIGNATURE_SIZE),
        channel_poison=bytes(SIGNATURE_SIZE),
    )
    told = m.LeafStates(attempt_id=bytes(HASH_SIZE), states=(state,) * (n_states - 1))
    try:
        m.encode_message(told)
    except MalformedBytes:
        return False
    return True
