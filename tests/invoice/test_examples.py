"""The examples of BOLT 11: what they say is read, and what they forbid is refused by name."""

import pytest
from btclib.bech32 import decode
from tests.invoice import bolt11_examples as examples

from cromford.bitcoin.network import MAINNET, TESTNET4, Network
from cromford.crypto import keys
from cromford.invoice import bolt11
from cromford.invoice.bolt11 import parse_invoice
from cromford.invoice.invoice import InvalidInvoice, Invoice, RouteHint

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
        payee=examples.PAYEE,
        amount_msat=amount_msat,
        payment_hash=payment_hash,
        payment_secret=examples.PAYMENT_SECRET,
        description=description,
        created_at=created_at,
        expiry_seconds=expiry_seconds,
        min_final_cltv_expiry_delta=delta,
        route_hint=hint,
    )


@pytest.mark.parametrize(
    ("text", "invoice"),
    [
        (examples.COFFEE, asked(250_000_000, "1 cup coffee", expiry_seconds=60)),
        (examples.NONSENSE, asked(250_000_000, "ナンセンス 1杯", expiry_seconds=60)),
        (examples.HASHED, asked(2_000_000_000)),
        (examples.TESTNET, asked(2_000_000_000, network=TESTNET4)),
        (
            examples.TWO_HOPS,
            asked(
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
        ),
        (examples.P2SH, asked(2_000_000_000)),
        (examples.P2WPKH, asked(2_000_000_000)),
        (examples.P2WSH, asked(2_000_000_000)),
        (examples.P2TR, asked(2_000_000_000)),
        (
            examples.PICO,
            asked(
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
        ),
        (examples.BEANS, asked(2_500_000_000, "coffee beans")),
        (examples.UPPER_CASE, asked(2_500_000_000, "coffee beans")),
    ],
)
def test_a_valid_example_says_what_the_bolt_says_it_says(text: str, invoice: Invoice) -> None:
    assert parse_invoice(text, invoice.network) == invoice


@pytest.mark.parametrize(
    ("text", "field", "received"),
    [
        # Valid for the BOLT, not for us: no amount, or a demand that we do not meet.
        (examples.DONATION, "amount", "none"),
        (examples.HIGH_S, "amount", "none"),
        (examples.METADATA, "features", "[48]"),
        # The BOLT's reader must fail on fields of a wrong size, and its example ignores them.
        (examples.MISSIZED_FIELDS, "payment_hash", "51 words"),
        (examples.FEATURE_100, "features", "[100]"),
        (examples.BAD_CHECKSUM, "encoding", "invalid checksum"),
        (examples.NO_SEPARATOR, "encoding", "no separator"),
        (examples.MIXED_CASE, "encoding", "mixed case"),
        (examples.NOT_RECOVERABLE, "signature", "recovery failed"),
        (examples.TOO_SHORT, "amount", "none"),
        (examples.BAD_MULTIPLIER, "amount", "2500x"),
        (examples.SUB_MILLISATOSHI, "amount", "2500000001p"),
        (examples.NO_SECRET, "payment_secret", "missing"),
        (examples.TWO_SECRETS, "payment_secret", "more than one"),
    ],
)
def test_an_example_that_we_do_not_pay_is_refused_by_name(
    text: str, field: str, received: str
) -> None:
    with pytest.raises(InvalidInvoice) as refused:
        parse_invoice(text, MAINNET)
    assert refused.value.field == field
    assert received in str(refused.value.received)


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (
            examples.COFFEE,
            "047e24bf270b25d42a56d57b2578faa3a10684641bab817c2851a871cb41dbc0",
        ),
        (
            examples.TWO_HOPS,
            "b342d4655b984e53f405fe4d872fb9b7cf54ba538fcd170ed4a5906a9f535064",
        ),
    ],
)
def test_the_digest_and_its_signature_are_the_bolts(text: str, digest: str) -> None:
    """RFC 6979 makes signatures repeatable, so ours ends the text as theirs does."""
    prefix, words = decode(text, m=1)

    ours = bolt11._digest(prefix, words[:-104])

    assert ours.hex() == digest
    assert (
        bolt11._signed(prefix, words[:-104], keys.sign_recoverable(ours, examples.SECKEY)) == text
    )
