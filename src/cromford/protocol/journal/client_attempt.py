"""One attempt to build a factory, as a client remembers it. Its stages are types."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.changed import changed
from cromford.channel.commitment import Funding
from cromford.factory.branch import Branch, SignedBranch
from cromford.factory.leaf import Leaf, state_in
from cromford.factory.lifetime import Lifetime, Period
from cromford.factory.terms import BranchTerms
from cromford.factory.vertices import TreeNode, Vertex
from cromford.protocol.journal import older
from cromford.protocol.journal.client_candidate import ClientCandidate
from cromford.protocol.journal.first_commitments import ChannelSetting, funding_in
from cromford.protocol.journal.kept import KeptJoin, KeptProposal, kept_join
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.leaf_states import (
    AgreedStates,
    index_on_chain,
    leaf_with,
)
from cromford.protocol.journal.opening_records import FundingInput
from cromford.protocol.journal.state_classes import Older
from cromford.wire.messages import Join


def _received(*, claim: older.OlderClaim) -> "Received":
    """Return what a checkpoint of an older version held: with all of the proposal."""
    return Received(kept=older.kept_of(claim.propose, kept_join(claim.join)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A proposal arrived; nothing in it is believed.

    What would follow from it is remembered once it is accepted. Older journals had it before:
    `kept` is what is kept of it, if it is accepted.
    """

    kept: KeptProposal | None = None

    older = Older({"claim": ClientCandidate}, _received)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Every check passed; partial signatures below the root are being made."""

    candidate: ClientCandidate


@dataclass(frozen=True, slots=True, kw_only=True)
class BelowSent:
    """The LSP holds our partial signatures below the root.

    `own_partial_sig`, our half of our own first commitment, stays here.
    """

    candidate: ClientCandidate
    partial_sigs: tuple[bytes, ...]
    commitment_partial_sig: bytes
    own_partial_sig: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HasExit:
    """We hold every signature below the root, and our first commitment's."""

    candidate: ClientCandidate
    signatures: tuple[bytes, ...]
    commitment_signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RootSent:
    """The LSP may hold the root; we do not yet."""

    candidate: ClientCandidate
    signatures: tuple[bytes, ...]
    commitment_signature: bytes
    partial_sig: bytes


@dataclass(frozen=True, kw_only=True)
class Complete:
    """We hold our whole branch and can leave alone once it is funded."""

    candidate: ClientCandidate
    signatures: tuple[bytes, ...]
    commitment_signature: bytes
    root_signature: bytes

    @cached_property
    def signed_branch(self) -> SignedBranch:
        """The branch with every signature."""
        branch = self.candidate.branch
        below = [node.name for node in branch.nodes_below_root]
        signatures = dict(zip(below, self.signatures, strict=True))
        signatures[branch.root_node.name] = self.root_signature
        return branch.with_signatures(signatures)


Stage = Received | Checked | BelowSent | HasExit | RootSent | Complete


class Unchecked(ValueError):
    """A proposal that did not pass every check has no terms, branch or channel."""


def _as_kept(
    *,
    join: Join,
    propose: older.OlderPropose,
    stage: Any,  # noqa: ANN401 - a stage, in which is an older candidate
    other_stages: tuple[Any, ...] = (),
    **held: Any,  # noqa: ANN401 - the other fields
) -> "ClientAttempt":
    """Return an attempt as a checkpoint of an older version held it: with the whole proposal."""
    own = kept_join(join)
    proposal = None if isinstance(stage, Received) else older.kept_of(propose, own)

    def today(one: Any) -> Any:  # noqa: ANN401 - a stage
        if proposal is None:
            return one
        rung = one.candidate.rung
        return replace(one, candidate=ClientCandidate(join=own, proposal=proposal, rung=rung))

    return ClientAttempt(
        join=own,
        attempt_id=propose.attempt_id,
        client=propose.client,
        terms_hash=propose.terms_hash,
        stage=today(stage),
        # One that is only received has all candidates in it.
        other_stages=() if proposal is None else tuple(map(today, other_stages)),
        **held,
    )


@dataclass(frozen=True, kw_only=True)
class ClientAttempt:
    """What a client remembers of one attempt. Aborted is a word of the LSP's, not an erasure.

    With a fee ladder, `stage` is that of its present candidate: the one that is in a block, or else
    the first; and once it was ready, for ever the one that its channel is in. `other_stages` are
    those of the others, lowest feerate first, and always of the same kind. `ready_rung` is the
    candidate that the LSP found ready.

    `attempt_id`, `client`, our participant index, and `terms_hash` are what the proposal says.
    """

    lsp_node_id: bytes
    key_attempt: int
    join: KeptJoin
    attempt_id: bytes
    client: int
    terms_hash: bytes
    stage: Stage
    inputs: tuple[FundingInput, ...] = ()
    aborted: str | None = None
    given_up: bool = False
    ready_sent: bool = False
    ready_received: bool = False
    is_exiting: bool = False
    is_paused: bool = False  # of an exit
    retired_height: int | None = None  # from when on its keys are not ours alone
    keys_taken: bool = False  # by the LSP, which says that it keeps them
    keys_refused: str = ""  # why not, when it last said so
    refused_height: int | None = None  # the tip's, then
    period: Period = Period.WAITING  # the newest that was told, from dying on
    leaf_states: AgreedStates = ()  # those of our leaf that replaced that of the opening
    is_marked: bool = False  # the store was restored before it had a channel
    awaits_states: bool = False  # of our leaf: our store may lack some, and the LSP is asked
    other_stages: tuple[Stage, ...] = ()
    ready_rung: int = 0

    older = Older({"join": Join, "propose": older.OlderPropose}, _as_kept)

    @property
    def rung(self) -> int:
        """The place of the present candidate in the fee ladder."""
        return _rung_of(self.stage)

    @property
    def ladder(self) -> tuple[Stage, ...]:
        """The stage of every candidate, lowest feerate first."""
        return tuple(sorted((self.stage, *self.other_stages), key=_rung_of))

    @property
    def candidates(self) -> tuple[ClientCandidate, ...]:
        """What follows from the proposal of each candidate, lowest feerate first; as `candidate`.

        Raises:
            Unchecked: As `candidate` does.
        """
        return tuple(_accepted(stage, self.attempt_id) for stage in self.ladder)

    def with_stages(self, stages: Iterable[Stage]) -> "ClientAttempt":
        """Return the attempt with another stage of each candidate, lowest feerate first."""
        new = tuple(stages)
        others = tuple(one for one in new if _rung_of(one) != self.rung)
        return changed(self, stage=new[self.rung], other_stages=others)

    def on_rung(self, rung: int) -> "ClientAttempt":
        """Return the attempt with another present candidate."""
        if rung == self.rung:
            return self
        ladder = self.ladder
        others = tuple(one for one in ladder if _rung_of(one) != rung)
        return replace(self, stage=ladder[rung], other_stages=others)

    def on_chain(self, chain: KnownChain) -> "ClientAttempt":
        """Return the attempt with the present candidate that the chain shows, unless one is kept.

        The one that is in a block, or else the first: which one waits is the LSP's to know.
        """
        if not self.other_stages or self.ready_sent or not self.is_checked:
            return self
        return self.on_rung(self.rung_in(chain) or 0)

    def rung_in(self, chain: KnownChain) -> int | None:
        """Return the place of the candidate that is in a block; None if none is.

        Raises:
            Unchecked: As `candidate` does.
        """
        for one in self.candidates:
            if one.funding_tx.txid in chain.confirmed:
                return one.rung
        return None

    def overtaken_depth(self, chain: KnownChain) -> int:
        """Return the confirmations of what takes the funding's place: 0 if nothing does.

        Another candidate of the ladder does so only once our channel is in this one.

        Raises:
            Unchecked: As `candidate` does.
        """
        siblings = () if self.ready_sent else self.candidates
        ours = frozenset(one.funding_tx.txid for one in siblings)
        return chain.rival_depth(self.funding_tx, but=ours)

    def is_overtaken(self, chain: KnownChain) -> bool:
        """Say whether something took the funding's place, as deep as a funding has to be.

        Raises:
            Unchecked: As `candidate` does.
        """
        return self.overtaken_depth(chain) >= self.terms.min_depth

    @property
    def is_ready_on_both_sides(self) -> bool:
        """Whether the LSP found the same candidate ready that we did."""
        return self.ready_sent and self.ready_received and self.ready_rung == self.rung

    @property
    def is_retired(self) -> bool:
        """Whether we moved out and gave our keys away: then nothing is signed or published here."""
        return self.retired_height is not None

    @property
    def is_open(self) -> bool:
        """Whether it may still become a factory, and so no other is wished for."""
        return self.aborted is None and not self.given_up and not self.ready_sent

    @property
    def may_be_used(self) -> bool:
        """Whether it may have become a channel that takes updates, in what a store has lost.

        One that we were leaving never does.
        """
        return not self.ready_sent and not self.is_exiting

    @property
    def is_checked(self) -> bool:
        """Whether the proposal passed every check: only then does anything follow from it."""
        return not isinstance(self.stage, Received)

    @property
    def candidate(self) -> ClientCandidate:
        """What follows from the proposal.

        Raises:
            Unchecked: If it was refused, or is being checked.
        """
        return _accepted(self.stage, self.attempt_id)

    @property
    def terms(self) -> BranchTerms:
        """What is kept of the agreement; raises `Unchecked` as `candidate` does."""
        return self.candidate.terms

    @property
    def branch(self) -> Branch:
        """Our branch, down to the newest signed state of our leaf; raises as `candidate` does."""
        return self._branch_at(len(self.leaf_states))

    def branch_on(self, chain: KnownChain) -> Branch:
        """Return our branch, down to the state that is in a block, or the newest signed one.

        Raises:
            Unchecked: As `candidate` does.
        """
        forgotten = self._forgotten_on(chain)
        if forgotten is None:
            return self._branch_at(self.state_index_on(chain))
        return self._branch_with(forgotten[0])

    def state_index_on(self, chain: KnownChain) -> int:
        """Return which state of our leaf is in a block, or else the newest signed one.

        Raises:
            Unchecked: As `candidate` does.
        """
        return index_on_chain(self.leaf, chain) if self.leaf_states else 0

    def _branch_at(self, state_index: int) -> Branch:
        if not state_index:
            return self.candidate.branch
        if state_index not in self._branches:
            self._branches[state_index] = self._branch_with(self.leaf.states[state_index])
        return self._branches[state_index]

    def _branch_with(self, state: TreeNode) -> Branch:
        opened = self.candidate.branch
        vertex = Vertex(first=opened.vertices[-1].first, last=state)
        return replace(opened, vertices=(*opened.vertices[:-1], vertex))

    def _forgotten_on(self, chain: KnownChain) -> tuple[TreeNode, Tx] | None:
        """Return the state of our leaf that is in a block, and that our restored store lacks.

        Bare, and as it is in the block; None where it is one that we know, or none.
        """
        vertex = self.candidate.branch.vertices[-1]
        found = chain.spends.get(vertex.last.tx.inputs[0].outpoint)
        if found is None or vertex.is_static or found.txid in self.watched_txids:
            return None
        if found.txid not in self._forgotten:
            self._forgotten[found.txid] = state_in(self.leaf, found)
        state = self._forgotten[found.txid]
        return None if state is None else (state, found)

    @cached_property
    def _forgotten(self) -> dict[Txid, TreeNode | None]:
        """By txid, which state of our leaf it is that spent its kickoff; None for none."""
        return {}

    @cached_property
    def _branches(self) -> dict[int, Branch]:
        """Our branch down to newer states, as far as it was asked for."""
        return {}

    @cached_property
    def leaf(self) -> Leaf:
        """Our leaf with every state that was signed; raises `Unchecked` as `candidate` does."""
        return leaf_with(
            self.leaf_states,
            self.candidate.branch.vertices[-1],
            terms=self.terms,
            factory_pubkeys=self.leaf_pubkeys,
        )

    @property
    def leaf_pubkeys(self) -> dict[int, bytes]:
        """The factory keys of the LSP and of our leaf's clients; raises as `candidate` does."""
        return self.candidate.leaf_pubkeys

    @property
    def may_lack_states(self) -> bool:
        """Whether our leaf may have had a newer state than we know; raises as `candidate` does."""
        vertex = self.candidate.branch.vertices[-1]
        return not vertex.is_static and len(self.leaf_states) + 1 < self.terms.states_per_layer

    @property
    def watched_txids(self) -> frozenset[Txid]:
        """The funding transaction and our branch, with every version of its leaf's state.

        Of each candidate of a fee ladder.
        """
        opened = self.candidate.watched_txids
        if self.other_stages:
            opened = opened.union(*(one.watched_txids for one in self.candidates))
        if not self.leaf_states:
            return opened
        return opened | frozenset(state.tx.txid for state in self.leaf.states)

    @property
    def lifetime(self) -> Lifetime:
        """When our channel's life changes, by our own path; raises `Unchecked` as `candidate`."""
        return self.candidate.lifetime

    @property
    def setting(self) -> ChannelSetting:
        """Our channel, as our leaf's newest signed state pays it; raises as `candidate` does."""
        opened = self.candidate.setting
        return replace(opened, funding=self.fundings[-1]) if self.leaf_states else opened

    @property
    def fundings(self) -> tuple[Funding, ...]:
        """Where our channel is in each signed state, the oldest first; raises as `candidate`."""
        opened = self.candidate.setting.funding
        if not self.leaf_states:
            return (opened,)
        return tuple(funding_in(state, opened, client=self.client) for state in self.leaf.states)

    @property
    def funding_tx(self) -> Tx:
        """The funding transaction, unsigned; raises `Unchecked` as `candidate` does."""
        return self.candidate.funding_tx

    @property
    def funding_outpoint(self) -> OutPoint:
        """The factory's place in it; raises `Unchecked` as `candidate` does."""
        return self.candidate.funding_outpoint

    @property
    def signed_branch(self) -> SignedBranch:
        """The branch with every signature, down to the newest signed state of our leaf.

        Raises:
            ValueError: If the attempt is not complete.
        """
        return self._signed_branch_at(len(self.leaf_states))

    def signed_branch_on(self, chain: KnownChain) -> SignedBranch:
        """Return the same, down to the state that is in a block, if an older one is.

        Raises:
            ValueError: If the attempt is not complete.
        """
        forgotten = self._forgotten_on(chain)
        if forgotten is None:
            return self._signed_branch_at(self.state_index_on(chain))
        state, tx = forgotten
        above = self._signed_branch_at(0).txs[:-1]
        return SignedBranch(branch=self._branch_with(state), txs=(*above, tx))

    def _signed_branch_at(self, state_index: int) -> SignedBranch:
        if not isinstance(self.stage, Complete):
            raise ValueError(f"attempt {self.attempt_id.hex()} is not complete")
        opened = self.stage.signed_branch
        if not state_index:
            return opened
        if state_index not in self._signed_branches:
            state = self.leaf.states[state_index]
            signed = state.signed(self.leaf_states[state_index - 1].signature)
            self._signed_branches[state_index] = SignedBranch(
                branch=self._branch_at(state_index), txs=(*opened.txs[:-1], signed)
            )
        return self._signed_branches[state_index]

    @property
    def newer_signatures(self) -> dict[str, bytes]:
        """The signatures of our leaf's states that replaced that of the opening, by their names."""
        if not self.leaf_states:
            return {}
        newer = zip(self.leaf.states[1:], self.leaf_states, strict=True)
        return {state.name: agreed.signature for state, agreed in newer}

    @cached_property
    def _signed_branches(self) -> dict[int, SignedBranch]:
        """Our signed branch down to newer states, as far as it was asked for."""
        return {}


def _accepted(stage: Stage, attempt_id: bytes) -> ClientCandidate:
    if isinstance(stage, Received):
        raise Unchecked(f"attempt {attempt_id.hex()}: the proposal was never accepted")
    return stage.candidate


def _rung_of(stage: Stage) -> int:
    return 0 if isinstance(stage, Received) else stage.candidate.rung
