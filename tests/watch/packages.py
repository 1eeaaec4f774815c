"""Exit packages of small factories, and commitments to end them with."""

from dataclasses import replace
from functools import cache

import msgspec
from tests.factory import oracle
from tests.watch.signed_factory import SHAPES, signed_branches

from cromford.bitcoin.fees import ANCHOR_DUST_SAT
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.tx import TRUC_VERSION, Tx, TxIn, TxOut
from cromford.crypto.curve import Keypair
from cromford.factory.exit_path import ExitStep
from cromford.signing.nonces import NoncePool
from cromford.signing.round import SigningRound, SigningSession, aggregate_nonces
from cromford.signing.task import SigningTask
from cromford.watch.package import ExitPackage, package_document, package_of

WHICH = [(n_clients, client) for n_clients in SHAPES for client in range(1, n_clients + 1)]
FEE_SAT = 400


def package(n_clients: int, client: int, *, is_leaving: bool = False) -> ExitPackage:
    signed = signed_branches(n_clients)[client - 1]
    commitment = commitment_of(n_clients, client) if is_leaving else None
    return package_of(signed, REGTEST, commitment=commitment)


def encoded(given: ExitPackage) -> bytes:
    return msgspec.json.encode(package_document(given))


@cache
def commitment_of(n_clients: int, client: int) -> Tx:
    """Return a transaction of a commitment's form that both funding keys have signed."""
    branch = signed_branches(n_clients)[client - 1].branch
    output = branch.channel.signers_output
    assert output is not None
    paid_sat = branch.channel.amount_sat - ANCHOR_DUST_SAT - FEE_SAT
    tx = Tx(
        version=TRUC_VERSION,
        inputs=(TxIn(outpoint=branch.channel_outpoint, nsequence=0x8012_3456),),
        outputs=(
            TxOut(amount_sat=ANCHOR_DUST_SAT, script_pubkey=ANCHOR_SCRIPT),
            TxOut(amount_sat=paid_sat, script_pubkey=output.script_pubkey),
        ),
        nlocktime=0x2065_4321,
    )
    task = SigningTask(
        name="commitment",
        sighash=taproot_sighash(tx, prevouts=[branch.channel.txout], input_index=0),
        key_agg=output.spending_key_agg,
    )
    jobs = ("client funding", "lsp funding")
    pools = [NoncePool(Keypair(oracle.seckey(job, client)), size=1) for job in jobs]
    pubnonces = {pool.public.pubkey: pool.public.pubnonces[0] for pool in pools}
    aggnonce = aggregate_nonces(pubnonces)
    session = SigningSession(task=task, pubnonces=pubnonces, aggnonce=aggnonce)
    collected = SigningRound(sessions={task.name: session})
    for pool in pools:
        part = {task.name: pool.partial_sign(0, task, aggnonce)}
        collected = collected.with_contribution(pool.public.pubkey, part)
    return tx.with_witnesses((collected.signatures()[task.name],))


def as_told(step: ExitStep) -> ExitStep:
    """Return a step as a package tells it: no transaction says which version of a state it is."""
    return replace(step, state_index=None)
