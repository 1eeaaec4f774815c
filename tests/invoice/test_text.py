"""An invoice survives its text, and a text that is wrong in one place is refused by that name."""

from collections.abc import Callable
from pathlib import Path

import pytest
from btclib.bech32 import decode, encode
from hypothesis import given
from hypothesis import strategies as st
from tests.invoice.orders import (
    LSP_NODE_ID,
    Field,
    field,
    fields_of,
    keychain,
    order,
    signer,
    text_of,
)

from cromford.bitcoin.network import MAINNET, NETWORKS, REGTEST, Network
from cromford.crypto import keys
from cromford.invoice.bolt11 import INVOICE_LENGTH_MAX, parse_invoice, sign_invoice
from cromford.invoice.invoice import InvalidInvoice, Invoice, RouteHint
from cromford.invoice.prefix import CURRENCIES

ROUTE, FEATURES, EXPIRY, FALLBACK, METADATA = 3, 5, 6, 9, 27
HASH, DESCRIPTION, SECRET, PAYEE, DESCRIPTION_HASH, DELTA = 1, 13, 16, 19, 23, 24
# The order of secp256k1's group.
ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141

BARE: list[Field] = [
    field(HASH, b"\x01" * 32),
    field(SECRET, b"\x02" * 32),
    field(DESCRIPTION, b"coffee"),
]


def hop(seckey: bytes, fee_base_msat: int) -> bytes:
    rest = (7).to_bytes(8, "big") + fee_base_msat.to_bytes(4, "big") + bytes(4) + bytes([0, 6])
    return keys.pubkey_of(seckey) + rest


def without(tag: int) -> list[Field]:
    return [one for one in BARE if one[0] != tag]


def features(*bits: int) -> Field:
    vector = sum(1 << bit for bit in bits)
    n_words = -(-vector.bit_length() // 5)
    return FEATURES, [vector >> 5 * i & 31 for i in reversed(range(n_words))]


def refusal_of(text: str, network: Network = REGTEST) -> InvalidInvoice:
    with pytest.raises(InvalidInvoice) as refused:
        parse_invoice(text, network)
    return refused.value


# What we write


hints = st.none() | st.builds(
    RouteHint,
    lsp_node_id=st.just(LSP_NODE_ID),
    fee_base_msat=st.integers(0, 0xFFFF_FFFF),
    fee_proportional_millionths=st.integers(0, 0xFFFF_FFFF),
    cltv_expiry_delta=st.integers(0, 0xFFFF),
)
orders = st.builds(
    order,
    network=st.sampled_from(list(NETWORKS.values())),
    amount_msat=st.integers(1, 21 * 10**17),
    payment_hash=st.binary(min_size=32, max_size=32),
    payment_secret=st.binary(min_size=32, max_size=32),
    description=st.text(max_size=159),
    created_at=st.integers(0, (1 << 35) - 1),
    expiry_seconds=st.integers(1, 0xFFFF_FFFF),
    min_final_cltv_expiry_delta=st.integers(0, 0xFFFF),
    route_hint=hints,
)


@given(invoice=orders)
def test_what_was_signed_is_what_is_read_and_nothing_else(invoice: Invoice) -> None:
    text = sign_invoice(invoice, signer().sign_node)

    assert parse_invoice(text, invoice.network) == invoice
    assert text.startswith(f"ln{CURRENCIES[invoice.network.name]}")


def test_the_payee_is_recovered_from_the_signature_of_the_node_key() -> None:
    text = sign_invoice(order(), signer().sign_node)
    assert PAYEE not in dict(fields_of(text))
    assert parse_invoice(text, REGTEST).payee == keychain().node_id


def test_the_hint_names_the_lsp_and_a_channel_without_a_short_id() -> None:
    fields = fields_of(sign_invoice(order(), signer().sign_node))
    fees = (1000).to_bytes(4, "big") + (100).to_bytes(4, "big") + (486).to_bytes(2, "big")
    assert [one for one in fields if one[0] == ROUTE] == [
        field(ROUTE, LSP_NODE_ID + bytes(8) + fees)
    ]


def test_variable_onions_and_the_payment_secret_are_required() -> None:
    assert features(8, 14) in fields_of(sign_invoice(order(), signer().sign_node))


def test_the_longest_invoice_that_we_write_is_one_that_we_read() -> None:
    longest = order(
        amount_msat=21 * 10**17 - 1,
        description="x" * 639,
        expiry_seconds=0xFFFF_FFFF,
        min_final_cltv_expiry_delta=0xFFFF,
    )
    text = sign_invoice(longest, signer().sign_node)
    assert parse_invoice(text, REGTEST) == longest
    assert len(text) < INVOICE_LENGTH_MAX


@pytest.mark.parametrize(
    "sign",
    [
        lambda digest: keys.sign_recoverable(digest, b"\x09" * 32),
        lambda digest: signer().sign_node(digest)[:64],
        lambda digest: signer().sign_node(digest)[:64] + b"\x04",
        lambda _: bytes(65),
    ],
    ids=["by another key", "without a recovery id", "of an impossible id", "of zeros"],
)
def test_a_signature_that_does_not_recover_the_payee_never_leaves(
    sign: Callable[[bytes], bytes],
) -> None:
    with pytest.raises(InvalidInvoice) as refused:
        sign_invoice(order(), sign)
    assert refused.value.field == "signature"


# What we read


def test_a_bare_invoice_has_the_defaults_of_the_bolt() -> None:
    read = parse_invoice(text_of(BARE), REGTEST)
    assert read == order(
        amount_msat=1000,
        description="coffee",
        created_at=0,
        expiry_seconds=3600,
        min_final_cltv_expiry_delta=18,
        route_hint=None,
    )


@pytest.mark.parametrize("scheme", ["", "lightning:", "LIGHTNING:"])
def test_a_pasted_invoice_is_read_in_either_case_with_a_scheme_and_white_space(scheme: str) -> None:
    text = sign_invoice(order(), signer().sign_node)
    assert parse_invoice(f"\n  {scheme}{text}\t\n", REGTEST) == order()
    assert parse_invoice(f"{scheme}{text.upper()}", REGTEST) == order()


@given(at=st.integers(0), by=st.integers(1, 31))
def test_one_mistyped_letter_is_always_noticed(at: int, by: int) -> None:
    text = sign_invoice(order(), signer().sign_node)
    letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    start = text.rindex("1") + 1
    place = start + at % (len(text) - start)
    other = letters[(letters.index(text[place]) + by) % 32]

    refusal = refusal_of(text[:place] + other + text[place + 1 :])

    assert refusal.field == "encoding"
    assert refusal.received == "invalid checksum"


def test_another_network_is_refused_and_both_are_named() -> None:
    refusal = refusal_of(sign_invoice(order(network=MAINNET), signer().sign_node))
    assert str(refusal) == "network: expected regtest (lnbcrt), received mainnet (lnbc)"


@pytest.mark.parametrize("prefix", ["", "ln", "lnbd10n", "bcrt", "lnbcrt-1", "lnsb10n"])
def test_a_prefix_of_no_network_is_refused(prefix: str) -> None:
    assert refusal_of(text_of(BARE, prefix=prefix or "x")).field == "network"


@pytest.mark.parametrize("amount", ["", "0", "010", "1x", "1mm", "1" * 21, "11p"])
def test_an_amount_that_is_none_or_malformed_or_too_fine_is_refused(amount: str) -> None:
    assert refusal_of(text_of(BARE, prefix=f"lnbcrt{amount}")).field == "amount"


@pytest.mark.parametrize(
    ("amount", "shortest"),
    [("1000n", "1u"), ("1000m", "1"), ("25000000u", "25"), ("10000p", "10n")],
)
def test_an_amount_that_is_not_as_short_as_can_be_is_refused(amount: str, shortest: str) -> None:
    """The signature is over what is written: by the short form another payee would be read."""
    refused = refusal_of(text_of(BARE, prefix=f"lnbcrt{amount}"))
    assert (refused.field, refused.received) == ("amount", amount)
    assert refused.expected == f"it as short as can be, {shortest}"
    assert parse_invoice(text_of(BARE, prefix=f"lnbcrt{shortest}"), REGTEST).payee == order().payee


def test_an_amount_above_all_bitcoin_is_refused() -> None:
    refusal = refusal_of(text_of(BARE, prefix="lnbcrt21000001"))
    assert refusal.field == "amount_msat"
    assert refusal.received == 2_100_000_100_000_000_000


def test_a_text_longer_than_the_limit_is_refused_before_it_is_decoded() -> None:
    refusal = refusal_of("lnbcrt10n1" + "q" * INVOICE_LENGTH_MAX)
    assert refusal.field == "length"
    assert refusal.received == INVOICE_LENGTH_MAX + 10


@pytest.mark.parametrize(
    ("text", "received"),
    [
        ("", "no separator 1"),
        ("lightning:", "no separator 1"),
        ("ln\N{KELVIN SIGN}1", "mixed case or not ASCII"),
        ("lnbcrt10n1", "checksum"),
        ("lnbcrt10n1b", "checksum"),
        (encode("lnbcrt10n", [0] * 20, m=1).decode(), "too short"),
        (encode("lnbcrt10n", [0] * 7 + [1] * 2 + [0] * 104, m=1).decode(), "truncated"),
        (encode("lnbcrt10n", [0] * 7 + [1] * 3 + [0] * 104, m=1).decode(), "overruns"),
    ],
)
def test_what_is_no_signed_bech32_is_refused(text: str, received: str) -> None:
    refusal = refusal_of(text)
    assert refusal.field == "encoding"
    assert received in str(refusal.received)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        (without(HASH), "payment_hash"),
        ([*BARE, field(HASH, b"\x05" * 32)], "payment_hash"),
        (without(SECRET), "payment_secret"),
        ([*without(SECRET), field(SECRET, b"\x02" * 31)], "payment_secret"),
        (without(DESCRIPTION), "description"),
        ([*BARE, field(DESCRIPTION_HASH, b"\x04" * 32)], "description"),
        ([*without(DESCRIPTION), field(DESCRIPTION, b"\xff")], "description"),
        ([*BARE, (EXPIRY, [0, 1])], "expiry"),
        ([*BARE, (EXPIRY, [])], "expiry_seconds"),
        ([*BARE, (EXPIRY, [31] * 7)], "expiry_seconds"),
        ([*BARE, (DELTA, [0, 1])], "min_final_cltv_expiry"),
        ([*BARE, (DELTA, [31] * 4)], "min_final_cltv_expiry_delta"),
        ([*BARE, (FEATURES, [0, 1])], "features"),
        ([*BARE, features(8, 14, 16)], "features"),
        ([*BARE, features(8, 17)], "features"),
        ([*BARE, field(METADATA, b"\x01")], "payment_metadata"),
        ([*BARE, (METADATA, [31])], "payment_metadata"),
        ([*BARE, field(ROUTE, bytes(51))], "route_hint.lsp_node_id"),
        ([*BARE, field(PAYEE, LSP_NODE_ID)], "signature"),
    ],
)
def test_a_field_that_is_missing_repeated_or_malformed_is_refused_by_name(
    fields: list[Field], name: str
) -> None:
    assert refusal_of(text_of(fields)).field == name


def test_a_feature_that_stands_without_another_is_refused_with_both_numbers() -> None:
    assert refusal_of(text_of([*BARE, features(8, 17)])).received == "16 without 14"


def test_optional_features_fallbacks_and_unknown_fields_are_passed_over() -> None:
    more = [features(8, 14, 17, 99), (FALLBACK, [19, 0, 0]), (2, [0, 0, 0])]
    assert parse_invoice(text_of([*BARE, *more]), REGTEST) == parse_invoice(text_of(BARE), REGTEST)


def test_a_hash_stands_in_for_a_description_and_leaves_it_empty() -> None:
    fields = [*without(DESCRIPTION), field(DESCRIPTION_HASH, b"\x04" * 32)]
    assert parse_invoice(text_of(fields), REGTEST).description == ""


def test_of_several_hints_the_last_hop_of_the_first_is_kept() -> None:
    fields = [
        *BARE,
        field(ROUTE, hop(b"\x04" * 32, 4) + hop(b"\x05" * 32, 5)),
        field(ROUTE, hop(b"\x06" * 32, 6)),
    ]
    assert parse_invoice(text_of(fields), REGTEST).route_hint == RouteHint(
        lsp_node_id=keys.pubkey_of(b"\x05" * 32),
        fee_base_msat=5,
        fee_proportional_millionths=0,
        cltv_expiry_delta=6,
    )


def test_a_named_payee_must_have_signed_and_with_a_low_s() -> None:
    fields = [*BARE, field(PAYEE, keychain().node_id)]

    def high_s(digest: bytes) -> bytes:
        signature = signer().sign_node(digest)
        s = ORDER - int.from_bytes(signature[32:64], "big")
        return signature[:32] + s.to_bytes(32, "big") + bytes([signature[64] ^ 1])

    assert parse_invoice(text_of(fields), REGTEST).payee == keychain().node_id
    assert refusal_of(text_of(fields, sign=high_s)).field == "signature"


@given(words=st.lists(st.integers(0, 31), min_size=100, max_size=300))
def test_random_words_are_refused_and_raise_nothing_else(words: list[int]) -> None:
    text = encode("lnbcrt10n", words, m=1).decode()
    assert refusal_of(text).field


@given(at=st.integers(0), by=st.integers(1, 31))
def test_a_forged_letter_under_a_right_checksum_never_has_the_same_payee(at: int, by: int) -> None:
    prefix, words = decode(sign_invoice(order(), signer().sign_node), m=1)
    place = at % len(words)
    words[place] = (words[place] + by) % 32
    forged = encode(prefix, words, m=1).decode()
    try:
        payee = parse_invoice(forged, REGTEST).payee
    except InvalidInvoice:
        return
    assert payee != keychain().node_id


def test_one_module_knows_the_library_and_one_the_qr_codes(repository: Path) -> None:
    sources = {
        path.relative_to(repository / "src" / "cromford").as_posix(): path.read_text("utf-8")
        for path in (repository / "src").rglob("*.py")
    }
    assert [name for name, text in sources.items() if "btclib_wallet" in text] == [
        "invoice/bolt11.py"
    ]
    assert [name for name, text in sources.items() if "import segno" in text] == ["invoice/qr.py"]
