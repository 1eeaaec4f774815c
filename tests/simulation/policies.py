"""What an operator may say otherwise when a process starts again: what is agreed outlives it."""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from cromford.factory.kinds import VertexKind
from cromford.factory.terms import FeePolicy
from cromford.protocol.policy import ClientPolicy, DyingStep, LspPolicy, WhenDying

CHANGE_RATE: Final = 0.35  # Of each, at a start.
# Not the price: laws know one.
OF_LSP: Final[Mapping[str, tuple[Any, ...]]] = {
    "step_blocks": (2, 3, 6, 10),
    "states_per_layer": (2, 3, 5),
    "lstock_csv_blocks": (2, 4, 8),
    "to_self_delay_lsp": (2, 4, 9),
    "to_self_delay_client": (3, 5, 9),
    "min_depth": (1, 3, 4, 8),
    "failed_channel_blocks": (1, 6, 100),
    "forward_beyond_coverage": (True, False),
    "funding_candidates": (1, 2, 3),
    "hold_seconds": (1, 30),
    "deadline_seconds": (5, 20, 40),
    "patience_blocks": (6, 144),
    "leaf_arity": (1, 2, 3),
    "inner_kind": (None, *VertexKind),
    "max_clients": (1, 3, 127),
    "min_clients": (1, 2, 3),
    "capital_per_client_sat": (10_000, 10_000_000),
    "capital_max_sat": (1_000_000, 1_000_000_000),
    "capacity_min_sat": (20_000, 90_000),
    "capacity_max_sat": (100_000, 100_000_000),
    "dying_policy": (
        *((step,) for step in DyingStep),
        (DyingStep.CLOSE, DyingStep.MOVE),
        tuple(DyingStep),
    ),
    "dying_step_percent": (0, 50, 100),
    "dying_wait_percent": (0, 25, 100),
    "new_joins_per_block": (1, 256),
    "allowed_clients": (None, frozenset()),
    "build_at_clients": (None, 1, 2),
    "build_every_blocks": (None, 3),
    "fee_policy": tuple(FeePolicy),
    "active_blocks": (144, 12_960),
    "dying_blocks": (144, 432),
}
OF_CLIENT: Final[Mapping[str, tuple[Any, ...]]] = {
    "min_depth": ((1, 12), (3, 12), (6, 12), (8, 20)),
    "candidates_max": (1, 2, 4),
    "when_dying": tuple(WhenDying),
    "failed_channel_blocks": (1, 6, 100),
    "receive_beyond_coverage": (True, False),
    "fee_base_msat_max": (0, 10_000),
    "fee_proportional_millionths_max": (0, 10_000),
    "deadline_seconds": (3, 60),
    "moving_capacity_sat": (None, 50_000, 200_000),
    "exit_delay_blocks_max": (3, 1296),
    "max_clients": (1, 1024),
    "step_blocks": ((1, 1008), (5, 1008)),
    "layers_max": (1, 8),
    "max_accepted_htlcs": ((6, 114), (1, 483)),
}


def changed_lsp_policy(usual: LspPolicy, dice: random.Random) -> LspPolicy:
    """Return what an LSP may offer from now on."""
    policy = replace(usual, **_changes(OF_LSP, dice))
    is_paid = policy.fee_policy is FeePolicy.ENDOGENOUS
    return replace(policy, tree_feerate_sat_per_kw=dice.choice((250, 500, 900)) if is_paid else 0)


def changed_client_policy(usual: ClientPolicy, dice: random.Random) -> ClientPolicy:
    """Return what a client may take from now on."""
    return replace(usual, **_changes(OF_CLIENT, dice))


def _changes(choices: Mapping[str, tuple[Any, ...]], dice: random.Random) -> dict[str, Any]:
    return {
        name: dice.choice(some) for name, some in choices.items() if dice.random() < CHANGE_RATE
    }
