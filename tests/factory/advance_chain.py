"""The embedded chain with factories of the test keys on it, whoever signs and whatever is mined."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Final

from tests.factory import oracle
from tests.factory.specimen import tree_of

from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.taproot import taptweak
from cromford.bitcoin.tx import OutPoint, Tx, TxIn, TxOut
from cromford.crypto import schnorr
from cromford.crypto.curve import Keypair
from cromford.crypto.keys import sha256, xonly_of, xonly_tweak_seckey
from cromford.crypto.musig2 import SecNonce, nonce_agg
from cromford.factory.key_path import KeyPathTx
from cromford.factory.terms import FactoryTerms
from cromford.factory.tree import Tree
from cromford.regtest.candidate import Accepted
from cromford.regtest.kernel import BlockRefused
from cromford.regtest.ledger import Ledger
from cromford.regtest.verdict import MempoolRefused
from cromford.signing.task import SigningTask

OPEN_TAPSCRIPT: Final = b"\x51"
OPEN_SCRIPT: Final = b"\x00\x20" + sha256(OPEN_TAPSCRIPT)  # Anyone may spend it.
TIME: Final = 1_700_000_000
COINBASE_MATURITY: Final = 100
N_PARTICIPANTS_MAX: Final = 10
REPLACEABLE: Final = 0xFFFF_FFFD


@cache
def seckeys() -> dict[bytes, bytes]:
    """Return every test key that signs in a factory, by its pubkey."""
    jobs = ("factory", "client funding", "lsp funding")
    names = chain.from_iterable([(job, i) for i in range(N_PARTICIPANTS_MAX)] for job in jobs)
    return {oracle.pubkey(*name): oracle.seckey(*name) for name in names}


def signature_of(task: SigningTask) -> bytes:
    """Return the signature of all signers of a task, made by MuSig2."""
    signing = [seckeys()[pubkey] for pubkey in task.signers]
    nonces = [SecNonce(Keypair(seckey)) for seckey in signing]
    session = task.session(nonce_agg([nonce.pubnonce for nonce in nonces]))
    return session.partial_sig_agg([nonce.sign(session) for nonce in nonces])


@cache
def signed(tx: KeyPathTx) -> Tx:
    return tx.signed(signature_of(tx.task))


@dataclass
class AdvanceChain:
    """One chain, on which many factories live one after the other."""

    ledger: Ledger
    n_coinbases_used: int = 0

    @property
    def height(self) -> int:
        return self.ledger.chain.tip.height

    def mine(self, *txs: Tx) -> int:
        """Mine exactly these transactions, as a miner may; return the block's height."""
        self.ledger.connect(self.ledger.build(OPEN_SCRIPT, txs))
        return self.height

    def mine_to(self, height: int) -> None:
        while self.height < height:
            self.mine()

    def refuses_block(self, tx: Tx) -> bool:
        """Say whether consensus refuses a transaction in the next block."""
        try:
            self.mine(tx)
        except BlockRefused:
            return True
        return False

    def refusal(self, *txs: Tx) -> str:
        """Return why the mempool does not take these now, and nothing if it would."""
        result = self.ledger.test(txs)
        refused = [one for one in result.results.values() if isinstance(one, MempoolRefused)]
        return " ".join(map(str, [*([result.error] if result.error else []), *refused]))

    def submit(self, *txs: Tx) -> None:
        """Bring a transaction, or a parent with its child, into the mempool."""
        result = self.ledger.submit_package(txs, None) if len(txs) > 1 else None
        if result is None:
            self.ledger.submit(txs[0])
            return
        assert result.error is None, self.refusal(*txs)
        assert all(isinstance(one, Accepted) for one in result.results.values())

    def coin(self) -> tuple[OutPoint, TxOut]:
        """Return a mature coin that anybody may spend."""
        self.n_coinbases_used += 1
        self.mine_to(self.n_coinbases_used + COINBASE_MATURITY)
        indexed = self.ledger.chain.at_height(self.n_coinbases_used)
        assert indexed is not None
        coinbase = indexed.block.txs[0]
        return coinbase.outpoint(0), coinbase.outputs[0]

    def fund(self, terms: FactoryTerms) -> Tree:
        """Return the tree of these terms, its funding mined."""
        draft = tree_of(terms)
        outpoint, _ = self.coin()
        funding = Tx(
            version=2,
            inputs=(spending_open(outpoint),),
            outputs=(
                TxOut(
                    amount_sat=draft.funding_amount_sat,
                    script_pubkey=draft.funding_output.script_pubkey,
                ),
            ),
        )
        self.mine(funding)
        return tree_of(terms, funding_outpoint=funding.outpoint(0))

    def anchor_child(self, parent: Tx, *, fee_sat: int) -> Tx:
        """Return a child of a transaction's anchor that pays with somebody's coin."""
        outpoint, coin = self.coin()
        (vout,) = (v for v, out in enumerate(parent.outputs) if out.script_pubkey == ANCHOR_SCRIPT)
        left_sat = coin.amount_sat + parent.outputs[vout].amount_sat - fee_sat
        return Tx(
            version=3,
            inputs=(
                TxIn(outpoint=parent.outpoint(vout), nsequence=REPLACEABLE),
                spending_open(outpoint),
            ),
            outputs=(TxOut(amount_sat=left_sat, script_pubkey=OPEN_SCRIPT),),
        )


def spending_open(outpoint: OutPoint) -> TxIn:
    return TxIn(outpoint=outpoint, nsequence=REPLACEABLE, witness=(OPEN_TAPSCRIPT,))


def receivers_child(parent: Tx, vout: int, *, client: int, fee_sat: int) -> Tx:
    """Return what a client signs alone: a child of the output that a poison pays it."""
    prevout = parent.outputs[vout]
    child = Tx(
        version=3,
        inputs=(TxIn(outpoint=parent.outpoint(vout), nsequence=REPLACEABLE),),
        outputs=(TxOut(amount_sat=prevout.amount_sat - fee_sat, script_pubkey=OPEN_SCRIPT),),
    )
    tweak = taptweak(xonly_of(oracle.pubkey("factory", client)), None)
    seckey = xonly_tweak_seckey(oracle.seckey("factory", client), tweak)
    sighash = taproot_sighash(child, prevouts=[prevout], input_index=0)
    return child.with_witnesses((schnorr.sign(sighash, seckey),))


@contextmanager
def fresh_chain() -> Iterator[AdvanceChain]:
    ledger = Ledger(None, lambda: TIME)
    try:
        yield AdvanceChain(ledger)
    finally:
        ledger.close()
