"""One attempt to build a factory, as the LSP remembers it. Its stages are types."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from immutables import Map

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.factory.branch import Branch
from cromford.factory.funding import CHANGE_VOUT
from cromford.factory.leaf import Leaf
from cromford.factory.terms import FactoryTerms
from cromford.factory.tree import Tree
from cromford.protocol.journal.first_commitments import ChannelSetting
from cromford.protocol.journal.leaf_states import NOTHING_AGREED, Leaves, leaf_with
from cromford.protocol.journal.lsp_blueprint import LspBlueprint, LspSeat
from cromford.protocol.journal.lsp_candidate import (
    LspCandidate,
    SignaturesBelow,
    SignedCandidate,
)
from cromford.wire import messages as m


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningBelow:
    """Clients sign everything below the root, and their halves of our first commitments."""

    candidate: LspCandidate
    partial_sigs: Mapping[int, tuple[bytes, ...]] = field(default_factory=dict)
    commitment_partial_sigs: Mapping[int, bytes] = field(default_factory=dict)
    label = "signing_below"

    @property
    def done(self) -> frozenset[int]:
        """The clients who signed."""
        return frozenset(self.partial_sigs)


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningRoot:
    """Everybody has its exit below the root; clients sign the root."""

    before: SigningBelow
    below: SignaturesBelow
    partial_sigs: Mapping[int, bytes] = field(default_factory=dict)
    label = "signing_root"

    @property
    def done(self) -> frozenset[int]:
        """The clients who signed."""
        return frozenset(self.partial_sigs)


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


@dataclass(frozen=True, kw_only=True)
class LspAttempt:
    """What the LSP remembers of one attempt. `reasons` say why each client has its seat.

    `leaves` are the states of leaves that replaced those of the opening.

    While the ceremony is under way each stage keeps the one before: what a client sent is compared
    with what it sends again. A factory needs none of it.
    """

    attempt_id: bytes
    key_attempt: int
    blueprint: LspBlueprint
    reasons: tuple[str, ...]
    stage: Stage
    leaves: Leaves = field(default_factory=Map)

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
        return {} if self.signed is None else self.signed.by_name

    @property
    def said_below(self) -> SigningBelow | None:
        """What clients signed below the root, in a ceremony under way."""
        match self.stage:
            case SigningBelow():
                return self.stage
            case SigningRoot(before=before) | Acknowledging(before=SigningRoot(before=before)):
                return before
            case _:
                return None

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

    @property
    def tree(self) -> Tree:
        """The whole tree."""
        return self.blueprint.tree

    @property
    def payout_script(self) -> bytes:
        """Where our money of the factory goes: the change of its funding.

        Ours since the funding, and never used up by anything but this factory.
        """
        return self.funding_tx.outputs[CHANGE_VOUT].script_pubkey

    def branch(self, client: int) -> Branch:
        """Return one client's branch."""
        return self.blueprint.branch(client)

    def setting(self, client: int) -> ChannelSetting:
        """Return one client's channel."""
        return self.blueprint.setting(client)

    def leaf_name(self, client: int) -> str:
        """Return the name of a client's leaf."""
        return self.blueprint.branch(client).vertices[-1].first.shape.name

    def leaf(self, client: int) -> Leaf:
        """Return a client's leaf with every state that was signed."""
        name = self.leaf_name(client)
        if name not in self._built_leaves:
            self._built_leaves[name] = leaf_with(
                self.leaves.get(name, NOTHING_AGREED),
                self.blueprint.branch(client).vertices[-1],
                terms=self.terms,
                factory_pubkeys=self.blueprint.factory_pubkeys,
            )
        return self._built_leaves[name]

    @cached_property
    def _built_leaves(self) -> dict[str, Leaf]:
        """Leaves that were asked for, by their names: each is built from its first state on."""
        return {}

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
            candidates=(self.candidate.proposal_for(client),),
        )
