"""How many libsecp256k1 operations a row needs at least, by formula from the shape of the tree.

At least means: every key is parsed once, every set of signers aggregated once, every output key
tweaked once, every session opened once by each of its signers, and nothing is computed that the
protocol takes as given. Serialising, hashing and SHA-256 are not counted; they are overhead.
"""

from collections.abc import Iterable

from bench.op import Op, Work
from bench.payment_floor import commitment_keys

from cromford.factory.shape import ShapeVertex

N_OFFER_KEYS = 7  # the keys of one side of a channel that come from the peer


def n_signers(vertex: ShapeVertex) -> int:
    """Return how many sign for a vertex: the LSP and the clients below it."""
    return vertex.n_clients + 1


def n_transactions(vertices: Iterable[ShapeVertex]) -> int:
    """Return how many transactions these vertices have."""
    return sum(vertex.kind.n_txs for vertex in vertices)


def n_signer_sessions(vertices: Iterable[ShapeVertex]) -> int:
    """Return how many sessions all signers open: one each for every transaction they sign."""
    return sum(vertex.kind.n_txs * n_signers(vertex) for vertex in vertices)


def build(shape: ShapeVertex) -> Work:
    """Return what the whole tree takes, up to every sighash."""
    vertices = list(shape.vertices())
    n, n_leaves = shape.n_clients, sum(1 for _ in shape.leaves())
    n_outputs = n_transactions(vertices) + n_leaves + n  # spent by the tree; L-stocks; channels
    work = Work({Op.PUBKEY_PARSE: (n + 1) + 2 * n, Op.TWEAK: n_outputs, Op.KEY_AGG_TWO: n})
    return work + _key_aggs(vertices)


def nonces(shape: ShapeVertex) -> Work:
    """Return what one nonce for every signer session takes."""
    n_sessions = n_signer_sessions(shape.vertices())
    return Work({Op.KEYPAIR_CREATE: shape.n_clients + 1, Op.NONCE_GEN: n_sessions})


def aggregate_nonces(shape: ShapeVertex) -> Work:
    """Return what the aggregate nonce of every transaction takes."""
    vertices = list(shape.vertices())
    n_txs = n_transactions(vertices)
    n_sessions = n_signer_sessions(vertices)
    return Work(
        {
            Op.PUBNONCE_PARSE: n_sessions,
            Op.NONCE_AGG_TWO: n_txs,
            Op.NONCE_AGG_NEXT: n_sessions - 2 * n_txs,
        }
    )


def sign(shape: ShapeVertex) -> Work:
    """Return what all partial signatures take when every signer opens its own session.

    In one process: an aggregate nonce is parsed once for all of them.
    """
    vertices = list(shape.vertices())
    n_sessions = n_signer_sessions(vertices)
    return Work(
        {
            Op.AGGNONCE_PARSE: n_transactions(vertices),
            Op.SESSION: n_sessions,
            Op.PARTIAL_SIGN: n_sessions,
        }
    )


def sign_shared(shape: ShapeVertex) -> Work:
    """Return the same when all signers of a transaction use one session."""
    work = sign(shape)
    work[Op.SESSION] = n_transactions(shape.vertices())
    return work


def finish(shape: ShapeVertex) -> Work:
    """Return what aggregating and verifying every signature takes, in sessions already open."""
    vertices = list(shape.vertices())
    return _finish(n_transactions(vertices), n_signer_sessions(vertices))


def lsp(shape: ShapeVertex) -> Work:
    """Return what a ceremony takes of the LSP, from everybody's keys to the signed root."""
    vertices = list(shape.vertices())
    n_txs, n_sessions = n_transactions(vertices), n_signer_sessions(vertices)
    own = Work({Op.KEYPAIR_CREATE: 1, Op.SESSION: n_txs, Op.PARTIAL_SIGN: n_txs})
    received = _finish(n_txs, n_sessions)
    received[Op.PARTIAL_SIG_PARSE] -= n_txs  # its own it need not parse
    channels = Work()
    for _ in range(shape.n_clients):
        channels += first_commitments(Op.PUBNONCE_PARSE, 4) + Work(
            # The funding key is parsed to build the tree.
            {Op.NONCE_AGG_TWO: 2, Op.PUBKEY_PARSE: N_OFFER_KEYS - 1}
        )
    return build(shape) + aggregate_nonces(shape) + own + received + channels


def first_commitments(nonce_parse: Op, n_parses: int) -> Work:
    """Return what both first commitments of a channel take of either side.

    It builds both, signs both, and finishes its own.

    Args:
        nonce_parse: Whether public nonces are parsed, or aggregate ones.
        n_parses: How many.
    """
    signed = Work(
        {
            nonce_parse: n_parses,
            Op.KEYPAIR_CREATE: 1,
            Op.SESSION: 2,
            Op.PARTIAL_SIGN: 2,
            Op.PARTIAL_SIG_PARSE: 1,
            Op.PARTIAL_AGG_TWO: 1,
            Op.SCHNORR_VERIFY: 1,
        }
    )
    return commitment_keys(n_htlcs=0) + commitment_keys(n_htlcs=0) + signed


def client(shape: ShapeVertex, client_index: int) -> Work:
    """Return what a ceremony takes of one client, from the proposal to its signed branch.

    The outputs that lead to other clients are taken as given: they can only harm their owners.
    """
    path = shape.path_to(client_index)
    n_txs = n_transactions(path)
    work = Work(
        {
            Op.PUBKEY_PARSE: n_signers(shape) + N_OFFER_KEYS + 1,
            Op.KEY_AGG_TWO: 1,  # the channel
            Op.TWEAK: n_txs + 2,  # what the branch spends; its channel and L-stock
            Op.KEYPAIR_CREATE: 1,
            Op.AGGNONCE_PARSE: n_txs,
            Op.SESSION: n_txs,
            Op.PARTIAL_SIGN: n_txs,
            Op.SCHNORR_VERIFY: n_txs,
        }
    )
    return work + _key_aggs(path) + first_commitments(Op.AGGNONCE_PARSE, 2)


def clients(shape: ShapeVertex) -> Work:
    """Return what a ceremony takes of all clients together."""
    return sum((client(shape, i) for i in shape.clients), Work())


def ceremony(shape: ShapeVertex) -> Work:
    """Return what a ceremony takes of everybody, from the build request to the funding."""
    n_txs = n_transactions(shape.vertices())
    prepared = Work(
        {
            Op.NONCE_GEN: n_txs,  # The clients' were made when they joined.
            Op.PUBKEY_CREATE: 1 + N_OFFER_KEYS * shape.n_clients,
            Op.SCHNORR_SIGN: 1,
        }
    )
    return prepared + lsp(shape) + clients(shape)


def _key_aggs(vertices: Iterable[ShapeVertex]) -> Work:
    work = Work()
    for vertex in vertices:
        work[Op.KEY_AGG_TWO] += 1
        work[Op.KEY_AGG_NEXT] += n_signers(vertex) - 2
    return work


def _finish(n_txs: int, n_sessions: int) -> Work:
    return Work(
        {
            Op.PARTIAL_SIG_PARSE: n_sessions,
            Op.PARTIAL_AGG_TWO: n_txs,
            Op.PARTIAL_AGG_NEXT: n_sessions - 2 * n_txs,
            Op.SCHNORR_VERIFY: n_txs,
        }
    )
