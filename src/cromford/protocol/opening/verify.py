"""Check a factory again, from the client's own records and its own chain."""

from dataclasses import dataclass

from cromford.bitcoin.block import Coin
from cromford.bitcoin.tx import OutPoint, Txid, TxOut
from cromford.channel.errors import PeerViolation
from cromford.channel.held import hold
from cromford.channel.terms import Party
from cromford.factory.vertices import InvalidSignature
from cromford.protocol.faults import Refusal
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.opening.verification import ClientView, check_proposal


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One thing that was checked."""

    check: str
    ok: bool
    detail: str


def verify_attempt(
    state: ClientState, attempt: ClientAttempt, funding_coin: Coin | None
) -> tuple[Verdict, ...]:
    """Return every check of a proposal and its signatures, made anew.

    Args:
        state: The client's state.
        attempt: What it remembers of the factory.
        funding_coin: The funding output as the client's own chain shows it now, if unspent.
    """
    verdicts = [_verify_proposal(state, attempt)]
    if not verdicts[0].ok:
        detail = "not looked at: the proposal they would sign does not hold"
        verdicts.append(Verdict(check="signatures", ok=False, detail=detail))
    elif isinstance(attempt.stage, Complete):
        verdicts += _verify_signatures(attempt, attempt.stage)
        verdicts.append(_verify_first_commitment(attempt, attempt.stage))
    else:
        verdicts.append(
            Verdict(check="signatures", ok=False, detail="the branch is not completely signed")
        )
    if verdicts[0].ok:
        verdicts.append(_verify_funding(state, attempt, funding_coin))
    return tuple(verdicts)


def _verify_proposal(state: ClientState, attempt: ClientAttempt) -> Verdict:
    coins: dict[OutPoint, Coin | None] = {
        OutPoint(txid=Txid(item.txid), vout=item.vout): Coin(
            outpoint=OutPoint(txid=Txid(item.txid), vout=item.vout),
            txout=TxOut(amount_sat=item.amount_sat, script_pubkey=item.script_pubkey),
            confirmations=1,
        )
        for item in attempt.inputs
    }
    try:
        view = ClientView(
            network=state.config.network,
            policy=state.config.policy,
            join=attempt.join,
            # As it was when the proposal came; the present tip has moved on.
            tip_height=attempt.terms.build_height,
            known_funding_outpoints=frozenset(),
        )
        branch = check_proposal(attempt.propose, view, coins)
    except (Refusal, ValueError) as error:
        return Verdict(check="proposal", ok=False, detail=str(error))
    n_txs = len(list(branch.nodes))
    detail = f"terms, keys, scripts, amounts and delays of {n_txs} transactions recomputed"
    return Verdict(check="proposal", ok=True, detail=detail)


def _verify_signatures(attempt: ClientAttempt, complete: Complete) -> list[Verdict]:
    verdicts: list[Verdict] = []
    branch = attempt.branch
    signed = [
        (branch.root_kickoff, complete.root_signature),
        *zip(branch.nodes_below_root, complete.signatures, strict=True),
    ]
    for node, signature in signed:
        try:
            node.signed(signature)
        except InvalidSignature as error:
            verdicts.append(Verdict(check=node.name, ok=False, detail=str(error)))
        else:
            verdicts.append(Verdict(check=node.name, ok=True, detail=f"signed, {node.tx.txid}"))
    return verdicts


def _verify_first_commitment(attempt: ClientAttempt, complete: Complete) -> Verdict:
    commitment = attempt.setting.first_commitment(Party.ACCEPTER)
    try:
        held = hold(commitment, signature=complete.commitment_signature)
    except PeerViolation as error:
        return Verdict(check="first commitment", ok=False, detail=str(error))
    detail = f"the way out of the channel is signed, {held.tx.txid}"
    return Verdict(check="first commitment", ok=True, detail=detail)


def _verify_funding(
    state: ClientState, attempt: ClientAttempt, funding_coin: Coin | None
) -> Verdict:
    depth = state.chain.depth(attempt.funding_tx.txid)
    if funding_coin is None:
        if attempt.branch.root_kickoff.tx.txid in state.chain.confirmed:
            return Verdict(check="funding", ok=True, detail="spent by kickoff_root, as agreed")
        detail = "not confirmed" if depth == 0 else "spent by an unknown transaction"
        return Verdict(check="funding", ok=False, detail=detail)
    agreed = TxOut(
        amount_sat=attempt.branch.funding_amount_sat,
        script_pubkey=attempt.branch.funding_output.script_pubkey,
    )
    if funding_coin.txout != agreed:
        return Verdict(
            check="funding",
            ok=False,
            detail=f"expected {agreed.amount_sat} sat to {agreed.script_pubkey.hex()}, received "
            f"{funding_coin.txout.amount_sat} sat to {funding_coin.txout.script_pubkey.hex()}",
        )
    detail = f"{attempt.funding_outpoint} holds {agreed.amount_sat} sat, {depth} confirmations"
    return Verdict(check="funding", ok=True, detail=detail)
