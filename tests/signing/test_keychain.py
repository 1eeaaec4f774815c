"""Every key has its own name and its own path, and another journal gives other factory keys."""

from collections.abc import Iterator
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cromford.bitcoin.network import MAINNET, REGTEST, SIGNET, Network
from cromford.bitcoin.taproot import taproot_output
from cromford.channel.keys import derive_pubkey, revocation_pubkey
from cromford.crypto import schnorr
from cromford.crypto.keys import TaggedHash, pubkey_of, sha256, shared_secret, xonly_of
from cromford.signing.bip32 import HARDENED, master_of
from cromford.signing.derivation import ClaimKey
from cromford.signing.keychain import (
    FIRST_COMMITMENT_INDEX,
    ChannelKey,
    FactoryKey,
    Keychain,
    KeyName,
    backup_secret,
    per_commitment_secret,
    seed_fingerprint,
)

SEED = bytes(range(32))
CROM = 0x43524F4D
CHANNEL = ChannelKey(attempt=3, channel=1)

numbers = st.one_of(st.integers(0, 3), st.integers(0, HARDENED - 1))
names: st.SearchStrategy[KeyName] = st.one_of(
    st.builds(FactoryKey, attempt=numbers),
    st.builds(ChannelKey, attempt=numbers, channel=numbers, candidate=numbers),
)


def keychain(journal_number: int = 5, *, network: Network = REGTEST) -> Keychain:
    return Keychain(SEED, network, journal_number=journal_number)


def few_names() -> Iterator[KeyName]:
    for attempt in range(4):
        yield FactoryKey(attempt=attempt)
        for channel in range(3):
            for candidate in range(2):
                yield ChannelKey(attempt=attempt, channel=channel, candidate=candidate)


def all_pubkeys(keys: Keychain) -> list[bytes]:
    """Return every public key of the few names, and the others there are."""
    found = [keys.node_id, keys.wallet_account.pubkey]
    for name in few_names():
        if isinstance(name, FactoryKey):
            found.append(pubkey_of(keys.seckey(name)))
        else:
            pubkeys = keys.channel_pubkeys(name)
            found += [getattr(pubkeys, item.name) for item in fields(pubkeys)]
    return found


def test_no_two_keys_are_the_same() -> None:
    found = all_pubkeys(keychain())
    assert len(found) == 2 + 4 + 4 * 3 * 2 * 7
    assert len(set(found)) == len(found)


def test_the_same_seed_and_journal_give_the_same_keys() -> None:
    assert all_pubkeys(keychain()) == all_pubkeys(keychain())


def test_another_journal_changes_all_keys_but_the_node_and_the_wallet() -> None:
    """A seed whose journal was lost must not use a factory key twice."""
    one, other = all_pubkeys(keychain(5)), all_pubkeys(keychain(6))
    assert set(one) & set(other) == {keychain().node_id, keychain().wallet_account.pubkey}


def test_another_coin_type_changes_every_key() -> None:
    test_keys, main_keys = (
        all_pubkeys(keychain(network=network)) for network in (REGTEST, MAINNET)
    )
    assert not set(test_keys) & set(main_keys)
    assert all_pubkeys(keychain(network=SIGNET)) == test_keys


def test_another_seed_changes_every_key() -> None:
    other = Keychain(bytes(32), REGTEST, journal_number=5)
    assert not set(all_pubkeys(other)) & set(all_pubkeys(keychain()))


@settings(max_examples=40)
@given(name=names, other=names, journal=numbers, other_journal=numbers)
def test_different_names_have_different_keys(
    name: KeyName, other: KeyName, journal: int, other_journal: int
) -> None:
    one, two = keychain(journal).seckey(name), keychain(other_journal).seckey(other)
    assert (one == two) == ((name, journal) == (other, other_journal))


@settings(max_examples=40)
@given(name=names, journal=numbers)
def test_every_step_of_a_key_is_hardened(name: KeyName, journal: int) -> None:
    """The documented paths, written out."""
    keys, master = keychain(journal), master_of(SEED)
    match name:
        case FactoryKey(attempt=attempt):
            node = master.derive_hardened(CROM, 1, 1, journal, attempt)
            assert keys.seckey(name) == node.seckey
        case ChannelKey(attempt=attempt, channel=channel, candidate=candidate):
            node = master.derive_hardened(CROM, 1, 2, journal, attempt, channel, candidate)
            seckeys = [node.derive_hardened(i).seckey for i in range(6)]
            assert keys.seckey(name) == seckeys[0]
            pubkeys = keys.channel_pubkeys(name)
            secrets = [per_commitment_secret(seckeys[5], 2**48 - n) for n in (1, 2)]
            expected = [pubkey_of(seckey) for seckey in (*seckeys[:5], *secrets)]
            assert [getattr(pubkeys, item.name) for item in fields(pubkeys)] == expected


def test_what_was_handed_over_is_sealed_at_a_path_of_its_own() -> None:
    """By the journal, the attempt and the client; and for the public keys that lie beside it."""
    node = master_of(SEED).derive_hardened(CROM, 1, 5, 7, 12, 4)
    sealing = TaggedHash("cromford/handed-over")
    found = keychain(7).sealing_key(attempt=12, client=4, pubkeys=b"keys")
    assert found == sealing(node.seckey + b"keys")


def test_the_node_key_is_its_path_and_does_bolt_8s_ecdh() -> None:
    seckey = master_of(SEED).derive_hardened(CROM, 1, 0).seckey
    peer = b"\x07" * 32
    assert keychain().node_id == pubkey_of(seckey)
    assert keychain().ecdh(pubkey_of(peer)) == shared_secret(pubkey_of(seckey), peer)


@pytest.mark.parametrize(("network", "coin"), [(REGTEST, 1), (MAINNET, 0)])
def test_the_wallet_and_the_backups_are_at_their_documented_paths(
    network: Network, coin: int
) -> None:
    """Else coins and backups of today would not be found with their seed tomorrow."""
    master, keys = master_of(SEED), keychain(network=network)
    assert keys.wallet_account == master.derive_hardened(86, coin, 0).public
    assert keys.backup_secret == master.derive_hardened(CROM, coin, 4).seckey
    assert keys.backup_secret == backup_secret(SEED, network)


def test_a_fingerprint_names_a_seed_on_its_networks_and_is_none_of_its_keys() -> None:
    fingerprint = seed_fingerprint(SEED, REGTEST)
    node = master_of(SEED).derive_hardened(CROM, 1, 3)
    digest = TaggedHash("cromford/seed")(pubkey_of(node.seckey))
    assert fingerprint == digest[:8]
    assert seed_fingerprint(SEED, SIGNET) == fingerprint
    assert seed_fingerprint(SEED, MAINNET) != fingerprint
    assert seed_fingerprint(bytes(32), REGTEST) != fingerprint
    # Its pubkey has no other use, so no hash of a pubkey that is seen anywhere is a fingerprint.
    assert pubkey_of(node.seckey) not in all_pubkeys(keychain())


@given(
    change=st.integers(0, 1),
    index=st.integers(0, 1000),
    sighash=st.binary(min_size=32, max_size=32),
)
@settings(max_examples=25)
def test_a_wallet_signature_is_for_the_tweaked_key_of_its_path(
    change: int, index: int, sighash: bytes
) -> None:
    signature = keychain().sign_wallet(change=change, index=index, sighash=sighash)
    internal = xonly_of(keychain().wallet_account.child(change).child(index).pubkey)
    assert schnorr.verify(signature, sighash, taproot_output(internal, None).output_key)
    assert not schnorr.verify(signature, sighash, internal)


@pytest.mark.parametrize("journal_number", [-1, HARDENED])
def test_a_journal_number_beyond_31_bits_is_refused(journal_number: int) -> None:
    with pytest.raises(ValueError, match=f"received {journal_number}"):
        keychain(journal_number)


@pytest.mark.parametrize("name", [FactoryKey(attempt=-1), ChannelKey(attempt=0, channel=HARDENED)])
def test_a_name_beyond_31_bits_has_no_key(name: KeyName) -> None:
    with pytest.raises(ValueError, match="a hardened step"):
        keychain().seckey(name)


# BOLT 3, appendix D, "Generation Tests": seed byte, index, secret.
GENERATED = [
    (0x00, 281474976710655, "02a40c85b6f28da08dfdbe0926c53fab2de6d28c10301f8f7c4073d5e42e3148"),
    (0xFF, 281474976710655, "7cc854b54e3e0dcdb010d7a3fee464a9687be6e8db3be6854c475621e007a5dc"),
    (0xFF, 0xAAAAAAAAAAA, "56f4008fb007ca9acf0e15b054d5c9fd12ee06cea347914ddbaed70d1c13a528"),
    (0xFF, 0x555555555555, "9015daaeb06dba4ccc05b91b2f73bd54405f2be9f217fbacd3c5ac2e62327d31"),
    (0x01, 1, "915c75942a26bb3a433a8ce2cb0427c29ec6c1775cfc78328b57f6ba7bfeaa9c"),
]
# The same appendix, "insert_secret correct sequence", of the seed FF..FF.
SEQUENCE = [
    (281474976710655, "7cc854b54e3e0dcdb010d7a3fee464a9687be6e8db3be6854c475621e007a5dc"),
    (281474976710654, "c7518c8ae4660ed02894df8976fa1a3659c1a8b4b5bec0c4b872abeba4cb8964"),
    (281474976710653, "2273e227a5b7449b6e70f1fb4652864038b1cbf9cd7c043a7d6456b7fc275ad8"),
    (281474976710652, "27cddaa5624534cb6cb9d7da077cf2b22ab21e9b506fd4998a51d54502e99116"),
    (281474976710651, "c65716add7aa98ba7acb236352d665cab17345fe45b55fb879ff80e6bd0c41dd"),
    (281474976710650, "969660042a28f32d9be17344e09374b379962d03db1574df5a8a5a47e19ce3f2"),
    (281474976710649, "a5a64476122ca0925fb344bdc1854c1c0a59fc614298e50a33e331980a220f32"),
    (281474976710648, "05cde6323d949933f7f7b78776bcc1ea6d9b31447732e3802e1f7ac44b650e17"),
]


@pytest.mark.parametrize(("byte", "index", "secret"), GENERATED)
def test_bolt_3_generation_vectors(byte: int, index: int, secret: str) -> None:
    assert per_commitment_secret(bytes([byte]) * 32, index).hex() == secret


@pytest.mark.parametrize(("index", "secret"), SEQUENCE)
def test_bolt_3_secrets_in_the_order_they_are_revealed(index: int, secret: str) -> None:
    assert per_commitment_secret(b"\xff" * 32, index).hex() == secret


def test_the_first_commitment_has_the_highest_index() -> None:
    assert FIRST_COMMITMENT_INDEX == 281474976710655


@pytest.mark.parametrize("number", [-1, 2**48, 2**64])
def test_there_is_no_secret_beyond_the_last_commitment(number: int) -> None:
    """BOLT 3's secrets would begin again, and an old one would seem to be a new one's."""
    keychain = Keychain(bytes(16), REGTEST, journal_number=1)
    with pytest.raises(ValueError, match="commitment number"):
        keychain.per_commitment_secret(ChannelKey(attempt=0, channel=0), number)


@pytest.mark.parametrize("number", [0, 1, 2, 255, 256, 257, 2**16, FIRST_COMMITMENT_INDEX])
def test_a_channels_secrets_are_bolt_3s_on_both_sides_of_what_is_cached(number: int) -> None:
    """A peer refuses one from which those before it do not follow, and the channel ends."""
    seed = master_of(SEED).derive_hardened(CROM, 1, 2, 5, 3, 1, 0, 5).seckey
    secret = per_commitment_secret(seed, FIRST_COMMITMENT_INDEX - number)
    assert keychain().per_commitment_secret(CHANNEL, number) == secret


def test_each_output_of_a_commitment_is_taken_by_the_key_that_its_script_names() -> None:
    keys, secret = keychain(), sha256(b"a revealed secret")
    pubkeys, point = keys.channel_pubkeys(CHANNEL), pubkey_of(secret)
    taken = {
        key: pubkey_of(
            keys.claim_seckey(CHANNEL, key, secret if key is ClaimKey.REVOCATION else point)
        )
        for key in ClaimKey
    }
    assert taken == {
        ClaimKey.REVOCATION: revocation_pubkey(pubkeys.revocation_basepoint, point),
        ClaimKey.PAYMENT: pubkeys.payment_basepoint,
        ClaimKey.DELAYED: derive_pubkey(pubkeys.delayed_payment_basepoint, point),
        ClaimKey.HTLC: derive_pubkey(pubkeys.htlc_basepoint, point),
    }
