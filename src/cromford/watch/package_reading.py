"""Read an exit package that somebody hands over: every byte of it is checked, and named if wrong.

What is read is either the package that a client made, or refused. Every transaction is checked as
the network would check it: what it spends, what it pays, and its signature, which covers all else.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from cromford.bitcoin.fees import TRUC_VSIZE_MAX
from cromford.bitcoin.network import Network
from cromford.bitcoin.script import ANCHOR_SCRIPT, is_p2tr, p2tr_script
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.taproot import taproot_output
from cromford.bitcoin.timelock import (
    LOCKTIME_THRESHOLD,
    NSEQUENCE_DISABLE_FLAG,
    NSEQUENCE_FINAL,
    NSEQUENCE_REPLACEABLE,
)
from cromford.bitcoin.timelocked import LockKind, Timelock
from cromford.bitcoin.tx import (
    HASH_SIZE,
    MAX_MONEY_SAT,
    N_ITEMS_MAX,
    TRUC_VERSION,
    WITNESS_SCALE,
    OutPoint,
    Tx,
    Txid,
    TxOut,
)
from cromford.codec.reader import MalformedBytes
from cromford.crypto import schnorr
from cromford.crypto.keys import PUBKEY_SIZE, XONLY_PUBKEY_SIZE, is_pubkey
from cromford.factory.outputs import Tapleaf, channel_output
from cromford.watch.package import (
    PACKAGE_FORMAT,
    PACKAGE_TXS_MAX,
    PACKAGE_VERSION,
    ExitPackage,
    ReplacedState,
    delay_of,
)

# Above the largest: of a leaf of 229 clients with as many states as a client lets it have, as hex.
PACKAGE_SIZE_MAX: Final = 1024 * 1024
RECEIVED_SHOWN_MAX: Final = 80
REPLACED_MAX: Final = 63  # More than any leaf is sold of.
POISONS_MAX: Final = 2  # Of one's own channel, and of the L-stock.
_TX_SIZE_MAX: Final = TRUC_VSIZE_MAX * WITNESS_SCALE
_LOCKTIME_PAST: Final = 0x21 << 24  # BOLT 3: below it a commitment's nLockTime lies long ago.
_P2TR_SCRIPT_SIZE: Final = 34
_ALWAYS_THERE: Final = ("format", "version", "network", "funding", "transactions", "channel")
_FUNDING_FIELDS: Final = (
    "txid",
    "vout",
    "amount_sat",
    "script_pubkey",
    "internal_key",
    "lsp_pubkey",
    "expiry_height",
)
_CHANNEL_FIELDS: Final = ("vout", "funding_pubkeys")
_HEX_DIGITS: Final = frozenset("0123456789abcdef")


class InvalidPackage(ValueError):
    """What was handed over is not an exit package that can be used here. Nothing was changed."""

    def __init__(self, field: str, expected: str, received: object) -> None:
        super().__init__(f"{_shown(field)}: expected {expected}, received {_shown(received)}")
        self.field = field
        self.expected = expected
        self.received = received


def read_package(data: bytes, network: Network) -> ExitPackage:
    """Return the package in these bytes, every part of it verified but for what the chain knows.

    That the funding's output exists, with this amount and script, is for the caller to ask: with
    `check_funding`.

    Args:
        data: The JSON document, as it was handed over; at most `PACKAGE_SIZE_MAX` bytes are read.
        network: The network that it has to be for.

    Raises:
        InvalidPackage: Naming the field, what was expected and what was received.
    """
    document = _object(_parsed(data), "package", _ALWAYS_THERE, optional=("commitment", "replaced"))
    _exactly(document["format"], "format", PACKAGE_FORMAT)
    _exactly(document["version"], "version", PACKAGE_VERSION)
    _exactly(document["network"], "network", network.name)
    outpoint, txout, tapleaf, internal_key = _funding(document["funding"])
    txs = _path(document["transactions"], outpoint, txout)
    vout, pubkeys = _channel(document["channel"], txs[-1])
    commitment = None
    if "commitment" in document:
        channel = txs[-1].outpoint(vout), txs[-1].outputs[vout]
        commitment = _commitment(document["commitment"], *channel)
    return ExitPackage(
        network=network,
        funding_outpoint=outpoint,
        funding_txout=txout,
        internal_key=internal_key,
        lsp_xonly_pubkey=tapleaf.xonly_pubkey,
        expiry_height=tapleaf.lock.number,
        txs=txs,
        channel_vout=vout,
        funding_pubkeys=pubkeys,
        commitment=commitment,
        replaced=_replaced(document["replaced"], txs[-1]) if "replaced" in document else (),
    )


def check_funding(package: ExitPackage, found: TxOut) -> None:
    """Check a package against its funding's output as the chain has it.

    With the script, the expiry height is true.

    Raises:
        InvalidPackage: Naming what differs.
    """
    claimed = package.funding_txout
    if found.script_pubkey != claimed.script_pubkey:
        raise InvalidPackage(
            "funding.script_pubkey",
            f"{found.script_pubkey.hex()}, as the chain has it",
            claimed.script_pubkey.hex(),
        )
    if found.amount_sat != claimed.amount_sat:
        raise InvalidPackage(
            "funding.amount_sat", f"{found.amount_sat}, as the chain has it", claimed.amount_sat
        )


def _parsed(data: bytes) -> object:
    if len(data) > PACKAGE_SIZE_MAX:
        raise InvalidPackage("package", f"at most {PACKAGE_SIZE_MAX} bytes", "more")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidPackage("package", "UTF-8", f"another byte at {error.start}") from error
    try:
        return json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_int=_number_of,
            parse_float=_OtherNumber,
            parse_constant=_OtherNumber,
        )
    except json.JSONDecodeError as error:
        complaint = f"{error.msg} at character {error.pos}"
        raise InvalidPackage("package", "one JSON document", complaint) from error
    except RecursionError as error:
        raise InvalidPackage("package", "one JSON document", "one nested too deeply") from error


def _without_duplicates(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidPackage(name, "the field once", "it twice")
        found[name] = value
    return found


@dataclass(frozen=True, slots=True)
class _OtherNumber:
    """A number that no field of a package has: the field's own check refuses it by name."""

    text: str

    def __repr__(self) -> str:
        return self.text


def _number_of(text: str) -> int | _OtherNumber:
    # The largest number is an amount; what is longer would only cost time to read.
    is_amount = len(text) <= len(str(MAX_MONEY_SAT)) and text.isascii() and text.isdigit()
    return int(text) if is_amount else _OtherNumber(text)


def _object(
    value: object, field: str, names: Sequence[str], *, optional: Sequence[str] = ()
) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidPackage(field, "an object", value)
    prefix = "" if field == "package" else f"{field}."
    for name in value:
        if name not in names and name not in optional:
            raise InvalidPackage(f"{prefix}{name}", "no such field", "one")
    for name in names:
        if name not in value:
            raise InvalidPackage(f"{prefix}{name}", "the field", "none")
    return value


def _exactly(value: object, field: str, expected: str | int) -> None:
    if type(value) is not type(expected) or value != expected:
        raise InvalidPackage(field, str(expected), value)


def _number(value: object, field: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise InvalidPackage(field, f"a whole number of {low}..{high}", value)
    return value


def _bytes(value: object, field: str, size: int) -> bytes:
    if not _is_hex(value) or len(value) != 2 * size:
        raise InvalidPackage(field, f"{2 * size} lower-case hex digits", value)
    return bytes.fromhex(value)


def _is_hex(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _HEX_DIGITS.issuperset(value) and not len(value) % 2


def _funding(value: object) -> tuple[OutPoint, TxOut, Tapleaf, bytes]:
    funding = _object(value, "funding", _FUNDING_FIELDS)
    txid = Txid(_bytes(funding["txid"], "funding.txid", HASH_SIZE)[::-1])
    vout = _number(funding["vout"], "funding.vout", 0, N_ITEMS_MAX)
    amount_sat = _number(funding["amount_sat"], "funding.amount_sat", 1, MAX_MONEY_SAT)
    script = _bytes(funding["script_pubkey"], "funding.script_pubkey", _P2TR_SCRIPT_SIZE)
    internal_key = _bytes(funding["internal_key"], "funding.internal_key", XONLY_PUBKEY_SIZE)
    height = _number(funding["expiry_height"], "funding.expiry_height", 1, LOCKTIME_THRESHOLD - 1)
    tapleaf = Tapleaf(
        xonly_pubkey=_bytes(funding["lsp_pubkey"], "funding.lsp_pubkey", XONLY_PUBKEY_SIZE),
        lock=Timelock(kind=LockKind.AFTER, number=height),
    )
    try:
        output = taproot_output(internal_key, tapleaf.merkle_root)
    except ValueError as error:
        raise InvalidPackage(
            "funding.internal_key", "an x-only pubkey", internal_key.hex()
        ) from error
    if p2tr_script(output.output_key) != script:
        raise InvalidPackage(
            "funding.script_pubkey",
            f"{p2tr_script(output.output_key).hex()}, which internal_key, lsp_pubkey and "
            "expiry_height give",
            script.hex(),
        )
    txout = TxOut(amount_sat=amount_sat, script_pubkey=script)
    return OutPoint(txid=txid, vout=vout), txout, tapleaf, internal_key


def _path(value: object, outpoint: OutPoint, txout: TxOut) -> tuple[Tx, ...]:
    """Return the transactions of a path, which spends this output and ends in a leaf's state."""
    if not isinstance(value, list) or not 2 <= len(value) <= PACKAGE_TXS_MAX:
        received = f"{len(value)}" if isinstance(value, list) else value
        raise InvalidPackage("transactions", f"a list of 2..{PACKAGE_TXS_MAX}", received)
    txs = tuple(_tx(item, f"transactions[{n}]") for n, item in enumerate(value))
    for n, tx in enumerate(txs):
        _check_form(tx, f"transactions[{n}]")
    _check_order(txs)
    for n, tx in enumerate(txs):
        field = f"transactions[{n}]"
        if n:
            outpoint, txout = _spent(txs[n - 1], tx, field)
        _check_spend(tx, field, outpoint, txout)
    return txs


def _check_order(txs: Sequence[Tx]) -> None:
    """Check that each state follows its kickoff, and that the last one is a leaf's."""
    for n, tx in enumerate(txs):
        if delay_of(tx) is None:
            continue
        if n == 0 or delay_of(txs[n - 1]) is not None:
            raise InvalidPackage(f"transactions[{n}]", "a kickoff before each state", "none")
        if len(txs[n - 1].outputs) != 2:  # Of a kickoff: its state's, and an anchor.
            raise InvalidPackage(
                f"transactions[{n - 1}].outputs", "2, as of a kickoff", len(txs[n - 1].outputs)
            )
    if delay_of(txs[-1]) is None:
        raise InvalidPackage("transactions", "a path down to the state of a leaf", "a part of one")


def _spent(parent: Tx, tx: Tx, field: str) -> tuple[OutPoint, TxOut]:
    """Return the output of its parent that a transaction says to spend."""
    outpoint = tx.inputs[0].outpoint
    # The last output is the anchor, which leads nowhere.
    if outpoint.txid != parent.txid or outpoint.vout >= len(parent.outputs) - 1:
        raise InvalidPackage(
            f"{field}.inputs",
            f"an output of the transaction before, 0..{len(parent.outputs) - 2} of {parent.txid}",
            str(outpoint),
        )
    return outpoint, parent.outputs[outpoint.vout]


def _tx(value: object, field: str) -> Tx:
    if not _is_hex(value) or not 0 < len(value) <= 2 * _TX_SIZE_MAX:
        raise InvalidPackage(field, "a transaction in lower-case hex", value)
    data = bytes.fromhex(value)
    try:
        tx = Tx.parse(data)
    except MalformedBytes as error:
        raise InvalidPackage(field, "a transaction", str(error)) from error
    if tx.serialize() != data:
        raise InvalidPackage(field, "a transaction in its one encoding", value)
    if tx.version != TRUC_VERSION:
        raise InvalidPackage(f"{field}.version", str(TRUC_VERSION), tx.version)
    if len(tx.inputs) != 1:
        raise InvalidPackage(f"{field}.inputs", "one", len(tx.inputs))
    if tx.inputs[0].script_sig:
        raise InvalidPackage(f"{field}.script_sig", "none", tx.inputs[0].script_sig.hex())
    if tx.vsize > TRUC_VSIZE_MAX:
        raise InvalidPackage(field, f"at most {TRUC_VSIZE_MAX} vB (BIP 431)", tx.vsize)
    return tx


def _check_form(tx: Tx, field: str) -> None:
    """Check what every transaction of a tree is like."""
    if tx.nlocktime:
        raise InvalidPackage(f"{field}.nlocktime", "0", tx.nlocktime)
    nsequence = tx.inputs[0].nsequence
    if delay_of(tx) is None and nsequence != NSEQUENCE_FINAL:
        raise InvalidPackage(
            f"{field}.nsequence", f"a delay in blocks or {NSEQUENCE_FINAL}", nsequence
        )
    *paid, anchor = tx.outputs or (TxOut(amount_sat=0, script_pubkey=b""),)
    if not paid or not all(is_p2tr(output.script_pubkey) for output in paid):
        raise InvalidPackage(f"{field}.outputs", "taproot outputs before the anchor", "others")
    if anchor.script_pubkey != ANCHOR_SCRIPT:
        raise InvalidPackage(f"{field}.outputs", "an anchor last", anchor.script_pubkey.hex())


def _check_spend(tx: Tx, field: str, outpoint: OutPoint, txout: TxOut) -> None:
    """Check that a transaction spends this output, no more of it than there is, and may do so."""
    if tx.inputs[0].outpoint != outpoint:
        raise InvalidPackage(f"{field}.inputs", str(outpoint), str(tx.inputs[0].outpoint))
    paid_sat = sum(output.amount_sat for output in tx.outputs)
    if paid_sat > txout.amount_sat:
        raise InvalidPackage(f"{field}.outputs", f"at most {txout.amount_sat} sat in all", paid_sat)
    witness = tx.inputs[0].witness
    if len(witness) != 1 or len(witness[0]) != schnorr.SIGNATURE_SIZE:
        sizes = [len(item) for item in witness]
        raise InvalidPackage(f"{field}.witness", f"[{schnorr.SIGNATURE_SIZE}] bytes", sizes)
    sighash = taproot_sighash(tx, prevouts=[txout], input_index=0)
    if not schnorr.verify(witness[0], sighash, txout.script_pubkey[2:]):
        raise InvalidPackage(
            f"{field}.witness",
            f"a signature for {txout.amount_sat} sat of {outpoint}",
            "one that does not verify",
        )


def _channel(value: object, leaf: Tx) -> tuple[int, tuple[bytes, bytes]]:
    channel = _object(value, "channel", _CHANNEL_FIELDS)
    vout = _number(channel["vout"], "channel.vout", 0, len(leaf.outputs) - 2)
    field, listed = "channel.funding_pubkeys", channel["funding_pubkeys"]
    if not isinstance(listed, list) or len(listed) != 2:
        raise InvalidPackage(field, "a list of two pubkeys", listed)
    first, second = (_bytes(item, f"{field}[{n}]", PUBKEY_SIZE) for n, item in enumerate(listed))
    for n, pubkey in enumerate((first, second)):
        if not is_pubkey(pubkey):
            raise InvalidPackage(f"{field}[{n}]", "a pubkey", pubkey.hex())
    if first >= second:
        raise InvalidPackage(field, "two pubkeys, the smaller one first", listed)
    script = channel_output((first, second)).script_pubkey
    if leaf.outputs[vout].script_pubkey != script:
        # A child vertex's output has an expiry path, so it is no channel's.
        raise InvalidPackage(
            field,
            f"those of output {vout}, {leaf.outputs[vout].script_pubkey.hex()}",
            f"those of {script.hex()}",
        )
    return vout, (first, second)


def _commitment(value: object, outpoint: OutPoint, txout: TxOut) -> Tx:
    field = "commitment"
    tx = _tx(value, field)
    nsequence = tx.inputs[0].nsequence
    if not nsequence & NSEQUENCE_DISABLE_FLAG:
        raise InvalidPackage(f"{field}.nsequence", "one without a delay (BOLT 3)", nsequence)
    if not LOCKTIME_THRESHOLD <= tx.nlocktime < _LOCKTIME_PAST:
        raise InvalidPackage(f"{field}.nlocktime", "one long past (BOLT 3)", tx.nlocktime)
    _check_spend(tx, field, outpoint, txout)
    return tx


def _replaced(value: object, newest: Tx) -> tuple[ReplacedState, ...]:
    """Return the states that the last transaction replaced, the one with the longest delay first.

    They are not signed: nobody but a thief wants one in a block.
    """
    if not isinstance(value, list) or not 1 <= len(value) <= REPLACED_MAX:
        received = f"{len(value)}" if isinstance(value, list) else value
        raise InvalidPackage("replaced", f"a list of 1..{REPLACED_MAX}", received)
    states = tuple(_replaced_state(item, f"replaced[{n}]", newest) for n, item in enumerate(value))
    delays = [delay_of(one.tx) or 0 for one in (*states, ReplacedState(tx=newest, poisons=()))]
    if any(older <= newer for older, newer in itertools.pairwise(delays)):
        raise InvalidPackage("replaced", "delays that become shorter, down to the path's", delays)
    return states


def _replaced_state(value: object, field: str, newest: Tx) -> ReplacedState:
    parts = _object(value, field, ("state", "poisons"))
    state = _tx(parts["state"], f"{field}.state")
    _check_form(state, f"{field}.state")
    if state.inputs[0].witness:
        raise InvalidPackage(f"{field}.state.witness", "none", "a signature")
    if state.inputs[0].outpoint != newest.inputs[0].outpoint:
        raise InvalidPackage(
            f"{field}.state.inputs", str(newest.inputs[0].outpoint), str(state.inputs[0].outpoint)
        )
    listed = parts["poisons"]
    if not isinstance(listed, list) or not 1 <= len(listed) <= POISONS_MAX:
        raise InvalidPackage(f"{field}.poisons", f"a list of 1..{POISONS_MAX}", listed)
    poisons = tuple(_poison(item, f"{field}.poisons[{n}]", state) for n, item in enumerate(listed))
    return ReplacedState(tx=state, poisons=poisons)


def _poison(value: object, field: str, state: Tx) -> Tx:
    """Return a poison: it takes one output of that state, and nobody can say what it pays else."""
    tx = _tx(value, field)
    if tx.nlocktime:
        raise InvalidPackage(f"{field}.nlocktime", "0", tx.nlocktime)
    if tx.inputs[0].nsequence != NSEQUENCE_REPLACEABLE:
        raise InvalidPackage(
            f"{field}.nsequence", str(NSEQUENCE_REPLACEABLE), tx.inputs[0].nsequence
        )
    if not tx.outputs or not all(is_p2tr(output.script_pubkey) for output in tx.outputs):
        raise InvalidPackage(f"{field}.outputs", "taproot outputs alone", "others, or none")
    _check_spend(tx, field, *_spent(state, tx, field))
    return tx


def _shown(received: object) -> str:
    text = received if isinstance(received, str) else repr(received)
    shown = text if len(text) <= RECEIVED_SHOWN_MAX else f"{text[:RECEIVED_SHOWN_MAX]}..."
    return shown.encode("ascii", "backslashreplace").decode("ascii")
