"""Answers of daemons, in the shape of the local API."""

from typing import Any

from tests.cli import (
    backup_answers,
    ban_answers,
    close_answers,
    exit_answers,
    forward_answers,
    ladder_answers,
    market_answers,
)
from tests.cli.world_answers import BALANCE, BRANCH_TERMS, CHAIN, TERMS, WALLET

NODE_ID, OTHER_NODE_ID = "02" + "ab" * 32, "03" + "cd" * 32
FACTORY_ID = "f0" * 32
FUNDING_TXID, CHANNEL_TXID = "11" * 32, "22" * 32

BOTH = {
    "version": "0.1.0",
    "network": "regtest",
    "node_id": NODE_ID,
    "height": 120,
    "synced": True,
    "chain": CHAIN,
    "refused": [],
    "failed_decisions": [],
    "datadir": "/somewhere",
    "chain_url": "http://127.0.0.1:18443",
    "wallet": WALLET,
    "backup_warnings": ["no mark is kept: nothing can prove that nothing is lost"],
}
LSP_STATUS = {
    **BOTH,
    "role": "lsp",
    "listen": "127.0.0.1:9750",
    "address": f"{NODE_ID}@127.0.0.1:9750",
    "n_connected": 3,
    "contested": [OTHER_NODE_ID],
    "n_waiting": 2,
    "build": {"phase": "preparing"},
    "build_dropped": "client 2: silent",
    "n_factories": 1,
    "handed_over_keys": {"n_clients": 0, "problem": ""},
    "closing": [],
    "dying": [],
    "look_blocks": 36,
    "stopped": [],
    "capital": {
        "free_sat": 4_000_000_000,
        "reserved_sat": 1_000_000_000,
        "lacking_sat": 0,
        "locked_sat": 750_856,
        "locked": [
            {
                "factory_id": FACTORY_ID,
                "amount_sat": 750_856,
                "expiry_height": 6_000,
                "blocks_to_expiry": 5_880,
            }
        ],
        "earned_sat": 1,
        "earned_msat": 1_500,
        **market_answers.SOLD,
    },
    "price": market_answers.PRICE,
}
CLIENT_STATUS = {
    **BOTH,
    "role": "client",
    "lsp": f"{OTHER_NODE_ID}@127.0.0.1:9750",
    "connected": True,
    "connections_are_short": True,
    "lobby": {
        "capacity_min_sat": 20_000,
        "capacity_max_sat": 100_000_000,
        "min_clients": 2,
        "max_clients": 127,
        "deadline_seconds": 20,
        "fee_base_msat": 1_500,
        "fee_proportional_millionths": 1_000,
    },
    "wish": {"capacity_sat": 500_000, "capacity_least_sat": 400_000, "moves_from": None},
    "dying": [],
    "joined": False,
    "channels": [
        {
            "factory_id": FACTORY_ID,
            "status": "open",
            "capacity_sat": 500_000,
            "receivable_msat": 395_000_000,
            "liquidity": market_answers.LIQUIDITY,
        }
    ],
    "refusal": "capacity_sat: too much",
    "paused_until_height": 1_240,
}
LOBBY = {
    "node_id": NODE_ID,
    "address": f"{NODE_ID}@127.0.0.1:9750",
    "min_clients": 2,
    "max_clients": 127,
    "waiting": [
        {
            "node_id": OTHER_NODE_ID,
            "capacity_sat": 500_000,
            "capacity_least_sat": 400_000,
            "is_moving": True,
            "uptime_blocks": 7,
        }
    ],
    "banned": [{"node_id": NODE_ID, "until_height": 1_234}],
}
RESCAN = {"from_height": 1_002, "to_height": 1_234}
PLACED = [
    {
        "client": 1,
        "node_id": OTHER_NODE_ID,
        "leaf": "root",
        "capacity_sat": 500_000,
        "reason": "rank 1: waits in the lobby",
    }
]
BUILD = {
    "cursor": "7f-3",
    "started": True,
    "funding_amount_sat": 750_856,
    "funding_fee_sat": 300,
    "change_sat": 1_000_000,
    "terms": TERMS | {"attempt_id": "00" * 32},
    "placed": PLACED,
    **ladder_answers.PLANNED,
    "shapes": [
        {
            "choice": "default",
            "is_chosen": True,
            "inner_arities": [2],
            "inner_kinds": ["dw"],
            "exit_blocks": 894,
            "lock_blocks": 1_998,
            "branch_vsize": 625,
            "tree_vsize": 959,
            "refusal": None,
        },
        {
            "choice": "static",
            "is_chosen": False,
            **dict.fromkeys(("inner_arities", "inner_kinds", "exit_blocks", "lock_blocks")),
            **dict.fromkeys(("branch_vsize", "tree_vsize")),
            "refusal": "clients: expected fewer, received more",
        },
    ],
}


PERIOD = {"period": "active", "dying_height": 4_974, "blocks_to_next_period": 3_974}


def lsp_summary(**changes: Any) -> dict[str, Any]:
    return {
        "factory_id": FACTORY_ID,
        "status": "live",
        "phase": "acknowledging",
        "n_clients": 1,
        "funding_txid": FUNDING_TXID,
        "funding_amount_sat": 750_856,
        "confirmations": 3,
        "min_depth": 3,
        "too_late": False,
        "expiry_height": 6_000,
        "blocks_to_expiry": 5_000,
        "exit_deadline_height": 5_406,
        **PERIOD,
        "when_dying": [
            {"step": "sweep", "from_height": 6_000, "to_height": None, "what": "it is swept"}
        ],
        "candidates": ladder_answers.LADDER,
        "holdouts": [],
        "aborted": None,
        "ready_clients": 1,
        "channels_failed": {},
        "is_marked": False,
        "refused": [],
        "published": [],
        "leaving": [],
        "sweeping": [],
        "moved_out": [],
        "closing": None,
        "close_ended": None,
        "closed": [],
        "advances": [],
        "bump": {"txid": CHANNEL_TXID, "fee_sat": 4_210, "feerate_sat_per_vb": 15.5},
    } | changes


def client_summary(**changes: Any) -> dict[str, Any]:
    summary = {
        "factory_id": FACTORY_ID,
        "status": "live",
        "stage": "complete",
        "client": 1,
        "n_clients": 1,
        "capacity_sat": 500_000,
        "channel_outpoint": f"{CHANNEL_TXID}:0",
        "candidates": ladder_answers.CLIENT_LADDER,
        "funding_txid": FUNDING_TXID,
        "funding_amount_sat": 750_856,
        "confirmations": 3,
        "min_depth": 3,
        "expiry_height": 6_000,
        "blocks_to_expiry": 5_000,
        "exit_deadline_height": 5_406,
        **PERIOD,
        "moving": None,
        "exit_blocks": 450,
        "look_blocks": 72,
        "published": [],
        "channel_status": "open",
        "channel_failed": None,
        "aborted": None,
        "given_up": False,
        "ready_sent": True,
        "ready_received": True,
        "is_exiting": False,
        "keys_handed_over": None,
        "close": None,
        "closing": None,
        "closed": [],
        "liquidity": market_answers.LIQUIDITY,
        "bought": [],
        "refused": [],
    }
    return summary | changes


ANCHOR = {
    "kind": "anchor",
    "amount_sat": 240,
    "script_pubkey": "51024e73",
    "descriptor": "raw(51024e73)#axpzv9hd",
    "client": None,
}
FUNDING = {
    "txid": FUNDING_TXID,
    "vout": 0,
    "amount_sat": 750_856,
    "script_pubkey": "5120" + "aa" * 32,
    "descriptor": "tr(...)",
    "tx_hex": "00",
    "confirmations": 3,
}


def output(kind: str, amount_sat: int, client: int | None = None) -> dict[str, Any]:
    return {
        "kind": kind,
        "amount_sat": amount_sat,
        "script_pubkey": "5120" + "bb" * 32,
        "descriptor": "tr(...)",
        "client": client,
    }


TRANSACTIONS = [
    {
        "name": "kickoff_root",
        "kind": "kickoff",
        "layer": 0,
        "parent": None,
        "parent_vout": 0,
        "txid": "33" * 32,
        "signers": [0, 1],
        "nsequence": 0xFFFFFFFF,
        "state_index": None,
        "input_amount_sat": 750_856,
        "fee_sat": 248,
        "vsize": 124,
        "tx_hex": "00",
        "outputs": [output("child", 750_368), ANCHOR],
    },
    {
        "name": "state_root",
        "kind": "state",
        "layer": 0,
        "parent": "kickoff_root",
        "parent_vout": 0,
        "txid": CHANNEL_TXID,
        "signers": [0, 1],
        "nsequence": 432,
        "state_index": 0,
        "input_amount_sat": 750_368,
        "fee_sat": 334,
        "vsize": 167,
        "tx_hex": "00",
        "outputs": [output("channel", 500_000, client=1), output("lstock", 249_794), ANCHOR],
    },
]
EXPORT = {
    "version": 1,
    "network": "regtest",
    "factory_id": FACTORY_ID,
    "status": "live",
    "terms": TERMS,
    "participants": [{"index": 0, "role": "lsp", "factory_pubkey": NODE_ID}],
    "funding": FUNDING,
    "transactions": TRANSACTIONS,
    "ledger": [
        {
            "payer": "lsp",
            "item": "tree_fees",
            "amount_sat": 582,
            "recovered": "when it closes cooperatively, or expires unpublished",
        }
    ],
}
SHOWN = {
    **lsp_summary(),
    **{key: EXPORT[key] for key in ("participants", "funding", "transactions", "ledger", "terms")},
    "placed": PLACED,
    "leaves": market_answers.LEAVES,
    "seconds_left": None,
    "not_worth_sweeping": [],
}
BRANCH = {
    **client_summary(),
    "terms": BRANCH_TERMS,
    "transactions": TRANSACTIONS,
    "funding": FUNDING,
}
VERIFIED = {"factory_id": FACTORY_ID, "ok": True, "waits": False} | {
    "checks": [{"check": "funding output", "ok": True, "detail": "as agreed", "waits": False}],
}
COINS = {
    "coins": [
        {
            "outpoint": f"{FUNDING_TXID}:1",
            "amount_sat": 1_000_000_000,
            "address": "bcrt1qcoin",
            "confirmations": 7,
            "status": "reserved",
            "reserved_for": FACTORY_ID,
        },
        {
            "outpoint": f"{FUNDING_TXID}:2",
            "amount_sat": 5_000,
            "address": "bcrt1qother",
            "confirmations": 1,
            "status": "free",
            "reserved_for": None,
        },
    ]
}
PAYMENT = {
    "sent": True,
    "txid": CHANNEL_TXID,
    "amount_sat": 70_000,
    "fee_sat": 308,
    "change_sat": 12_345,
    "feerate_sat_per_vb": 2.004,
    "feerate_source": "estimate for 6 blocks",
}
SPLIT = {
    "split": True,
    "n_coins": 3,
    "txid": CHANNEL_TXID,
    "amount_sat": 20_000,
    "fee_sat": 567,
    "change_sat": 12_345,
    "feerate_sat_per_vb": 2.004,
    "feerate_source": "estimate for 6 blocks",
}
BUMPED_PAYMENT = {
    "bumped": True,
    "replaces": FUNDING_TXID,
    "txid": CHANNEL_TXID,
    "amount_sat": 70_000,
    "fee_sat": 1_540,
    "change_sat": 11_113,
    "feerate_sat_per_vb": 10.0,
    "feerate_source": "given",
}
ABANDONED = {
    "abandoned": True,
    "txid": CHANNEL_TXID,
    "reason": "min relay fee not met, 2 < 154",
    "freed_sat": 82_653,
}
ABANDONED_FACTORY = {
    "abandoned": True,
    "factory_id": "cd" * 32,
    "reason": "mempool min fee not met, 154 < 616",
    "txid": CHANNEL_TXID,
    "amount_sat": 9_999_200,
    "fee_sat": 800,
    "feerate_sat_per_vb": 7.208,
    "feerate_source": "estimate for 6 blocks",
    "min_depth": 3,
}
PAYMENT_HASH = "5a" * 32
TEXT = "lnbcrt1" + "q" * 300
INVOICE = {
    "direction": "in",
    "status": "open",
    "payment_hash": PAYMENT_HASH,
    "amount_msat": 1_500,
    "received_msat": 0,
    "created_at": 1_699_996_400,
    "settled_at": None,
    "description": "a boat\nproof",
    "label": "table 7",
    "external_id": "order-12",
    "expires_at": 1_700_000_000,
    "hold_seconds": 0,
    **dict.fromkeys(("agreed_hold_seconds", "channel_id", "factory_id")),
    "invoice": TEXT,
    "receivable_msat": 1_000,
}
PAID = {
    "direction": "out",
    "status": "paid",
    "payment_hash": PAYMENT_HASH,
    "payee": OTHER_NODE_ID,
    "amount_msat": 40_000_000,
    "fee_msat": 41_500,
    "total_msat": 40_041_500,
    "description": "a \x1b[31mboat",
    "label": "",
    "channel_id": "c4" * 32,
    "factory_id": FACTORY_ID,
    "preimage": "77" * 32,
    "created_at": 1_700_000_000,
    "settled_at": 1_700_000_002,
    **dict.fromkeys(("to_factory_id", "failure", "retryable", "obstacle", "may_lose_msat")),
    "expiry_height": None,
    "invoice": TEXT,
}
PLANNED = {
    **{key: PAID[key] for key in list(PAID)[: list(PAID).index("preimage")]},
    "status": "planned",
    "expires_at": 1_700_000_000,
    "htlc_expiry_height": 1_234,
    "payee_expiry_height": 1_034,
}
FAILED = PAID | {
    "status": "failed",
    "preimage": None,
    "failure": "temporary_channel_failure",
    "retryable": True,
}
PENDING = PAID | {"status": "pending", "preimage": None, "expiry_height": 1_234}
UNKNOWN = PENDING | {
    "may_lose_msat": 40_041_500,
    "obstacle": "the channel is over: the peer: no more",
}
PAYMENTS = {
    "payments": [
        {"number": 9, **PAID},
        {"number": 7, **FAILED},
        {"number": 5, **{key: INVOICE[key] for key in INVOICE if key != "receivable_msat"}},
    ],
    "next": None,
}
LSP_PAYMENTS = {
    "payments": [{"number": 9, **PAID}],
    "forwards": forward_answers.FORWARDS,
    "next": None,
    "n_forwards": 1_002,
    "earned_msat": 41_000,
}


def channel(**changes: Any) -> dict[str, Any]:
    found = {
        "channel_id": "c4" * 32,
        "factory_id": FACTORY_ID,
        "status": "open",
        "failed": None,
        "marked": None,
        "capacity_sat": 500_000,
        "own_msat": 100_000_000,
        "peer_msat": 400_000_000,
        "spendable_msat": 99_000_001,
        "receivable_msat": 395_000_000,
        "sending_msat": 2_000,
        "receiving_msat": 0,
        "close_limit_msat": None,
        "blocks_to_exit_deadline": 4_406,
    }
    return found | changes


def client_channel(**changes: Any) -> dict[str, Any]:
    """Return a channel as a client's balance lists it."""
    found = channel(exit_sat=0, exit_blocks=450, blocks_to_expiry=5_000, is_worth_an_exit=True)
    return found | {"liquidity": market_answers.LIQUIDITY} | changes


MONEY = (
    "own_msat",
    "peer_msat",
    "spendable_msat",
    "receivable_msat",
    "sending_msat",
    "receiving_msat",
)
CLIENT_BALANCE = {
    "channels": [client_channel(exit_sat=99_752)],
    "total": {field: channel()[field] for field in MONEY} | {"exit_sat": 99_752},
}
LSP_BALANCES = {
    "channels": [
        channel(node_id=OTHER_NODE_ID, client=1, connected=True),
        channel(node_id=NODE_ID, client=2, connected=False, status="failed", failed="it lied"),
    ],
    "total": {field: 2 * channel()[field] for field in MONEY},
}


def pay(params: dict[str, Any]) -> dict[str, Any]:
    return PLANNED if params["dry_run"] else PAID


WALLET_ANSWERS: dict[str, Any] = {
    "rescan": RESCAN,
    "address": {"address": "bcrt1qfresh", "is_new": True},
    "wallet_balance": BALANCE,
    "wallet_coins": COINS,
    "wallet_send": lambda params: PAYMENT | {"sent": not params["dry_run"]},
    "wallet_split": lambda params: SPLIT | {"split": not params["dry_run"]},
    "wallet_bump": lambda params: BUMPED_PAYMENT | {"bumped": not params["dry_run"]},
    "wallet_abandon": lambda params: ABANDONED | {"abandoned": not params["dry_run"]},
}
LSP_ANSWERS: dict[str, Any] = {
    "status": LSP_STATUS,
    "backup_create": backup_answers.CREATED,
    **WALLET_ANSWERS,
    "lobby": LOBBY,
    "build": BUILD,
    "factories": {"factories": [lsp_summary()]},
    "factory_show": SHOWN,
    "factory_export": EXPORT,
    "factory_replace": ladder_answers.replaced,
    "factory_bump": ladder_answers.bumped,
    "factory_abandon": lambda params: ABANDONED_FACTORY | {"abandoned": not params["dry_run"]},
    "close": close_answers.close,
    "pay": pay,
    "payments": LSP_PAYMENTS,
    "balances": LSP_BALANCES,
    "price": market_answers.PRICE,
    "set_price": market_answers.PRICE,
    "ledger": market_answers.LEDGER,
    **ban_answers.ANSWERS,
    "exit_start": {"exiting": True, "next": "publish kickoff_root now"},
    "stop": {"stopping": True},
}
CLIENT_ANSWERS: dict[str, Any] = {
    "status": CLIENT_STATUS,
    "backup_create": backup_answers.CREATED,
    "backup_status": backup_answers.STATUS,
    **WALLET_ANSWERS,
    "join": {"wish": CLIENT_STATUS["wish"], "joined": True},
    "leave": {"left": True},
    "factories": {"factories": [client_summary()]},
    "factory": BRANCH,
    "verify": VERIFIED,
    "exit_plan": exit_answers.EXIT_PLAN,
    "invoice": INVOICE,
    "pay": pay,
    "payments": PAYMENTS,
    "balance": CLIENT_BALANCE,
    "liquidity_quote": market_answers.QUOTE,
    "liquidity_buy": market_answers.buy,
    "exit_status": exit_answers.EXIT_STATUS,
    "exit_pause": {"exiting": True, "paused": True},
    "exit_start": {"exiting": True, "next": "publish kickoff_root now"},
    "stop": {"stopping": True},
}
