"""What a client checks before it signs anything: every rule a refusal with its own name.

The client rebuilds its branch from the terms and the keys and compares, field by field, with
what the LSP sent. It signs the bytes it computed, never the bytes it was sent. Of what leads to
others it takes the scripts as given, if they are taproot, and neither the amounts nor their number.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from cromford.bitcoin.block import Coin
from cromford.bitcoin.network import Network
from cromford.bitcoin.script import is_native_segwit, is_usual_segwit
from cromford.bitcoin.timelock import NSEQUENCE_REPLACEABLE
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.channel.terms import Party
from cromford.codec.reader import MalformedBytes
from cromford.crypto.keys import is_pubkey
from cromford.factory.branch import Branch
from cromford.factory.close import USUAL_SCRIPTS
from cromford.factory.funding import CHANGE_MIN_SAT, CHANGE_VOUT, FUNDING_VERSION
from cromford.factory.shape import plan_of
from cromford.factory.terms import FactoryTerms, InvalidTerms
from cromford.factory.tree import FACTORY_VOUT
from cromford.factory.vertices import TreeNode
from cromford.protocol.faults import Refusal
from cromford.protocol.journal.proposal import ClaimedCandidate, parse_tree_tx
from cromford.protocol.opening.verification_channel import (
    check_burns,
    check_capacity,
    check_channel_offer,
    check_coins,
    check_feerate,
    check_first_commitments,
    check_is_relayed,
    check_max_cltv,
)
from cromford.protocol.opening.verification_ladder import (
    check_keys_of_ladder,
    check_nonces,
    check_nonces_of_ladder,
    check_rising,
)
from cromford.protocol.policy import ClientPolicy
from cromford.protocol.refusing import check_equal, check_range
from cromford.protocol.term_ranges import check_layers, check_term_ranges
from cromford.wallet.coins import N_INPUTS_MAX
from cromford.watch.feerates import OwnFees


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFacts:
    """What a client measures a proposal against: what it knows itself, not from the LSP.

    Attributes:
        network: Its own.
        policy: Its operator's.
        tip_height: Of its own chain, when the proposal came.
        known_funding_outpoints: Those that it was proposed before.
        fees: What its own node said then; None if that is not known any more.
        coins_sat: What its free coins held then; None if that is not known any more.
    """

    network: Network
    policy: ClientPolicy
    tip_height: int
    known_funding_outpoints: frozenset[OutPoint]
    fees: OwnFees | None = None
    coins_sat: int | None = None


def check_terms(claim: ClaimedCandidate, facts: ClientFacts) -> FactoryTerms:
    """Return the terms, if they are possible and within the client's own policy.

    Raises:
        Refusal: Naming the term.
    """
    propose = claim.propose
    try:
        terms = claim.terms
    except InvalidTerms as error:
        raise Refusal(error.field, expected=error.expected, received=error.received) from error
    except MalformedBytes as error:
        raise Refusal("terms", expected="a TLV stream of terms", received=error) from error
    check_equal("terms_hash", expected=terms.terms_hash, received=propose.terms_hash)
    check_equal("attempt_id", expected=propose.attempt_id, received=terms.attempt_id)
    check_equal("network", expected=facts.network.genesis_hash, received=terms.network)
    check_range("client", (1, terms.n_clients), propose.client)
    check_range("clients", (1, facts.policy.max_clients), terms.n_clients)
    check_range("candidates", (1, facts.policy.candidates_max), terms.candidates)
    check_term_ranges(
        terms, facts.policy, tip_height=facts.tip_height, capacities_sat=terms.capacity_sat
    )
    capacity_sat = terms.capacity_sat[propose.client - 1]
    check_range(
        "capacity_sat", (claim.join.capacity_least_sat, claim.join.capacity_sat), capacity_sat
    )
    check_capacity(terms, capacity_sat)
    if facts.fees is not None:
        check_feerate(terms, limit=facts.policy.burn_limit, fees=facts.fees)
    check_burns(terms, capacity_sat, limit=facts.policy.burn_limit)
    return terms


def check_ladder(
    claims: Sequence[ClaimedCandidate], facts: ClientFacts, coins: Mapping[OutPoint, Coin | None]
) -> None:
    """Check everything proposed against the client's own branch under each candidate.

    Args:
        claims: What would follow from the LSP's proposal, lowest feerate first.
        facts: What the client knows itself.
        coins: What the client's own chain says of each funding input.

    Raises:
        Refusal: At the first difference, by name, with the expected and the received value.
    """
    terms = check_terms(claims[0], facts)
    propose = claims[0].propose
    check_equal("candidates", expected=terms.candidates, received=len(propose.candidates))
    n_joined = len(claims[0].join.candidates)
    check_range("candidates", (1, n_joined), len(propose.candidates))
    branches: list[Branch] = []
    seen: set[OutPoint] = set(facts.known_funding_outpoints)
    for claim in claims:
        try:
            branches.append(_check_candidate(claim, terms, facts, coins, seen))
        except Refusal as refusal:
            if not claim.rung:
                raise
            field = f"candidates[{claim.rung}].{refusal.field}"
            raise Refusal(field, expected=refusal.expected, received=refusal.received) from refusal
        seen.add(claim.funding_outpoint)
    check_nonces_of_ladder(claims, branches)
    check_rising(claims, coins)
    check_keys_of_ladder(claims)


def _check_candidate(
    claim: ClaimedCandidate,
    terms: FactoryTerms,
    facts: ClientFacts,
    coins: Mapping[OutPoint, Coin | None],
    known_funding_outpoints: AbstractSet[OutPoint],
) -> Branch:
    """Return the client's branch under one candidate, recomputed, if all of it agrees with it."""
    propose, join, candidate = claim.propose, claim.join, claim.candidate
    funding_tx = check_funding_tx(candidate.funding_tx, coins)
    funding_outpoint = funding_tx.outpoint(FACTORY_VOUT)
    if funding_outpoint in known_funding_outpoints:
        raise Refusal("funding_outpoint", expected="one never seen", received=funding_outpoint)
    try:
        plan = plan_of(terms)
    except InvalidTerms as error:
        raise Refusal(error.field, expected=error.expected, received=error.received) from error
    fees = facts.fees or OwnFees()
    check_is_relayed(terms, plan, min_relay_sat_per_kw=fees.min_relay_sat_per_kw)
    path = plan.path_to(propose.client)
    check_layers(facts.policy, plan.shape.kinds_to(propose.client))
    check_max_cltv(
        terms, kinds=plan.shape.kinds_to(propose.client), slowest_kinds=plan.shape.slowest_kinds
    )
    check_equal("vertices", expected=len(path), received=len(candidate.vertices))
    check_signers(
        propose.factory_pubkeys,
        n_clients=terms.n_clients,
        client=propose.client,
        own_pubkey=join.factory_pool.pubkey,
    )
    own_offer = join.candidates[claim.rung].channel
    check_channel_offer(candidate.channel, own=own_offer)
    branch = claim.branch
    check_funding_output(funding_tx, branch)
    if facts.coins_sat is not None:
        check_coins(branch, fees=fees, coins_sat=facts.coins_sat)
    for vertex, sent in zip(branch.vertices, candidate.vertices, strict=True):
        if vertex.is_static:
            name = f"kickoff_{vertex.first.shape.name}"
            check_equal(name, expected=b"", received=sent.kickoff_tx)
        else:
            check_tree_tx(vertex.first, sent.kickoff_tx)
        check_tree_tx(vertex.last, sent.state_tx)
    check_first_commitments(claim.setting)
    check_nonces(
        "commitment_nonces",
        [f"commitment_{holder.name.lower()}" for holder in Party],
        candidate.commitment_nonces,
        join.candidates[claim.rung].pool.size,
    )
    return branch


def check_funding_tx(data: bytes, coins: Mapping[OutPoint, Coin | None]) -> Tx:
    """Return the funding transaction if its txid is final and its inputs can pay it.

    Raises:
        Refusal: If its form is not that of a funding transaction, an input is not a confirmed
            native-segwit coin of the client's own chain, or the inputs do not cover it.
    """
    try:
        tx = Tx.parse(data)
    except MalformedBytes as error:
        raise Refusal("funding_tx", expected="a transaction", received=error) from error
    check_equal("funding_tx.version", expected=FUNDING_VERSION, received=tx.version)
    check_equal("funding_tx.nlocktime", expected=0, received=tx.nlocktime)
    check_equal(
        "funding_tx.witness", expected="none", received="some" if tx.has_witness else "none"
    )
    check_equal("funding_tx.outputs", expected=2, received=len(tx.outputs))
    if tx.outputs[CHANGE_VOUT].amount_sat < CHANGE_MIN_SAT:
        raise Refusal(
            "funding_tx.change",
            expected=f"at least {CHANGE_MIN_SAT} sat",
            received=tx.outputs[CHANGE_VOUT].amount_sat,
        )
    change_script = tx.outputs[CHANGE_VOUT].script_pubkey
    if not is_usual_segwit(change_script):
        # It is kept: an LSP must not choose how long it is.
        raise Refusal("funding_tx.change", expected=USUAL_SCRIPTS, received=change_script)
    check_range("funding_tx.inputs", (1, N_INPUTS_MAX), len(tx.inputs))
    in_sat = 0
    seen: set[OutPoint] = set()
    for i, tx_in in enumerate(tx.inputs):
        check_equal(
            f"funding_tx.input[{i}].nsequence",
            expected=NSEQUENCE_REPLACEABLE,
            received=tx_in.nsequence,
        )
        if tx_in.outpoint in seen:
            raise Refusal(
                f"funding_tx.input[{i}]", expected="each coin once", received=tx_in.outpoint
            )
        seen.add(tx_in.outpoint)
        coin = coins.get(tx_in.outpoint)
        if coin is None:
            raise Refusal(
                f"funding_tx.input[{i}]", expected="a confirmed coin", received=tx_in.outpoint
            )
        if tx_in.script_sig or not is_native_segwit(coin.txout.script_pubkey):
            raise Refusal(
                f"funding_tx.input[{i}]",
                expected="native segwit, empty scriptSig",
                received=coin.txout.script_pubkey,
            )
        in_sat += coin.txout.amount_sat
    out_sat = sum(txout.amount_sat for txout in tx.outputs)
    if out_sat >= in_sat:
        raise Refusal("funding_tx.fee", expected="above 0 sat", received=in_sat - out_sat)
    return tx


def check_signers(
    everybody: Sequence[bytes], *, n_clients: int, client: int, own_pubkey: bytes
) -> None:
    """Check everybody's factory keys: who signs which vertex of them, the shape says.

    Raises:
        Refusal: Naming the key.
    """
    check_equal("factory_pubkeys", expected=n_clients + 1, received=len(everybody))
    check_equal("factory_pubkeys[own]", expected=own_pubkey, received=everybody[client])
    if len(set(everybody)) != len(everybody):
        raise Refusal("factory_pubkeys", expected="different keys", received="one key twice")
    for i, pubkey in enumerate(everybody):
        if not is_pubkey(pubkey):
            raise Refusal(f"factory_pubkeys[{i}]", expected="a pubkey", received=pubkey)


def check_funding_output(funding_tx: Tx, branch: Branch) -> None:
    """Check that the funding transaction pays exactly the factory, exactly its amount.

    Raises:
        Refusal: Naming the script or the amount.
    """
    output = funding_tx.outputs[FACTORY_VOUT]
    check_equal(
        "funding_output.script_pubkey",
        expected=branch.funding_output.script_pubkey,
        received=output.script_pubkey,
    )
    check_equal(
        "funding_output.amount_sat",
        expected=branch.funding_amount_sat,
        received=output.amount_sat,
    )


def check_tree_tx(node: TreeNode, data: bytes) -> None:
    """Check a transaction the LSP sent against the one the client computed.

    Raises:
        Refusal: Naming the first field that differs.
    """
    if data == node.tx.serialize():
        return
    sent, name = parse_tree_tx(node.name, data), node.name
    check_equal(f"{name}.version", expected=node.tx.version, received=sent.version)
    check_equal(f"{name}.nlocktime", expected=node.tx.nlocktime, received=sent.nlocktime)
    check_equal(f"{name}.inputs", expected=1, received=len(sent.inputs))
    own, other = node.tx.inputs[0], sent.inputs[0]
    check_equal(f"{name}.outpoint", expected=own.outpoint, received=other.outpoint)
    check_equal(f"{name}.nsequence", expected=own.nsequence, received=other.nsequence)
    check_equal(f"{name}.outputs", expected=len(node.outputs), received=len(sent.outputs))
    for vout, (output, received) in enumerate(zip(node.outputs, sent.outputs, strict=True)):
        field = f"{name}.output[{vout}]"
        check_equal(
            f"{field}.script_pubkey", expected=output.script_pubkey, received=received.script_pubkey
        )
        check_equal(f"{field}.amount_sat", expected=output.amount_sat, received=received.amount_sat)
    check_equal(name, expected=node.tx.serialize(), received=data)
