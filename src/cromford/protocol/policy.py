"""What each role accepts and offers: chosen by its operator, fixed while the daemon runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cromford.bitcoin.network import REGTEST, Network
from cromford.bitcoin.tx import MAX_MONEY_SAT
from cromford.factory.kinds import InnerLevels, VertexKind
from cromford.factory.terms import FeePolicy
from cromford.signing.nonces import POOL_SIZE_MIN
from cromford.watch.burnt import USUAL_LIMIT, BurnLimit

MIN_DEPTH: Final = 3  # Two blocks found by chance at one height do not take a funding back.
CANDIDATES_MAX: Final = 4  # Of a fee ladder: each costs everybody another ceremony's work.
MIN_DEPTH_LARGE: Final = 6  # Where a reorganisation on purpose could pay, or choose a candidate.
LARGE_CAPACITY_SAT: Final = 10_000_000


def least_depth(usual_depth: int, capacities_sat: Iterable[int], *, candidates: int) -> int:
    """Return the fewest confirmations at which a factory's channels may be paid through.

    Args:
        usual_depth: What either role's operator asks for of any factory.
        capacities_sat: Of every channel of the factory: one reorganisation takes them all.
        candidates: How many fundings the factory may end up with.
    """
    is_large = max(capacities_sat) >= LARGE_CAPACITY_SAT
    return max(usual_depth, MIN_DEPTH_LARGE) if is_large or candidates > 1 else usual_depth


# Nothing moves in a channel that failed, so waiting costs; a day, in which its other side may leave
# by itself, or its operator bring back what it lost, spares everybody a path on the chain.
FAILED_CHANNEL_BLOCKS: Final = 144


class DyingStep(StrEnum):
    """What an LSP does about a factory that dies."""

    MOVE = "move"  # builds the next one for those who move there
    CLOSE = "close"  # asks for a cooperative close of what is left
    SWEEP = "sweep"  # takes what nobody claimed, from the expiry on


class WhenDying(StrEnum):
    """What a client does about a factory that dies."""

    MOVE = "move"  # joins the next one by itself, and pays its balance over
    STAY = "stay"  # waits for its operator, and leaves at the exit deadline if that is worth it


class InvalidDyingPolicy(ValueError):
    """A list of steps that says nothing, the same twice, or something after the end."""


def check_dying_policy(steps: Sequence[DyingStep]) -> None:
    """Check what an LSP is to do about a factory that dies, in this order.

    Raises:
        InvalidDyingPolicy: If it is empty, names a step twice, or goes on after `sweep`.
    """
    received = ", ".join(steps) or "nothing"
    if not steps:
        raise InvalidDyingPolicy(f"expected one or more of move, close, sweep, received {received}")
    if len(set(steps)) < len(steps):
        raise InvalidDyingPolicy(f"expected each step once, received {received}")
    if DyingStep.SWEEP in steps[:-1]:
        raise InvalidDyingPolicy(
            f"expected sweep last, nothing is left to do after it, received {received}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SalePrice:
    """What an LSP asks for inbound liquidity, until its operator says otherwise: no flag sets it.

    Why so much: docs/economics.md.

    Attributes:
        base_msat: For each sale.
        per_million: Of the amount, in millionths.
        per_month: Of the amount, in millionths, for each 30 days in which it can be used.
        min_sat: The least that is sold; less only where it is all that is left.
        is_for_sale: Whether anything is sold at all.
    """

    base_msat: int = 100_000
    per_million: int = 2_000
    per_month: int = 4_000
    min_sat: int = 10_000
    is_for_sale: bool = True


BAN_BLOCKS_MAX: Final = 52_560  # A year: what is meant for ever is said once a year.
# More than the amount itself, or a bitcoin for a sale, is a slip of the keyboard.
PRICE_MILLIONTHS_MAX: Final = 1_000_000
PRICE_BASE_MSAT_MAX: Final = 100_000_000_000


class InvalidPrice(ValueError):
    """A price that no operator can mean."""

    def __init__(self, field: str, *, expected: str, received: int) -> None:
        super().__init__(f"{field}: expected {expected}, received {received}")
        self.field = field


def check_price(price: SalePrice) -> None:
    """Check what an operator asks for inbound liquidity.

    Raises:
        InvalidPrice: Naming the field and its bounds.
    """
    for field, least, most in (
        ("base_msat", 0, PRICE_BASE_MSAT_MAX),
        ("per_million", 0, PRICE_MILLIONTHS_MAX),
        ("per_month", 0, PRICE_MILLIONTHS_MAX),
        ("min_sat", 1, MAX_MONEY_SAT),
    ):
        received = getattr(price, field)
        if not least <= received <= most:
            raise InvalidPrice(field, expected=f"{least}..{most}", received=received)


@dataclass(frozen=True, slots=True, kw_only=True)
class LspPolicy:
    """How an LSP builds. Amounts in sat, delays in blocks, waits in seconds."""

    capacity_min_sat: int = 20_000
    capacity_max_sat: int = 100_000_000
    # The LSP's own coins in channels: a name costs nothing, so a limit for one holds back who has
    # one, and the others who makes many.
    capital_per_client_sat: int = 10_000_000
    capital_per_build_sat: int = 200_000_000
    capital_max_sat: int = 1_000_000_000
    # Who may join; None: whoever comes. And how many may between two blocks that never were in a
    # factory of ours: each join is checked, and ten kilobytes of memory.
    allowed_clients: frozenset[bytes] | None = None
    new_joins_per_block: int = 256
    min_clients: int = 2
    max_clients: int = 127
    # When to build without being asked: once that many wait, or at each multiple of that height.
    build_at_clients: int | None = None
    build_every_blocks: int | None = None
    leaf_arity: int = 2
    inner_levels: InnerLevels | None = None  # None: by the number of clients
    inner_kind: VertexKind | None = None  # of all levels where they follow from that; None: also
    step_blocks: int = 144
    states_per_layer: int = 4
    max_exit_delay_blocks: int = 1296
    active_blocks: int = 12_960
    dying_blocks: int = 432
    ready_min_blocks: int = 2016
    patience_blocks: int = 144
    fee_policy: FeePolicy = FeePolicy.ENDOGENOUS
    tree_feerate_sat_per_kw: int = 500
    # Of one channel, and of capacities and L-stocks together: what everybody's leaving burns.
    burn_limit: BurnLimit = USUAL_LIMIT
    funding_feerate_sat_per_kw: int = 500
    lstock_csv_blocks: int = 144
    min_depth: int = MIN_DEPTH
    to_self_delay_lsp: int = 144
    to_self_delay_client: int = 144
    pool_size: int = POOL_SIZE_MIN
    # Of how many funding candidates whoever joins brings keys: what a fee ladder may have without
    # asking them to join again.
    funding_candidates: int = 1
    deadline_seconds: int = 20
    # The price of a forwarded payment (BOLT 7), announced to every client that connects.
    fee_base_msat: int = 1000
    fee_proportional_millionths: int = 1000
    # How long a payment waits for a payee that is away.
    hold_seconds: int = 30
    # The most that it waits where the payee announced its hash and asked for it.
    announced_hold_seconds: int = 10_800
    # After how many blocks a channel that failed is left, if it is worth an exit.
    failed_channel_blocks: int = FAILED_CHANNEL_BLOCKS
    # Whether a client is paid beyond what poisons of its leaf's old states cover. It refuses that.
    forward_beyond_coverage: bool = False
    # What is done about a factory that dies, in this order; `check_dying_policy` says which go.
    dying_policy: tuple[DyingStep, ...] = (DyingStep.MOVE, DyingStep.CLOSE, DyingStep.SWEEP)
    # Of the dying period: what the first of move and close has before the other begins, and for how
    # much of it a build waits for those who are connected and have not joined.
    dying_step_percent: int = 50
    dying_wait_percent: int = 25

    def __post_init__(self) -> None:
        check_dying_policy(self.dying_policy)

    @property
    def look_blocks(self) -> int:
        """How often an LSP must see the chain at least: a quarter of a step.

        A client's revoked commitment is then seen with three quarters of the least
        `to_self_delay` left to punish it in.
        """
        return max(1, self.step_blocks // 4)

    @property
    def delay_max_blocks(self) -> int:
        """The delay of a state that was never replaced."""
        return self.step_blocks * (self.states_per_layer - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPolicy:
    """Which terms a client signs. Each range is inclusive; delays in blocks.

    The LSP chooses the terms, so each default is what is safe against it. Beside each bound stands
    what its other side would allow.
    """

    # Half a step is how long a client may look away: below, six hours cost it a race. Above, a
    # step is only slower, and counts in `exit_delay_blocks_max`, as more states do.
    step_blocks: tuple[int, int] = (72, 1008)
    states_per_layer: tuple[int, int] = (2, 64)
    # All that lies between a client and its commitment: beyond nine days its money is a hostage.
    exit_delay_blocks_max: int = 1296
    # Each layer is two more transactions to publish, and under `ephemeral` to pay for.
    layers_max: int = 8
    # How far ahead the expiry may lie: the LSP's capital waits for it, and nobody else's.
    expiry_blocks_max: int = 52_560
    # Below a week a client that is away that long comes back to an exit it did not choose.
    active_blocks: tuple[int, int] = (1008, 52_560)
    # Below a day who looks once a day cannot move, and pays for an exit.
    dying_blocks: tuple[int, int] = (144, 4320)
    # What is left of the active period when money can first arrive: below a week, the LSP holds
    # the funding back until the exit deadline is near. At the most, a late funding is not used.
    ready_min_blocks: tuple[int, int] = (1008, 4320)
    # Below an hour, luck with blocks ends an honest funding; above a week, waiting costs factories.
    patience_blocks: tuple[int, int] = (6, 1008)
    # Below, a reorganisation takes what was paid through the channel; `least_depth` asks for more
    # where there is more to take. Above, a channel that is funded stands idle.
    min_depth: tuple[int, int] = (MIN_DEPTH, 12)
    # Under `ephemeral` each step out needs a child that pays, and nobody keeps a coin for it there.
    fee_policies: tuple[FeePolicy, ...] = (FeePolicy.ENDOGENOUS,)
    # Below 1 sat/vB many mempools do not relay the way out. Above 20 sat/vB there are HTLCs too
    # small for an output and too large to go without one (`MAX_DUST_EXPOSURE_MSAT`).
    tree_feerate_sat_per_kw: tuple[int, int] = (250, 5_000)
    # Ten times a day's estimate: fees are agreed for months, and a tree that cannot be bumped must
    # pass on a busy day. A tenth of the capacity: 1,632 sat at 2 sat/vB, with a payment in flight.
    burn_limit: BurnLimit = USUAL_LIMIT
    # What an old state would pay to the LSP must be seen in time, as with a step. Above, it waits.
    lstock_csv_blocks: tuple[int, int] = (72, 2016)
    # Below a day a revoked commitment of the LSP's is punished too late; above two weeks, the
    # most that Lightning nodes accept, a client's own coin is out of reach after the exit.
    to_self_delay_blocks: tuple[int, int] = (144, 2016)
    # Below 330 no mempool takes the output. Above 354, BOLT 3's largest dust limit, balances and
    # HTLCs that could have an output go to fees.
    dust_limit_sat: tuple[int, int] = (330, 354)
    # Below six one payee that holds a few payments blocks the channel; above 114 a commitment
    # would exceed BIP 431's size, and nobody could publish it.
    max_accepted_htlcs: tuple[int, int] = (6, 114)
    # At the most four weeks: as long as a payment's money may be tied up. At the least what a
    # payment between two channels of this factory needs, which `check_max_cltv` knows.
    max_cltv_blocks: tuple[int, int] = (1, 4032)
    # A channel moves out in one payment, so `check_capacity` asks for no less than all of it.
    max_in_flight_msat: tuple[int, int] = (1000, 1000 * MAX_MONEY_SAT)
    # More clients make more transactions and messages for each, never a claim on its money.
    max_clients: int = 1024
    # Each branch takes a few nonces; a join with two pools must fit one message.
    pool_size: tuple[int, int] = (POOL_SIZE_MIN, 256)
    # Each candidate of a funding takes keys, nonces, signatures and room of its own.
    candidates_max: int = CANDIDATES_MAX
    # Built on an older height, the expiry is nearer than it looks.
    build_height_slack_blocks: int = 6
    # How long an LSP that answers nothing keeps a client from other factories.
    deadline_seconds: int = 60
    # The highest price of a payment, where its operator names no other limit.
    fee_base_msat_max: int = 10_000
    fee_proportional_millionths_max: int = 10_000
    # After how many blocks a channel that failed is left, if it is worth an exit: an LSP that fails
    # channels freezes their money no longer.
    failed_channel_blocks: int = FAILED_CHANNEL_BLOCKS
    # Whether it takes what nothing protects, should an old state of its leaf confirm.
    receive_beyond_coverage: bool = False
    # What it does when its factory dies, and how large a channel it then asks for by itself.
    when_dying: WhenDying = WhenDying.MOVE
    moving_capacity_sat: int | None = None  # None: as large as the one that it moves out of


class UnsafePolicy(ValueError):
    """A client's policy under which an LSP could take, or burn, the client's money."""

    def __init__(self, field: str, *, expected: object, received: object, why: str) -> None:
        super().__init__(f"{field}: expected {expected}, received {received}: {why}")
        self.field = field


# No operator widens these where money is real: what each would let an LSP do. All others cost the
# operator time, or a price, and are its own business.
_LEAST: Final = {
    "step_blocks": "an old state could win while its victim looks away",
    "to_self_delay_blocks": "a revoked commitment could be swept before it is punished",
    "lstock_csv_blocks": "an old state could pay the LSP before it is punished",
    "min_depth": "a reorganisation could take what was paid through the channel",
    "ready_min_blocks": "the funding could be held back until the exit deadline is near",
    "active_blocks": "the exit deadline could pass while the client is away for a few days",
    "dying_blocks": "there would be no time to move to another factory",
    "tree_feerate_sat_per_kw": "the way out could be below what mempools relay",
}
_MOST: Final = {
    "dust_limit_sat": "balances and payments could go to fees that could have an output",
}


def check_is_safe(policy: ClientPolicy, network: Network) -> None:
    """Check that a policy keeps the bounds without which an LSP could take a client's money.

    On regtest, where nothing can be lost and worlds are quick, anything goes.

    Raises:
        UnsafePolicy: Naming the field, the bound, and what an LSP could do.
    """
    if network == REGTEST:
        return
    usual = ClientPolicy()
    for field, why in _LEAST.items():
        least, received = getattr(usual, field)[0], getattr(policy, field)[0]
        if received < least:
            raise UnsafePolicy(field, expected=f"at least {least}", received=received, why=why)
    for field, why in _MOST.items():
        most, received = getattr(usual, field)[1], getattr(policy, field)[1]
        if received > most:
            raise UnsafePolicy(field, expected=f"at most {most}", received=received, why=why)
    for fee_policy in policy.fee_policies:
        if fee_policy not in usual.fee_policies:
            raise UnsafePolicy(
                "fee_policies",
                expected=[allowed.label for allowed in usual.fee_policies],
                received=fee_policy.label,
                why="whoever is without a coin on that day could not leave",
            )
