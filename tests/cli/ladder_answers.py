"""What a daemon answers about fundings that are to pay more: by a child, or by a candidate."""

from typing import Any

FACTORY_ID = "f0" * 32
FUNDING_TXID = "11" * 32
CHANNEL_TXID = "22" * 32
CLIENT_LADDER = [
    {
        "candidate": 0,
        "funding_txid": FUNDING_TXID,
        "status": "confirmed",
        "confirmations": 3,
        "has_channels": False,
    },
    {
        "candidate": 1,
        "funding_txid": CHANNEL_TXID,
        "status": "overtaken",
        "confirmations": 0,
        "has_channels": False,
    },
]
LADDER = [
    one | {"fee_sat": fee_sat, "feerate_sat_per_vb": feerate}
    for one, fee_sat, feerate in zip(CLIENT_LADDER, (300, 1_200), (2.0, 8.0), strict=True)
]
PLANNED = {
    "candidates": [
        {"candidate": 0, "feerate_sat_per_vb": 2.0, "fee_sat": 300, "change_sat": 1_000_000},
        {"candidate": 1, "feerate_sat_per_vb": 8.0, "fee_sat": 1_200, "change_sat": 999_100},
    ],
    "growth": {
        "sessions": 12,
        "channel_keys": 4,
        "nonces_of_lsp": 12,
        "nonces_of_client": 8,
        "bytes_per_client_max": 29_000,
    },
}
REPLACED_FACTORY = {
    "replaced": True,
    "factory_id": FACTORY_ID,
    "candidate": 1,
    "funding_txid": CHANNEL_TXID,
    "fee_sat": 1_232,
    "feerate_sat_per_vb": 8.0,
    "least_fee_sat": 325,
    "replaces": 0,
    "child_fee_sat": 0,
}
BUMPED_FACTORY = {
    "bumped": True,
    "factory_id": "cd" * 32,
    "funding_txid": FUNDING_TXID,
    "txid": CHANNEL_TXID,
    "fee_sat": 4_210,
    "change_sat": 95_790,
    "n_coins": 0,
    "paid_sat_per_vb": 2.004,
    "feerate_sat_per_vb": 15.5,
    "feerate_source": "our node, for 6 blocks",
}


def replaced(params: dict[str, Any]) -> dict[str, Any]:
    """Return what is said of a candidate that takes another's place, or would."""
    return REPLACED_FACTORY | {"replaced": not params["dry_run"]}


def bumped(params: dict[str, Any]) -> dict[str, Any]:
    """Return what is said of a child that pays for a funding, or would."""
    return BUMPED_FACTORY | {"bumped": not params["dry_run"]}
