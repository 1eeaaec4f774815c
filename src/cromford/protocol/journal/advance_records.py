"""What is remembered of advances: leaf states that are replaced, so that L-stock becomes capacity.

`advance_id` names what the next state pays, and nothing else: who begins again with the same
allocation goes on with the same advance.
"""

from cromford.protocol.journal.opening_records import Intent
from cromford.protocol.journal.record import Record


class AdvanceProposed(Record, frozen=True, kw_only=True, tag="advance_proposed"):
    """The LSP sells L-stock of a leaf: its clients are asked to agree.

    `clients` and `capacities_sat` are in placement order. With a `payment_hash` the buyer pays out
    of that payment; the price with the rebase is 0 then, and `price_msat` is what is skimmed.
    """

    attempt_id: bytes
    advance_id: bytes
    clients: tuple[int, ...]
    state_index: int
    capacities_sat: tuple[int, ...]
    lstock_sat: int
    buyer: int
    quote_id: bytes
    price_msat: int
    payment_hash: bytes = b""


class AdvanceReceived(Record, frozen=True, kw_only=True, tag="advance_received"):
    """The LSP asks for an advance of our leaf that we find right: we begin no update from here on.

    `price_msat` is what our channel pays with the rebase: 0 unless we buy.
    """

    attempt_id: bytes
    advance_id: bytes
    channel_id: bytes
    state_index: int
    capacities_sat: tuple[int, ...]
    lstock_sat: int
    quote_id: bytes
    price_msat: int


class AdvanceResumed(Record, frozen=True, kw_only=True, tag="advance_resumed"):
    """All who take part are here again: where one of them signed nothing, we begin no update."""

    attempt_id: bytes
    advance_id: bytes


class AdvancePoolsMade(Record, frozen=True, kw_only=True, tag="advance_pools_made"):
    """Our nonces of an advance. They last as long as the process.

    The factory key's, and a pool of each channel's funding key: an LSP's in placement order.
    `session` is what a client was asked with.
    """

    attempt_id: bytes
    advance_id: bytes
    factory_pool: bytes
    channel_pools: tuple[bytes, ...]
    session: bytes = b""


class AdvanceAgreed(Record, frozen=True, kw_only=True, tag="advance_agreed"):
    """Our channel is quiet, and we say so: from here on the price is set aside in it."""

    attempt_id: bytes
    advance_id: bytes


class AdvanceAgreementReceived(Record, frozen=True, kw_only=True, tag="advance_agreement_received"):
    """A client agrees to an advance. `message` has its nonces."""

    attempt_id: bytes
    advance_id: bytes
    client: int
    message: bytes


class AdvanceCommitted(Record, frozen=True, kw_only=True, tag="advance_committed"):
    """Everybody agreed, and our halves of commitments on the next funding may go out.

    From here on the LSP drops the advance only where every client says that it signed nothing.
    """

    attempt_id: bytes
    advance_id: bytes


class AdvanceSigned(Record, frozen=True, kw_only=True, tag="advance_signed"):
    """We are about to sign an advance: from here on the old state and the new may both confirm.

    The intents are those of the new state, and of the old one's poisons. `message` is the LSP's
    `AdvanceCommit`, which has its nonces.
    """

    attempt_id: bytes
    advance_id: bytes
    intents: tuple[Intent, ...]
    message: bytes


class AdvanceSent(Record, frozen=True, kw_only=True, tag="advance_sent"):
    """What we signed of an advance leaves, and the channel may be updated again."""

    attempt_id: bytes
    advance_id: bytes


class AdvancePartialsReceived(Record, frozen=True, kw_only=True, tag="advance_partials_received"):
    """A client signed an advance. `message` is its `AdvanceSign`."""

    attempt_id: bytes
    advance_id: bytes
    client: int
    message: bytes


class AdvanceDeclined(Record, frozen=True, kw_only=True, tag="advance_declined"):
    """A client that may have got our half says that it signs nothing: its channel goes on."""

    attempt_id: bytes
    advance_id: bytes
    client: int
    reason: str


class AdvanceSessionEnded(Record, frozen=True, kw_only=True, tag="advance_session_ended"):
    """Nonces of an advance are gone with a connection: whoever goes on asks for fresh ones.

    `holdouts` are the clients that let a deadline pass, at this height.
    """

    attempt_id: bytes
    advance_id: bytes
    holdouts: tuple[int, ...] = ()
    height: int = 0


class StateSigned(Record, frozen=True, kw_only=True, tag="state_signed"):
    """A leaf's next state has everybody's signature: it is what is published from here on."""

    attempt_id: bytes
    advance_id: bytes
    signature: bytes


class PoisonHeld(Record, frozen=True, kw_only=True, tag="poison_held"):
    """The poisons of the state before are signed: of its L-stock, and of these clients' channels.

    A client has its own channel's alone. At the LSP: from here on they may have been sent.
    """

    attempt_id: bytes
    advance_id: bytes
    stock_signature: bytes
    clients: tuple[int, ...]
    channel_signatures: tuple[bytes, ...]


class AdvanceAcknowledged(Record, frozen=True, kw_only=True, tag="advance_acknowledged"):
    """A client holds the poisons, or the new state is six deep: its channel may be rebased."""

    attempt_id: bytes
    advance_id: bytes
    client: int


class AdvanceDropped(Record, frozen=True, kw_only=True, tag="advance_dropped"):
    """Nothing comes of an advance, and nothing of it was signed that binds anybody.

    `culprits` are the node ids of those who caused it; `is_fault` says that it was proven.
    `holdouts` are the clients that let a deadline pass, at this height.
    """

    attempt_id: bytes
    advance_id: bytes
    reason: str
    culprits: tuple[bytes, ...] = ()
    is_fault: bool = False
    holdouts: tuple[int, ...] = ()
    height: int = 0


class AdvanceEnded(Record, frozen=True, kw_only=True, tag="advance_ended"):
    """Every channel of ours in the leaf is rebased: the next advance may begin."""

    attempt_id: bytes
    advance_id: bytes


class NextCommitmentIntended(Record, frozen=True, kw_only=True, tag="next_commitment_intended"):
    """We are about to sign the peer's commitment of this number for the next funding, too."""

    channel_id: bytes
    number: int
    sighash: bytes


class NextCommitmentHeld(Record, frozen=True, kw_only=True, tag="next_commitment_held"):
    """We hold our latest commitment on the next funding, too. Nothing is revoked."""

    channel_id: bytes
    number: int
    signature: bytes
    htlc_signatures: tuple[bytes, ...]


class NextFundingVoid(Record, frozen=True, kw_only=True, tag="next_funding_void"):
    """Both sides see the old state six deep in the chain: the channel goes on there alone."""

    channel_id: bytes


class LiquiditySold(Record, frozen=True, kw_only=True, tag="liquidity_sold"):
    """The ledger's entry: a client's channel grew, and this was paid for it."""

    attempt_id: bytes
    channel_id: bytes
    client: int
    advance_id: bytes
    height: int
    amount_sat: int
    capacity_sat: int
    price_msat: int


class LiquidityBought(Record, frozen=True, kw_only=True, tag="liquidity_bought"):
    """The receipt: our channel grew, and we paid this for it."""

    attempt_id: bytes
    channel_id: bytes
    advance_id: bytes
    height: int
    amount_sat: int
    capacity_sat: int
    price_msat: int


class LeafStatesTold(Record, frozen=True, kw_only=True, tag="leaf_states_told"):
    """The LSP told our restored store of its leaf: we publish the newest that we know from here on.

    `message` is its `LeafStates`, verified; empty where it did not say it in time.
    """

    attempt_id: bytes
    message: bytes


class PurchaseOrdered(Record, frozen=True, kw_only=True, tag="purchase_ordered"):
    """We are about to buy by a quote: our channel may grow to this, for this price.

    With `takes_beyond` though poisons would not cover all that may become ours.
    """

    attempt_id: bytes
    quote_id: bytes
    amount_sat: int
    capacity_sat: int
    price_msat: int
    payment_hash: bytes = b""
    takes_beyond: bool = False
    valid_until_height: int = 0


class PurchaseEnded(Record, frozen=True, kw_only=True, tag="purchase_ended"):
    """What we bought by a quote is ours, or never will be: `reason` is empty where it is ours."""

    attempt_id: bytes
    quote_id: bytes
    reason: str = ""


SharedAdvanceRecord = AdvancePoolsMade | StateSigned | PoisonHeld | AdvanceDropped | AdvanceEnded
LspAdvanceRecord = (
    AdvanceProposed
    | AdvanceResumed
    | AdvanceAgreementReceived
    | AdvanceCommitted
    | AdvancePartialsReceived
    | AdvanceAcknowledged
    | AdvanceDeclined
    | AdvanceSessionEnded
    | LiquiditySold
)
ClientAdvanceRecord = (
    AdvanceReceived | AdvanceAgreed | AdvanceSigned | AdvanceSent | LiquidityBought | LeafStatesTold
)
PurchaseRecord = PurchaseOrdered | PurchaseEnded
# Of one channel: a link folds them.
NextFundingRecord = NextCommitmentIntended | NextCommitmentHeld | NextFundingVoid
