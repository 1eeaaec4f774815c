"""From a factory that is ready to its channels, as each side first holds them."""

from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.tx import vsize_of
from cromford.channel.reestablish import disconnect
from cromford.channel.terms import COMMITMENT_WEIGHT, ChannelTerms, Party
from cromford.factory.branch import Branch
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.first_commitments import ChannelSetting
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.journal.mark import StoreMark
from cromford.signing.keychain import ChannelKey
from cromford.watch.coverage import NOTHING_PENDING
from cromford.watch.remaining import path_of
from cromford.watch.sweep import SWEEP_FEERATE_SAT_PER_KW
from cromford.watch.worth import least_balance_sat


def client_link(attempt: ClientAttempt) -> Link:
    """Return the client's own channel, not yet connected.

    Raises:
        ValueError: If the attempt is not complete.
    """
    if not isinstance(attempt.stage, Complete):
        raise ValueError(f"attempt {attempt.attempt_id.hex()} is not complete")
    return _link(
        attempt.setting,
        attempt.branch,
        me=Party.ACCEPTER,
        node_id=attempt.lsp_node_id,
        key=ChannelKey(attempt=attempt.key_attempt, channel=0, candidate=attempt.rung),
        signature=attempt.stage.commitment_signature,
        is_marked=attempt.is_marked,
    )


def lsp_link(attempt: LspAttempt, client: int, *, is_marked: bool) -> Link:
    """Return the LSP's channel with one client, not yet connected.

    Args:
        attempt: The factory's.
        client: The client's participant index.
        is_marked: Whether the channel may have been used, in what a restored store has lost.

    Raises:
        ValueError: If not everything is signed.
    """
    if attempt.signed is None:
        raise ValueError(f"attempt {attempt.attempt_id.hex()}: not every commitment is signed")
    return _link(
        attempt.setting(client),
        attempt.branch(client),
        me=Party.OPENER,
        node_id=attempt.seats[client - 1].node_id,
        key=ChannelKey(attempt=attempt.key_attempt, channel=client, candidate=attempt.rung),
        signature=attempt.signed.below.commitment_signatures[client - 1],
        is_marked=is_marked,
    )


def _link(
    setting: ChannelSetting,
    branch: Branch,
    *,
    me: Party,
    node_id: bytes,
    key: ChannelKey,
    signature: bytes,
    is_marked: bool,
) -> Link:
    own = setting.offer_of(me)
    return Link(
        channel_id=setting.channel_id,
        node_id=node_id,
        attempt_id=branch.terms.attempt_id,
        client=branch.client,
        key=key,
        setting=setting,
        path=path_of(branch),
        expiry_height=branch.terms.expiry_height,
        exit_blocks=branch.exit_blocks,
        exit_deadline_height=branch.exit_deadline_height,
        max_cltv_blocks=branch.terms.max_cltv_blocks,
        exit_cost_sat=_exit_cost_sat(setting.terms, branch),
        state=disconnect(setting.first_state(me)),
        own_point=own.first_per_commitment_point,
        own_next_point=own.second_per_commitment_point,
        signature=signature,
        mark=StoreMark() if is_marked else None,
        fullest=NOTHING_PENDING,
    )


def _exit_cost_sat(terms: ChannelTerms, branch: Branch) -> int:
    """Return the most that is not worth an exit on any day, for either party.

    What the LSP paid for branch and commitment is no reason to stay, for nobody gets it back by
    staying. What a sweep costs on the day is our own node's to say (`sweep_sat`). Where
    transactions pay no fee themselves, who leaves pays for all of them.
    """
    if not terms.is_zero_fee:
        return least_balance_sat(terms) - 1
    commitment_vsize = vsize_of(COMMITMENT_WEIGHT)
    vsize = sum(node.vsize for node in branch.nodes)
    return fee_sat_of(vsize=vsize + commitment_vsize, feerate_sat_per_kw=SWEEP_FEERATE_SAT_PER_KW)
