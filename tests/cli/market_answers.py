"""Answers about inbound liquidity, in the shape of the local API."""

from typing import Any

FACTORY_ID = "f0" * 32
PRICE: dict[str, Any] = {
    "is_for_sale": True,
    "base_msat": 100_000,
    "per_million": 2_000,
    "per_month": 4_000,
    "min_sat": 10_000,
    "example": {"amount_sat": 100_000, "usable_blocks": 12_960, "price_msat": 1_500_000},
}
SOLD: dict[str, Any] = {"n_sold": 1, "sold_sat": 250_000, "sold_for_msat": 3_600_500}
LEDGER: dict[str, Any] = {
    "sales": [
        {
            "factory_id": FACTORY_ID,
            "client": 1,
            "node_id": "02" + "ab" * 32,
            "height": 1_234,
            "quoted_at": 1_700_000_000,
            "ordered_at": 1_700_000_030,
            "in_force_at": 1_700_000_090,
            "amount_sat": 250_000,
            "capacity_sat": 750_000,
            "price_msat": 3_600_500,
            "advance_id": "ad" * 32,
            "payment_hash": "bc" * 32,
        }
    ],
    "next": None,
    **SOLD,
    "forwarding_msat": 42_000,
    "price": PRICE,
}
LEAVES: list[dict[str, Any]] = [
    {
        "leaf": "0",
        "clients": [1, 2],
        "state_index": 1,
        "states": 4,
        "lstock_sat": 250_000,
        "sales_left": 2,
    }
]
ADVANCE: dict[str, Any] = {
    "leaf": "0",
    "advance_id": "ae" * 32,
    "buyer": 2,
    "amount_sat": 100_000,
    "price_msat": 1_500_000,
    "state_index": 2,
    "step": "signing",
    "holdouts": [1],
}
QUOTE: dict[str, Any] = {
    "factory_id": FACTORY_ID,
    "quote_id": "a1" * 32,
    "amount_sat": 100_000,
    "price_msat": 1_500_000,
    "capacity_before_sat": 500_000,
    "capacity_sat": 600_000,
    "state_index": 2,
    "needed": [
        {"client": 1, "is_online": True, "is_you": True},
        {"client": 2, "is_online": False, "is_you": False},
    ],
    "sales_left": 0,
    "covered_sat": 540_000,
    "most_owned_sat": 594_000,
    "is_covered": False,
    "valid_until_height": 1_240,
    "usable_blocks": 4_320,
    "payment_hash": None,
}
ORDERED: dict[str, Any] = {
    "factory_id": FACTORY_ID,
    "quote_id": "a1" * 32,
    "status": "ordered",
    "receipt": None,
    "advance": None,
}
BOUGHT: dict[str, Any] = {
    **ORDERED,
    "status": "bought",
    "receipt": {
        "height": 1_235,
        "quoted_at": 1_700_000_000,
        "ordered_at": None,
        "in_force_at": 1_700_000_090,
        "amount_sat": 100_000,
        "capacity_sat": 600_000,
        "price_msat": 1_500_000,
        "advance_id": "ae" * 32,
        "payment_hash": None,
    },
}
LIQUIDITY: dict[str, Any] = {
    "state_index": 1,
    "lstock_sat": 250_000,
    "sales_left": 2,
    "covered_sat": 480_000,
    "beyond_coverage_msat": 5_000_000,
    "htlcs_beyond_coverage_msat": 2_000,
    "htlcs_msat": 7_000,
    "advance": None,
    "buying": None,
}
BUYING: dict[str, Any] = {
    "advance": {
        "advance_id": "ae" * 32,
        "state_index": 2,
        "step": "signed",
        "is_ours": True,
        "capacity_sat": 600_000,
        "price_msat": 1_500_000,
    },
    "buying": {
        "quote_id": "a1" * 32,
        "amount_sat": 100_000,
        "capacity_sat": 600_000,
        "price_msat": 1_500_000,
        "payment_hash": None,
    },
}


def buy(params: dict[str, Any]) -> dict[str, Any]:
    return BOUGHT if params["wait_seconds"] > 10 else ORDERED
