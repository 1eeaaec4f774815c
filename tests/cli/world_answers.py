"""What a daemon says of its wallet, of the chain and of terms, in the shape of the local API."""

from dataclasses import fields
from typing import Any

from cromford.factory.terms import BranchTerms, FactoryTerms

WALLET = {
    "confirmed_sat": 5_000_000_000,
    "free_sat": 4_000_000_000,
    "reserved_sat": 1_000_000_000,
    "waiting": [],
    "refused": [],
    "immature_sat": 0,
    "paying_sat": 0,
    "change_sat": 0,
    "arriving_sat": 0,
    "address": "bcrt1qaddress",
}
BALANCE = {
    "confirmed_sat": 5_000_000_000,
    "free_sat": 3_000_000_000,
    "reserved_sat": 1_000_000_000,
    "immature_sat": 900_000_000,
    "arriving_sat": 12_345,
    "paying_sat": 100_000_000,
    "change_sat": 99_000_000,
    "waiting": [
        {"txid": "22" * 32, "fee_sat": 308, "feerate_sat_per_vb": 2.004, "withheld": None},
        {"txid": "11" * 32, "fee_sat": None, "feerate_sat_per_vb": None, "withheld": None},
        {"txid": "33" * 32, "fee_sat": 1, "feerate_sat_per_vb": 0.5, "withheld": "change_spent"},
    ],
    "refused": [
        {
            "name": "payment",
            "txid": "11" * 32,
            "reason": "min relay fee not met, 2 < 154",
            "first_height": 104,
            "height": 110,
            "count": 7,
        }
    ],
    "address": "bcrt1qnext",
}
CHAIN = {
    "fresh": True,
    "stale_kind": None,
    "stale_since": None,
    "stale_reason": None,
    "node_height": 120,
    "header_height": 120,
    "kept_height": 0,
    "needed_height": 121,
}
# Of the terms nothing but their names matters to a command.
OTHER_TERMS: dict[str, Any] = {
    "attempt_id": "f0" * 32,
    "network": "06" * 32,
    "fee_policy": "endogenous",
    "inner_arities": [2],
    "inner_kinds": ["dw"],
    "capacity_sat": [500_000],
    "lstock_sat": [249_794],
}
TERMS = {term.name: OTHER_TERMS.get(term.name, 144) for term in fields(FactoryTerms)}
BRANCH_TERMS = {term.name: OTHER_TERMS.get(term.name, 144) for term in fields(BranchTerms)}
