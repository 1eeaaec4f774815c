"""How many libsecp256k1 operations a payment needs at least: one hop, and two of them.

A hop adds an HTLC and fulfils it: each side signs the other's commitment with the HTLC, and then
the one without it. So there are four signatures, four times the same work but for the HTLC, and
four revocations (BOLT 2). Everything of a channel that does not change while it lives is known
beforehand: basepoints and funding keys are parsed, the funding key is aggregated and tweaked, its
keypair is made, and so is the output key of `to_remote`.
"""

from bench.op import Op, Work

N_COMMITMENTS_WITH_HTLC = 2  # of a hop: each side's
N_COMMITMENTS_WITHOUT = 2


def commitment_keys(*, n_htlcs: int) -> Work:
    """Return what building one commitment takes, of either side: its keys and output keys.

    From public keys only: who builds a commitment holds no secrets.
    """
    n_htlc_keys = 2 if n_htlcs else 0  # the holder's and the peer's, for all HTLCs
    return Work(
        {
            # The revocation key is a sum of two products.
            Op.PUBKEY_MUL: 2,
            Op.PUBKEY_SUM: 1,
            Op.PUBKEY_TWEAK: 1 + n_htlc_keys,  # the delayed key
            Op.XONLY_TWEAK: 1 + n_htlcs,  # `to_local`, and every HTLC output
        }
    )


def signer(*, n_htlcs: int) -> Work:
    """Return what signing the peer's next commitment takes, until it has revoked the one before.

    It brings a fresh nonce. The revealed secret must give the point that was used before, and the
    next point is parsed once.
    """
    signs = Work(
        {
            Op.NONCE_GEN: 1,
            Op.PUBNONCE_PARSE: 1,
            Op.NONCE_AGG_TWO: 1,
            Op.SESSION: 1,
            Op.PARTIAL_SIGN: 1,
            Op.SECKEY_TWEAK: min(n_htlcs, 1),
            Op.KEYPAIR_CREATE: min(n_htlcs, 1),
            Op.SCHNORR_SIGN: n_htlcs,
        }
    )
    hears_of_revocation = Work({Op.PUBKEY_CREATE: 1, Op.PUBKEY_PARSE: 1})
    return commitment_keys(n_htlcs=n_htlcs) + signs + hears_of_revocation


def holder(*, n_htlcs: int) -> Work:
    """Return what taking one's next commitment takes: finish it, check it, revoke the one before.

    With the revocation go the next point and the next nonce.
    """
    finishes = Work(
        {
            Op.PUBNONCE_PARSE: 1,
            Op.NONCE_AGG_TWO: 1,
            Op.SESSION: 1,
            Op.PARTIAL_SIGN: 1,
            Op.PARTIAL_SIG_PARSE: 1,
            Op.PARTIAL_AGG_TWO: 1,
            Op.SCHNORR_VERIFY: 1 + n_htlcs,
        }
    )
    revokes = Work({Op.PUBKEY_CREATE: 1, Op.NONCE_GEN: 1})
    return commitment_keys(n_htlcs=n_htlcs) + finishes + revokes


def hop() -> Work:
    """Return what an HTLC takes of both sides of a channel, from its adding to its end."""
    work = Work()
    for n_htlcs, n_commitments in ((1, N_COMMITMENTS_WITH_HTLC), (0, N_COMMITMENTS_WITHOUT)):
        for _ in range(n_commitments):
            work += signer(n_htlcs=n_htlcs) + holder(n_htlcs=n_htlcs)
    return work


def forwarded() -> Work:
    """Return what a payment from a client over the LSP to a client takes of all three."""
    return hop() + hop()


def lsp() -> Work:
    """Return what forwarding takes of the LSP: half of each hop, for both sides do the same."""
    return hop()


def in_one_process(work: Work) -> Work:
    """Return what is left of it where all take part in one process: no public nonce is read there.

    Whoever made one keeps it as the library has it, and the other finds it.
    """
    return Work({op: n for op, n in work.items() if op is not Op.PUBNONCE_PARSE})
