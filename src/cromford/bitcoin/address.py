"""Segwit addresses: bech32 (BIP 173) for version 0, bech32m (BIP 350) from version 1 on."""

from typing import Final

from cromford.bitcoin.network import Network
from cromford.bitcoin.script import OP_0, OP_1, is_native_segwit

CHARSET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32_CONST: Final = 1
BECH32M_CONST: Final = 0x2BC830A3
GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
CHECKSUM_LENGTH: Final = 6
ADDRESS_LENGTH_MAX: Final = 90
WITNESS_VERSION_MAX: Final = 16  # BIP 141


def address_of_script(script_pubkey: bytes, network: Network) -> str:
    """Return the address that pays to a witness program.

    Raises:
        ValueError: If the script is not a witness program.
    """
    if not is_native_segwit(script_pubkey):
        raise ValueError(f"no segwit address pays to the script {script_pubkey.hex()}")
    version = 0 if script_pubkey[0] == OP_0 else script_pubkey[0] - OP_1 + 1
    words = [version, *_regroup(script_pubkey[2:], from_bits=8, to_bits=5, pad=True)]
    const = BECH32_CONST if version == 0 else BECH32M_CONST
    polymod = _polymod([*_expand(network.hrp), *words, *[0] * CHECKSUM_LENGTH]) ^ const
    checksum = [(polymod >> 5 * (5 - i)) & 31 for i in range(CHECKSUM_LENGTH)]
    return network.hrp + "1" + "".join(CHARSET[word] for word in words + checksum)


def script_of_address(address: str, network: Network) -> bytes:
    """Return the script an address pays to.

    Raises:
        ValueError: If it is no segwit address of this network; the message says why.
    """
    # Outside ASCII, lower() maps other letters (the Kelvin sign) onto bech32's.
    if not address.isascii() or len(address) > ADDRESS_LENGTH_MAX:
        raise ValueError(f"address {address!r}: too long or not ASCII")
    hrp, _, data = address.lower().rpartition("1")
    if hrp != network.hrp:
        raise ValueError(
            f"address {address!r}: expected a segwit address of {network.name} ({network.hrp}1…)"
        )
    # Of another kind (base58) most are, and are told that they are.
    if address not in {address.lower(), address.upper()}:
        raise ValueError(f"address {address!r}: of mixed case")
    words = [CHARSET.find(char) for char in data]
    if -1 in words or len(words) < CHECKSUM_LENGTH + 1:
        raise ValueError(f"address {address!r}: not bech32")
    version = words[0]
    if version > WITNESS_VERSION_MAX:
        raise ValueError(
            f"address {address!r}: expected a witness version of at most {WITNESS_VERSION_MAX}, "
            f"received {version}"
        )
    const = BECH32_CONST if version == 0 else BECH32M_CONST
    if _polymod([*_expand(hrp), *words]) != const:
        raise ValueError(f"address {address!r}: the checksum does not match")
    program = bytes(_regroup(words[1:-CHECKSUM_LENGTH], from_bits=5, to_bits=8, pad=False))
    if not 2 <= len(program) <= 40 or (version == 0 and len(program) not in {20, 32}):
        raise ValueError(f"address {address!r}: a witness program of {len(program)} bytes")
    return bytes((OP_0 if version == 0 else OP_1 + version - 1, len(program))) + program


def _polymod(values: list[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate(GENERATOR):
            checksum ^= generator if (top >> i) & 1 else 0
    return checksum


def _expand(hrp: str) -> list[int]:
    return [ord(char) >> 5 for char in hrp] + [0] + [ord(char) & 31 for char in hrp]


def _regroup(data: bytes | list[int], *, from_bits: int, to_bits: int, pad: bool) -> list[int]:
    accumulator = n_bits = 0
    regrouped: list[int] = []
    for value in data:
        accumulator = accumulator << from_bits | value
        n_bits += from_bits
        while n_bits >= to_bits:
            n_bits -= to_bits
            regrouped.append(accumulator >> n_bits & ((1 << to_bits) - 1))
    if pad and n_bits:
        regrouped.append(accumulator << (to_bits - n_bits) & ((1 << to_bits) - 1))
    elif (n_bits >= from_bits or accumulator & ((1 << n_bits) - 1)) and not pad:
        raise ValueError("the padding of the address is not zero")
    return regrouped
