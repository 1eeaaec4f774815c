"""The scripts of an account are BIP 86's, and enough of them are watched."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wallet.payments import SEED, account, empty_wallet, keychain, payment, script

from cromford.bitcoin.address import address_of_script
from cromford.bitcoin.network import MAINNET, REGTEST
from cromford.crypto import schnorr
from cromford.signing.bip32 import HARDENED, ExtendedPubkey, master_of
from cromford.signing.keychain import Keychain
from cromford.wallet.account import CHANGE, GAP_LIMIT, RECEIVE, Account, WalletPath
from cromford.wallet.coins import new_wallet

# BIP 86's test vectors: the seed of "abandon ... about" without a passphrase, and per path the
# script and the address.
VECTOR_SEED = bytes.fromhex(
    "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc1"
    "9a5ac40b389cd370d086206dec8aa6c43daea6690f20ad3d8d48b2d2ce9e38e4"
)
DIGEST = b"\x11" * 32
VECTORS = [
    (
        (RECEIVE, 0),
        "5120a60869f0dbcf1dc659c9cecbaf8050135ea9e8cdc487053f1dc6880949dc684c",
        "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
    ),
    (
        (RECEIVE, 1),
        "5120a82f29944d65b86ae6b5e5cc75e294ead6c59391a1edc5e016e3498c67fc7bbb",
        "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh",
    ),
    (
        (CHANGE, 0),
        "5120882d74e5d0572d5a816cef0041a96b6c1de832f6f9676d9605c44d5e9a97d3dc",
        "bc1p3qkhfews2uk44qtvauqyr2ttdsw7svhkl9nkm9s9c3x4ax5h60wqwruhk7",
    ),
]


@pytest.mark.parametrize(("path", "expected", "address"), VECTORS)
def test_bip_86_vectors(path: tuple[int, int], expected: str, address: str) -> None:
    vector = Account(Keychain(VECTOR_SEED, MAINNET, journal_number=0).wallet_account)
    found = vector.script(WalletPath(change=path[0], index=path[1]))
    assert found.hex() == expected
    assert address_of_script(found, MAINNET) == address


def test_the_account_is_the_documented_path_whatever_the_journal() -> None:
    expected = master_of(SEED).derive_hardened(86, 1, 0).public
    assert account().extended == expected
    assert Keychain(SEED, REGTEST, journal_number=8).wallet_account == expected


@settings(max_examples=25)
@given(change=st.sampled_from([RECEIVE, CHANGE]), index=st.integers(0, HARDENED - 1))
def test_what_finds_a_coin_and_what_signs_for_it_agree(change: int, index: int) -> None:
    signature = keychain().sign_wallet(change=change, index=index, sighash=DIGEST)
    found = account().script(WalletPath(change=change, index=index))
    assert schnorr.verify(signature, DIGEST, found[2:])


def test_a_wallet_that_begins_again_derives_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start, and each state that is folded once more, asks for all of its scripts."""
    again = Account(Keychain(b"\x2a" * 64, REGTEST, journal_number=1).wallet_account)
    n_derived = 0
    child = ExtendedPubkey.child

    def counted(parent: ExtendedPubkey, number: int) -> ExtendedPubkey:
        nonlocal n_derived
        n_derived += 1
        return child(parent, number)

    monkeypatch.setattr(ExtendedPubkey, "child", counted)
    first = new_wallet(again)
    assert n_derived == 2 + 2 * GAP_LIMIT
    assert new_wallet(Account(again.extended)).scripts == first.scripts
    assert n_derived == 2 + 2 * GAP_LIMIT
    first.with_address_used(RECEIVE)
    assert n_derived == 3 + 2 * GAP_LIMIT


def test_a_new_wallet_watches_the_gap_of_both_chains() -> None:
    expected = {script(i, change) for change in (RECEIVE, CHANGE) for i in range(GAP_LIMIT)}
    assert set(new_wallet(account()).scripts) == expected
    assert len(expected) == 2 * GAP_LIMIT == 40


@pytest.mark.parametrize("change", [RECEIVE, CHANGE])
@pytest.mark.parametrize("index", [0, 7, GAP_LIMIT - 1])
def test_the_gap_moves_on_with_every_script_that_is_paid(change: int, index: int) -> None:
    wallet = empty_wallet().with_tx(payment((script(index, change), 5_000)), 1)
    watched = sorted(path.index for path in wallet.scripts.values() if path.change == change)
    assert watched == list(range(index + 1 + GAP_LIMIT))
    others = sorted(path.index for path in wallet.scripts.values() if path.change != change)
    assert others == list(range(GAP_LIMIT))
    assert wallet.next_script(change) == script(index + 1, change)


def test_a_script_beyond_the_gap_is_not_watched() -> None:
    wallet = empty_wallet().with_tx(payment((script(GAP_LIMIT), 5_000)), 1)
    assert wallet.coins == {}
    assert wallet == empty_wallet()


@pytest.mark.parametrize("change", [RECEIVE, CHANGE])
def test_a_script_that_was_handed_out_is_handed_out_once_and_watched(change: int) -> None:
    wallet = empty_wallet()
    handed_out = []
    for _ in range(GAP_LIMIT):
        assert not wallet.is_at_gap(change)
        handed_out.append(wallet.next_script(change))
        wallet = wallet.with_address_used(change)
    assert handed_out == [script(i, change) for i in range(GAP_LIMIT)]
    assert set(handed_out) <= set(wallet.scripts)
    assert wallet.next_script(1 - change) == script(0, 1 - change)


@pytest.mark.parametrize("change", [RECEIVE, CHANGE])
def test_no_script_is_handed_out_beyond_what_a_wallet_finds_that_is_restored_from_its_words(
    change: int,
) -> None:
    wallet, restored = empty_wallet(), empty_wallet()
    for height in range(1, 4):
        for _ in range(GAP_LIMIT + 5):
            wallet = wallet.with_address_used(change)
        assert wallet.is_at_gap(change)
        last = wallet.next_script(change)
        paid = payment((last, 5_000))
        wallet, restored = wallet.with_tx(paid, height), restored.with_tx(paid, height)
        assert restored.confirmed_sat() == wallet.confirmed_sat() == 5_000 * height
        # It goes on where the old one ended; nothing that was handed out is given again.
        assert not wallet.is_at_gap(change) or wallet.next_script(change) != last


@pytest.mark.parametrize("change", [RECEIVE, CHANGE])
def test_a_wallet_of_a_checkpoint_before_the_gap_was_kept_knows_it_all_the_same(
    change: int,
) -> None:
    wallet = empty_wallet().with_tx(payment((script(5, change), 5_000)), 1)
    old = replace(wallet, unpaid_receive=None, unpaid_change=None)
    assert old.first_unpaid(change) == wallet.first_unpaid(change) == 6
    assert old.first_unpaid(1 - change) == 0
    paid = payment((script(9, change), 5_000))
    assert old.with_tx(paid, 2) == wallet.with_tx(paid, 2)


def test_paying_an_old_script_again_hands_out_no_script_twice() -> None:
    wallet = empty_wallet().with_tx(payment((script(5), 5_000)), 1)
    wallet = wallet.with_tx(payment((script(2), 5_000)), 2)
    assert wallet.next_script(RECEIVE) == script(6)


def test_a_reorg_does_not_hand_out_a_script_again() -> None:
    wallet = empty_wallet().with_tx(payment((script(5), 5_000)), 1).without_block(1)
    assert wallet.next_script(RECEIVE) == script(6)
    assert script(5) in wallet.scripts
