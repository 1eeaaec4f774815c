"""BOLT 11 as text: the only module that knows `btclib-wallet` and the bech32 it stands on.

The library reads and writes the fields. What it may not have is a seckey, and what it does not do
is name the field that is wrong; both are done here. It takes about 0.1 s to import, so only the
functions that need it do, and a command that touches no invoice never waits for it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cromford.bitcoin.network import MAINNET, REGTEST, SIGNET, TESTNET4, Network
from cromford.crypto import keys
from cromford.invoice.invoice import InvalidInvoice, Invoice, RouteHint
from cromford.invoice.prefix import check_prefix

if TYPE_CHECKING:
    from btclib_wallet.bolt11 import Bolt11Invoice, RouteHintHop

INVOICE_LENGTH_MAX: Final = 2000  # In characters; with the longest description, ours have 1,400.
URI_SCHEME: Final = "lightning:"
N_SIGNATURE_WORDS: Final = 104  # 65 bytes in groups of 5 bits.
SIGNATURE_SIZE: Final = 65
PAYEE_TAG: Final = 19  # The `n` field.
# BOLT 9's even bits, which say "required": var_onion_optin and payment_secret.
REQUIRED_FEATURES: Final = frozenset({8, 14})
# Inside a factory no channel has a short id: its funding output may never reach the chain.
NO_SHORT_CHANNEL_ID: Final = 0
LIBRARY_NAMES: Final = {
    MAINNET.name: "mainnet",
    TESTNET4.name: "testnet",  # BOLT 11 has one code for every testnet.
    SIGNET.name: "signet",
    REGTEST.name: "regtest",
}


def sign_invoice(invoice: Invoice, sign: Callable[[bytes], bytes]) -> str:
    """Return the invoice as text, signed by its payee.

    The payee is not written: it is recovered from the signature, which keeps the text and its QR
    code smaller. The result is read back before it is returned, so nothing leaves that we
    would not pay ourselves.

    Args:
        invoice: What to ask for.
        sign: Given the 32-byte digest, returns 64 bytes of compact ECDSA signature and the
            recovery id: `Signer.sign_node`.

    Raises:
        InvalidInvoice: If the signature is malformed or by another key than the payee's.
    """
    from btclib.bech32 import decode  # noqa: PLC0415 - see the module

    prefix, words = decode(_unsigned(invoice).to_invoice(), m=1)
    words = words[:-N_SIGNATURE_WORDS]
    signature = sign(_digest(prefix, words))
    if len(signature) != SIGNATURE_SIZE:
        raise InvalidInvoice(
            "signature", expected=f"{SIGNATURE_SIZE} bytes", received=f"{len(signature)} bytes"
        )
    text = _signed(prefix, words, signature)
    read = parse_invoice(text, invoice.network)
    if read != invoice:
        raise InvalidInvoice(
            "signature", expected=f"one by {invoice.payee.hex()}", received=f"{read.payee.hex()}'s"
        )
    return text


def parse_invoice(text: str, network: Network) -> Invoice:
    """Return the invoice in this text.

    White space around it, a `lightning:` before it and upper case are accepted. Of a payee's
    other ways to be paid nothing is kept: no on-chain fallback, and of several route hints the
    first, which BOLT 11 calls the preferred; of its hops the last, whose node has the channel
    with the payee. A hash in place of the description is accepted, and the description is empty.

    Args:
        text: What the user pasted.
        network: Ours.

    Raises:
        InvalidInvoice: If it is malformed, of another network, without an amount or a payment
            secret, badly signed, or demands of the payer what we do not do.
    """
    text = _bare(text)
    check_prefix(text.rpartition("1")[0], network)
    raw = _decoded(text)
    _check_features(raw)
    with _reading("payment_hash", expected="one of 32 bytes"):
        payment_hash = raw.payment_hash
    with _reading("payment_secret", expected="one of 32 bytes"):
        payment_secret = raw.payment_secret
    description = _description(raw)
    with _reading("expiry", expected="no leading zeros"):
        expiry_seconds = raw.expiry
    with _reading("min_final_cltv_expiry", expected="no leading zeros"):
        delta = raw.min_final_cltv_expiry
    hint = _first_hint(raw)
    with _reading("signature", expected="a valid one"):
        raw.assert_valid()
        payee = raw.payee
    return Invoice(
        network=network,
        payee=payee,
        amount_msat=raw.amount_msat or 0,  # The prefix has one; the library's type does not know.
        payment_hash=payment_hash,
        payment_secret=payment_secret,
        description=description,
        created_at=raw.timestamp,
        expiry_seconds=expiry_seconds,
        min_final_cltv_expiry_delta=delta,
        route_hint=hint,
    )


def _unsigned(invoice: Invoice) -> "Bolt11Invoice":
    """Lay the fields out, under a signature that is not one.

    The library signs as it lays out. It is given the number 1 for a seckey, and its signature
    is cut off; so is the payee field it adds, for it names the number's point.
    """
    from btclib_wallet.bolt11 import Bolt11Invoice  # noqa: PLC0415 - see the module

    draft = Bolt11Invoice.sign(
        1,
        LIBRARY_NAMES[invoice.network.name],
        invoice.created_at,
        invoice.payment_hash,
        invoice.payment_secret,
        amount_msat=invoice.amount_msat,
        description=invoice.description,
        expiry=invoice.expiry_seconds,
        min_final_cltv_expiry=invoice.min_final_cltv_expiry_delta,
        route_hints=_hops(invoice.route_hint),
        features=sum(1 << bit for bit in REQUIRED_FEATURES),
    )
    return Bolt11Invoice(
        draft.network,
        draft.timestamp,
        [(tag, words) for tag, words in draft.tagged_fields if tag != PAYEE_TAG],
        draft.signature,
        draft.recovery_id,
        draft.amount_msat,
        check_validity=False,
    )


def _hops(hint: RouteHint | None) -> "list[list[RouteHintHop]]":
    """Return one `r` field of one hop, or none."""
    from btclib_wallet.bolt11 import RouteHintHop  # noqa: PLC0415 - see the module

    if hint is None:
        return []
    hop = RouteHintHop(
        hint.lsp_node_id,
        NO_SHORT_CHANNEL_ID,
        hint.fee_base_msat,
        hint.fee_proportional_millionths,
        hint.cltv_expiry_delta,
    )
    return [[hop]]


def _digest(prefix: str, words: list[int]) -> bytes:
    """Hash what is signed: the prefix, then the data padded with 0 bits to whole bytes."""
    from btclib.b32 import power_of_2_base_conversion  # noqa: PLC0415 - see the module

    return keys.sha256(prefix.encode() + bytes(power_of_2_base_conversion(words, 5, 8)))


def _signed(prefix: str, words: list[int], signature: bytes) -> str:
    from btclib.b32 import power_of_2_base_conversion  # noqa: PLC0415 - see the module
    from btclib.bech32 import encode  # noqa: PLC0415 - see the module

    return encode(prefix, words + power_of_2_base_conversion(signature, 8, 5), m=1).decode()


def _bare(text: str) -> str:
    """Strip white space and the scheme; refuse what is too long, not ASCII or of mixed case."""
    text = text.strip()
    if text[: len(URI_SCHEME)].lower() == URI_SCHEME:
        text = text[len(URI_SCHEME) :]
    if len(text) > INVOICE_LENGTH_MAX:
        raise InvalidInvoice(
            "length", expected=f"at most {INVOICE_LENGTH_MAX} characters", received=len(text)
        )
    # Outside ASCII, lower() maps other letters (the Kelvin sign) onto bech32's.
    if not text.isascii() or text not in {text.lower(), text.upper()}:
        raise InvalidInvoice(
            "encoding", expected="bech32 (BIP 173)", received="mixed case or not ASCII"
        )
    if "1" not in text:
        raise InvalidInvoice("encoding", expected="bech32 (BIP 173)", received="no separator 1")
    return text.lower()


def _decoded(text: str) -> "Bolt11Invoice":
    """Decode without judging, so that each judgement can name its field."""
    from btclib_wallet.bolt11 import Bolt11Invoice  # noqa: PLC0415 - see the module

    with _reading("encoding", expected="bech32 (BIP 173) of a signed invoice"):
        return Bolt11Invoice.from_invoice(text, check_validity=False)


def _check_features(raw: "Bolt11Invoice") -> None:
    """Refuse what the payee demands and we do not do, be it assigned by BOLT 9 or not.

    Payment metadata is in the same case: a payer must pass it on (BOLT 11), and without onions
    there is no place for it.
    """
    from btclib_wallet.bolt9 import unmet_dependencies  # noqa: PLC0415 - see the module

    with _reading("features", expected="no leading zeros"):
        features = raw.features
    even = range(0, features.bit_length(), 2)
    demanded = [bit for bit in even if features >> bit & 1 and bit not in REQUIRED_FEATURES]
    if demanded:
        raise InvalidInvoice(
            "features", expected=f"none required but {sorted(REQUIRED_FEATURES)}", received=demanded
        )
    unmet = unmet_dependencies(features)
    if unmet:
        raise InvalidInvoice(
            "features",
            expected="each with what it depends on (BOLT 9)",
            received=", ".join(f"{bit} without {needed}" for bit, needed in unmet),
        )
    with _reading("payment_metadata", expected="none"):
        metadata = raw.metadata
    if metadata is not None:
        raise InvalidInvoice("payment_metadata", expected="none", received=metadata.hex())


def _description(raw: "Bolt11Invoice") -> str:
    """Return the description, empty where only its hash is there."""
    with _reading("description", expected="one in UTF-8, or its hash"):
        description = raw.description
        description_hash = raw.description_hash
    if (description is None) == (description_hash is None):
        received = "neither" if description is None else "both"
        raise InvalidInvoice("description", expected="one, or its hash", received=received)
    return description or ""


def _first_hint(raw: "Bolt11Invoice") -> RouteHint | None:
    """Return the last hop of the preferred route, which leads to the payee."""
    hints = raw.route_hints
    if not hints:
        return None
    hop = hints[0][-1]
    return RouteHint(
        lsp_node_id=hop.pubkey,
        fee_base_msat=hop.fee_base_msat,
        fee_proportional_millionths=hop.fee_proportional_millionths,
        cltv_expiry_delta=hop.cltv_expiry_delta,
    )


@contextmanager
def _reading(field: str, *, expected: str) -> Iterator[None]:
    """Turn the library's refusal into ours."""
    try:
        yield
    except ValueError as error:
        raise InvalidInvoice(field, expected=expected, received=str(error)) from error
