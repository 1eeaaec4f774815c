"""Script bytes: every push is the minimal one, and every output script is what it says."""

import pytest
import wallycore
from btclib.script import script as btclib_script
from hypothesis import given
from hypothesis import strategies as st

from cromford.bitcoin import script

NUMBER_MAX = 2**39 - 1
edges = [0, 1, 16, 17, 127, 128, 255, 256, 2**15 - 1, 2**15, 2**23, 2**31 - 1, 2**31, NUMBER_MAX]
numbers = st.one_of(st.sampled_from(edges), st.integers(0, NUMBER_MAX), st.integers(0, 70_000))


@given(number=numbers)
def test_a_number_is_pushed_as_another_library_pushes_it(number: int) -> None:
    command = btclib_script.op_int(number) if number <= 16 else number
    assert script.push_number(number) == btclib_script.serialize([command])


@given(number=numbers)
def test_a_number_push_is_minimal_and_means_the_number(number: int) -> None:
    pushed = script.push_number(number)
    if number == 0:
        assert pushed == b"\x00"
    elif number <= 16:
        assert pushed == bytes((0x50 + number,))
    else:
        data = pushed[1:]
        assert pushed[0] == len(data)
        assert int.from_bytes(data, "little") == number
        assert data[-1] < 0x80, "the top bit would be a sign"
        assert data[-1] or data[-2] >= 0x80, "a last byte of zero is there only for the sign"


@pytest.mark.parametrize("number", [-1, NUMBER_MAX + 1, 2**63])
def test_a_number_no_timelock_opcode_reads_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=str(number)):
        script.push_number(number)


@given(data=st.binary(min_size=2, max_size=75))
def test_bytes_are_pushed_as_another_library_pushes_them(data: bytes) -> None:
    assert script.push_bytes(data) == bytes(wallycore.script_push_from_bytes(data, 0))


@pytest.mark.parametrize("length_bytes", [0, 1, 76, 520])
def test_a_push_that_would_not_be_minimal_is_refused(length_bytes: int) -> None:
    with pytest.raises(ValueError, match=f"received {length_bytes}"):
        script.push_bytes(bytes(length_bytes))


@given(output_key=st.binary(min_size=32, max_size=32))
def test_a_taproot_script_is_recognised(output_key: bytes) -> None:
    script_pubkey = script.p2tr_script(output_key)
    assert script_pubkey == b"\x51\x20" + output_key
    assert script.is_p2tr(script_pubkey)
    assert script.is_native_segwit(script_pubkey)
    assert wallycore.scriptpubkey_get_type(script_pubkey) == wallycore.WALLY_SCRIPT_TYPE_P2TR


@pytest.mark.parametrize("length_bytes", [0, 2, 31, 33, 64])
def test_no_output_pays_to_a_key_of_another_length(length_bytes: int) -> None:
    """Such an output would be anyone's to take."""
    with pytest.raises(ValueError, match=f"received {length_bytes}"):
        script.p2tr_script(bytes(length_bytes))


def test_the_anchor_is_native_segwit_and_not_taproot() -> None:
    assert script.ANCHOR_SCRIPT.hex() == "51024e73"
    assert script.is_native_segwit(script.ANCHOR_SCRIPT)
    assert not script.is_p2tr(script.ANCHOR_SCRIPT)


@given(data=st.binary(max_size=45))
def test_any_bytes_are_native_segwit_exactly_when_bip_141_says(data: bytes) -> None:
    is_program = (
        4 <= len(data) <= 42 and data[0] in {0, *range(0x51, 0x61)} and data[1] + 2 == len(data)
    )
    assert script.is_native_segwit(data) == is_program


@given(version=st.integers(0, 255), length_bytes=st.integers(0, 50), claimed=st.integers(-1, 1))
def test_a_witness_program_has_a_version_and_2_to_40_bytes(
    version: int, length_bytes: int, claimed: int
) -> None:
    data = bytes((version, max(0, length_bytes + claimed))) + bytes(length_bytes)
    assert script.is_native_segwit(data) == (
        max(0, length_bytes + claimed) == length_bytes
        and 2 <= length_bytes <= 40
        and version in {0, *range(0x51, 0x61)}
    )
