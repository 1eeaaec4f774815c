"""The tree in one process: build it, make nonces, sign by all signers, aggregate and verify.

The keys are other ones in every run, as they are in every attempt to build a factory: nothing is
faster because an earlier run has met the same signers.
"""

import gc
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Final

from bench.op import Work
from bench.rows import CPU, WALL, Stopwatch
from bench.sizes import Size, seckey_of

from bench import floor
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.crypto.curve import Keypair
from cromford.crypto.keys import pubkey_of, sha256
from cromford.factory.shape import plan_of
from cromford.factory.terms import FactoryTerms
from cromford.factory.tree import Tree, build_tree
from cromford.factory.vertices import (
    OPENING_STATES,
    ChannelFundingPubkeys,
    TreeNode,
    Vertex,
    build_vertices,
    funding_output_of,
)
from cromford.signing.nonces import NoncePool
from cromford.signing.round import SigningRound, SigningSession, aggregate_nonces

BUILD = "build the tree"
NONCES = "make nonces ahead"
AGGREGATE_NONCES = "aggregate nonces"
SIGN = "partial signatures, all signers"
FINISH = "aggregate and verify signatures"
ALL_SIGNING = "all signing together"
CONSTRUCTION = "construction, all signers in one process"
SHARED = "the same, one session for each transaction"
THREADS = "construction, all signers, in two threads"

_WORK = {
    BUILD: floor.build,
    NONCES: floor.nonces,
    AGGREGATE_NONCES: floor.aggregate_nonces,
    SIGN: floor.sign,
    FINISH: floor.finish,
}
_SIGNING = (NONCES, AGGREGATE_NONCES, SIGN, FINISH)
N_THREADS: Final = 2


def works(size: Size) -> dict[str, Work]:
    """Return the operations of each step's floor."""
    steps = {name: work(size.shape) for name, work in _WORK.items()}
    signing = sum((steps[name] for name in _SIGNING), Work())
    shared = steps[BUILD] + signing - steps[SIGN] + floor.sign_shared(size.shape)
    construction = steps[BUILD] + signing
    return {**steps, ALL_SIGNING: signing, CONSTRUCTION: construction, SHARED: shared}


def works_in_threads(size: Size) -> dict[str, Work]:
    """Return the operations of a construction, which the threads share."""
    return {THREADS: works(size)[CONSTRUCTION]}


def run_once(size: Size, run: int) -> dict[str, float]:
    """Return the milliseconds of each step.

    Raises:
        InvalidSignature: If a step was fast because it was wrong.
    """
    spent_ms = _Construction(size, 2 * run).spent_ms()
    signing_ms = sum(spent_ms[name] for name in _SIGNING)
    return {
        **spent_ms,
        ALL_SIGNING: signing_ms,
        CONSTRUCTION: spent_ms[BUILD] + signing_ms,
        SHARED: run_shared(size, 2 * run + 1),
    }


def run_shared(size: Size, run: int) -> float:
    """Return the milliseconds of a construction with one session for each transaction."""
    return sum(_Construction(size, run, is_shared=True).spent_ms().values())


def run_in_threads(size: Size, run: int) -> dict[str, float]:
    """Return the milliseconds of a construction until all threads are done."""
    with ThreadPoolExecutor(N_THREADS) as threads:

        def shared_out(made: Callable[[Any], Any], things: Iterable[Any]) -> list[Any]:
            """Let each thread make every other one: each that is handed over costs both of them."""
            asked = list(things)
            all_made = [None] * len(asked)

            def make_share(first: int) -> None:
                for place in range(first, len(asked), N_THREADS):
                    all_made[place] = made(asked[place])

            list(threads.map(make_share, range(N_THREADS)))
            return all_made

        spent_ms = _Construction(size, -1 - run, mapped=shared_out, clock=WALL).spent_ms()
    return {THREADS: sum(spent_ms.values())}


def _digest(vertices: Iterable[Vertex]) -> None:
    """Compute what is signed in each transaction."""
    for vertex in vertices:
        for node in vertex.nodes:
            _ = node.task.sighash


# Names of sessions, and what each signer contributed to them.
_Part = tuple[Sequence[str], Sequence[dict[str, bytes]]]


def _among(
    names: Sequence[str], contributions: Sequence[dict[str, bytes]]
) -> list[dict[str, bytes]]:
    return [{name: given[name] for name in names if name in given} for given in contributions]


@dataclass(frozen=True)
class _Construction:
    """Builds one tree and signs it for all its signers.

    Attributes:
        size: Of the tree.
        run: Which keys.
        is_shared: Whether there is one session for each transaction, which all its signers use;
            else each of them opens its own.
        mapped: Calls a function for each of several things, in turn or in threads.
        clock: What is counted.
    """

    size: Size
    run: int
    is_shared: bool = False
    mapped: Callable[..., Iterable[Any]] = map
    clock: str = CPU

    def spent_ms(self) -> dict[str, float]:
        """Return the milliseconds of each step; in each, threads wait for one another."""
        watch = Stopwatch(self.clock)
        seckeys = [self._seckey("factory", i) for i in range(self.size.n_clients + 1)]
        signers = range(len(seckeys))
        pubkeys = [pubkey_of(seckey) for seckey in seckeys]
        tree = self._build(pubkeys, watch)
        nodes = tree.nodes
        of_signer = [[node for node in nodes if i in node.signers] for i in signers]
        places = [{node.name: place for place, node in enumerate(own)} for own in of_signer]

        def make_pool(i: int) -> NoncePool:
            return NoncePool(Keypair(seckeys[i]), size=len(of_signer[i]))

        def aggregate(node: TreeNode) -> SigningSession:
            pubnonces = {
                pubkeys[i]: pools[i].public.pubnonces[places[i][node.name]] for i in node.signers
            }
            aggnonce = aggregate_nonces(pubnonces)
            return SigningSession(task=node.task, pubnonces=pubnonces, aggnonce=aggnonce)

        def sign(i: int) -> dict[str, bytes]:
            return {
                session.task.name: pools[i].partial_sign(place, session.task, session.aggnonce)
                for place, session in enumerate(owned[i])
            }

        gc.collect()
        with watch.running(NONCES):
            pools = list(self.mapped(make_pool, signers))
        with watch.running(AGGREGATE_NONCES):
            sessions = list(self.mapped(aggregate, nodes))
        by_name = {session.task.name: session for session in sessions}
        owned = [[self._own(by_name[node.name], i) for node in of_signer[i]] for i in signers]
        gc.collect()
        with watch.running(SIGN):
            contributions = list(self.mapped(sign, signers))

        def finish(part: _Part) -> dict[str, bytes]:
            names, contributed = part
            signing_round = SigningRound(sessions={name: by_name[name] for name in names})
            return signing_round.with_contributions(
                zip(pubkeys, contributed, strict=True)
            ).signatures()

        names = list(by_name)
        shares = [names] if self.clock == CPU else [names[i::N_THREADS] for i in range(N_THREADS)]
        parts = [(share, _among(share, contributions)) for share in shares]
        gc.collect()
        with watch.running(FINISH):
            signatures = [*self.mapped(finish, parts)]
        tree.with_signatures({name: one for part in signatures for name, one in part.items()})
        return watch.spent_ms

    def _own(self, session: SigningSession, signer: int) -> SigningSession:
        """Return a session as one signer has it; the LSP, signer 0, aggregates in its own."""
        if self.is_shared or not signer:
            return session
        return replace(session, task=replace(session.task))

    def _seckey(self, *names: object) -> bytes:
        return seckey_of(self.size, self.run, *names)

    def _build(self, pubkeys: list[bytes], watch: Stopwatch) -> Tree:
        terms = self.size.terms(sha256(f"attempt {self.run}".encode()))
        channels = [
            ChannelFundingPubkeys(
                client_funding_pubkey=pubkey_of(self._seckey("client channel", i)),
                lsp_funding_pubkey=pubkey_of(self._seckey("LSP channel", i)),
            )
            for i in range(self.size.n_clients)
        ]
        outpoint = OutPoint(txid=Txid(sha256(f"funding {self.run}".encode())), vout=0)
        gc.collect()
        with watch.running(BUILD):
            if self.clock == CPU:
                tree = build_tree(
                    terms, factory_pubkeys=pubkeys, channels=channels, funding_outpoint=outpoint
                )
                _digest(tree.vertices)
            else:
                tree = built_in_parts(self.mapped, terms, pubkeys, channels, outpoint)
        return tree


def built_in_parts(
    mapped: Callable[..., Iterable[Any]],
    terms: FactoryTerms,
    factory_pubkeys: Sequence[bytes],
    channels: Sequence[ChannelFundingPubkeys],
    funding_outpoint: OutPoint,
) -> Tree:
    """Return what `build_tree` returns: the root first, and then what is below each child of it.

    Args:
        mapped: Calls a function for each of several things, as `_Construction` has it.
        terms: As `build_tree` takes them, like what follows.
    """
    root, funding = plan_of(terms), funding_output_of(factory_pubkeys, terms)
    build = partial(
        build_vertices,
        terms=terms,
        factory_pubkeys=factory_pubkeys,
        channels=dict(enumerate(channels, start=1)),
        state_indices=OPENING_STATES,
    )
    top = build([root], spends=funding, outpoint=funding_outpoint)
    _digest(top)
    paid = top[0].last

    def below(vout: int) -> Sequence[Vertex]:
        spends, planned = paid.outputs[vout].signers_output, root.children[vout].vertices()
        assert spends is not None  # noqa: S101 - a child of the root
        vertices = build(planned, spends=spends, outpoint=paid.tx.outpoint(vout))
        _digest(vertices)
        return vertices

    parts = mapped(below, range(len(root.children)))
    return Tree(
        terms=terms,
        root=root,
        factory_pubkeys=tuple(factory_pubkeys),
        funding_output=funding,
        funding_outpoint=funding_outpoint,
        vertices=(*top, *chain.from_iterable(parts)),
    )
