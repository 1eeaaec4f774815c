"""Script bytes: minimal pushes and the output scripts this project uses."""

from typing import Final

OP_0: Final = 0x00
OP_PUSHDATA1: Final = 0x4C
OP_1: Final = 0x51
OP_16: Final = 0x60
OP_CHECKSIG: Final = 0xAC
OP_CHECKSIGVERIFY: Final = 0xAD
OP_CHECKLOCKTIMEVERIFY: Final = 0xB1  # BIP 65
OP_CHECKSEQUENCEVERIFY: Final = 0xB2  # BIP 112

P2TR_PROGRAM_SIZE: Final = 32  # BIP 341: other version 1 programs have no rule yet.
PUSH_MAX: Final = 75  # A longer push needs OP_PUSHDATA, which no script here does.
ANCHOR_SCRIPT: Final = bytes.fromhex("51024e73")  # Pay-to-anchor (BIP 433).


def push_number(number: int) -> bytes:
    """Return the minimal push of a non-negative script number (BIP 62's rule, in BIP 342).

    Raises:
        ValueError: If it is negative or longer than the five bytes CLTV reads (BIP 65).
    """
    if not 0 <= number < 1 << 39:
        raise ValueError(f"a script number of 0..2^39-1 was expected, received {number}")
    if number == 0:
        return bytes((OP_0,))
    if number <= 16:
        return bytes((OP_1 + number - 1,))
    # One spare bit: the top bit of the last byte is the sign.
    length_bytes = number.bit_length() // 8 + 1
    return bytes((length_bytes,)) + number.to_bytes(length_bytes, "little")


def push_bytes(data: bytes) -> bytes:
    """Return a direct push of 2 to 75 bytes.

    Raises:
        ValueError: If a shorter or longer encoding would be the minimal one.
    """
    if not 2 <= len(data) <= PUSH_MAX:
        raise ValueError(f"a direct push of 2..{PUSH_MAX} bytes was expected, received {len(data)}")
    return bytes((len(data),)) + data


def p2tr_script(output_key: bytes) -> bytes:
    """Return the script that pays to a taproot output key (BIP 341).

    Raises:
        ValueError: If the key is not 32 bytes; anybody may spend such an output.
    """
    if len(output_key) != P2TR_PROGRAM_SIZE:
        raise ValueError(f"an output key has {P2TR_PROGRAM_SIZE} bytes, received {len(output_key)}")
    return bytes((OP_1,)) + push_bytes(output_key)


def is_native_segwit(script_pubkey: bytes) -> bool:
    """Say whether this is a witness program (BIP 141): spending it needs no scriptSig."""
    return (
        4 <= len(script_pubkey) <= 42
        and (script_pubkey[0] == OP_0 or OP_1 <= script_pubkey[0] <= OP_16)
        and script_pubkey[1] == len(script_pubkey) - 2
    )


def is_usual_segwit(script_pubkey: bytes) -> bool:
    """Say whether this is P2WPKH, P2WSH or P2TR: every node relays 330 sat or more to it.

    Of other witness programs Core relays none of version 0, and calls larger ones dust.
    """
    version, size = script_pubkey[:1], len(script_pubkey) - 2
    is_known = (version, size) in {(b"\x00", 20), (b"\x00", 32), (b"\x51", 32)}
    return is_known and is_native_segwit(script_pubkey)


def is_p2tr(script_pubkey: bytes) -> bool:
    """Say whether this pays to a taproot output key."""
    return len(script_pubkey) == 34 and script_pubkey[:2] == b"\x51\x20"
