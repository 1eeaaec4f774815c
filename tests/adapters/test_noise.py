"""BOLT 8, appendix A: every vector, and what they leave out."""

import copy
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.adapters.noise import (
    AwaitingActThree,
    AwaitingActTwo,
    HandshakeFailed,
    NodeIdentity,
    SessionKeys,
    initiate,
    respond,
)
from cromford.adapters.noise_cipher import (
    HEADER_SIZE,
    MESSAGE_SIZE_MAX,
    BadCiphertext,
    MessageCipher,
)

INITIATOR = NodeIdentity.from_seckey(b"\x11" * 32)
RESPONDER = NodeIdentity.from_seckey(b"\x21" * 32)
INITIATOR_EPHEMERAL = b"\x12" * 32
RESPONDER_EPHEMERAL = b"\x22" * 32

INITIATOR_ID = "034f355bdcb7cc0af728ef3cceb9615d90684bb5b2ca5f859ab0f0b704075871aa"
RESPONDER_ID = "028d7500dd4c12685d1f568b4c2b5048e8534b873319f3a8daa612b469132ec7f7"

ACT_ONE = (
    "00036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f7"
    "0df6086551151f58b8afe6c195782c6a"
)
ACT_TWO = (
    "0002466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f27"
    "6e2470b93aac583c9ef6eafca3f730ae"
)
ACT_THREE = (
    "00b9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d71ad0c3822"
    "8dc68b1c466263b47fdf31e560e139ba"
)
# Act three with an encrypted public key whose first byte is 04.
ACT_THREE_BAD_ID = (
    "00bfe3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa2235536ad09a8ee351870c2bb7f78b754a26c6c"
    "ef79a98d25139c856d7efd252c2ae73c"
)
CHAINING_KEY = "919219dbb2920afa8db80f9a51787a840bcf111ed8d588caf9ab4be716e42b01"
INITIATOR_SENDS = "969ab31b4d288cedf6218839b27a3e2140827047f2c0f01bf5c04435d43511a9"
RESPONDER_SENDS = "bb9020b8965f4df047e07f955f3c4b88418984aadc5cdb35096b9ea8fa5c3442"


def started() -> tuple[bytes, AwaitingActTwo]:
    return initiate(INITIATOR, responder_id=RESPONDER.node_id, ephemeral_seckey=INITIATOR_EPHEMERAL)


def answered(act_one: str = ACT_ONE) -> tuple[bytes, AwaitingActThree]:
    return respond(RESPONDER, bytes.fromhex(act_one), ephemeral_seckey=RESPONDER_EPHEMERAL)


def established() -> tuple[SessionKeys, SessionKeys]:
    _, awaiting_two = started()
    act_two, awaiting_three = answered()
    act_three, initiators = awaiting_two.finish(act_two)
    return initiators, awaiting_three.finish(act_three)


def key_of(cipher: MessageCipher) -> str:
    return cipher._key.hex()


def changed(act: str, *, position: int, to: str) -> str:
    return act[: 2 * position] + to + act[2 * position + 2 :]


def test_node_ids_are_those_of_the_appendix() -> None:
    assert INITIATOR.node_id.hex() == INITIATOR_ID
    assert RESPONDER.node_id.hex() == RESPONDER_ID


def test_ecdh_is_the_sha256_of_the_compressed_point() -> None:
    ephemeral_pubkey = bytes.fromhex(ACT_ONE)[1:34]
    expected = "1e2fb3c8fe8fb9f262f649f64d26ecf0f2c0a805a767cf02dc2d77a6ef1fdcc3"
    assert RESPONDER.ecdh(ephemeral_pubkey).hex() == expected


def test_initiator_successful_handshake() -> None:
    act_one, awaiting = started()
    assert act_one.hex() == ACT_ONE
    act_three, keys = awaiting.finish(bytes.fromhex(ACT_TWO))
    assert act_three.hex() == ACT_THREE
    assert key_of(keys.sending) == INITIATOR_SENDS
    assert key_of(keys.receiving) == RESPONDER_SENDS
    assert keys.sending._chaining_key.hex() == CHAINING_KEY
    assert keys.node_id.hex() == RESPONDER_ID


def test_responder_successful_handshake() -> None:
    act_two, awaiting = answered()
    assert act_two.hex() == ACT_TWO
    keys = awaiting.finish(bytes.fromhex(ACT_THREE))
    assert key_of(keys.receiving) == INITIATOR_SENDS
    assert key_of(keys.sending) == RESPONDER_SENDS
    assert keys.receiving._chaining_key.hex() == CHAINING_KEY
    assert keys.node_id.hex() == INITIATOR_ID


@pytest.mark.parametrize(
    ("act_two", "reason"),
    [
        pytest.param(ACT_TWO[:-2], "read_failed", id="act2 short read"),
        pytest.param(changed(ACT_TWO, position=0, to="01"), "bad_version", id="act2 bad version"),
        pytest.param(
            changed(ACT_TWO, position=1, to="04"), "bad_pubkey", id="act2 bad key serialization"
        ),
        pytest.param(changed(ACT_TWO, position=49, to="af"), "bad_tag", id="act2 bad MAC"),
        pytest.param(ACT_TWO + "00", "read_failed", id="act2 one byte too many"),
    ],
)
def test_initiator_refuses_a_bad_act_two(act_two: str, reason: str) -> None:
    _, awaiting = started()
    with pytest.raises(HandshakeFailed, match=reason) as failed:
        awaiting.finish(bytes.fromhex(act_two))
    assert (failed.value.act, failed.value.reason) == (2, reason)


@pytest.mark.parametrize(
    ("act_one", "reason"),
    [
        pytest.param(ACT_ONE[:-2], "read_failed", id="act1 short read"),
        pytest.param(changed(ACT_ONE, position=0, to="01"), "bad_version", id="act1 bad version"),
        pytest.param(
            changed(ACT_ONE, position=1, to="04"), "bad_pubkey", id="act1 bad key serialization"
        ),
        pytest.param(changed(ACT_ONE, position=49, to="6b"), "bad_tag", id="act1 bad MAC"),
    ],
)
def test_responder_refuses_a_bad_act_one(act_one: str, reason: str) -> None:
    with pytest.raises(HandshakeFailed, match=reason) as failed:
        answered(act_one)
    assert (failed.value.act, failed.value.reason) == (1, reason)


@pytest.mark.parametrize(
    ("act_three", "reason"),
    [
        pytest.param(changed(ACT_THREE, position=0, to="01"), "bad_version", id="act3 bad version"),
        pytest.param(ACT_THREE[:-2], "read_failed", id="act3 short read"),
        pytest.param(
            changed(ACT_THREE, position=1, to="c9"),
            "bad_ciphertext",
            id="act3 bad MAC for ciphertext",
        ),
        pytest.param(ACT_THREE_BAD_ID, "bad_pubkey", id="act3 bad rs"),
        pytest.param(changed(ACT_THREE, position=65, to="bb"), "bad_tag", id="act3 bad MAC"),
    ],
)
def test_responder_refuses_a_bad_act_three(act_three: str, reason: str) -> None:
    _, awaiting = answered()
    with pytest.raises(HandshakeFailed, match=reason) as failed:
        awaiting.finish(bytes.fromhex(act_three))
    assert (failed.value.act, failed.value.reason) == (3, reason)


def test_message_encryption_rotates_the_key_every_five_hundred_messages() -> None:
    expected = {
        0: "cf2b30ddf0cf3f80e7c35a6e6730b59fe802473180f396d88a8fb0db8cbcf25d2f214cf9ea1d95",
        1: "72887022101f0b6753e0c7de21657d35a4cb2a1f5cde2650528bbc8f837d0f0d7ad833b1a256a1",
        500: "178cb9d7387190fa34db9c2d50027d21793c9bc2d40b1e14dcf30ebeeeb220f48364f7a4c68bf8",
        501: "1b186c57d44eb6de4c057c49940d79bb838a145cb528d6e8fd26dbe50a60ca2c104b56b60e45bd",
        1000: "4a2f3cc3b5e78ddb83dcb426d9863d9d9a723b0337c89dd0b005d89f8d3c05c52b76b29b740f09",
        1001: "2ecd8c8a5629d0d02ab457a0fdd0f7b90a192cd46be5ecb6ca570bfc5e268338b1a16cf4ef2d36",
    }
    initiators, responders = established()
    for number in range(1002):
        packet = initiators.sending.encrypt(b"hello")
        if number in expected:
            assert packet.hex() == expected[number], number
        assert decrypt(responders.receiving, packet) == b"hello"


def test_the_two_directions_rotate_on_their_own() -> None:
    initiators, responders = established()
    for _ in range(600):
        assert decrypt(responders.receiving, initiators.sending.encrypt(b"")) == b""
    assert decrypt(initiators.receiving, responders.sending.encrypt(b"late")) == b"late"


def decrypt(cipher: MessageCipher, packet: bytes) -> bytes:
    body_size = cipher.decrypt_header(packet[:HEADER_SIZE])
    assert body_size == len(packet) - HEADER_SIZE
    return cipher.decrypt_body(packet[HEADER_SIZE:])


@pytest.mark.parametrize("size_bytes", [0, 1, MESSAGE_SIZE_MAX])
def test_a_message_of_any_allowed_size_arrives(size_bytes: int) -> None:
    initiators, responders = established()
    message = bytes(size_bytes)
    assert decrypt(responders.receiving, initiators.sending.encrypt(message)) == message


def test_a_message_above_the_limit_is_the_callers_mistake() -> None:
    initiators, _ = established()
    with pytest.raises(ValueError, match="at most 65535 bytes, received 65536"):
        initiators.sending.encrypt(bytes(MESSAGE_SIZE_MAX + 1))


@given(message=st.binary(max_size=64), data=st.data())
def test_a_packet_with_one_changed_bit_is_refused(message: bytes, data: st.DataObject) -> None:
    initiators, responders = established()
    packet = bytearray(initiators.sending.encrypt(message))
    bit = data.draw(st.integers(0, 8 * len(packet) - 1))
    packet[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadCiphertext):
        decrypt(responders.receiving, bytes(packet))


def test_a_repeated_packet_is_refused() -> None:
    initiators, responders = established()
    packet = initiators.sending.encrypt(b"once")
    decrypt(responders.receiving, packet)
    with pytest.raises(BadCiphertext):
        decrypt(responders.receiving, packet)


@given(
    act=st.sampled_from([ACT_ONE, ACT_TWO, ACT_THREE]),
    data=st.data(),
)
def test_no_changed_bit_in_any_act_is_accepted(act: str, data: st.DataObject) -> None:
    act_bytes = bytearray.fromhex(act)
    bit = data.draw(st.integers(0, 8 * len(act_bytes) - 1))
    act_bytes[bit // 8] ^= 1 << bit % 8
    receivers: dict[str, Callable[[bytes], object]] = {
        ACT_ONE: lambda act_one: answered(act_one.hex()),
        ACT_TWO: started()[1].finish,
        ACT_THREE: answered()[1].finish,
    }
    with pytest.raises(HandshakeFailed):
        receivers[act](bytes(act_bytes))


def test_a_node_id_off_the_curve_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="not a point on the curve"):
        initiate(INITIATOR, responder_id=b"\x04" * 33, ephemeral_seckey=INITIATOR_EPHEMERAL)


def test_secrets_do_not_show() -> None:
    keys, _ = established()
    assert INITIATOR_SENDS not in repr(keys)
    assert "secret" in repr(keys.sending)
    assert "ecdh" not in repr(INITIATOR)


def test_ciphers_cannot_be_copied_into_a_second_use_of_a_nonce() -> None:
    keys, _ = established()
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="must not be copied"):
            duplicate(keys.sending)
