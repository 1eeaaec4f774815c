"""BIP 32: the published vectors, an independent library for any path, and what is refused."""

import pytest
import wallycore
from hypothesis import given, settings
from hypothesis import strategies as st

from cromford.crypto.keys import pubkey_of
from cromford.signing.bip32 import HARDENED, ExtendedPubkey, ExtendedSeckey, master_of

SEED_1 = "000102030405060708090a0b0c0d0e0f"
SEED_2 = (
    "fffcf9f6f3f0edeae7e4e1dedbd8d5d2cfccc9c6c3c0bdbab7b4b1aeaba8a5a2"
    "9f9c999693908d8a8784817e7b7875726f6c696663605d5a5754514e4b484542"
)
SEED_3 = (
    "4b381541583be4423346c643850da4b320e46a87ae3d2a4e6da11eba819cd4ac"
    "ba45d239319ac14f863b8d5ab5a0d0c64d2e8a1e7d1457df2e5a3c51c73235be"
)
SEED_4 = "3ddd5602285899a946114506157c7997e5444528f3003f6134712147db19b678"
# BIP 32's test vectors 1 to 4 by seed: each path with its extended public and private key.
VECTORS = {
    SEED_1: (
        (
            "",
            "xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8NqtwybGhePY2gZ29ESFjqJoCu1Rupje8YtGqsefD265TMg7usUDFdp6W1EGMcet8",
            "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi",
        ),
        (
            "0H",
            "xpub68Gmy5EdvgibQVfPdqkBBCHxA5htiqg55crXYuXoQRKfDBFA1WEjWgP6LHhwBZeNK1VTsfTFUHCdrfp1bgwQ9xv5ski8PX9rL2dZXvgGDnw",
            "xprv9uHRZZhk6KAJC1avXpDAp4MDc3sQKNxDiPvvkX8Br5ngLNv1TxvUxt4cV1rGL5hj6KCesnDYUhd7oWgT11eZG7XnxHrnYeSvkzY7d2bhkJ7",
        ),
        (
            "0H/1",
            "xpub6ASuArnXKPbfEwhqN6e3mwBcDTgzisQN1wXN9BJcM47sSikHjJf3UFHKkNAWbWMiGj7Wf5uMash7SyYq527Hqck2AxYysAA7xmALppuCkwQ",
            "xprv9wTYmMFdV23N2TdNG573QoEsfRrWKQgWeibmLntzniatZvR9BmLnvSxqu53Kw1UmYPxLgboyZQaXwTCg8MSY3H2EU4pWcQDnRnrVA1xe8fs",
        ),
        (
            "0H/1/2H",
            "xpub6D4BDPcP2GT577Vvch3R8wDkScZWzQzMMUm3PWbmWvVJrZwQY4VUNgqFJPMM3No2dFDFGTsxxpG5uJh7n7epu4trkrX7x7DogT5Uv6fcLW5",
            "xprv9z4pot5VBttmtdRTWfWQmoH1taj2axGVzFqSb8C9xaxKymcFzXBDptWmT7FwuEzG3ryjH4ktypQSAewRiNMjANTtpgP4mLTj34bhnZX7UiM",
        ),
        (
            "0H/1/2H/2",
            "xpub6FHa3pjLCk84BayeJxFW2SP4XRrFd1JYnxeLeU8EqN3vDfZmbqBqaGJAyiLjTAwm6ZLRQUMv1ZACTj37sR62cfN7fe5JnJ7dh8zL4fiyLHV",
            "xprvA2JDeKCSNNZky6uBCviVfJSKyQ1mDYahRjijr5idH2WwLsEd4Hsb2Tyh8RfQMuPh7f7RtyzTtdrbdqqsunu5Mm3wDvUAKRHSC34sJ7in334",
        ),
        (
            "0H/1/2H/2/1000000000",
            "xpub6H1LXWLaKsWFhvm6RVpEL9P4KfRZSW7abD2ttkWP3SSQvnyA8FSVqNTEcYFgJS2UaFcxupHiYkro49S8yGasTvXEYBVPamhGW6cFJodrTHy",
            "xprvA41z7zogVVwxVSgdKUHDy1SKmdb533PjDz7J6N6mV6uS3ze1ai8FHa8kmHScGpWmj4WggLyQjgPie1rFSruoUihUZREPSL39UNdE3BBDu76",
        ),
    ),
    SEED_2: (
        (
            "",
            "xpub661MyMwAqRbcFW31YEwpkMuc5THy2PSt5bDMsktWQcFF8syAmRUapSCGu8ED9W6oDMSgv6Zz8idoc4a6mr8BDzTJY47LJhkJ8UB7WEGuduB",
            "xprv9s21ZrQH143K31xYSDQpPDxsXRTUcvj2iNHm5NUtrGiGG5e2DtALGdso3pGz6ssrdK4PFmM8NSpSBHNqPqm55Qn3LqFtT2emdEXVYsCzC2U",
        ),
        (
            "0",
            "xpub69H7F5d8KSRgmmdJg2KhpAK8SR3DjMwAdkxj3ZuxV27CprR9LgpeyGmXUbC6wb7ERfvrnKZjXoUmmDznezpbZb7ap6r1D3tgFxHmwMkQTPH",
            "xprv9vHkqa6EV4sPZHYqZznhT2NPtPCjKuDKGY38FBWLvgaDx45zo9WQRUT3dKYnjwih2yJD9mkrocEZXo1ex8G81dwSM1fwqWpWkeS3v86pgKt",
        ),
        (
            "0/2147483647H",
            "xpub6ASAVgeehLbnwdqV6UKMHVzgqAG8Gr6riv3Fxxpj8ksbH9ebxaEyBLZ85ySDhKiLDBrQSARLq1uNRts8RuJiHjaDMBU4Zn9h8LZNnBC5y4a",
            "xprv9wSp6B7kry3Vj9m1zSnLvN3xH8RdsPP1Mh7fAaR7aRLcQMKTR2vidYEeEg2mUCTAwCd6vnxVrcjfy2kRgVsFawNzmjuHc2YmYRmagcEPdU9",
        ),
        (
            "0/2147483647H/1",
            "xpub6DF8uhdarytz3FWdA8TvFSvvAh8dP3283MY7p2V4SeE2wyWmG5mg5EwVvmdMVCQcoNJxGoWaU9DCWh89LojfZ537wTfunKau47EL2dhHKon",
            "xprv9zFnWC6h2cLgpmSA46vutJzBcfJ8yaJGg8cX1e5StJh45BBciYTRXSd25UEPVuesF9yog62tGAQtHjXajPPdbRCHuWS6T8XA2ECKADdw4Ef",
        ),
        (
            "0/2147483647H/1/2147483646H",
            "xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2grBGRjaDMzQLcgJvLJuZZvRcEL",
            "xprvA1RpRA33e1JQ7ifknakTFpgNXPmW2YvmhqLQYMmrj4xJXXWYpDPS3xz7iAxn8L39njGVyuoseXzU6rcxFLJ8HFsTjSyQbLYnMpCqE2VbFWc",
        ),
        (
            "0/2147483647H/1/2147483646H/2",
            "xpub6FnCn6nSzZAw5Tw7cgR9bi15UV96gLZhjDstkXXxvCLsUXBGXPdSnLFbdpq8p9HmGsApME5hQTZ3emM2rnY5agb9rXpVGyy3bdW6EEgAtqt",
            "xprvA2nrNbFZABcdryreWet9Ea4LvTJcGsqrMzxHx98MMrotbir7yrKCEXw7nadnHM8Dq38EGfSh6dqA9QWTyefMLEcBYJUuekgW4BYPJcr9E7j",
        ),
    ),
    SEED_3: (
        (
            "",
            "xpub661MyMwAqRbcEZVB4dScxMAdx6d4nFc9nvyvH3v4gJL378CSRZiYmhRoP7mBy6gSPSCYk6SzXPTf3ND1cZAceL7SfJ1Z3GC8vBgp2epUt13",
            "xprv9s21ZrQH143K25QhxbucbDDuQ4naNntJRi4KUfWT7xo4EKsHt2QJDu7KXp1A3u7Bi1j8ph3EGsZ9Xvz9dGuVrtHHs7pXeTzjuxBrCmmhgC6",
        ),
        (
            "0H",
            "xpub68NZiKmJWnxxS6aaHmn81bvJeTESw724CRDs6HbuccFQN9Ku14VQrADWgqbhhTHBaohPX4CjNLf9fq9MYo6oDaPPLPxSb7gwQN3ih19Zm4Y",
            "xprv9uPDJpEQgRQfDcW7BkF7eTya6RPxXeJCqCJGHuCJ4GiRVLzkTXBAJMu2qaMWPrS7AANYqdq6vcBcBUdJCVVFceUvJFjaPdGZ2y9WACViL4L",
        ),
    ),
    SEED_4: (
        (
            "",
            "xpub661MyMwAqRbcGczjuMoRm6dXaLDEhW1u34gKenbeYqAix21mdUKJyuyu5F1rzYGVxyL6tmgBUAEPrEz92mBXjByMRiJdba9wpnN37RLLAXa",
            "xprv9s21ZrQH143K48vGoLGRPxgo2JNkJ3J3fqkirQC2zVdk5Dgd5w14S7fRDyHH4dWNHUgkvsvNDCkvAwcSHNAQwhwgNMgZhLtQC63zxwhQmRv",
        ),
        (
            "0H",
            "xpub69AUMk3qDBi3uW1sXgjCmVjJ2G6WQoYSnNHyzkmdCHEhSZ4tBok37xfFEqHd2AddP56Tqp4o56AePAgCjYdvpW2PU2jbUPFKsav5ut6Ch1m",
            "xprv9vB7xEWwNp9kh1wQRfCCQMnZUEG21LpbR9NPCNN1dwhiZkjjeGRnaALmPXCX7SgjFTiCTT6bXes17boXtjq3xLpcDjzEuGLQBM5ohqkao9G",
        ),
        (
            "0H/1H",
            "xpub6BJA1jSqiukeaesWfxe6sNK9CCGaujFFSJLomWHprUL9DePQ4JDkM5d88n49sMGJxrhpjazuXYWdMf17C9T5XnxkopaeS7jGk1GyyVziaMt",
            "xprv9xJocDuwtYCMNAo3Zw76WENQeAS6WGXQ55RCy7tDJ8oALr4FWkuVoHJeHVAcAqiZLE7Je3vZJHxspZdFHfnBEjHqU5hG1Jaj32dVoS6XLT1",
        ),
    ),
}

CASES = [(seed, *case) for seed, cases in VECTORS.items() for case in cases]

seeds = st.binary(min_size=16, max_size=64)
hardened = st.integers(HARDENED, 2**32 - 1)
plain = st.one_of(st.integers(0, HARDENED - 1), st.sampled_from([0, 1, HARDENED - 1]))


def numbers_of(path: str) -> list[int]:
    """Read a path as the BIP writes it: `0H/1`."""
    steps = path.split("/") if path else []
    return [int(step.rstrip("H")) + (HARDENED if step.endswith("H") else 0) for step in steps]


def oracle_private(seed: bytes, numbers: list[int]) -> tuple[bytes, bytes]:
    key = wallycore.bip32_key_from_seed(seed, wallycore.BIP32_VER_MAIN_PRIVATE, 0)
    if numbers:
        key = wallycore.bip32_key_from_parent_path(key, numbers, wallycore.BIP32_FLAG_KEY_PRIVATE)
    return (
        bytes(wallycore.bip32_key_get_priv_key(key)),
        bytes(wallycore.bip32_key_get_chain_code(key)),
    )


@pytest.mark.parametrize(("seed", "path", "xpub", "xprv"), CASES)
def test_bip_32_vectors(seed: str, path: str, xpub: str, xprv: str) -> None:
    node = master_of(bytes.fromhex(seed)).derive(*numbers_of(path))
    private = wallycore.bip32_key_from_base58(xprv)
    assert node.seckey == bytes(wallycore.bip32_key_get_priv_key(private))
    assert node.chain_code == bytes(wallycore.bip32_key_get_chain_code(private))
    public = wallycore.bip32_key_from_base58(xpub)
    assert node.public.pubkey == bytes(wallycore.bip32_key_get_pub_key(public))
    assert node.public.chain_code == bytes(wallycore.bip32_key_get_chain_code(public))


def test_all_four_vectors_are_there() -> None:
    assert [len(cases) for cases in VECTORS.values()] == [6, 6, 2, 3]


@pytest.mark.parametrize(("seed", "path", "xpub", "xprv"), CASES)
def test_bip_32_vectors_by_public_derivation(seed: str, path: str, xpub: str, xprv: str) -> None:
    """The last step of each path that is not hardened needs no seckey."""
    assert xpub != xprv
    numbers = numbers_of(path)
    parent = master_of(bytes.fromhex(seed)).derive(*numbers[:-1]).public
    if not numbers:
        return
    if numbers[-1] >= HARDENED:
        with pytest.raises(ValueError, match="needs the seckey"):
            parent.child(numbers[-1])
        return
    public = wallycore.bip32_key_from_base58(xpub)
    child = parent.child(numbers[-1])
    assert child.pubkey == bytes(wallycore.bip32_key_get_pub_key(public))
    assert child.chain_code == bytes(wallycore.bip32_key_get_chain_code(public))


@settings(max_examples=60)
@given(
    seed=st.sampled_from([16, 32, 64]).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
    numbers=st.lists(st.one_of(plain, hardened), max_size=6),
)
def test_any_path_is_the_other_librarys(seed: bytes, numbers: list[int]) -> None:
    node = master_of(seed).derive(*numbers)
    assert (node.seckey, node.chain_code) == oracle_private(seed, numbers)


@settings(max_examples=60)
@given(seed=seeds, above=st.lists(hardened, max_size=2), below=st.lists(plain, max_size=4))
def test_public_derivation_meets_private_derivation(
    seed: bytes, above: list[int], below: list[int]
) -> None:
    account = master_of(seed).derive(*above)
    public = account.public
    for number in below:
        public = public.child(number)
    private = account.derive(*below)
    assert public == private.public
    assert public.pubkey == pubkey_of(private.seckey)


@given(seed=seeds, numbers=st.lists(plain, max_size=3))
def test_a_hardened_path_is_hardened_in_every_step(seed: bytes, numbers: list[int]) -> None:
    expected = master_of(seed).derive(*(number + HARDENED for number in numbers))
    assert master_of(seed).derive_hardened(*numbers) == expected


@pytest.mark.parametrize("number", [-1, -HARDENED, HARDENED, 2**32])
def test_a_hardened_step_cannot_turn_into_another(number: int) -> None:
    """One below zero would be a plain step, whose child tells about its parent."""
    with pytest.raises(ValueError, match=rf"0\.\.2147483647, received {number}"):
        master_of(bytes(16)).derive_hardened(1, number)


@pytest.mark.parametrize("number", [-1, 2**32])
def test_a_number_beyond_32_bits_is_no_child(number: int) -> None:
    with pytest.raises(OverflowError):
        master_of(bytes(16)).child(number)


@pytest.mark.parametrize("size", [0, 1, 15, 65, 128])
def test_a_seed_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=rf"16\.\.64 bytes, received {size}"):
        master_of(bytes(size))


def test_the_two_halves_are_different_types() -> None:
    node = master_of(bytes(16))
    assert isinstance(node, ExtendedSeckey)
    assert isinstance(node.public, ExtendedPubkey)
    assert not hasattr(node.public, "seckey")
