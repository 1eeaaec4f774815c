"""Exit packages that one key signs all of: of any amounts, lengths and delays that may be said."""

from dataclasses import replace
from typing import Final

from tests.factory import oracle

from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.script import ANCHOR_SCRIPT, p2tr_script
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.taproot import taproot_output, taptweak
from cromford.bitcoin.timelock import NSEQUENCE_FINAL
from cromford.bitcoin.timelocked import LockKind, Timelock
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto import schnorr
from cromford.crypto.keys import pubkey_of, xonly_of, xonly_tweak_seckey
from cromford.factory.outputs import Tapleaf, channel_output
from cromford.watch.package import ExitPackage, ReplacedState

SECKEY: Final = oracle.seckey("client funding", 1)
PUBKEY: Final = xonly_of(pubkey_of(SECKEY))
SCRIPT: Final = p2tr_script(PUBKEY)
ANCHOR: Final = TxOut(amount_sat=240, script_pubkey=ANCHOR_SCRIPT)
KEYS: Final = tuple(sorted(pubkey_of(oracle.seckey("client funding", n)) for n in (2, 3)))
CHANNEL: Final = channel_output(KEYS).script_pubkey
LEAF: Final = Tapleaf(xonly_pubkey=PUBKEY, lock=Timelock(kind=LockKind.AFTER, number=1_000))
FUNDING: Final = OutPoint(txid=Txid(b"\x05" * 32), vout=0)


def signed(tx: Tx, prevout: TxOut, seckey: bytes = SECKEY) -> Tx:
    sighash = taproot_sighash(tx, prevouts=[prevout], input_index=0)
    return tx.with_witnesses((schnorr.sign(sighash, seckey),))


def spending(outpoint: OutPoint, *outputs: TxOut, delay: int = NSEQUENCE_FINAL) -> Tx:
    tx_in = TxIn(outpoint=outpoint, nsequence=delay)
    return Tx(version=3, inputs=(tx_in,), outputs=(*outputs, ANCHOR))


def made_up(
    *, amount_sat: int = 1_000_000, n_txs: int = 2, delay: int = 5, n_before: int = 0
) -> ExitPackage:
    """Return a package that is right in every part.

    Args:
        amount_sat: What the funding's output holds.
        n_txs: The length of the path: all but the last are kickoffs, or static.
        delay: Of the last one, in blocks.
        n_before: How many outputs it has before the channel's, which is the last but the anchor.
    """
    output = taproot_output(PUBKEY, LEAF.merkle_root)
    prevout = TxOut(amount_sat=amount_sat, script_pubkey=p2tr_script(output.output_key))
    seckey = xonly_tweak_seckey(SECKEY, taptweak(PUBKEY, LEAF.merkle_root))
    package = ExitPackage(
        network=REGTEST,
        funding_outpoint=FUNDING,
        funding_txout=prevout,
        internal_key=PUBKEY,
        lsp_xonly_pubkey=PUBKEY,
        expiry_height=1_000,
        txs=(),
        channel_vout=n_before,
        funding_pubkeys=(KEYS[0], KEYS[1]),
    )
    outpoint, txs = FUNDING, []
    for n_left in range(n_txs - 1, -1, -1):
        paid = TxOut(amount_sat=prevout.amount_sat - 1_000, script_pubkey=SCRIPT)
        tx = spending(outpoint, paid)
        if not n_left:
            share_sat = paid.amount_sat // (n_before + 1)
            outputs = [TxOut(amount_sat=share_sat, script_pubkey=SCRIPT)] * n_before
            channel = TxOut(amount_sat=share_sat, script_pubkey=CHANNEL)
            tx = spending(outpoint, *outputs, channel, delay=delay)
        txs.append(signed(tx, prevout, seckey))
        outpoint, prevout, seckey = tx.outpoint(0), paid, SECKEY
    return replace(package, txs=tuple(txs))


def with_replaced(package: ExitPackage, *delays: int) -> ExitPackage:
    """Return a package whose last state replaced some of these delays, each with its poison."""
    outpoint = package.txs[-1].inputs[0].outpoint
    states = []
    for delay in delays:
        paid = TxOut(amount_sat=50_000, script_pubkey=SCRIPT)
        state = spending(outpoint, paid, delay=delay)
        poison = Tx(
            version=3,
            inputs=(TxIn(outpoint=state.outpoint(0), nsequence=0xFFFF_FFFD),),
            outputs=(TxOut(amount_sat=49_000, script_pubkey=SCRIPT),),
        )
        states.append(ReplacedState(tx=state, poisons=(signed(poison, paid),)))
    return replace(package, replaced=tuple(states))
