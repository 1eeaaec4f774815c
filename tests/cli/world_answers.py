"""What a daemon says of its wallet and of the chain, in the shape of the local API."""

WALLET = {
    "confirmed_sat": 5_000_000_000,
    "free_sat": 4_000_000_000,
    "reserved_sat": 1_000_000_000,
    "refused": [],
    "immature_sat": 0,
    "paying_sat": 0,
    "change_sat": 0,
    "arriving_sat": 0,
    "address": "bcrt1qaddress",
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
