"""Transactions and their bytes (BIP 144), identifiers and weight (BIP 141)."""

from dataclasses import dataclass
from typing import Final

from cromford.changed import computed
from cromford.codec.reader import MalformedBytes, Reader
from cromford.crypto.keys import sha256d

TRUC_VERSION: Final = 3  # BIP 431: topologically restricted until confirmation.
HASH_SIZE: Final = 32
OUTPOINT_SIZE: Final = HASH_SIZE + 4
WITNESS_SCALE: Final = 4  # BIP 141: a non-witness byte weighs four.
SAT_PER_BTC: Final = 100_000_000
MAX_MONEY_SAT: Final = 21_000_000 * SAT_PER_BTC
N_ITEMS_MAX: Final = 100_000  # No valid transaction has more inputs, outputs or witness items.


def vsize_of(weight: int) -> int:
    """Return virtual bytes: a quarter of the weight, rounded up (BIP 141)."""
    return -(-weight // WITNESS_SCALE)


class Txid(bytes):
    """A transaction id in internal byte order; `str` gives the reversed hex people read."""

    __slots__ = ()

    @classmethod
    def from_hex(cls, displayed: str) -> "Txid":
        """Return the txid of its displayed (reversed) hex.

        Raises:
            ValueError: If it is not 64 hex digits.
        """
        # `fromhex` skips spaces, so the digits are counted too.
        raw = bytes.fromhex(displayed) if len(displayed) == 2 * HASH_SIZE else b""
        if len(raw) != HASH_SIZE:
            raise ValueError(f"a txid has 64 hex digits, received {displayed!r}")
        return cls(raw[::-1])

    def __str__(self) -> str:
        return self[::-1].hex()

    def __repr__(self) -> str:
        return f"Txid({self})"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class OutPoint:
    """Names one output of one transaction."""

    txid: Txid
    vout: int

    def serialize(self) -> bytes:
        """Return the 36 bytes of the outpoint."""
        return self.txid + self.vout.to_bytes(4, "little")

    @classmethod
    def parse(cls, data: bytes) -> "OutPoint":
        """Return the outpoint of these 36 bytes.

        Raises:
            ValueError: If there are not as many.
        """
        if len(data) != OUTPOINT_SIZE:
            raise ValueError(f"outpoint: expected {OUTPOINT_SIZE} bytes, received {len(data)}")
        return cls(txid=Txid(data[:-4]), vout=int.from_bytes(data[-4:], "little"))

    def __str__(self) -> str:
        return f"{self.txid}:{self.vout}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TxOut:
    """An amount and the script that guards it."""

    amount_sat: int
    script_pubkey: bytes

    def serialize(self) -> bytes:
        """Return the bytes of the output."""
        return self.amount_sat.to_bytes(8, "little") + var_bytes(self.script_pubkey)


@dataclass(frozen=True, slots=True, kw_only=True)
class TxIn:
    """Spends an outpoint. The witness is the only thing that may differ after signing."""

    outpoint: OutPoint
    nsequence: int
    script_sig: bytes = b""
    witness: tuple[bytes, ...] = ()

    def serialize(self) -> bytes:
        """Return the bytes of the input, without the witness."""
        return (
            self.outpoint.serialize()
            + var_bytes(self.script_sig)
            + self.nsequence.to_bytes(4, "little")
        )


@dataclass(frozen=True, kw_only=True)
class Tx:
    """A transaction."""

    version: int
    inputs: tuple[TxIn, ...]
    outputs: tuple[TxOut, ...]
    nlocktime: int = 0

    @property
    def has_witness(self) -> bool:
        """Whether any input carries a witness."""
        return any(tx_in.witness for tx_in in self.inputs)

    @computed
    def stripped(self) -> bytes:
        """The bytes without witness, which the txid commits to."""
        return (
            self.version.to_bytes(4, "little")
            + var_list([tx_in.serialize() for tx_in in self.inputs])
            + compact_size(len(self.outputs))
            + self.serialized_outputs
            + self.nlocktime.to_bytes(4, "little")
        )

    @computed
    def serialized_outputs(self) -> bytes:
        """The bytes of all outputs, without their count: a digest is of them too (BIP 341)."""
        return b"".join([tx_out.serialize() for tx_out in self.outputs])

    def serialize(self) -> bytes:
        """Return the bytes on the wire (BIP 144); without any witness, the old format."""
        if not self.has_witness:
            return self.stripped
        witnesses = b"".join(
            var_list([var_bytes(item) for item in tx_in.witness]) for tx_in in self.inputs
        )
        return (
            self.stripped[:4] + b"\x00\x01" + self.stripped[4:-4] + witnesses + self.stripped[-4:]
        )

    @computed
    def txid(self) -> Txid:
        """The id that outpoints use; no witness changes it."""
        return Txid(sha256d(self.stripped))

    @computed
    def wtxid(self) -> Txid:
        """The id that covers the witness (BIP 141)."""
        return Txid(sha256d(self.serialize()))

    @property
    def weight(self) -> int:
        """Weight units (BIP 141)."""
        return len(self.stripped) * (WITNESS_SCALE - 1) + len(self.serialize())

    @property
    def vsize(self) -> int:
        """Virtual bytes: a quarter of the weight, rounded up."""
        return vsize_of(self.weight)

    def outpoint(self, vout: int) -> OutPoint:
        """Return the outpoint of one of this transaction's outputs.

        Raises:
            ValueError: If there is no such output.
        """
        if not 0 <= vout < len(self.outputs):
            raise ValueError(f"output {vout} of {len(self.outputs)}")
        return OutPoint(txid=self.txid, vout=vout)

    @property
    def outpoints(self) -> tuple[OutPoint, ...]:
        """The outpoints of this transaction's outputs, in their order."""
        txid = self.txid
        return tuple(OutPoint(txid=txid, vout=vout) for vout in range(len(self.outputs)))

    def with_witnesses(self, *witnesses: tuple[bytes, ...]) -> "Tx":
        """Return this transaction with one witness per input, in order."""
        return Tx(
            version=self.version,
            inputs=tuple(
                TxIn(
                    outpoint=tx_in.outpoint,
                    nsequence=tx_in.nsequence,
                    script_sig=tx_in.script_sig,
                    witness=witness,
                )
                for tx_in, witness in zip(self.inputs, witnesses, strict=True)
            ),
            outputs=self.outputs,
            nlocktime=self.nlocktime,
        )

    @classmethod
    def parse(cls, data: bytes) -> "Tx":
        """Return the transaction of these bytes, all of them.

        Raises:
            MalformedBytes: If they are not exactly one transaction.
        """
        reader = Reader(data)
        tx = cls.read(reader)
        reader.check_end()
        return tx

    @classmethod
    def read(cls, reader: Reader) -> "Tx":
        """Read one transaction, as inside a block.

        Raises:
            MalformedBytes: If the bytes are not a transaction.
        """
        version = reader.uint_le(4)
        n_inputs = read_compact_size(reader)
        has_witness = n_inputs == 0 and reader.uint_le(1) == 1
        if n_inputs == 0 and not has_witness:
            raise MalformedBytes("a transaction without inputs")
        if has_witness:
            n_inputs = read_compact_size(reader)
        inputs = [_read_input(reader) for _ in range(n_inputs)]
        outputs = [_read_output(reader) for _ in range(read_compact_size(reader))]
        if has_witness:
            inputs = [
                TxIn(
                    outpoint=tx_in.outpoint,
                    nsequence=tx_in.nsequence,
                    script_sig=tx_in.script_sig,
                    witness=tuple(read_var_bytes(reader) for _ in range(read_compact_size(reader))),
                )
                for tx_in in inputs
            ]
            if not any(tx_in.witness for tx_in in inputs):
                raise MalformedBytes("the witness marker is set and every witness is empty")
        return cls(
            version=version,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            nlocktime=reader.uint_le(4),
        )


def compact_size(number: int) -> bytes:
    """Return Bitcoin's variable-length integer, little-endian."""
    if number < 0xFD:
        return number.to_bytes(1, "little")
    if number <= 0xFFFF:
        return b"\xfd" + number.to_bytes(2, "little")
    if number <= 0xFFFF_FFFF:
        return b"\xfe" + number.to_bytes(4, "little")
    return b"\xff" + number.to_bytes(8, "little")


def read_compact_size(reader: Reader) -> int:
    """Read a count or a length.

    Raises:
        MalformedBytes: If it is cut short, not minimal, or above any count a block can hold.
    """
    first = reader.uint_le(1)
    if first < 0xFD:
        return first
    length_bytes, least = {0xFD: (2, 0xFD), 0xFE: (4, 0x1_0000), 0xFF: (8, 0x1_0000_0000)}[first]
    number = reader.uint_le(length_bytes)
    if number < least:
        raise MalformedBytes(f"compact size {number} is not minimally encoded")
    if number > max(N_ITEMS_MAX, reader.n_left):
        raise MalformedBytes(f"a count of {number} with {reader.n_left} bytes left")
    return number


def var_bytes(data: bytes) -> bytes:
    """Return `data` after its length."""
    return compact_size(len(data)) + data


def var_list(items: list[bytes]) -> bytes:
    """Return the joined items after their count."""
    return compact_size(len(items)) + b"".join(items)


def read_var_bytes(reader: Reader) -> bytes:
    """Read bytes after their length."""
    return reader.take(read_compact_size(reader))


def _read_input(reader: Reader) -> TxIn:
    outpoint = OutPoint(txid=Txid(reader.take(HASH_SIZE)), vout=reader.uint_le(4))
    script_sig = read_var_bytes(reader)
    return TxIn(outpoint=outpoint, script_sig=script_sig, nsequence=reader.uint_le(4))


def _read_output(reader: Reader) -> TxOut:
    amount_sat = reader.uint_le(8)
    return TxOut(amount_sat=amount_sat, script_pubkey=read_var_bytes(reader))
