"""What a thief tries that consensus refuses, and how it stands in an honest party's way."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from cromford import effects as fx
from cromford.bitcoin.fees import SAT_PER_KW_OF_SAT_PER_VB
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.taproot import taptweak
from cromford.bitcoin.tx import TRUC_VERSION, OutPoint, Tx, TxIn, TxOut
from cromford.channel.claims import holder_claims
from cromford.crypto.curve import Keypair
from cromford.crypto.keys import pubkey_of, xonly_tweak_seckey
from cromford.crypto.musig2 import KeyAgg, SecNonce, Session, nonce_agg
from cromford.crypto.schnorr import sign
from cromford.factory.branch import SignedBranch
from cromford.factory.outputs import SignersOutput
from cromford.protocol import events as ev
from cromford.watch.exit import Publish, next_exit_action
from cromford.watch.feerates import OwnFees
from cromford.watch.lsp_sweep import FactoryOnChain, LspOutput, SweepTx, lsp_outputs, sweep_tx
from cromford.watch.sweep import ClaimInput, sweep
from tests.matrix.thief import Thief, anchors_of
from tests.matrix.world import Held
from tests.protocol.pump import PumpNode
from tests.simulation.sim_chain import SimRefused

TRY_EVERY_BLOCKS: Final = 12
SOON_BLOCKS: Final = 2  # Before a timelock ends, every block is tried.
SWEEP_FEE_SAT: Final = 3_000
CHANNEL: Final = "channel"
PIN_VSIZE: Final = 990  # Of a child of version 3, which may have 1,000.
PIN_DISCOUNT: Final = 1  # Satoshi per virtual byte below what the strangers pay.


def try_sweeps_too_early(thief: Thief) -> None:
    """Try to take what the tree gives the LSP later, with and without its timelocks."""
    for output in _lsp_outputs(thief):
        left = output.height - (thief.world.chain.height + 1)
        if left <= 0 or (left > SOON_BLOCKS and left % TRY_EVERY_BLOCKS):
            continue
        spend = sweep_tx(output, payout_script=thief.payout("lsp"), fee_sat=SWEEP_FEE_SAT)
        locked = spend.tx
        unlocked = replace(
            locked, nlocktime=0, inputs=(replace(locked.inputs[0], nsequence=0xFFFF_FFFE),)
        )
        for name, tx in (("early", locked), ("without its timelock", unlocked)):
            signed = thief.signed_sweep(SweepTx(name=spend.name, output=output, tx=tx))
            expect_refused(thief, f"{spend.name} {name}", signed)


def _lsp_outputs(thief: Thief) -> Iterator[LspOutput]:
    world, chain = thief.world, thief.world.chain
    on_chain = FactoryOnChain(
        tree=world.factory_attempt.tree,
        spends=chain.spends,
        heights=chain.confirmed,
        tip_height=chain.height,
        payout_script=thief.payout("lsp"),
        fees=OwnFees(),
    )
    return (output for output in lsp_outputs(on_chain) if output.outpoint not in chain.spends)


def try_claim_too_early(thief: Thief, held: Held) -> None:
    """Try to take a balance out of one's own commitment before its delay is over."""
    chain, commitment = thief.world.chain, held.finished.commitment
    height = chain.confirmed.get(commitment.tx.txid)
    if height is None:
        return
    delay = commitment.terms.to_self_delay(held.party)
    left = height + delay - (chain.height + 1)
    if left <= 0 or (left > SOON_BLOCKS and left % TRY_EVERY_BLOCKS):
        return
    inputs = [
        ClaimInput(claim=claim, secret_or_point=held.own_point)
        for claim in holder_claims(commitment)
    ]
    script = thief.payout(held.node.name)
    spend = sweep("sweep", inputs, payout_script=script, fee_sat=lambda _vsize: SWEEP_FEE_SAT)
    assert spend is not None
    hasty = replace(spend.tx, inputs=(replace(spend.tx.inputs[0], nsequence=0),))
    for name, tx in (("early", spend.tx), ("without its delay", hasty)):
        asked = fx.SignTakingTx(key=held.link.key, spend=replace(spend, tx=tx))
        (signed,) = thief.sign(held.node.name, asked)
        assert isinstance(signed, ev.TakingTxSigned)
        expect_refused(thief, f"to_local {name}", signed.tx)


def try_without(thief: Thief, victim: PumpNode) -> None:
    """Try to spend, without the victim's signature, what takes everybody's or both parties'."""
    if thief.world.chain.height % TRY_EVERY_BLOCKS:
        return
    for name, outpoint, output in _shared(thief, victim):
        seckeys = thief.seckeys(victim)
        unsigned, sighash = _taking(thief, outpoint)
        for way, signature in _signatures(output, seckeys, sighash):
            tx = unsigned.with_witnesses((signature,))
            expect_refused(thief, f"{name} without {victim.name}, {way}", tx)


def take_alone(thief: Thief) -> None:
    """Take each output on chain for which the thieves have every key, whatever it is."""
    world = thief.world
    for client in world.members:
        seckeys = thief.seckeys(client)
        known = {pubkey_of(seckey) for seckey in seckeys}
        for name, outpoint, output in _shared(thief, client):
            is_waiting = world.chain.ledger.mempool.spender(outpoint) is not None
            if is_waiting or not known.issuperset(output.signers):
                continue
            unsigned, sighash = _taking(thief, outpoint)
            signature = _aggregate(output, _present(output, seckeys), sighash)
            thief.publish(f"{name} alone", unsigned.with_witnesses((signature,)))


def _taking(thief: Thief, outpoint: OutPoint) -> tuple[Tx, bytes]:
    """Return a transaction that takes an output, and its sighash."""
    prevout = thief.world.chain.output(outpoint)
    paid = TxOut(amount_sat=prevout.amount_sat - SWEEP_FEE_SAT, script_pubkey=thief.payouts[0])
    unsigned = Tx(
        version=2,
        inputs=(TxIn(outpoint=outpoint, nsequence=0xFFFF_FFFD),),
        outputs=(paid,),
    )
    return unsigned, taproot_sighash(unsigned, prevouts=[prevout], input_index=0)


def _present(output: SignersOutput, seckeys: Sequence[bytes]) -> list[bytes]:
    own = {pubkey_of(seckey): seckey for seckey in seckeys}
    return [own[pubkey] for pubkey in output.signers if pubkey in own]


def _signatures(
    output: SignersOutput, seckeys: Sequence[bytes], sighash: bytes
) -> Iterator[tuple[str, bytes]]:
    """Yield what all but one of the signers can make: each alone, and all of them together."""
    present = _present(output, seckeys)
    if not present:
        return
    tweak = taptweak(output.key_agg.internal_key, output.merkle_root)
    for number, seckey in enumerate(present):
        yield f"key {number} alone", sign(sighash, xonly_tweak_seckey(seckey, tweak))
    # The nonce of the one who is missing is made up, its partial signature left out.
    made_up = SecNonce(Keypair(present[0]))
    yield "all the others", _aggregate(output, present, sighash, made_up.pubnonce)


def _aggregate(
    output: SignersOutput, present: Sequence[bytes], sighash: bytes, *made_up: bytes
) -> bytes:
    """Return what the partial signatures of some keys add up to."""
    secnonces = [SecNonce(Keypair(seckey)) for seckey in present]
    aggnonce = nonce_agg([*(one.pubnonce for one in secnonces), *made_up])
    assert isinstance(output.spending_key_agg, KeyAgg)
    session = Session(key_agg=output.spending_key_agg, aggnonce=aggnonce, message=sighash)
    return session.partial_sig_agg([one.sign(session) for one in secnonces])


def _shared(thief: Thief, victim: PumpNode) -> Iterator[tuple[str, OutPoint, SignersOutput]]:
    """Yield what is unspent on chain and also one participant's to sign for."""
    world, chain = thief.world, thief.world.chain
    attempt = world.factory_attempt
    place = attempt.client_of(victim.node_id) or 0
    spent = [(node.name, node.tx.inputs[0].outpoint, node.spends) for node in attempt.tree.nodes]
    if place:
        channel = attempt.branch(place).channel
        assert channel.signers_output is not None
        spent.append((CHANNEL, attempt.branch(place).channel_outpoint, channel.signers_output))
    pubkey = attempt.blueprint.factory_pubkeys[place]
    for name, outpoint, output in spent:
        is_there = outpoint.txid in chain.confirmed and outpoint not in chain.spends
        if is_there and (name == CHANNEL or pubkey in output.signers):
            yield name, outpoint, output


def expect_refused(thief: Thief, name: str, tx: Tx) -> None:
    """Try a transaction in the mempool and in a block of its own; neither takes it."""
    chain = thief.world.chain
    try:
        chain.broadcast(tx)
    except SimRefused as refused:
        thief.refusals[name] = str(refused)
    else:
        raise AssertionError(f"the mempool took {name}")
    refusal = chain.refusal_by_block(tx)
    assert refusal is not None, f"a block took {name}"
    thief.n_refused += 1


def pin(thief: Thief) -> None:
    """Put a large child, just too cheap for the next block, beside what the victim publishes."""
    for tx in [*thief.world.chain.mempool.values()]:
        is_theirs = tx.txid not in thief.published and tx.version == TRUC_VERSION
        if is_theirs and anchors_of(tx):
            _pin(thief, tx)


def pin_ahead(thief: Thief, signed: SignedBranch) -> None:
    """Publish each step of the victim's own way before it does, with such a child.

    It costs nothing: whoever is in a hurry replaces the child, and pays more than all of it.
    """
    chain = thief.world.chain
    if not any(thief.world.is_on_its_way(tx) for tx in signed.txs):
        return
    step = next_exit_action(signed, confirmed=chain.confirmed, tip_height=chain.height)
    if isinstance(step, Publish):
        _pin(thief, step.step.tx)


def _pin(thief: Thief, tx: Tx) -> None:
    market, chain = thief.world.market, thief.world.chain
    coins = thief.coins()
    if not market.filled_at_sat_per_vb or not coins:
        return
    feerate = (market.filled_at_sat_per_vb - PIN_DISCOUNT) * SAT_PER_KW_OF_SAT_PER_VB
    child = thief.child_of(tx, coins[:1], feerate_sat_per_kw=feerate, vsize=PIN_VSIZE)
    try:
        if tx.txid in chain.mempool:
            chain.broadcast(child)
        else:
            chain.broadcast_package(tx, child)
    except SimRefused as refused:
        thief.refusals["pin"] = str(refused)
    else:
        thief.n_pins += 1
