"""What goes through an LSP, in the shape of the local API."""

from typing import Any

FORWARDS: list[dict[str, Any]] = [
    {
        "status": status,
        "payment_hash": "5a" * 32,
        "amount_msat": 40_000_000,
        "fee_msat": 41_000,
        "from_node_id": "02" + "ab" * 32,
        "from_channel_id": "c4" * 32,
        "to_node_id": "03" + "cd" * 32,
        "waits_for": waits_for,
        "created_at": 1_700_000_000,
        "settled_at": None if failure is None else 1_700_000_060,
        "failure": failure,
        **dict.fromkeys(("to_channel_id", "retryable")),
    }
    for status, failure, waits_for in (
        ("held", None, "the payee is away"),
        ("failed", "incorrect_or_unknown_payment_details", None),
    )
]
