"""What a client computes from a proposal: its branch and its channel.

Only keys, terms and the scripts of neighbours are taken from the message; everything else follows.
"""

from cromford.bitcoin.script import is_p2tr
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.codec.reader import MalformedBytes
from cromford.factory.branch import Branch, build_branch
from cromford.factory.shape import plan_of
from cromford.factory.terms import FactoryTerms
from cromford.factory.tree import FACTORY_VOUT
from cromford.factory.vertices import ChannelFundingPubkeys
from cromford.protocol.faults import Refusal
from cromford.protocol.journal.first_commitments import ChannelSetting, channel_setting
from cromford.wire.messages import CandidateProposal, Join, Propose


def rebuild_branch(propose: Propose, *, terms: FactoryTerms, join: Join, rung: int = 0) -> Branch:
    """Return the client's branch under one candidate, computed from a proposal's terms and keys.

    Raises:
        Refusal: If a neighbour's channel script is missing.
    """
    candidate = propose.candidates[rung]
    leaf = plan_of(terms).path_to(propose.client)[-1]
    name = f"state_{leaf.shape.name}"
    sent = parse_tree_tx(name, candidate.vertices[-1].state_tx)
    neighbours: dict[int, bytes] = {}
    for vout, client in enumerate(leaf.shape.clients):
        if client == propose.client:
            continue
        if vout >= len(sent.outputs) or not is_p2tr(sent.outputs[vout].script_pubkey):
            raise Refusal(f"{name}.output[{vout}]", expected="a taproot output", received="none")
        neighbours[client] = sent.outputs[vout].script_pubkey
    return build_branch(
        terms,
        client=propose.client,
        factory_pubkeys=candidate.vertices[0].signers,
        channel_keys=ChannelFundingPubkeys(
            client_funding_pubkey=join.candidates[rung].channel.funding_pubkey,
            lsp_funding_pubkey=candidate.channel.funding_pubkey,
        ),
        neighbour_scripts=neighbours,
        funding_outpoint=funding_outpoint_of(candidate),
    )


def funding_outpoint_of(candidate: CandidateProposal) -> OutPoint:
    """Return what the root spends under this candidate."""
    return Tx.parse(candidate.funding_tx).outpoint(FACTORY_VOUT)


def own_channel(propose: Propose, *, join: Join, branch: Branch, rung: int = 0) -> ChannelSetting:
    """Return the client's channel: the output at the end of its branch, both sides' keys."""
    return channel_setting(
        branch.terms,
        outpoint=branch.channel_outpoint,
        capacity_sat=branch.channel.amount_sat,
        lsp=propose.candidates[rung].channel,
        client=join.candidates[rung].channel,
    )


def parse_tree_tx(name: str, data: bytes) -> Tx:
    """Return a transaction the LSP sent.

    Raises:
        Refusal: Naming the transaction, if the bytes are none.
    """
    try:
        return Tx.parse(data)
    except MalformedBytes as error:
        raise Refusal(name, expected="a transaction", received=error) from error
