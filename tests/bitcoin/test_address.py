"""Segwit addresses, against the vectors of BIP 173 and BIP 350 and two other libraries."""

from collections.abc import Callable
from typing import Any

import pytest
import wallycore
from btclib import b32
from hypothesis import given
from hypothesis import strategies as st

from cromford.bitcoin.address import CHARSET, address_of_script, script_of_address
from cromford.bitcoin.network import MAINNET, NETWORKS, REGTEST, SIGNET, TESTNET4, Network

Vectors = Callable[[str], Any]
# What the BIPs call a fault, and what we say.
REASONS = {
    "Invalid human-readable part": "expected a segwit address of",
    "Invalid checksum": "checksum",
    "Invalid checksum (Bech32 instead of Bech32m)": "checksum",
    "Invalid checksum (Bech32m instead of Bech32)": "checksum",
    "Invalid character in checksum": "not bech32",
    "Invalid witness version": "received 17",
    "Invalid program length": "program of",
    "Invalid program length (1 byte)": "program of 1 bytes",
    "Invalid program length (41 bytes)": "program of 41 bytes",
    "Invalid program length for witness version 0 (per BIP141)": "program of 16 bytes",
    "Mixed case": "mixed case",
    "zero padding of more than 4 bits": "padding",
    "Non-zero padding in 8-to-5 conversion": "padding",
    "Empty data section": "not bech32",
}
INVALID = [
    ("", "expected a segwit address of"),
    ("pzry9x0s0muk", "expected a segwit address of"),
    ("1pzry9x0s0muk", "expected a segwit address of"),
    ("bc1", "not bech32"),
    ("A12UEL5L", "expected a segwit address of"),
    ("bc1" + "q" * 88, "too long"),
    ("tb1é", "not ASCII"),
]
networks = st.sampled_from(list(NETWORKS.values()))
programs = st.one_of(
    st.sampled_from([20, 32]).flatmap(
        lambda size: st.binary(min_size=size, max_size=size).map(
            lambda program: bytes((0, len(program))) + program
        )
    ),
    st.tuples(st.integers(0x51, 0x60), st.binary(min_size=2, max_size=40)).map(
        lambda pair: bytes((pair[0], len(pair[1]))) + pair[1]
    ),
)


def network_of(address: str) -> Network:
    return MAINNET if address.lower().startswith("bc") else SIGNET


def check_is_read_and_written(address: str, script_pubkey: str) -> None:
    script = script_of_address(address, network_of(address))
    assert script.hex() == script_pubkey
    assert address_of_script(script, network_of(address)) == address.lower()


def test_the_valid_addresses_of_bip_350(json_vectors: Vectors) -> None:
    valid = json_vectors("bip350.json")["valid"]
    for vector in valid:
        check_is_read_and_written(vector["address"], vector["script_pubkey"])
    assert len(valid) == 8


def test_the_valid_addresses_of_bip_173_are_so_at_version_0_only(json_vectors: Vectors) -> None:
    """BIP 350 gave the versions above another checksum, and so took the old one's validity."""
    n_outdated = 0
    for vector in json_vectors("bip173.json")["valid"]:
        if vector["script_pubkey"].startswith("00"):
            check_is_read_and_written(vector["address"], vector["script_pubkey"])
            continue
        n_outdated += 1
        with pytest.raises(ValueError, match="checksum"):
            script_of_address(vector["address"], network_of(vector["address"]))
    assert n_outdated == 3


@pytest.mark.parametrize("bip", ["bip173", "bip350"])
def test_the_invalid_addresses_of_both_bips_are_refused_with_the_reason(
    json_vectors: Vectors, bip: str
) -> None:
    invalid = json_vectors(f"{bip}.json")["invalid"]
    for vector in invalid:
        why = REASONS[vector["reason"]]
        # BIP 173's faults of versions above 0 stand under a checksum that is outdated as well.
        if bip == "bip173" and vector["address"][3].lower() not in "q3":
            why = f"{why}|checksum"
        with pytest.raises(ValueError, match=why):
            script_of_address(vector["address"], network_of(vector["address"]))
    assert len(invalid) == {"bip173": 10, "bip350": 15}[bip]


@pytest.mark.parametrize(("address", "why"), INVALID)
def test_an_invalid_address_is_refused_with_the_reason(address: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        script_of_address(address, network_of(address))


@given(script_pubkey=programs, network=networks)
def test_two_other_libraries_write_the_same_address(script_pubkey: bytes, network: Network) -> None:
    address = address_of_script(script_pubkey, network)
    assert address == wallycore.addr_segwit_from_bytes(script_pubkey, network.hrp, 0)
    assert script_of_address(address, network) == script_pubkey
    assert script_of_address(address.upper(), network) == script_pubkey
    version, program, _ = b32.witness_from_address(address)
    assert (version, program) == (max(0, script_pubkey[0] - 0x50), script_pubkey[2:])


@given(script_pubkey=programs, position=st.integers(0, 200), char=st.sampled_from(CHARSET))
def test_one_wrong_character_is_always_noticed(
    script_pubkey: bytes, position: int, char: str
) -> None:
    address = address_of_script(script_pubkey, REGTEST)
    data = len(REGTEST.hrp) + 1
    position = data + position % (len(address) - data)
    changed = address[:position] + char + address[position + 1 :]
    if changed != address:
        with pytest.raises(ValueError, match="address"):
            script_of_address(changed, REGTEST)


@given(script_pubkey=programs)
def test_an_address_of_another_network_is_refused(script_pubkey: bytes) -> None:
    address = address_of_script(script_pubkey, TESTNET4)
    assert script_of_address(address, SIGNET) == script_pubkey, "BIP 173 gives all testnets one"
    for network in (MAINNET, REGTEST):
        with pytest.raises(ValueError, match=f"expected a segwit address of {network.name}"):
            script_of_address(address, network)


@given(text=st.text(max_size=95), data=st.text(alphabet=CHARSET + "1bB", max_size=90))
def test_any_text_is_an_address_or_refused(text: str, data: str) -> None:
    for address in (text, "bcrt1" + data, "bcrt1" + text):
        try:
            script = script_of_address(address, REGTEST)
        except ValueError:
            continue
        assert address_of_script(script, REGTEST) == address.lower()


@pytest.mark.parametrize(
    "address", ["mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc"]
)
def test_an_address_that_is_not_segwit_is_told_so_whatever_its_letters(address: str) -> None:
    with pytest.raises(ValueError, match=r"expected a segwit address of regtest \(bcrt1…\)"):
        script_of_address(address, REGTEST)


def test_a_letter_that_only_looks_like_one_is_refused() -> None:
    """The Kelvin sign is a capital letter whose lower case is the k of bech32."""
    address = "tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c".upper()
    lookalike = "BC1P0XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQZK5JJ0".replace(
        "K", "\N{KELVIN SIGN}"
    )
    assert script_of_address(address, SIGNET)
    with pytest.raises(ValueError, match="not ASCII"):
        script_of_address(lookalike, MAINNET)


@pytest.mark.parametrize(
    "script_pubkey", ["", "6a", "76a914" + "00" * 20 + "88ac", "5121" + "00" * 32, "0001ff"]
)
def test_a_script_that_is_no_witness_program_has_no_address(script_pubkey: str) -> None:
    with pytest.raises(ValueError, match="no segwit address"):
        address_of_script(bytes.fromhex(script_pubkey), MAINNET)
