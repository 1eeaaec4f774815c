"""The largest factory with the default shape can be proposed: one message to each client."""

from dataclasses import replace

import pytest

from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import OutPoint, Txid, TxOut
from cromford.codec.reader import MalformedBytes
from cromford.crypto.keys import pubkey_of
from cromford.factory.branch import Branch, build_branch
from cromford.factory.funding import CHANGE_MIN_SAT, funding_tx_of
from cromford.factory.kinds import VertexKind, exit_blocks_of
from cromford.factory.shape import default_levels, default_lstocks_sat, plan_of, shape_of
from cromford.factory.terms import (
    N_CLIENTS_MAX,
    SAFETY_BLOCKS,
    FactoryTerms,
    FeePolicy,
)
from cromford.factory.vertices import ChannelFundingPubkeys, funding_output_of
from cromford.wallet.coins import N_INPUTS_MAX
from cromford.wire import messages as m
from cromford.wire.messages import decode_message, encode_message

BUILD_HEIGHT = 900_000
LEAF_ARITY = 2
STATES_PER_LAYER = 4
EXIT_DELAY_MAX = 1296
PUBKEYS = [pubkey_of(number.to_bytes(32, "big")) for number in range(1, N_CLIENTS_MAX + 2)]


def terms_of(n_clients: int, *, step_blocks: int, kind: VertexKind | None) -> FactoryTerms:
    """Terms of a shape by the number of clients, with amounts as wide as they get."""
    delay_max_blocks = step_blocks * (STATES_PER_LAYER - 1)
    inner = default_levels(
        n_clients,
        leaf_arity=LEAF_ARITY,
        kind=kind,
        delay_max_blocks=delay_max_blocks,
        max_exit_delay_blocks=EXIT_DELAY_MAX,
    )
    shape = shape_of(n_clients, leaf_arity=LEAF_ARITY, inner=inner)
    capacities_sat = [100_000_000] * n_clients
    exit_blocks = exit_blocks_of(shape.slowest_kinds, delay_max_blocks=delay_max_blocks)
    return FactoryTerms(
        attempt_id=b"\x11" * 32,
        network=REGTEST.genesis_hash,
        build_height=BUILD_HEIGHT,
        expiry_height=BUILD_HEIGHT + 4320 + 432 + exit_blocks + SAFETY_BLOCKS,
        active_blocks=4320,
        dying_blocks=432,
        ready_min_blocks=2016,
        step_blocks=step_blocks,
        states_per_layer=STATES_PER_LAYER,
        leaf_arity=LEAF_ARITY,
        inner_arities=inner.arities,
        inner_kinds=inner.said_kinds,
        max_exit_delay_blocks=EXIT_DELAY_MAX,
        max_cltv_blocks=2964,
        patience_blocks=144,
        fee_policy=FeePolicy.ENDOGENOUS,
        tree_feerate_sat_per_kw=500,
        lstock_csv_blocks=144,
        min_depth=3,
        candidates=1,
        to_self_delay_lsp=144,
        to_self_delay_client=432,
        dust_limit_sat=354,
        max_accepted_htlcs=12,
        max_in_flight_msat=10_000_000,
        capacity_sat=tuple(capacities_sat),
        lstock_sat=default_lstocks_sat(shape, capacities_sat),
    )


def branch_of_client_1(terms: FactoryTerms, funding_outpoint: OutPoint) -> Branch:
    return build_branch(
        terms,
        client=1,
        factory_pubkeys=PUBKEYS[: terms.n_clients + 1],
        channel_keys=ChannelFundingPubkeys(
            client_funding_pubkey=PUBKEYS[0], lsp_funding_pubkey=PUBKEYS[1]
        ),
        neighbour_scripts=dict.fromkeys(range(2, LEAF_ARITY + 1), b"\x51\x20" + bytes(32)),
        funding_outpoint=funding_outpoint,
    )


def proposal_of(terms: FactoryTerms) -> m.Propose:
    """What client 1, whose branch is as large as any, is proposed."""
    funding_output = funding_output_of(PUBKEYS[: terms.n_clients + 1], terms)
    funding_tx = funding_tx_of(
        inputs=[OutPoint(txid=Txid(b"\x22" * 32), vout=vout) for vout in range(N_INPUTS_MAX)],
        factory_output=TxOut(
            amount_sat=plan_of(terms).input_sat, script_pubkey=funding_output.script_pubkey
        ),
        change_output=TxOut(amount_sat=CHANGE_MIN_SAT, script_pubkey=b"\x51\x20" + bytes(32)),
    )
    branch = branch_of_client_1(terms, funding_tx.outpoint(0))
    key = PUBKEYS[0]
    candidate = m.CandidateProposal(
        funding_tx=funding_tx.serialize(),
        vertices=tuple(
            m.BranchVertex(
                kickoff_tx=b"" if vertex.is_static else vertex.first.tx.serialize(),
                state_tx=vertex.last.tx.serialize(),
            )
            for vertex in branch.vertices
        ),
        nonces=tuple(
            m.NonceUse(index=index, aggnonce=key * 2) for index, _ in enumerate(branch.nodes)
        ),
        channel=m.ChannelOffer(
            funding_pubkey=key,
            revocation_basepoint=key,
            payment_basepoint=key,
            delayed_payment_basepoint=key,
            htlc_basepoint=key,
            first_per_commitment_point=key,
            second_per_commitment_point=key,
        ),
        commitment_nonces=tuple(
            m.NonceUse(index=index, aggnonce=key * 2) for index in range(m.N_FIRST_COMMITMENTS)
        ),
    )
    return m.Propose(
        factory_pubkey=PUBKEYS[1],
        attempt_id=terms.attempt_id,
        terms_hash=terms.terms_hash,
        terms=terms.encode(),
        client=1,
        factory_pubkeys=tuple(PUBKEYS[: terms.n_clients + 1]),
        candidates=(candidate,),
    )


@pytest.mark.parametrize("kind", [None, *VertexKind])
def test_a_factory_of_1024_clients_fits_one_message(kind: VertexKind | None) -> None:
    """Even if its funding transaction has as many inputs as a wallet ever selects."""
    proposal = proposal_of(terms_of(N_CLIENTS_MAX, step_blocks=144, kind=kind))
    encoded = encode_message(proposal)
    assert len(encoded) <= m.MESSAGE_SIZE_MAX
    assert decode_message(encoded) == proposal


@pytest.mark.parametrize("n_clients", [1, 2, 127, 128])
@pytest.mark.parametrize("step_blocks", [1, 144])
def test_a_usual_factory_leaves_plenty_of_the_message(n_clients: int, step_blocks: int) -> None:
    terms = terms_of(n_clients, step_blocks=step_blocks, kind=VertexKind.DW)
    encoded = encode_message(proposal_of(terms))
    assert len(encoded) < m.MESSAGE_SIZE_MAX // 2


def test_a_proposal_that_does_not_fit_is_refused_with_its_size() -> None:
    """Of a fee ladder each candidate has a funding and a branch of its own."""
    one = proposal_of(terms_of(N_CLIENTS_MAX, step_blocks=1, kind=VertexKind.DW))
    proposal = replace(one, candidates=4 * one.candidates)
    with pytest.raises(MalformedBytes, match=r"Propose: at most 65535 bytes, needs \d{5}"):
        encode_message(proposal)
