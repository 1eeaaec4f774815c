"""What Bitcoin Core calls a script: its type, its words, its signature operations."""

from collections.abc import Iterator
from typing import Final

from cromford.bitcoin.script import (
    ANCHOR_SCRIPT,
    OP_0,
    OP_1,
    OP_16,
    OP_CHECKSIG,
    OP_CHECKSIGVERIFY,
    OP_PUSHDATA1,
    is_native_segwit,
    is_p2tr,
)

OP_PUSHDATA4: Final = 0x4E
OP_1NEGATE: Final = 0x4F
OP_RETURN: Final = 0x6A
OP_CHECKMULTISIG: Final = 0xAE
OP_CHECKMULTISIGVERIFY: Final = 0xAF
SCRIPT_SIZE_MAX: Final = 10_000  # Consensus: a longer script can never be executed.
MULTISIG_KEYS_MAX: Final = 20
MULTISIG_KEYS_STANDARD_MAX: Final = 3

# BIP 342: opcodes whose mere presence makes a tapscript succeed, reserved for later rules.
OP_SUCCESS: Final = frozenset(
    (80, 98, *range(126, 130), *range(131, 135), 137, 138, 141, 142, *range(149, 154))
) | frozenset(range(187, 255))

# fmt: off
NAMES_FROM_NOP: Final = (
    "NOP",
    "VER",
    "IF",
    "NOTIF",
    "VERIF",
    "VERNOTIF",
    "ELSE",
    "ENDIF",
    "VERIFY",
    "RETURN",
    "TOALTSTACK",
    "FROMALTSTACK",
    "2DROP",
    "2DUP",
    "3DUP",
    "2OVER",
    "2ROT",
    "2SWAP",
    "IFDUP",
    "DEPTH",
    "DROP",
    "DUP",
    "NIP",
    "OVER",
    "PICK",
    "ROLL",
    "ROT",
    "SWAP",
    "TUCK",
    "CAT",
    "SUBSTR",
    "LEFT",
    "RIGHT",
    "SIZE",
    "INVERT",
    "AND",
    "OR",
    "XOR",
    "EQUAL",
    "EQUALVERIFY",
    "RESERVED1",
    "RESERVED2",
    "1ADD",
    "1SUB",
    "2MUL",
    "2DIV",
    "NEGATE",
    "ABS",
    "NOT",
    "0NOTEQUAL",
    "ADD",
    "SUB",
    "MUL",
    "DIV",
    "MOD",
    "LSHIFT",
    "RSHIFT",
    "BOOLAND",
    "BOOLOR",
    "NUMEQUAL",
    "NUMEQUALVERIFY",
    "NUMNOTEQUAL",
    "LESSTHAN",
    "GREATERTHAN",
    "LESSTHANOREQUAL",
    "GREATERTHANOREQUAL",
    "MIN",
    "MAX",
    "WITHIN",
    "RIPEMD160",
    "SHA1",
    "SHA256",
    "HASH160",
    "HASH256",
    "CODESEPARATOR",
    "CHECKSIG",
    "CHECKSIGVERIFY",
    "CHECKMULTISIG",
    "CHECKMULTISIGVERIFY",
    "NOP1",
    "CHECKLOCKTIMEVERIFY",
    "CHECKSEQUENCEVERIFY",
    "NOP4",
    "NOP5",
    "NOP6",
    "NOP7",
    "NOP8",
    "NOP9",
    "NOP10",
    "CHECKSIGADD",
)
OP_NOP: Final = 0x61


class BrokenScript(Exception):
    """A push runs past the end of the script."""


def operations(script: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each opcode with the bytes it pushes, none for an opcode that pushes no bytes.

    Raises:
        BrokenScript: If a push runs past the end; what came before has been yielded.
    """
    position = 0
    while position < len(script):
        opcode = script[position]
        position += 1
        length = opcode if opcode < OP_PUSHDATA1 else 0
        if OP_PUSHDATA1 <= opcode <= OP_PUSHDATA4:
            n_length = 1 << (opcode - OP_PUSHDATA1)
            if position + n_length > len(script):
                raise BrokenScript
            length = int.from_bytes(script[position : position + n_length], "little")
            position += n_length
        if position + length > len(script):
            raise BrokenScript
        yield opcode, script[position : position + length]
        position += length


def is_unspendable(script: bytes) -> bool:
    """Say whether nobody can ever spend this: Core keeps no coin for it."""
    return (len(script) > 0 and script[0] == OP_RETURN) or len(script) > SCRIPT_SIZE_MAX


def is_push_only(script: bytes) -> bool:
    """Say whether a script only pushes."""
    try:
        return all(opcode <= OP_16 for opcode, _ in operations(script))
    except BrokenScript:
        return False


def has_op_success(tapscript: bytes) -> bool:
    """Say whether a tapscript holds an opcode reserved for later rules (BIP 342)."""
    try:
        return any(opcode in OP_SUCCESS for opcode, _ in operations(tapscript))
    except BrokenScript:
        return False


def script_type(script: bytes) -> str:
    """Return Core's name for the kind of an output script, `nonstandard` for all others."""
    if script == ANCHOR_SCRIPT:
        return "anchor"
    if is_native_segwit(script):
        if is_p2tr(script):
            return "witness_v1_taproot"
        if script[0] == OP_0:
            by_length = {22: "witness_v0_keyhash", 34: "witness_v0_scripthash"}
            return by_length.get(len(script), "nonstandard")
        return "witness_unknown"
    if len(script) == 23 and script[:2] == b"\xa9\x14" and script[-1:] == b"\x87":
        return "scripthash"
    if len(script) == 25 and script[:3] == b"\x76\xa9\x14" and script[-2:] == b"\x88\xac":
        return "pubkeyhash"
    if script[:1] == bytes((OP_RETURN,)) and is_push_only(script[1:]):
        return "nulldata"
    if _is_pubkey(script[1:-1]) and script[:1] == bytes((len(script) - 2,)):
        return "pubkey" if script[-1] == OP_CHECKSIG else "nonstandard"
    return "multisig" if multisig_of(script) is not None else "nonstandard"


def multisig_of(script: bytes) -> tuple[int, tuple[bytes, ...]] | None:
    """Return the threshold and the keys of a bare multisig script, or None."""
    try:
        words = list(operations(script))
    except BrokenScript:
        return None
    if len(words) < 4 or words[-1][0] != OP_CHECKMULTISIG:
        return None
    keys = tuple(data for _, data in words[1:-2])
    threshold, n_keys = words[0][0] - OP_1 + 1, words[-2][0] - OP_1 + 1
    if not all(_is_pubkey(key) for key in keys) or n_keys != len(keys):
        return None
    return (threshold, keys) if 1 <= threshold <= n_keys <= 16 else None


def _is_pubkey(data: bytes) -> bool:
    return (len(data) == 33 and data[0] in {2, 3}) or (len(data) == 65 and data[0] in {4, 6, 7})


def legacy_sigops(script: bytes, *, accurate: bool) -> int:
    """Count the signature checks of a script as written.

    Args:
        script: The script.
        accurate: Count a multisig by its number of keys, where it says so (BIP 16), else as 20.
    """
    count = 0
    last = 0xFF
    try:
        for opcode, _ in operations(script):
            if opcode in {OP_CHECKSIG, OP_CHECKSIGVERIFY}:
                count += 1
            elif opcode in {OP_CHECKMULTISIG, OP_CHECKMULTISIGVERIFY}:
                count += (
                    last - OP_1 + 1 if accurate and OP_1 <= last <= OP_16 else MULTISIG_KEYS_MAX
                )
            last = opcode
    except BrokenScript:
        pass  # As Core: what stands before the broken push counts.
    return count


def last_push(script: bytes) -> bytes | None:
    """Return what a push-only script leaves on top of the stack: a redeem script, or None."""
    top: bytes | None = None
    try:
        for opcode, data in operations(script):
            if opcode > OP_16:
                return None
            top = bytes((opcode - OP_1 + 1,)) if opcode >= OP_1 else data
    except BrokenScript:
        return None
    return top


def asm(script: bytes) -> str:
    """Return the words of a script as Core prints them: short pushes as numbers."""
    words: list[str] = []
    try:
        for opcode, data in operations(script):
            words.append(_word(opcode, data))
    except BrokenScript:
        words.append("[error]")
    return " ".join(words)


def _word(opcode: int, data: bytes) -> str:
    if opcode <= OP_PUSHDATA4:
        return str(_number(data)) if len(data) <= 4 else data.hex()
    if opcode == OP_1NEGATE:
        return "-1"
    if OP_1 <= opcode <= OP_16:
        return str(opcode - OP_1 + 1)
    if OP_NOP <= opcode < OP_NOP + len(NAMES_FROM_NOP):
        return "OP_" + NAMES_FROM_NOP[opcode - OP_NOP]
    return {80: "OP_RESERVED", 255: "OP_INVALIDOPCODE"}.get(opcode, "OP_UNKNOWN")


def _number(data: bytes) -> int:
    if not data:
        return 0
    magnitude = int.from_bytes(data, "little")
    sign_bit = 0x80 << 8 * (len(data) - 1)
    return -(magnitude ^ sign_bit) if magnitude & sign_bit else magnitude
