"""What a client checks of a cooperative close, against its own chain and its own journal.

Nothing the LSP says is believed: scope, amounts and balance are the client's own.
"""

from dataclasses import dataclass, replace

from cromford.bitcoin.fees import ANCHOR_DUST_SAT, TRUC_VSIZE_MAX, fee_sat_of
from cromford.bitcoin.script import ANCHOR_SCRIPT, is_usual_segwit
from cromford.bitcoin.tx import TRUC_VERSION, OutPoint, Tx, TxOut
from cromford.channel.terms import MSAT_PER_SAT
from cromford.codec.reader import MalformedBytes
from cromford.factory.close import (
    CLOSE_DUST_SAT,
    CLOSE_NSEQUENCE,
    USUAL_SCRIPTS,
    CannotClose,
    CloseScope,
    Payout,
    check_is_close,
    vsize_of_close,
)
from cromford.protocol.channels.marks import least_close_msat
from cromford.protocol.closing.restored import can_close_though_ended, known_due_msat
from cromford.protocol.closing.rules import (
    ADVANCE_OPEN,
    least_feerate_sat_per_kw,
    problem_on_chain,
    problem_with_channel,
    problem_with_feerates,
)
from cromford.protocol.faults import FaultyLsp, Refusal
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.close_scopes import client_scope, is_intended
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.closing import ClientClosing
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import POISONS_HELD
from cromford.protocol.turn import Turn
from cromford.watch.feerates import MOST_SAT_PER_KW
from cromford.wire import messages as m


@dataclass(frozen=True, slots=True, kw_only=True)
class Closable:
    """A channel that a close may end now, and what that spends."""

    attempt: ClientAttempt
    link: Link
    scope: CloseScope

    @property
    def due_msat(self) -> int | None:
        """What we are due; None where our store was restored: at least what it says."""
        return known_due_msat(self.link)

    @property
    def payout(self) -> Payout:
        """What we are due, or the least that we take, and where we are paid."""
        due_msat = least_close_msat(self.link) if self.due_msat is None else self.due_msat
        return Payout(script_pubkey=self.attempt.join.payout_script, due_msat=due_msat)

    def paid_sat(self, tx: Tx) -> list[int]:
        """Return what each output of ours of a transaction holds, in sat."""
        script = self.attempt.join.payout_script
        return [output.amount_sat for output in tx.outputs if output.script_pubkey == script]


def check_begin(turn: Turn[ClientState], message: m.CloseBegin) -> Closable:
    """Check that we can agree to a close: factory, output, feerates, height, and our channel.

    Raises:
        Refusal: If not; names the field.
    """
    state = turn.state
    if not state.may_close:
        raise Refusal("close", expected="fewer closes in these blocks", received="one more")
    if any(one.attempt_id == message.attempt_id for one in state.closing.values()):
        raise Refusal("close", expected="one at a time", received="a second one")
    outpoint = OutPoint.parse(message.outpoint)
    if is_intended(state.intents, message.close_id, outpoint):
        raise Refusal("close_id", expected="a new one", received=message.close_id)
    found = check_closable(turn, message.attempt_id, outpoint)
    least = least_feerate_sat_per_kw(
        tree_feerate_sat_per_kw=found.attempt.terms.tree_feerate_sat_per_kw, fees=turn.facts.fees
    )
    feerates = [option.feerate_sat_per_kw for option in message.options]
    problem = problem_with_feerates(feerates, least_sat_per_kw=least)
    if problem is not None:
        field, expected, received = problem
        raise Refusal(field, expected=expected, received=received)
    return found


def check_closable(turn: Turn[ClientState], attempt_id: bytes, outpoint: OutPoint) -> Closable:
    """Check that a close may spend an output of ours, as everything is now.

    Raises:
        Refusal: If not; names the field.
    """
    state = turn.state
    if not turn.facts.is_fresh:
        raise Refusal("chain", expected="fresh", received="stale")
    attempt = state.attempt_with(state.lsp_node_id, attempt_id)
    if attempt is None or not isinstance(attempt.stage, Complete):
        raise Refusal("attempt_id", expected="a factory of ours", received=attempt_id)
    link = state.book.links.get(attempt.setting.channel_id)
    if link is None or not attempt.is_ready_on_both_sides:
        raise Refusal("channel", expected="ready on both sides", received="not ready")
    if attempt.is_exiting:
        raise Refusal("channel", expected="no exit under way", received="an exit")
    is_advancing = attempt_id in state.advances and link.takes_updates
    if is_advancing and not _waits_to_move(link, state.chain):
        raise Refusal("channel", expected="one that can be closed", received=ADVANCE_OPEN)
    scope = client_scope(attempt, outpoint)
    if scope is None:
        raise Refusal("outpoint", expected="on the way to our channel", received=str(outpoint))
    on_chain = problem_on_chain(scope, state.chain)
    if on_chain is not None or state.chain.depth(attempt.funding_tx.txid) == 0:
        received = on_chain or "the funding is in no block"
        raise Refusal("outpoint", expected="in a block, unspent", received=received)
    problem = problem_with_channel(link, state.chain, height=turn.known_height)
    if problem is None and not (link.state.is_connected or can_close_though_ended(link)):
        problem = "not taken up in this connection"
    if problem is not None:
        raise Refusal("channel", expected="one that can be closed", received=problem)
    return Closable(attempt=attempt, link=link, scope=scope)


def _waits_to_move(link: Link, chain: KnownChain) -> bool:
    """Say whether we signed a next state, and are not to be moved onto it yet, or never.

    For that the poisons of the old one are needed, which no restored store signs. Our balance is
    the same on both fundings, and a close is of an output that both hang from.
    """
    following = link.next
    if following is None or not following.is_dual or following.is_leaving:
        return False
    return following.stage < POISONS_HELD and link.landed(chain) is None


def check_still(turn: Turn[ClientState], closing: ClientClosing) -> Closable:
    """Check that a close we agreed to may still spend its output, and owes us what it did.

    Raises:
        Refusal: If not; names the field.
    """
    found = check_closable(turn, closing.attempt_id, closing.outpoint)
    _check("balance_msat", found.due_msat, closing.balance_msat)
    return found


def check_proposals(
    turn: Turn[ClientState], closing: ClientClosing, message: m.ClosePropose
) -> tuple[Closable, tuple[Tx, ...]]:
    """Check the transactions of a close, one for each option; the balance is compared again.

    What comes back knows who signs: all whose keys add up to what we remember of the output.

    Raises:
        Refusal: If one is not to be signed; names the field.
    """
    found = check_still(turn, closing)
    try:
        scope = found.scope.signed_by(message.signers)
    except CannotClose as error:
        raise Refusal(error.field, expected=error.expected, received=error.received) from error
    found = replace(found, scope=scope)
    feerates = closing.feerates_sat_per_kw
    if len(message.proposals) != len(feerates):
        raise Refusal("proposals", expected=len(feerates), received=len(message.proposals))
    txs = []
    for proposal, feerate in zip(message.proposals, feerates, strict=True):
        try:
            tx = Tx.parse(proposal.tx)
        except (MalformedBytes, ValueError) as error:
            raise Refusal("tx", expected="a transaction", received=str(error)) from error
        check_tx(tx, found, feerate_sat_per_kw=feerate)
        txs.append(tx)
    return found, tuple(txs)


def check_tx(tx: Tx, closable: Closable, *, feerate_sat_per_kw: int) -> None:
    """Check one transaction of a close, to the byte where it concerns us.

    Version 3, or a large child would pin it (BIP 431); one input, ours, replaceable and without
    delay; an output of our exact payout, to a restored store of no less than it says; no output
    that nodes do not relay; an anchor last; at least the feerate, at most what a node takes.

    Args:
        tx: The unsigned transaction.
        closable: What it spends, and what we are due.
        feerate_sat_per_kw: Of its option.

    Raises:
        Refusal: If anything differs; names the field.
    """
    scope = closable.scope
    anchor = TxOut(amount_sat=ANCHOR_DUST_SAT, script_pubkey=ANCHOR_SCRIPT)
    _check("version", tx.version, TRUC_VERSION)
    _check("nlocktime", tx.nlocktime, 0)
    _check("inputs", len(tx.inputs), 1)
    _check("outpoint", str(tx.inputs[0].outpoint), str(scope.outpoint))
    _check("nsequence", tx.inputs[0].nsequence, CLOSE_NSEQUENCE)
    _check("witness", len(tx.inputs[0].witness), 0)
    _check("script_sig", len(tx.inputs[0].script_sig), 0)
    _check("anchor", tx.outputs[-1:], (anchor,))
    if ANCHOR_SCRIPT in {output.script_pubkey for output in tx.outputs[:-1]}:
        raise Refusal("anchor", expected="one", received="more")
    _check_payout(closable.paid_sat(tx), closable)
    vsize = vsize_of_close(tx)
    if vsize > TRUC_VSIZE_MAX:
        raise Refusal("vsize", expected=f"at most {TRUC_VSIZE_MAX}", received=vsize)
    for output in tx.outputs[:-1]:
        # Signed by everybody, a close that no node relays would bind the channel for nothing.
        if not is_usual_segwit(output.script_pubkey) or output.amount_sat < CLOSE_DUST_SAT:
            received = f"{output.amount_sat} sat to {output.script_pubkey.hex()}"
            expected = f"at least {CLOSE_DUST_SAT} sat to {USUAL_SCRIPTS}"
            raise Refusal("outputs", expected=expected, received=received)
    fee_sat = scope.amount_sat - sum(output.amount_sat for output in tx.outputs)
    least_sat = fee_sat_of(vsize=vsize, feerate_sat_per_kw=feerate_sat_per_kw)
    most_sat = fee_sat_of(vsize=vsize, feerate_sat_per_kw=MOST_SAT_PER_KW)
    if not least_sat <= fee_sat <= most_sat:
        raise Refusal("fee_sat", expected=f"{least_sat}..{most_sat}", received=fee_sat)


def _check_payout(paid: list[int], closable: Closable) -> None:
    """Check that one output of ours is what we are due.

    Others may be there, too: who joined with our script gives us what is its own, and cannot hinder
    our close by it.
    """
    due_sat = closable.payout.amount_sat
    if not due_sat:
        return
    if closable.due_msat is not None:
        if due_sat not in paid:
            raise Refusal("payout_sat", expected=[due_sat], received=paid)
    elif all(amount_sat < due_sat for amount_sat in paid):
        # Not how much: an LSP that lies would come back with just that.
        raise Refusal("payout_sat", expected="what our restored store says or more", received=paid)


def _check(field: str, received: object, expected: object) -> None:
    if received != expected:
        raise Refusal(field, expected=expected, received=received)


def check_closed(
    state: ClientState, message: m.Closed
) -> tuple[Closable, tuple[Tx, ...], SignedClose] | None:
    """Return a finished close of a channel of ours, with the close that we signed of its output.

    The transactions come back the cheapest first. None where it is none of ours, tells nothing new,
    or nothing is remembered of having signed one. It need not be under way: we may have been away
    when it was finished. A signature that verifies has our part in it, so what it signs passed
    every check; the payout is compared all the same.

    Raises:
        FaultyLsp: If a signature, an output or our payout is not what it must be.
    """
    attempt = state.attempt_with(state.lsp_node_id, message.attempt_id)
    if attempt is None or not isinstance(attempt.stage, Complete):
        return None
    link = state.book.links.get(attempt.setting.channel_id)
    if link is None or not message.txs:
        return None
    txs = tuple(_parsed(one.tx) for one in message.txs)
    outpoint = txs[0].inputs[0].outpoint
    signed = [close for close in link.closes if close.outpoint == outpoint]
    scope = client_scope(attempt, outpoint)
    if scope is None or _is_known(state, txs):
        return None
    closable = Closable(attempt=attempt, link=link, scope=scope)
    is_remembered = any({tx.txid for tx in txs} <= set(close.txids) for close in signed)
    if link.may_lack_state and not is_remembered:
        signed = [_forgotten(closable, txs, message.close_id)]
    if not signed:
        return None
    named = [close for close in signed if close.close_id == message.close_id]
    close = min(named or signed, key=lambda close: close.balance_msat)
    script = attempt.join.payout_script
    least_sat = Payout(script_pubkey=script, due_msat=close.balance_msat).amount_sat
    for tx in txs:
        try:
            check_is_close(scope, tx)
        except CannotClose as error:
            raise FaultyLsp(f"a finished close is none: {error}") from error
        witness = tx.inputs[0].witness
        task = scope.task(tx)
        is_signed = len(witness) == 1 and task.is_signed_by(
            witness[0], scope.output.spending_key_agg.output_key
        )
        if not is_signed:
            raise FaultyLsp("the signature of a finished close does not verify")
        paid_sat = sum(closable.paid_sat(tx))
        if paid_sat < least_sat:
            raise FaultyLsp(f"a finished close pays {paid_sat} sat, expected {least_sat}")
    by_fee = sorted(txs, key=lambda tx: -sum(output.amount_sat for output in tx.outputs))
    return closable, tuple(by_fee), close


def _forgotten(closable: Closable, txs: tuple[Tx, ...], close_id: bytes) -> SignedClose:
    """Return a close that our store does not know, as if we had signed it: we may have.

    Raises:
        FaultyLsp: If it pays less than our store says is ours: then it is not for us to publish.
    """
    paid_sat = min(sum(closable.paid_sat(tx)) for tx in txs)
    if paid_sat < closable.payout.amount_sat:
        raise FaultyLsp(f"a finished close that we do not know pays only {paid_sat} sat")
    return SignedClose(
        close_id=close_id, outpoint=closable.scope.outpoint, balance_msat=MSAT_PER_SAT * paid_sat
    )


def _is_known(state: ClientState, txs: tuple[Tx, ...]) -> bool:
    """Say whether these transactions are all among the finished ones, whatever their close's name.

    An LSP that tells the same under ever new names would fill our journal.
    """
    known = {tx.txid for close in state.closed.values() for tx in close.txs}
    return all(tx.txid in known for tx in txs)


def _parsed(data: bytes) -> Tx:
    try:
        return Tx.parse(data)
    except (MalformedBytes, ValueError) as error:
        raise FaultyLsp("a finished close is no transaction") from error
