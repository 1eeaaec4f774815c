"""The verdicts that need no node; what nodes say of them is in the functional tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.bitcoin.fees import ANCHOR_DUST_SAT, P2TR_DUST_SAT
from cromford.bitcoin.script import ANCHOR_SCRIPT, p2tr_script
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto.keys import pubkey_of
from cromford.regtest import policy, scripts
from cromford.regtest.chain import ChainCoin
from cromford.regtest.legacy_address import address_of_hash, script_of_legacy_address
from cromford.regtest.params import amount_sat
from cromford.regtest.render import BtcAmount
from cromford.regtest.verdict import MempoolRefused, money

PUBKEY = pubkey_of(bytes(31) + b"\x01")


def tx_of(*, nsequence: int, nlocktime: int = 0, version: int = 2) -> Tx:
    outpoint = OutPoint(txid=Txid(b"\x01" * 32), vout=0)
    return Tx(
        version=version,
        inputs=(TxIn(outpoint=outpoint, nsequence=nsequence),),
        outputs=(TxOut(amount_sat=1_000, script_pubkey=p2tr_script(bytes(32))),),
        nlocktime=nlocktime,
    )


def refuses_delay(nsequence: int, *, coin_height: int, height: int) -> bool:
    coin = ChainCoin(
        txout=TxOut(amount_sat=1, script_pubkey=b""), height=coin_height, is_coinbase=False
    )
    try:
        policy.check_sequence_locks(
            tx_of(nsequence=nsequence), [coin], [1_000], height=height, median_time=2_000
        )
    except MempoolRefused:
        return True
    return False


def test_the_dust_limits_are_those_the_project_reckons_with() -> None:
    taproot = TxOut(amount_sat=0, script_pubkey=p2tr_script(bytes(32)))
    anchor = TxOut(amount_sat=0, script_pubkey=ANCHOR_SCRIPT)
    data = TxOut(amount_sat=0, script_pubkey=b"\x6a\x01x")
    assert policy.dust_threshold_sat(taproot) == P2TR_DUST_SAT
    assert policy.dust_threshold_sat(anchor) == ANCHOR_DUST_SAT
    assert policy.dust_threshold_sat(data) == 0


@given(delay=st.integers(0, 0xFFFF), coin_height=st.integers(0, 1_000))
def test_a_delay_ends_that_many_blocks_after_the_coin(delay: int, coin_height: int) -> None:
    assert not refuses_delay(delay, coin_height=coin_height, height=coin_height + delay)
    assert delay == 0 or refuses_delay(
        delay, coin_height=coin_height, height=coin_height + delay - 1
    )


def test_a_time_delay_counts_from_the_block_before_the_coin() -> None:
    time_flag = 1 << 22
    assert not refuses_delay(time_flag | 1, coin_height=5, height=6)  # 1000 + 512 <= 2000
    assert refuses_delay(time_flag | 2, coin_height=5, height=6)  # 1000 + 1024 > 2000


def test_a_disabled_delay_never_waits() -> None:
    assert not refuses_delay(1 << 31 | 0xFFFF, coin_height=5, height=6)


@pytest.mark.parametrize(
    ("nlocktime", "nsequence", "is_final"),
    [
        (0, 0, True),
        (99, 0, True),
        (100, 0, False),
        (100, 0xFFFF_FFFF, True),
        (499_999_999, 0, False),
        (500_000_000, 0, True),
        (500_000_999, 0, True),
        (500_001_000, 0, False),
    ],
)
def test_an_absolute_lock_is_over_below_the_height_or_the_median_time(
    nlocktime: int,
    nsequence: int,
    is_final: bool,  # noqa: FBT001 - pytest names it
) -> None:
    tx = tx_of(nsequence=nsequence, nlocktime=nlocktime)
    if is_final:
        policy.check_final(tx, height=100, median_time=500_001_000)
    else:
        with pytest.raises(MempoolRefused, match="non-final"):
            policy.check_final(tx, height=100, median_time=500_001_000)


def test_signature_checks_weigh_as_core_reckons() -> None:
    tx = tx_of(nsequence=0)
    assert policy.sigops_cost(tx, [tx.outputs[0]]) == 0
    keyhash = TxOut(amount_sat=1, script_pubkey=b"\x00\x14" + bytes(20))
    assert policy.sigops_cost(tx, [keyhash]) == 1
    assert policy.adjusted_weight(tx, 1_000) == 20_000
    with pytest.raises(MempoolRefused, match="bad-txns-too-many-sigops"):
        policy.adjusted_weight(tx, 16_001)


@pytest.mark.parametrize(
    ("script", "accurate", "count"),
    [
        (b"\xac\xad", False, 2),
        (b"\x51\x21" + PUBKEY + b"\x51\xae", False, 20),
        (b"\x51\x21" + PUBKEY + b"\x51\xae", True, 1),
        (b"\xac\x4c", False, 1),
        (b"\x01\xac", False, 0),
    ],
)
def test_signature_checks_are_counted_as_written(
    script: bytes,
    accurate: bool,  # noqa: FBT001 - pytest names it
    count: int,
) -> None:
    assert scripts.legacy_sigops(script, accurate=accurate) == count


@given(st.binary(max_size=80))
def test_any_bytes_have_a_type_and_words(script: bytes) -> None:
    assert scripts.script_type(script)
    assert scripts.asm(script).isprintable()
    scripts.legacy_sigops(script, accurate=True)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (b"\x51\x4f\x00", "1 -1 0"),
        (b"\x02\xe8\x83", "-1000"),
        (b"\x05hello", "68656c6c6f"),
        (b"\xb1\xb2\x75", "OP_CHECKLOCKTIMEVERIFY OP_CHECKSEQUENCEVERIFY OP_DROP"),
        (b"\xac\x05x", "OP_CHECKSIG [error]"),
    ],
)
def test_a_script_is_told_in_cores_words(script: bytes, words: str) -> None:
    assert scripts.asm(script) == words


@given(st.binary(min_size=20, max_size=20))
def test_a_legacy_address_leads_back_to_its_script(digest: bytes) -> None:
    assert script_of_legacy_address(address_of_hash(111, digest))[3:23] == digest
    assert script_of_legacy_address(address_of_hash(196, digest))[2:22] == digest
    with pytest.raises(ValueError, match="regtest"):
        script_of_legacy_address(address_of_hash(5, digest))


@given(st.integers(0, 21_000_000 * 100_000_000))
def test_an_amount_shown_is_read_back(sat: int) -> None:
    assert amount_sat(str(BtcAmount(sat))) == sat


@pytest.mark.parametrize(
    ("sat", "text"), [(0, "0.00"), (1_000, "0.00001"), (150_000_000, "1.50"), (-1, "-0.00000001")]
)
def test_messages_show_money_with_two_decimals_at_least(sat: int, text: str) -> None:
    assert money(sat) == text
