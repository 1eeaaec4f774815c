"""An invoice by a signer with test keys, and texts that are wrong in one place only."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

from btclib.b32 import power_of_2_base_conversion
from btclib.bech32 import decode, encode

from cromford.bitcoin.network import REGTEST, Network
from cromford.crypto import keys
from cromford.invoice.invoice import Invoice, RouteHint
from cromford.signing.keychain import Keychain
from cromford.signing.signer import Signer

SEED: Final = bytes(range(64))
LSP_NODE_ID: Final = keys.pubkey_of(b"\x03" * 32)
HINT: Final = RouteHint(
    lsp_node_id=LSP_NODE_ID,
    fee_base_msat=1000,
    fee_proportional_millionths=100,
    cltv_expiry_delta=486,
)
Field = tuple[int, list[int]]


@cache
def keychain() -> Keychain:
    return Keychain(SEED, REGTEST, journal_number=1)


@cache
def signer() -> Signer:
    return Signer(keychain())


def order(
    *,
    network: Network = REGTEST,
    payee: bytes | None = None,
    amount_msat: int = 12_345_000,
    payment_hash: bytes = b"\x01" * 32,
    payment_secret: bytes = b"\x02" * 32,
    description: str = "two coffees and a croissant",
    created_at: int = 1_795_000_000,
    expiry_seconds: int = 3600,
    min_final_cltv_expiry_delta: int = 1068,
    route_hint: RouteHint | None = HINT,
) -> Invoice:
    return Invoice(
        network=network,
        payee=keychain().node_id if payee is None else payee,
        amount_msat=amount_msat,
        payment_hash=payment_hash,
        payment_secret=payment_secret,
        description=description,
        created_at=created_at,
        expiry_seconds=expiry_seconds,
        min_final_cltv_expiry_delta=min_final_cltv_expiry_delta,
        route_hint=route_hint,
    )


def field(tag: int, value: bytes) -> Field:
    return tag, power_of_2_base_conversion(value, 8, 5)


def fields_of(text: str) -> list[Field]:
    """Cut the data part of an invoice into its fields."""
    _, words = decode(text, m=1)
    words = words[7:-104]
    fields = []
    while words:
        size = words[1] * 32 + words[2]
        fields.append((words[0], words[3 : 3 + size]))
        words = words[3 + size :]
    return fields


def text_of(
    fields: Sequence[Field],
    *,
    prefix: str = "lnbcrt10n",
    sign: Callable[[bytes], bytes] | None = None,
) -> str:
    """Sign an invoice of exactly these fields, by the node key unless told otherwise."""
    sign = sign or signer().sign_node
    words = [0] * 7
    for tag, value in fields:
        words += [tag, *divmod(len(value), 32), *value]
    signed = prefix.encode() + bytes(power_of_2_base_conversion(words, 5, 8))
    words += power_of_2_base_conversion(sign(keys.sha256(signed)), 8, 5)
    return encode(prefix, words, m=1).decode()
