"""Answers about cooperative closes, in the shape of the local API."""

from typing import Any

CLOSE: dict[str, Any] = {
    "started": True,
    "close_id": "ee" * 32,
    "finished": None,
    "factory_id": "cd" * 32,
    "name": "kickoff_root",
    "outpoint": f"{'11' * 32}:0",
    "amount_sat": 750_856,
    "clients": [
        {
            "client": 1,
            "node_id": "02" + "ab" * 32,
            "due_msat": 300_000_500,
            "paid_sat": 300_000,
            "moved_out": False,
            "restored": [],
        },
        {
            "client": 2,
            "node_id": "03" + "cd" * 32,
            "due_msat": 329_999,
            "paid_sat": 0,
            "moved_out": False,
            "restored": [],
        },
    ],
    "omitted": [2],
    "options": [
        {
            "feerate_sat_per_vb": 3,
            "fee_sat": 597,
            "lsp_sat": 450_019,
            "vsize": 199,
            "txid": "77" * 32,
        },
        {
            "feerate_sat_per_vb": 9.5,
            "fee_sat": 1_891,
            "lsp_sat": 448_725,
            "vsize": 199,
            "txid": "88" * 32,
        },
    ],
}


def close(params: dict[str, Any]) -> dict[str, Any]:
    return CLOSE | ({"started": False, "close_id": None} if params["dry_run"] else {})
