"""The examples of BOLT 11: what they say is read, and what they forbid is refused by name."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from btclib.bech32 import decode
from tests.invoice.orders import fields_of, text_of

from cromford.bitcoin.network import MAINNET, REGTEST, TESTNET4, Network
from cromford.crypto import keys
from cromford.invoice import bolt11
from cromford.invoice.bolt11 import parse_invoice
from cromford.invoice.invoice import InvalidInvoice, Invoice, RouteHint

# Every example is signed by this key, and has this payment secret unless it has none.
SECKEY: Final = bytes.fromhex("e126f68f7eafcc8b74f54d269fe206be715000f94dac067d1c04a8ca3b2db734")
PAYEE: Final = bytes.fromhex("03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad")
PAYMENT_SECRET: Final = b"\x11" * 32
HIGH_S: Final = "Public-key recovery with high-S signature"
HIGH_S_WITH_PAYEE: Final = "Non canonical signature (high-S) with 'n' field defined"
SECRET_TAG, PAYEE_TAG = 16, 19
# The order of secp256k1's group.
ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
PAYMENT_HASH = bytes.fromhex("0001020304050607080900010203040506070809000102030405060708090102")
ITEMS = (
    "Blockstream Store: 88.85 USD for Blockstream Ledger Nano S x 1, "
    '"Back In My Day" Sticker x 2, "I Got Lightning Working" Sticker x 2 and 1 more items'
)


def asked(
    amount_msat: int,
    description: str = "",
    *,
    network: Network = MAINNET,
    payment_hash: bytes = PAYMENT_HASH,
    created_at: int = 1496314658,
    expiry_seconds: int = 3600,
    delta: int = 18,
    hint: RouteHint | None = None,
) -> Invoice:
    return Invoice(
        network=network,
        payee=PAYEE,
        amount_msat=amount_msat,
        payment_hash=payment_hash,
        payment_secret=PAYMENT_SECRET,
        description=description,
        created_at=created_at,
        expiry_seconds=expiry_seconds,
        min_final_cltv_expiry_delta=delta,
        route_hint=hint,
    )


# What the BOLT says of each example that is valid for us too.
VALID = {
    "Please send $3 for a cup of coffee to the same peer, within one minute": asked(
        250_000_000, "1 cup coffee", expiry_seconds=60
    ),
    (
        "Please send 0.0025 BTC for a cup of nonsense (ナンセンス 1杯) to the same peer, within "
        "one minute"
    ): asked(250_000_000, "ナンセンス 1杯", expiry_seconds=60),
    "Now send $24 for an entire list of things (hashed)": asked(2_000_000_000),
    ("The same, on testnet, with a fallback address mk2QpYatsKicvFVuTAQLBryyccRXMUaGHP"): asked(
        2_000_000_000, network=TESTNET4
    ),
    (
        "On mainnet, with fallback address 1RustyRX2oai4EYYDpQGWvEL62BBGqN9T with extra "
        "routing info to go via nodes "
        "029e03a901b85534ff1e92c43c74431f7ce72046060fcf7a95c37e148f78c77255 then "
        "039e03a901b85534ff1e92c43c74431f7ce72046060fcf7a95c37e148f78c77255"
    ): asked(
        2_000_000_000,
        hint=RouteHint(
            lsp_node_id=bytes.fromhex(
                "039e03a901b85534ff1e92c43c74431f7ce72046060fcf7a95c37e148f78c77255"
            ),
            fee_base_msat=2,
            fee_proportional_millionths=30,
            cltv_expiry_delta=4,
        ),
    ),
    "On mainnet, with fallback (P2SH) address 3EktnHQD7RiAE6uzMj2ZifT9YgRrkSgzQX": asked(
        2_000_000_000
    ),
    (
        "On mainnet, with fallback (P2WPKH) address bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
    ): asked(2_000_000_000),
    (
        "On mainnet, with fallback (P2WSH) address "
        "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3"
    ): asked(2_000_000_000),
    (
        "On mainnet, with fallback (P2TR) address "
        "bc1pptdvg0d2nj99568qn6ssdy4cygnwuxgw2ukmnwgwz7jpqjz2kszse2s3lm"
    ): asked(2_000_000_000),
    (
        "Please send 0.00967878534 BTC for a list of items within one week, amount in pico-BTC"
    ): asked(
        967_878_534,
        ITEMS,
        payment_hash=bytes.fromhex(
            "462264ede7e14047e9b249da94fefc47f41f7d02ee9b091815a5506bc8abf75f"
        ),
        created_at=1572468703,
        expiry_seconds=604800,
        delta=10,
        hint=RouteHint(
            lsp_node_id=bytes.fromhex(
                "03d06758583bb5154774a6eb221b1276c9e82d65bbaceca806d90e20c108f4b1c7"
            ),
            fee_base_msat=1000,
            fee_proportional_millionths=2500,
            cltv_expiry_delta=40,
        ),
    ),
    (
        "Please send $30 for coffee beans to the same peer, which supports features 8, 14 "
        "and 99, using secret "
        "0x1111111111111111111111111111111111111111111111111111111111111111"
    ): asked(2_500_000_000, "coffee beans"),
    "Same, but all upper case.": asked(2_500_000_000, "coffee beans"),
}
# The others, with the field we refuse and what we say of it.
REFUSED = {
    # Valid for the BOLT, not for us: no amount, or a demand that we do not meet.
    (
        "Please make a donation of any amount using payment_hash "
        "0001020304050607080900010203040506070809000102030405060708090102 to me "
        "@03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad"
    ): ("amount", "none"),
    HIGH_S: ("amount", "none"),
    "Please send 0.01 BTC with payment metadata 0x01fafaf0": ("features", "[48]"),
    # The BOLT's reader must fail on fields of a wrong size, and its example ignores them.
    "Same, but including fields which must be ignored.": ("payment_hash", "51 words"),
    "Same, but adding invalid unknown feature 100": ("features", "[100]"),
    "Bech32 checksum is invalid.": ("encoding", "invalid checksum"),
    "Malformed bech32 string (no 1)": ("encoding", "no separator"),
    "Malformed bech32 string (mixed case)": ("encoding", "mixed case"),
    "Signature is not recoverable.": ("signature", "recovery failed"),
    "String is too short.": ("amount", "none"),
    "Invalid multiplier": ("amount", "2500x"),
    "Invalid sub-millisatoshi precision.": ("amount", "2500000001p"),
    "Missing required `s` field.": ("payment_secret", "missing"),
    HIGH_S_WITH_PAYEE: ("payment_secret", "more than one"),
}


@pytest.fixture
def examples(json_vectors: Callable[[str], Any]) -> dict[str, str]:
    """Return the BOLT's examples, valid and not, by what it says of each."""
    bolt11 = json_vectors("bolt11.json")
    return {one["title"]: one["invoice"] for one in bolt11["valid"] + bolt11["invalid"]}


def test_every_example_is_looked_at(examples: dict[str, str]) -> None:
    assert VALID.keys() | REFUSED.keys() == examples.keys()
    assert len(examples) == 26


@pytest.mark.parametrize("title", VALID)
def test_a_valid_example_says_what_the_bolt_says_it_says(
    examples: dict[str, str], title: str
) -> None:
    assert parse_invoice(examples[title], VALID[title].network) == VALID[title]


@pytest.mark.parametrize("title", REFUSED)
def test_an_example_that_we_do_not_pay_is_refused_by_name(
    examples: dict[str, str], title: str
) -> None:
    field, received = REFUSED[title]
    with pytest.raises(InvalidInvoice) as refused:
        parse_invoice(examples[title], MAINNET)
    assert refused.value.field == field
    assert received in str(refused.value.received)


def test_a_high_s_under_a_named_payee_fails_for_its_signature(examples: dict[str, str]) -> None:
    """The BOLT's example of it has two payment secrets, so it is signed anew with one."""
    fields = fields_of(examples[HIGH_S_WITH_PAYEE])
    tags = [tag for tag, _ in fields]
    assert tags.count(SECRET_TAG) == 2
    assert PAYEE_TAG in tags
    fields.pop(tags.index(SECRET_TAG))

    def low_s(digest: bytes) -> bytes:
        return keys.sign_recoverable(digest, SECKEY)

    def high_s(digest: bytes) -> bytes:
        signature = low_s(digest)
        s = ORDER - int.from_bytes(signature[32:64], "big")
        return signature[:32] + s.to_bytes(32, "big") + bytes([signature[64] ^ 1])

    assert parse_invoice(text_of(fields, sign=low_s), REGTEST).payee == PAYEE
    with pytest.raises(InvalidInvoice) as refused:
        parse_invoice(text_of(fields, sign=high_s), REGTEST)
    assert refused.value.field == "signature"


def test_the_digests_and_their_signatures_are_the_bolts(json_vectors: Callable[[str], Any]) -> None:
    """RFC 6979 makes signatures repeatable, so ours ends each text as theirs does."""
    signed = [one for one in json_vectors("bolt11.json")["valid"] if "digest" in one]
    for one in signed:
        prefix, words = decode(one["invoice"], m=1)
        words = words[:-104]
        ours = bolt11._digest(prefix, words)
        assert ours.hex() == one["digest"]
        if one["title"] != HIGH_S:
            signature = keys.sign_recoverable(ours, SECKEY)
            assert bolt11._signed(prefix, words, signature) == one["invoice"]
    assert len(signed) == 11
