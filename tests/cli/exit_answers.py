"""What a client's daemon says of leaving."""

FACTORY_ID = "f0" * 32
CHANNEL_TXID = "22" * 32

EXIT_PLAN = {
    "factory_id": FACTORY_ID,
    "close": None,
    "steps": [
        {
            "name": "kickoff_root",
            "txid": "33" * 32,
            "vsize": 124,
            "fee_sat": 248,
            "delay_blocks": 0,
            "status": "publish_now",
            "height": 1_001,
        },
        {
            "name": "state_root",
            "txid": CHANNEL_TXID,
            "vsize": 167,
            "fee_sat": 334,
            "delay_blocks": 432,
            "status": "later",
            "height": None,
        },
    ],
    "n_transactions": 2,
    "total_vsize": 291,
    "total_fee_sat": 582,
    "total_delay_blocks": 432,
    "exit_blocks": 450,
    "fees_at": [
        {
            "feerate_sat_per_vb": 1,
            "fee_sat": 916,
            "children_sat": 0,
            "coin_sat": 0,
            "n_coins": 0,
        },
        {
            "feerate_sat_per_vb": 10,
            "fee_sat": 9_170,
            "children_sat": 8_254,
            "coin_sat": 8_584,
            "n_coins": 1,
        },
    ],
    "fees_today": {
        "feerate_sat_per_vb": 6.0,
        "fee_sat": 5_502,
        "children_sat": 4_586,
        "coin_sat": 4_916,
        "n_coins": 1,
        "short_sat": 916,
    },
    "without_coins_sat_per_vb": 2.47,
    "channel_sat": 500_000,
    "needs_coin": False,
    "channel": {
        "steps": [
            {
                "name": "commitment",
                "vsize": 167,
                "fee_sat": 334,
                "delay_blocks": 1,
                "is_agreed": True,
            },
            {
                "name": "sweep",
                "vsize": 124,
                "fee_sat": 248,
                "delay_blocks": 433,
                "is_agreed": False,
            },
        ],
        "exit_sat": 99_752,
        "left_behind": [{"name": "htlc 7", "amount_sat": 120}],
    },
    "due": [],
    "superseded": None,
    "next": "publish kickoff_root now",
}

EXIT_STATUS = {
    "factory_id": FACTORY_ID,
    "exiting": True,
    "over": False,
    "paused": False,
    "steps": [
        {
            "name": "kickoff_root",
            "txid": "33" * 32,
            "status": "publish_now",
            "height": 1_001,
        }
    ],
    "due": [],
    "superseded": None,
    "waiting": [
        {
            "name": "kickoff_root",
            "txid": "33" * 32,
            "waits": True,
            "wanted_sat_per_vb": 10.0,
            "package_sat_per_vb": 10.02,
            "child_txid": "44" * 32,
            "child_fee_sat": 2_522,
            "child_is_ours": True,
        }
    ],
    "stake_sat": 120_000,
    "end_height": 13_515,
    "children_cost_sat": 1_234,
    "budget_left_sat": 58_766,
    "coins": [{"outpoint": "55" * 32 + ":0", "amount_sat": 100_000}],
    "next": "publish kickoff_root now",
    "refused": [
        {
            "name": "kickoff_root",
            "txid": "33" * 32,
            "reason": "mempool min fee not met, 248 < 372",
            "first_height": 999,
            "height": 1_000,
            "count": 2,
        }
    ],
}

# Of a client whose leaf's old state is on chain.
REPLACED_STATUS = EXIT_STATUS | {
    "superseded": {
        "state": "state_root",
        "height": 1_000,
        "poisons": [
            {
                "name": "stock_poison v0",
                "txid": "66" * 32,
                "status": "publish_now",
                "height": None,
                "pays_sat": 75_596,
                "fee_sat": 308,
            }
        ],
        "arriving_sat": 75_596,
    }
}
