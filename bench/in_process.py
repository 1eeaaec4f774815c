"""The tree in one process: build it, make nonces, sign by all signers, aggregate and verify.

The keys are other ones in every run, as they are in every attempt to build a factory: nothing is
faster because an earlier run has met the same signers.
"""

import gc

from bench.op import Work
from bench.rows import Stopwatch
from bench.sizes import Size, seckey_of

from bench import floor
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.crypto.keys import pubkey_of, sha256
from cromford.factory.tree import Tree, build_tree
from cromford.factory.vertices import ChannelFundingPubkeys
from cromford.signing.nonces import NoncePool
from cromford.signing.round import SigningRound, SigningSession, aggregate_nonces

BUILD = "build the tree"
NONCES = "make nonces ahead"
AGGREGATE_NONCES = "aggregate nonces"
SIGN = "partial signatures, all signers"
FINISH = "aggregate and verify signatures"
ALL_SIGNING = "all signing together"

_WORK = {
    BUILD: floor.build,
    NONCES: floor.nonces,
    AGGREGATE_NONCES: floor.aggregate_nonces,
    SIGN: floor.sign,
    FINISH: floor.finish,
}
_SIGNING = (NONCES, AGGREGATE_NONCES, SIGN, FINISH)


def works(size: Size) -> dict[str, Work]:
    """Return the operations of each step's floor."""
    steps = {name: work(size.shape) for name, work in _WORK.items()}
    return {**steps, ALL_SIGNING: sum((steps[name] for name in _SIGNING), Work())}


def run_once(size: Size, run: int) -> dict[str, float]:
    """Return the milliseconds of each step.

    Raises:
        InvalidSignature: If a step was fast because it was wrong.
    """
    watch = Stopwatch()
    seckeys = [seckey_of(size, run, "factory", i) for i in range(size.n_clients + 1)]
    pubkeys = [pubkey_of(seckey) for seckey in seckeys]
    tree = _build(size, run, pubkeys, watch)
    pools = _make_pools(tree, seckeys, pubkeys, watch)
    n_used = [0] * len(pools)
    uses: dict[str, dict[int, int]] = {}  # by transaction: the nonce index of each signer
    sessions: dict[str, SigningSession] = {}
    with watch.running(AGGREGATE_NONCES):
        for node in tree.nodes:
            uses[node.name] = {i: n_used[i] for i in node.signers}
            pubnonces = {pubkeys[i]: pools[i].public.pubnonces[n_used[i]] for i in node.signers}
            sessions[node.name] = SigningSession(
                task=node.task, pubnonces=pubnonces, aggnonce=aggregate_nonces(pubnonces)
            )
            for i in node.signers:
                n_used[i] += 1
    contributions: list[dict[str, bytes]] = [{} for _ in pools]
    with watch.running(SIGN):
        for name, session in sessions.items():
            for i, nonce_index in uses[name].items():
                contributions[i][name] = pools[i].partial_sign(
                    nonce_index, session.task, session.aggnonce
                )
    gc.collect()
    with watch.running(FINISH):
        signing_round = SigningRound(sessions=sessions)
        for pubkey, contribution in zip(pubkeys, contributions, strict=True):
            signing_round = signing_round.with_contribution(pubkey, contribution)
        signatures = signing_round.signatures()
    tree.with_signatures(signatures)
    return {**watch.spent_ms, ALL_SIGNING: sum(watch.spent_ms[name] for name in _SIGNING)}


def _build(size: Size, run: int, pubkeys: list[bytes], watch: Stopwatch) -> Tree:
    terms = size.terms(sha256(f"attempt {run}".encode()))
    channels = [
        ChannelFundingPubkeys(
            client_funding_pubkey=pubkey_of(seckey_of(size, run, "client channel", i)),
            lsp_funding_pubkey=pubkey_of(seckey_of(size, run, "LSP channel", i)),
        )
        for i in range(size.n_clients)
    ]
    outpoint = OutPoint(txid=Txid(sha256(f"funding {run}".encode())), vout=0)
    gc.collect()
    with watch.running(BUILD):
        tree = build_tree(
            terms, factory_pubkeys=pubkeys, channels=channels, funding_outpoint=outpoint
        )
        for node in tree.nodes:
            _ = node.task.sighash
    return tree


def _make_pools(
    tree: Tree, seckeys: list[bytes], pubkeys: list[bytes], watch: Stopwatch
) -> list[NoncePool]:
    n_sessions = [0] * len(seckeys)
    for node in tree.nodes:
        for signer in node.signers:
            n_sessions[signer] += 1
    gc.collect()
    with watch.running(NONCES):
        return [
            NoncePool(seckey=seckey, pubkey=pubkey, size=n)
            for seckey, pubkey, n in zip(seckeys, pubkeys, n_sessions, strict=True)
        ]
