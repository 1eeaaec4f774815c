"""A transaction of one input, signed together by key path: of the tree, or what follows from it."""

from abc import ABC, abstractmethod

from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.tx import Tx, TxOut
from cromford.changed import computed
from cromford.crypto.schnorr import SIGNATURE_SIZE
from cromford.factory.outputs import SignersOutput
from cromford.signing.task import SigningTask


class InvalidSignature(ValueError):
    """A signature does not verify for the transaction it is said to sign."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: the signature does not verify")
        self.name = name


class KeyPathTx(ABC):
    """A transaction whose one input all signers of an output spend together (BIP 327, BIP 341).

    Attributes:
        tx: It, unsigned.
        spends: The output that it spends.
        input_amount_sat: What that output holds.
    """

    tx: Tx
    spends: SignersOutput
    input_amount_sat: int

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name within the factory."""

    @computed
    def task(self) -> SigningTask:
        """What has to be signed."""
        prevout = TxOut(amount_sat=self.input_amount_sat, script_pubkey=self.spends.script_pubkey)
        return SigningTask(
            name=self.name,
            sighash=taproot_sighash(self.tx, prevouts=[prevout], input_index=0),
            key_agg=self.spends.spending_key_agg,
        )

    @computed
    def vsize(self) -> int:
        """The virtual bytes of the signed transaction."""
        return self.tx.with_witnesses((bytes(SIGNATURE_SIZE),)).vsize

    def signed(self, signature: bytes) -> Tx:
        """Return the transaction with its witness.

        Raises:
            InvalidSignature: If the signature does not verify.
        """
        if not self.task.is_signed_by(signature, self.spends.script_pubkey[2:]):
            raise InvalidSignature(self.name)
        return self.tx.with_witnesses((signature,))
