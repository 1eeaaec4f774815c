"""Check a factory again, from the client's own records and its own chain."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from cromford import told
from cromford.bitcoin.block import Coin
from cromford.bitcoin.tx import OutPoint, Txid, TxOut
from cromford.channel.errors import PeerViolation
from cromford.channel.finished import finish_commitment
from cromford.channel.terms import Party
from cromford.factory.key_path import InvalidSignature, KeyPathTx
from cromford.protocol.faults import Refusal
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.client_candidate import ClientCandidate
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.opening.verification import ClientFacts
from cromford.protocol.opening.verification_kept import check_kept
from cromford.signing.keychain import ChannelPubkeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One thing that was checked. Where it `waits`, nothing is wrong: it is not there yet."""

    check: str
    ok: bool
    detail: str
    waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedKeys:
    """The public keys of an attempt as the seed derives them now.

    Attributes:
        factory_pubkey: The factory key.
        channels: The channel keys, one per funding candidate.
        commitment_points: Of the channel's latest commitment of ours and the one after it.
    """

    factory_pubkey: bytes
    channels: tuple[ChannelPubkeys, ...]
    commitment_points: tuple[bytes, bytes]


def held_points(state: ClientState, attempt: ClientAttempt) -> tuple[int, tuple[bytes, bytes]]:
    """Return the number of our latest commitment, and the points of it and of the one after."""
    for link in state.book.links.values():
        if link.attempt_id == attempt.attempt_id:
            return link.state.own_signed, (link.own_point, link.own_next_point)
    offer = attempt.join.candidates[attempt.rung].channel
    return 0, (offer.first_per_commitment_point, offer.second_per_commitment_point)


def verify_attempt(
    state: ClientState, attempt: ClientAttempt, funding_coin: Coin | None, derived: DerivedKeys
) -> tuple[Verdict, ...]:
    """Return every check of a proposal and its signatures, made anew.

    Args:
        state: The client's state.
        attempt: What it remembers of the factory.
        funding_coin: The funding output as the client's own chain shows it now, if unspent.
        derived: Its keys, derived again from the seed: what is signed for another's is not ours.
    """
    verdicts = [_verify_proposal(state, attempt), _verify_keys(state, attempt, derived)]
    if not verdicts[0].ok:
        detail = "not looked at: the proposal they would sign does not hold"
        verdicts.append(Verdict(check="signatures", ok=False, detail=detail))
    elif isinstance(attempt.stage, Complete):
        for stage in attempt.ladder:
            if isinstance(stage, Complete):
                verdicts += _verify_signatures(stage)
        verdicts += _verify_newer_states(attempt)
        verdicts += [
            _verify_first_commitment(stage)
            for stage in attempt.ladder
            if isinstance(stage, Complete)
        ]
    else:
        detail = "the branch is not completely signed"
        verdicts.append(
            Verdict(check="signatures", ok=False, detail=detail, waits=_may_come(state, attempt))
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
        candidates = attempt.candidates
        facts = ClientFacts(
            network=state.config.network,
            policy=state.config.policy,
            # As it was when the proposal came; the present tip has moved on.
            tip_height=candidates[0].terms.build_height,
            known_funding_outpoints=frozenset(),
        )
        branches = check_kept(candidates, facts, coins)
    except (Refusal, ValueError, LookupError) as error:
        return Verdict(check="proposal", ok=False, detail=str(error))
    txs = told.counted(sum(len(branch.nodes) for branch in branches), "transaction")
    detail = f"terms, keys, scripts, amounts and delays of {txs} recomputed"
    return Verdict(check="proposal", ok=True, detail=detail)


def _verify_keys(state: ClientState, attempt: ClientAttempt, derived: DerivedKeys) -> Verdict:
    wrong = [name for name, ours, known in _own_keys(state, attempt, derived) if ours != known]
    if attempt.join.payout_script not in state.wallet.scripts:
        wrong.append("payout script")
    if wrong:
        detail = f"expected what the seed derives, received another's: {', '.join(wrong)}"
        return Verdict(check="keys", ok=False, detail=detail)
    detail = "factory key, channel keys, commitment points and payout script are the seed's own"
    return Verdict(check="keys", ok=True, detail=detail)


def _own_keys(
    state: ClientState, attempt: ClientAttempt, derived: DerivedKeys
) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield each key's name, the key as the seed derives it, and as the journal has it."""
    yield "factory key", derived.factory_pubkey, attempt.join.factory_pool.pubkey
    for place, (ours, offer) in enumerate(
        zip(derived.channels, attempt.join.candidates, strict=True)
    ):
        yield f"candidates[{place}].pool", ours.funding_pubkey, offer.pool.pubkey
        for item in fields(ours):
            known = getattr(offer.channel, item.name)
            yield f"candidates[{place}].{item.name}", getattr(ours, item.name), known
    _, (latest, after) = held_points(state, attempt)
    yield "per-commitment point", derived.commitment_points[0], latest
    yield "next per-commitment point", derived.commitment_points[1], after


def _verify_signatures(complete: Complete) -> Iterator[Verdict]:
    """Yield whether each transaction of a candidate's branch is signed, as it was opened."""
    nodes = complete.candidate.branch.nodes
    signatures = (complete.root_signature, *complete.signatures)
    for node, signature in zip(nodes, signatures, strict=True):
        verdict = _verify_signature(node, signature)
        yield replace(verdict, check=_named(complete.candidate, verdict.check))


def _named(candidate: ClientCandidate, check: str) -> str:
    """Return what a check of a candidate is called: the first's need no name."""
    return f"candidates[{candidate.rung}].{check}" if candidate.rung else check


def _verify_newer_states(attempt: ClientAttempt) -> Iterator[Verdict]:
    """Yield whether each state that replaced the leaf's opening one is signed, with its poisons."""
    for state_index, agreed in enumerate(attempt.leaf_states, start=1):
        leaf = attempt.leaf
        yield _verify_signature(leaf.states[state_index], agreed.signature)
        if agreed.poisons is None:
            continue
        stock = leaf.stock_poison(state_index - 1).name
        for poison in leaf.poisons(state_index - 1):
            own = agreed.poisons.channels.get(attempt.client, b"")
            signature = agreed.poisons.stock if poison.name == stock else own
            yield _verify_signature(poison, signature)


def _verify_signature(node: KeyPathTx, signature: bytes) -> Verdict:
    try:
        node.signed(signature)
    except InvalidSignature as error:
        return Verdict(check=node.name, ok=False, detail=str(error))
    return Verdict(check=node.name, ok=True, detail=f"signed, {node.tx.txid}")


def _verify_first_commitment(complete: Complete) -> Verdict:
    commitment = complete.candidate.setting.first_commitment(Party.ACCEPTER)
    check = _named(complete.candidate, "first commitment")
    try:
        held = finish_commitment(commitment, signature=complete.commitment_signature)
    except PeerViolation as error:
        return Verdict(check=check, ok=False, detail=str(error))
    detail = f"the way out of the channel is signed, {held.tx.txid}"
    return Verdict(check=check, ok=True, detail=detail)


def _verify_funding(
    state: ClientState, attempt: ClientAttempt, funding_coin: Coin | None
) -> Verdict:
    depth = state.chain.depth(attempt.funding_tx.txid)
    if funding_coin is None:
        if attempt.branch.root_node.tx.txid in state.chain.confirmed:
            root = attempt.branch.root_node.name
            return Verdict(check="funding", ok=True, detail=f"spent by {root}, as agreed")
        close = _close_of_funding(state, attempt)
        if close is not None:
            return Verdict(
                check="funding", ok=True, detail=f"spent by the close {close}, as agreed"
            )
        if depth == 0:
            waits = _may_come(state, attempt)
            return Verdict(check="funding", ok=False, detail="not confirmed", waits=waits)
        return Verdict(check="funding", ok=False, detail="spent by an unknown transaction")
    agreed = TxOut(
        amount_sat=attempt.branch.funding_amount_sat,
        script_pubkey=attempt.branch.funding_output.script_pubkey,
    )
    if funding_coin.txout != agreed:
        return Verdict(
            check="funding",
            ok=False,
            detail=f"expected {_paid(agreed)}, received {_paid(funding_coin.txout)}",
        )
    deep = told.counted(depth, "confirmation")
    detail = f"{attempt.funding_outpoint} holds {told.sat(agreed.amount_sat)}, {deep}"
    return Verdict(check="funding", ok=True, detail=detail)


def _paid(txout: TxOut) -> str:
    return f"{told.sat(txout.amount_sat)} to {txout.script_pubkey.hex()}"


def _may_come(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether the ceremony goes on, or its funding may still get into a block."""
    is_over = attempt.aborted is not None or attempt.given_up
    return not is_over and not attempt.is_overtaken(state.chain)


def _close_of_funding(state: ClientState, attempt: ClientAttempt) -> Txid | None:
    """Return the close that spent the funding output, if it is one that we signed."""
    for link in state.book.links.values():
        if link.attempt_id == attempt.attempt_id:
            for close in link.closes:
                spender = close.spender(state.chain)
                is_of_funding = close.outpoint == attempt.funding_outpoint
                if spender is not None and is_of_funding and close.is_confirmed(state.chain):
                    return spender.txid
    return None
