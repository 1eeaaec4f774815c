"""One attempt to build a factory, as the LSP remembers it. Its stages are types."""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from immutables import Map

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.changed import changed
from cromford.channel.commitment import Funding
from cromford.factory.branch import Branch, SignedBranch, branch_of, signed_branch_of
from cromford.factory.funding import CHANGE_VOUT
from cromford.factory.leaf import Leaf, state_in
from cromford.factory.terms import FactoryTerms
from cromford.factory.tree import SignedTree, Tree
from cromford.factory.vertices import TreeNode, Vertex
from cromford.protocol.journal.first_commitments import ChannelSetting, funding_in
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.leaf_states import (
    NOTHING_AGREED,
    AgreedState,
    Leaves,
    index_on_chain,
    leaf_with,
    poisons_of,
    vertex_at,
)
from cromford.protocol.journal.lsp_blueprint import LspBlueprint, LspSeat
from cromford.protocol.journal.lsp_candidate import (
    LspCandidate,
    SignaturesBelow,
    SignedCandidate,
)
from cromford.wire import messages as m

EMPTY: Final[Mapping[str, TreeNode]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningBelow:
    """Clients sign everything below the root, and their halves of our first commitments."""

    candidate: LspCandidate
    partial_sigs: Mapping[int, tuple[bytes, ...]] = field(default_factory=dict)
    commitment_partial_sigs: Mapping[int, bytes] = field(default_factory=dict)
    label = "signing_below"

    @property
    def done(self) -> AbstractSet[int]:
        """The clients who signed."""
        return self.partial_sigs.keys()


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningRoot:
    """Everybody has its exit below the root; clients sign the root."""

    before: SigningBelow
    below: SignaturesBelow
    partial_sigs: Mapping[int, bytes] = field(default_factory=dict)
    label = "signing_root"

    @property
    def done(self) -> AbstractSet[int]:
        """The clients who signed."""
        return self.partial_sigs.keys()


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledging:
    """Everything is signed; clients say that they hold their branches."""

    before: SigningRoot
    signed: SignedCandidate
    done: frozenset[int] = frozenset()
    label = "acknowledging"


@dataclass(frozen=True, slots=True, kw_only=True)
class Funded:
    """The funding transaction is signed: from here on this is a factory.

    `replacement`, unsigned, pays a coin of a funding that was given up back to us. Once it, or
    another, is deep enough, the factory `is_dead`; what the chain shows outweighs both.
    """

    signed: SignedCandidate
    funding_tx: Tx
    ready_sent: bool = False
    ready_received: frozenset[bytes] = frozenset()
    replacement: Tx | None = None
    is_dead: bool = False
    label = "funding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted:
    """It ended before its funding was signed. `culprits` caused it, by node id."""

    reason: str
    culprits: tuple[bytes, ...] = ()
    label = "aborted"


Ceremony = SigningBelow | SigningRoot | Acknowledging
Stage = Ceremony | Funded | Aborted


@dataclass(frozen=True, slots=True, kw_only=True)
class LspRung:
    """One candidate of a fee ladder: what it is made of, and how far it is signed."""

    blueprint: LspBlueprint
    stage: Stage

    @property
    def said_below(self) -> SigningBelow | None:
        """What clients signed below the root, in a ceremony under way."""
        return _said_below(self.stage)

    @property
    def said_root(self) -> SigningRoot | None:
        """What clients signed of the root, in a ceremony that came so far."""
        match self.stage:
            case SigningRoot():
                return self.stage
            case Acknowledging(before=before):
                return before
            case _:
                return None

    @property
    def signed(self) -> SignedCandidate | None:
        """The candidate with every signature, if everything is signed."""
        return self.stage.signed if isinstance(self.stage, Acknowledging | Funded) else None


@dataclass(frozen=True, kw_only=True)
class LspAttempt:
    """What the LSP remembers of one attempt. `reasons` say why each client has its seat.

    `leaves` are the states of leaves that replaced those of the opening.

    With a fee ladder, blueprint and stage are those of its present candidate: the first while the
    ceremony is under way; then the one that is in a block, or else that was `published` last; and
    once it was ready, for ever the one that channels are in. `others` are those beside it, lowest
    feerate first.

    While the ceremony is under way each stage keeps the one before: what a client sent is compared
    with what it sends again. A factory needs none of it.
    """

    attempt_id: bytes
    key_attempt: int
    blueprint: LspBlueprint
    reasons: tuple[str, ...]
    stage: Stage
    leaves: Leaves = field(default_factory=Map)
    others: tuple[LspRung, ...] = ()
    published: int = 0

    @property
    def rung(self) -> int:
        """The place of the present candidate in the fee ladder."""
        return self.blueprint.rung

    @property
    def ladder(self) -> tuple[LspRung, ...]:
        """Every candidate, lowest feerate first."""
        present = LspRung(blueprint=self.blueprint, stage=self.stage)
        rungs = (*self.others, present)
        return tuple(sorted(rungs, key=lambda one: one.blueprint.rung)) if self.others else rungs

    def with_stages(self, stages: Iterable[Stage]) -> "LspAttempt":
        """Return the attempt with another stage of each candidate, lowest feerate first."""
        rungs = [changed(one, stage=stage) for one, stage in zip(self.ladder, stages, strict=True)]
        others = tuple(one for one in rungs if one.blueprint.rung != self.rung)
        return changed(self, stage=rungs[self.rung].stage, others=others)

    def on_rung(self, rung: int) -> "LspAttempt":
        """Return the attempt with another present candidate; what ended the funding ends all."""
        if rung == self.rung:
            return self
        ladder = self.ladder
        blueprint, stage = ladder[rung].blueprint, ladder[rung].stage
        if isinstance(stage, Funded) and isinstance(self.stage, Funded):
            stage = replace(stage, replacement=self.stage.replacement, is_dead=self.stage.is_dead)
        others = tuple(one for one in ladder if one.blueprint.rung != rung)
        return replace(self, blueprint=blueprint, stage=stage, others=others)

    @property
    def is_pinned(self) -> bool:
        """Whether channels are in the present candidate: it stays the present one."""
        return isinstance(self.stage, Funded) and self.stage.ready_sent

    def on_chain(self, chain: KnownChain) -> "LspAttempt":
        """Return the attempt with the present candidate that the chain shows, unless one is kept.

        The one that is in a block, or else the one that was published last.
        """
        if not self.others or self.funded is None or self.is_pinned:
            return self
        in_block = self.rung_in(chain)
        return self.on_rung(self.published if in_block is None else in_block)

    def sibling(self, rung: int) -> "LspAttempt":
        """Return another candidate than the one that channels are in, as it was opened."""
        if rung not in self._siblings:
            other = self.on_rung(rung)
            if not isinstance(other.stage, Funded):
                raise AssertionError(f"attempt {self.attempt_id.hex()} is not funded")
            stage = replace(other.stage, ready_sent=True)
            self._siblings[rung] = replace(other, stage=stage, leaves=Map())
        return self._siblings[rung]

    @cached_property
    def _siblings(self) -> dict[int, "LspAttempt"]:
        """Other candidates, as far as they were asked for: each makes its tree once."""
        return {}

    def rung_in(self, chain: KnownChain) -> int | None:
        """Return the place of the candidate that is in a block; None if none is."""
        for one in self.ladder:
            if one.blueprint.funding_tx.txid in chain.confirmed:
                return one.blueprint.rung
        return None

    def overtaken_depth(self, chain: KnownChain) -> int:
        """Return the confirmations of what takes the funding's place: 0 if nothing does.

        Another candidate of the ladder does so only once channels are in this one.
        """
        siblings = () if self.is_pinned else self.others
        ours = frozenset(one.blueprint.funding_tx.txid for one in siblings)
        return chain.rival_depth(self.funding_tx, but=ours)

    def is_overtaken(self, chain: KnownChain) -> bool:
        """Say whether something took the funding's place, as deep as a funding has to be."""
        return self.overtaken_depth(chain) >= self.terms.min_depth

    @property
    def is_open(self) -> bool:
        """Whether the ceremony is under way."""
        return isinstance(self.stage, Ceremony)

    @property
    def aborted(self) -> str | None:
        """Why it ended, if it did."""
        return self.stage.reason if isinstance(self.stage, Aborted) else None

    @property
    def funded(self) -> Funded | None:
        """The factory that it became, if its funding is signed."""
        return self.stage if isinstance(self.stage, Funded) else None

    @property
    def signed(self) -> SignedCandidate | None:
        """The candidate with every signature, if everything is signed."""
        return self.stage.signed if isinstance(self.stage, Acknowledging | Funded) else None

    @property
    def signatures(self) -> Mapping[str, bytes]:
        """Every finished signature so far, by transaction name."""
        if isinstance(self.stage, SigningRoot):
            return self.stage.below.by_name
        if self.signed is None:
            return {}
        newer = {state.name: agreed.signature for state, agreed in self._newer_states()}
        return {**self.signed.by_name, **newer}

    def _newer_states(self) -> Iterator[tuple[TreeNode, AgreedState]]:
        """Yield the states that replaced those of the opening, each as it was agreed."""
        for name, leaf in self.advanced_leaves.items():
            yield from zip(leaf.states[1:], self.leaves[name], strict=True)

    @property
    def said_below(self) -> SigningBelow | None:
        """What clients signed below the root, in a ceremony under way."""
        return _said_below(self.stage)

    @property
    def candidate(self) -> LspCandidate:
        """What the ceremony under way signs, and with which nonces.

        Raises:
            ValueError: If it is over: a factory needs no pools, and an aborted attempt has none.
        """
        if self.said_below is None:
            raise ValueError(f"attempt {self.attempt_id.hex()}: its ceremony is over")
        return self.said_below.candidate

    @property
    def candidates(self) -> tuple[LspCandidate, ...]:
        """What the ceremony signs of each candidate of its ladder; raises as `candidate` does."""
        said = (_said_below(one.stage) for one in self.ladder)
        return (self.candidate, *(one.candidate for one in [*said][1:] if one is not None))

    @property
    def pool_ids(self) -> tuple[bytes, ...]:
        """The ids of every pool of ours in the ceremony; raises as `candidate` does."""
        return tuple(dict.fromkeys(one for each in self.candidates for one in each.pool_ids))

    @property
    def said_root(self) -> SigningRoot | None:
        """What clients signed of the root, in a ceremony that came so far."""
        return LspRung(blueprint=self.blueprint, stage=self.stage).said_root

    @property
    def has_holdouts(self) -> bool:
        """Whether the present stage waits for a client's contribution."""
        return isinstance(self.stage, Ceremony) and len(self.stage.done) < len(self.seats)

    @property
    def holdouts(self) -> tuple[int, ...]:
        """The clients whose contribution the present stage waits for."""
        if not isinstance(self.stage, Ceremony):
            return ()
        done = self.stage.done
        return tuple(i for i in range(1, len(self.seats) + 1) if i not in done)

    @property
    def terms(self) -> FactoryTerms:
        """What was agreed."""
        return self.blueprint.terms

    @property
    def seats(self) -> tuple[LspSeat, ...]:
        """The clients, in placement order."""
        return self.blueprint.seats

    @property
    def funding_tx(self) -> Tx:
        """The funding transaction, unsigned."""
        return self.blueprint.funding_tx

    @property
    def funding_outpoint(self) -> OutPoint:
        """What the root spends."""
        return self.blueprint.funding_outpoint

    @cached_property
    def tree(self) -> Tree:
        """The whole tree, each leaf with its newest signed state."""
        newest = {name: len(leaf.states) - 1 for name, leaf in self.advanced_leaves.items()}
        return self._tree_with(newest) if newest else self.blueprint.tree

    def tree_on(self, chain: KnownChain) -> Tree:
        """Return the whole tree, each leaf with the state that is in a block, or its newest."""
        indices = {name: index_on_chain(leaf, chain) for name, leaf in self.advanced_leaves.items()}
        older = frozenset(
            (name, index)
            for name, index in indices.items()
            if index < len(self.advanced_leaves[name].states) - 1
        )
        forgotten = self._forgotten_on(chain)
        if not (older or forgotten):
            return self.tree
        key = (older, frozenset(tx.txid for _, tx in forgotten.values()))
        if key not in self._older_trees:
            states = {name: state for name, (state, _) in forgotten.items()}
            self._older_trees[key] = self._tree_with(indices, states)
        return self._older_trees[key]

    @cached_property
    def _older_trees(
        self,
    ) -> dict[tuple[frozenset[tuple[str, int]], frozenset[Txid]], Tree]:
        """Trees in which other states than the newest are in blocks, which hardly ever happens."""
        return {}

    def _forgotten_on(self, chain: KnownChain) -> Mapping[str, tuple[TreeNode, Tx]]:
        """Return the states of leaves that are in blocks, and that our restored store lacks.

        By the leaf's name; bare, and as it is in the block.
        """
        spends = chain.spends
        if self.funding_outpoint not in spends:
            return {}
        if not self._looked_for or self._looked_for[0][0] is not spends:
            self._looked_for[:] = [(spends, dict(self._forgotten_in(spends)))]
        return self._looked_for[0][1]

    @cached_property
    def _looked_for(
        self,
    ) -> list[tuple[Mapping[OutPoint, Tx], Mapping[str, tuple[TreeNode, Tx]]]]:
        """What was found in the chain that was looked at last: it is asked for once per channel."""
        return []

    def _forgotten_in(
        self, spends: Mapping[OutPoint, Tx]
    ) -> Iterator[tuple[str, tuple[TreeNode, Tx]]]:
        for name, vertex in self.blueprint.leaf_vertices.items():
            found = spends.get(vertex.last.tx.inputs[0].outpoint)
            if found is None or vertex.is_static or found.txid in self.watched_txids:
                continue
            state = state_in(self.advanced_leaves.get(name) or self._leaf(name), found)
            if state is not None:
                yield name, (state, found)

    def _tree_with(
        self, indices: Mapping[str, int], forgotten: Mapping[str, TreeNode] = EMPTY
    ) -> Tree:
        newest = {
            name: vertex_at(self.advanced_leaves[name], index) for name, index in indices.items()
        }
        found = {
            name: Vertex(first=self.blueprint.leaf_vertices[name].first, last=state)
            for name, state in forgotten.items()
        }
        vertices = {**newest, **found}
        return replace(
            self.blueprint.tree,
            vertices=tuple(
                vertices.get(vertex.first.shape.name, vertex)
                for vertex in self.blueprint.tree.vertices
            ),
        )

    @cached_property
    def signed_txs(self) -> Mapping[str, Tx]:
        """Every signed transaction of the tree by its name, with every version of each state.

        Raises:
            ValueError: If the tree is not completely signed.
            InvalidSignature: If a signature does not verify.
        """
        if self.signed is None:
            raise ValueError(f"attempt {self.attempt_id.hex()} is not completely signed")
        newer = {
            state.name: state.signed(agreed.signature) for state, agreed in self._newer_states()
        }
        return {**self.signed.tree.txs, **newer}

    def signed_branch_on(self, client: int, chain: KnownChain) -> SignedBranch:
        """Return what we publish to exit a client's channel, with the states that are in blocks.

        Raises:
            ValueError: If the tree is not completely signed.
        """
        forgotten = {state.name: tx for state, tx in self._forgotten_on(chain).values()}
        txs = {**self.signed_txs, **forgotten} if forgotten else self.signed_txs
        return signed_branch_of(SignedTree(tree=self.tree_on(chain), txs=txs), client)

    @property
    def payout_script(self) -> bytes:
        """Where our money of the factory goes: the change of its funding.

        Ours since the funding, and never used up by anything but this factory.
        """
        return self.funding_tx.outputs[CHANGE_VOUT].script_pubkey

    def branch(self, client: int) -> Branch:
        """Return one client's branch, down to the newest signed state of its leaf."""
        return branch_of(self.tree, client)

    def branch_on(self, client: int, chain: KnownChain) -> Branch:
        """Return one client's branch, down to the state that is in a block, or the newest."""
        return branch_of(self.tree_on(chain), client)

    def setting(self, client: int) -> ChannelSetting:
        """Return one client's channel, as the newest signed state of its leaf pays it."""
        opened = self.blueprint.setting(client)
        if self.leaf_name(client) not in self.leaves:
            return opened
        if client not in self._settings:
            self._settings[client] = replace(opened, funding=self.fundings(client)[-1])
        return self._settings[client]

    @cached_property
    def _settings(self) -> dict[int, ChannelSetting]:
        """Channels in leaves whose state was replaced, as far as they were asked for."""
        return {}

    def fundings(self, client: int) -> tuple[Funding, ...]:
        """Return where a client's channel is in each signed state of its leaf, the oldest first."""
        opened = self.blueprint.setting(client).funding
        leaf = self.advanced_leaves.get(self.leaf_name(client))
        if leaf is None:
            return (opened,)
        return tuple(funding_in(state, opened, client=client) for state in leaf.states)

    def leaf_name(self, client: int) -> str:
        """Return the name of a client's leaf."""
        return self.blueprint.leaf_names[client]

    @cached_property
    def advanced_leaves(self) -> Mapping[str, Leaf]:
        """The leaves whose state was ever replaced, by name, with every state that was signed."""
        return {name: self._leaf(name) for name in self.leaves}

    def leaf(self, client: int) -> Leaf:
        """Return a client's leaf with every state that was signed."""
        name = self.leaf_name(client)
        return self.advanced_leaves.get(name) or self._leaf(name)

    def _leaf(self, name: str) -> Leaf:
        return leaf_with(
            self.leaves.get(name, NOTHING_AGREED),
            self.blueprint.leaf_vertices[name],
            terms=self.terms,
            factory_pubkeys=self.blueprint.factory_pubkeys,
        )

    def superseded_states(self) -> Iterator[tuple[Leaf, TreeNode]]:
        """Yield the states whose poisons clients may hold: what they pay is not ours any more."""
        for name, leaf in self.advanced_leaves.items():
            for index, state in enumerate(leaf.states):
                if poisons_of(self.leaves[name], index) is not None:
                    yield leaf, state

    @cached_property
    def watched_txids(self) -> frozenset[Txid]:
        """The funding transaction and every tree transaction, in every version."""
        newer = (state.tx.txid for leaf in self.advanced_leaves.values() for state in leaf.states)
        return self.blueprint.watched_txids | frozenset(newer)

    def client_of(self, node_id: bytes) -> int | None:
        """Return a client's participant index, or None."""
        return self.blueprint.client_of(node_id)

    def proposal_for(self, client: int) -> m.Propose:
        """Return what is proposed to one client: the terms and its own branch."""
        return m.Propose(
            factory_pubkey=self.blueprint.factory_pubkeys[client],
            attempt_id=self.attempt_id,
            terms_hash=self.terms.terms_hash,
            terms=self.terms.encode(),
            client=client,
            factory_pubkeys=self.blueprint.factory_pubkeys,
            candidates=tuple(one.proposal_for(client) for one in self.candidates),
        )


def _said_below(stage: Stage) -> SigningBelow | None:
    match stage:
        case SigningBelow():
            return stage
        case SigningRoot(before=before) | Acknowledging(before=SigningRoot(before=before)):
            return before
        case _:
            return None
