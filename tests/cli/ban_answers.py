"""Answers about bans, in the shape of the local API."""

from typing import Any

NODE_ID = "02" + "ab" * 32
BAN: dict[str, Any] = {
    "node_id": NODE_ID,
    "by": "operator",
    "why": "banned by the operator (wastes our time)",
    "since_height": 1_000,
    "until_height": 1_144,
    "blocks_left": 100,
    "n_faults": 2,
    "is_connected": True,
}
BANS: dict[str, Any] = {"bans": [BAN]}
ANSWERS: dict[str, Any] = {"bans": BANS, "ban_add": BAN, "ban_remove": BAN}
