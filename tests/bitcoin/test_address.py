"""Segwit addresses, against the vectors of BIP 173 and BIP 350 and two other libraries."""

import pytest
import wallycore
from btclib import b32
from hypothesis import given
from hypothesis import strategies as st

from cromford.bitcoin.address import CHARSET, address_of_script, script_of_address
from cromford.bitcoin.network import MAINNET, NETWORKS, REGTEST, SIGNET, TESTNET4, Network

BIP_350_VALID = [
    (
        "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
        "0014751e76e8199196d454941c45d1b3a323f1433bd6",
    ),
    (
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
    ),
    (
        "bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y",
        "5128751e76e8199196d454941c45d1b3a323f1433bd6751e76e8199196d454941c45d1b3a323f1433bd6",
    ),
    ("BC1SW50QGDZ25J", "6002751e"),
    ("bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs", "5210751e76e8199196d454941c45d1b3a323"),
    (
        "tb1qqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesrxh6hy",
        "0020000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433",
    ),
    (
        "tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c",
        "5120000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433",
    ),
    (
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    ),
]
INVALID = [
    ("tc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq5zuyut", "expected one of"),
    ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd", "checksum"),
    ("tb1z0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqglt7rf", "checksum"),
    ("BC1S0XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ54WELL", "checksum"),
    ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kemeawh", "checksum"),
    ("tb1q0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq24jc47", "checksum"),
    ("bc1p38j9r5y49hruaue7wxjce0updqjuyyx0kh56v8s25huc6995vvpql3jow4", "not bech32"),
    ("BC130XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ7ZWS8R", "checksum"),
    ("bc1pw5dgrnzv", "program of 1 bytes"),
    (
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v8n0nx0muaewav253zgeav",
        "program of 41 bytes",
    ),
    ("BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P", "program of 16 bytes"),
    ("tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq47Zagq", "mixed case"),
    ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v07qwwzcrf", "padding"),
    ("tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vpggkg4j", "padding"),
    ("bc1gmk9yu", "not bech32"),
    # BIP 173's own: valid there before BIP 350, or invalid in both.
    ("tc1qw508d6qejxtdg4y5r3zarvary0c5xw7kg3g4ty", "expected one of"),
    ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "checksum"),
    ("BC13W508D6QEJXTDG4Y5R3ZARVARY0C5XW7KN40WF2", "checksum"),
    ("bc1rw5uspcuh", "checksum"),
    ("tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sL5k7", "mixed case"),
    ("tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3pjxtptv", "padding"),
    ("bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7k7grplx", "checksum"),
    ("BC1SW50QA3JX3S", "checksum"),
    ("bc1zw508d6qejxtdg4y5r3zarvaryvg6kdaj", "checksum"),
    ("", "expected one of"),
    ("pzry9x0s0muk", "expected one of"),
    ("1pzry9x0s0muk", "expected one of"),
    ("bc1", "not bech32"),
    ("A12UEL5L", "expected one of"),
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


@pytest.mark.parametrize(("address", "script_pubkey"), BIP_350_VALID)
def test_a_valid_address_is_its_script_and_back(address: str, script_pubkey: str) -> None:
    script = script_of_address(address, network_of(address))
    assert script.hex() == script_pubkey
    assert address_of_script(script, network_of(address)) == address.lower()


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
        with pytest.raises(ValueError, match=f"expected one of {network.name}"):
            script_of_address(address, network)


@given(text=st.text(max_size=95), data=st.text(alphabet=CHARSET + "1bB", max_size=90))
def test_any_text_is_an_address_or_refused(text: str, data: str) -> None:
    for address in (text, "bcrt1" + data, "bcrt1" + text):
        try:
            script = script_of_address(address, REGTEST)
        except ValueError:
            continue
        assert address_of_script(script, REGTEST) == address.lower()


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
