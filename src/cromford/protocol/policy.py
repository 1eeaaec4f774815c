"""What each role accepts and offers: chosen by its operator, fixed while the daemon runs."""

from dataclasses import dataclass

from cromford.bitcoin.tx import MAX_MONEY_SAT
from cromford.factory.terms import FeePolicy
from cromford.signing.nonces import POOL_SIZE_MIN


@dataclass(frozen=True, slots=True, kw_only=True)
class LspPolicy:
    """How an LSP builds. Amounts in sat, delays in blocks, waits in seconds."""

    capacity_min_sat: int = 20_000
    capacity_max_sat: int = 100_000_000
    min_clients: int = 2
    max_clients: int = 127
    # When to build without being asked: once so many wait, or at each multiple of a height.
    build_at_clients: int | None = None
    build_every_blocks: int | None = None
    leaf_arity: int = 2
    inner_arities: tuple[int, ...] | None = None  # None: the default shape
    step_blocks: int = 144
    states_per_layer: int = 4
    max_exit_delay_blocks: int = 1296
    active_blocks: int = 4320
    dying_blocks: int = 432
    ready_min_blocks: int = 2016
    patience_blocks: int = 144
    fee_policy: FeePolicy = FeePolicy.ENDOGENOUS
    tree_feerate_sat_per_kw: int = 500
    funding_feerate_sat_per_kw: int = 500
    lstock_csv_blocks: int = 144
    min_depth: int = 3
    to_self_delay_lsp: int = 144
    to_self_delay_client: int = 432
    pool_size: int = POOL_SIZE_MIN
    deadline_seconds: int = 20
    # The price of a forwarded payment (BOLT 7), announced to every client that connects.
    fee_base_msat: int = 1000
    fee_proportional_millionths: int = 1000
    # How long a payment waits for a payee that is away.
    hold_seconds: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPolicy:
    """Which terms a client signs. Each range is inclusive; delays in blocks."""

    # Half a step is how long a client may look away from the chain: six hours at the least.
    step_blocks: tuple[int, int] = (72, 1008)
    states_per_layer: tuple[int, int] = (2, 64)
    exit_delay_blocks_max: int = 1296
    # Each layer is two more transactions to publish, and under `ephemeral` to pay for.
    layers_max: int = 8
    # How far ahead the expiry may lie: the LSP's capital waits for it, and so does nobody else.
    expiry_blocks_max: int = 52_560
    active_blocks: tuple[int, int] = (144, 52_560)
    dying_blocks: tuple[int, int] = (144, 4320)
    ready_min_blocks: tuple[int, int] = (1, 4320)
    patience_blocks: tuple[int, int] = (1, 2016)
    min_depth: tuple[int, int] = (1, 12)
    # Under `ephemeral` leaving needs children that pay, and this version does not make them.
    fee_policies: tuple[FeePolicy, ...] = (FeePolicy.ENDOGENOUS,)
    # Below the minimum relay feerate a branch could not be published; far above it, the fees
    # of leaving would eat the channel.
    tree_feerate_sat_per_kw: tuple[int, int] = (25, 25_000)
    lstock_csv_blocks: tuple[int, int] = (1, 2016)
    # The LSP's is the time in which a revoked commitment of it can be punished.
    to_self_delay_blocks: tuple[int, int] = (72, 2016)
    dust_limit_sat: tuple[int, int] = (330, 1000)
    max_accepted_htlcs: tuple[int, int] = (1, 114)
    # Four weeks: the longest that a payment's money may be tied up.
    max_cltv_blocks: tuple[int, int] = (1, 4032)
    # A channel in which nothing may be in flight carries no payment.
    max_in_flight_msat: tuple[int, int] = (1000, 1000 * MAX_MONEY_SAT)
    max_clients: int = 1024
    # Each branch takes a few nonces; a join with two pools must fit one message.
    pool_size: tuple[int, int] = (POOL_SIZE_MIN, 256)
    build_height_slack_blocks: int = 6
    deadline_seconds: int = 60
    # The highest price of a payment, where its operator names no other limit.
    fee_base_msat_max: int = 10_000
    fee_proportional_millionths_max: int = 10_000
