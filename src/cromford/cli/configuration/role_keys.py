"""The keys of each role: what an LSP offers and how it builds, and which terms a client signs."""

from decimal import Decimal
from typing import Final

from cromford.adapters.places import CONNECTIONS_MAX, PER_ADDRESS_MAX
from cromford.agent.options import PACKAGES_MAX
from cromford.bitcoin.fees import SAT_PER_KW_OF_SAT_PER_VB
from cromford.bitcoin.timelock import DELAY_BLOCKS_MAX
from cromford.bitcoin.tx import MAX_MONEY_SAT
from cromford.channel.terms import HTLCS_MAX
from cromford.cli.configuration.key import Key
from cromford.cli.configuration.kinds import (
    FEERATE,
    FEERATE_MAX_SAT_PER_VB,
    FEERATE_MIN_SAT_PER_VB,
    Choice,
    Endpoint,
    Flag,
    Hex,
    Integer,
    KeyKind,
    Number,
    Peer,
    Reachable,
    Several,
)
from cromford.crypto.keys import PUBKEY_SIZE
from cromford.daemon.api.payment_limits import ANNOUNCED_HOLD_SECONDS_MAX
from cromford.factory.kinds import PICTURE_CLIENTS_MAX, VertexKind
from cromford.factory.terms import N_CLIENTS_MAX, FeePolicy
from cromford.protocol.policy import (
    CANDIDATES_MAX,
    ClientPolicy,
    DyingStep,
    LspPolicy,
    WhenDying,
)
from cromford.signing.nonces import POOL_SIZE_MIN

PACKAGES_LIMIT: Final = 10_000  # Each is asked for at every block: some 5 ms of a node.
LISTEN_DEFAULT: Final = ("127.0.0.1", 9750)
DEADLINE_SECONDS_MAX: Final = 600
FEE_MAX: Final = 0xFFFF_FFFF  # As wide as BOLT 7's fields.
HOLD_SECONDS_MAX: Final = 600  # About a block: what waits longer ties money up.
EXPIRY_BLOCKS_MAX: Final = 525_600  # Ten years; the chain's own limit is far beyond it.
MIN_DEPTH_MAX: Final = 144
NEW_JOINS_MAX: Final = 100_000  # Of ten kilobytes each.
CONNECTIONS_LIMIT: Final = 65_535  # As many as there are ports; the system's own limit is lower.
POOL_SIZE_MAX: Final = 256  # A join with two pools must fit one message.

TIMES_ESTIMATE_MAX: Final = 10_000  # From 1 sat/vB on, that is as far as Core goes.
FAILED_CHANNEL_BLOCKS_MAX: Final = 4320  # A month: longer, and a failure is left to the deadline.

_LSP: Final = LspPolicy()
_CLIENT: Final = ClientPolicy()


def _lsp_key(
    name: str, kind: KeyKind, default: object, help_text: str, *, shown_default: str | None = None
) -> Key:
    return Key(
        section="lsp",
        name=name,
        kind=kind,
        default=default,
        help=help_text,
        flag=f"--{name.replace('_', '-')}",
        shown_default=shown_default,
    )


_SAT: Final = Integer(1, MAX_MONEY_SAT, "SAT")
_CONNECTIONS: Final = Integer(1, CONNECTIONS_LIMIT)
_CLIENTS: Final = Integer(1, N_CLIENTS_MAX)
_DELAY: Final = Integer(1, DELAY_BLOCKS_MAX, "BLOCKS")
_EXPIRY: Final = Integer(1, EXPIRY_BLOCKS_MAX, "BLOCKS")
_STATES: Final = Integer(2, DELAY_BLOCKS_MAX)
_FEE_POLICY: Final = Choice(tuple(policy.label for policy in FeePolicy))
_VERTEX_KIND: Final = Choice(tuple(kind.label for kind in VertexKind))
_TREE_FEERATE: Final = Number(FEERATE_MIN_SAT_PER_VB, Decimal(FEERATE_MAX_SAT_PER_VB), "sat/vB")
_TIMES: Final = Integer(1, TIMES_ESTIMATE_MAX, "TIMES")
_TIMES_HELP: Final = (
    "A tree that pays more than this many times our own node's estimate for a day, or 1 sat/vB if "
    "that is more"
)
_PERCENT: Final = Integer(1, 100, "PERCENT")
_FEE_BASE: Final = Integer(0, FEE_MAX, "MSAT")
_FEE_RATE: Final = Integer(0, FEE_MAX, "PPM")
_AT_LEAST_A_STEP: Final = "; never less than a step"

LSP_KEYS: Final = (
    _lsp_key("listen", Endpoint(), LISTEN_DEFAULT, "Where to listen for clients."),
    _lsp_key(
        "announce",
        Reachable(),
        None,
        "What clients connect to, where that is another address: behind NAT, a proxy or in a "
        "container, or if it listens on all addresses of its machine. It is shown to be handed on; "
        "nothing is forwarded by it.",
        shown_default="where it listens",
    ),
    _lsp_key(
        "connections_max",
        _CONNECTIONS,
        CONNECTIONS_MAX,
        "Peers that may be connected. The limit of open files is raised for them; where the system "
        "allows fewer, there are fewer places, and a warning.",
    ),
    _lsp_key(
        "strangers_max",
        _CONNECTIONS,
        None,
        "Of them, those that have no channel yet; the others' places are kept free for owners.",
        shown_default="half of connections_max, or as many as a factory takes",
    ),
    _lsp_key(
        "connections_per_address",
        _CONNECTIONS,
        PER_ADDRESS_MAX,
        "Of these, those of one address (IPv6: of one /64). Behind a proxy or Tor all have one.",
    ),
    _lsp_key("capacity_min_sat", _SAT, _LSP.capacity_min_sat, "The smallest channel, in sat."),
    _lsp_key(
        "capacity_max_sat",
        _SAT,
        None,
        "The largest channel, in sat; at most capital_per_client_sat.",
        shown_default=f"{_LSP.capacity_max_sat}, or capital_per_client_sat if that is less",
    ),
    _lsp_key(
        "capital_per_client_sat",
        _SAT,
        _LSP.capital_per_client_sat,
        "The LSP's coins in one client's channels, in sat; those it moves out of do not count.",
    ),
    _lsp_key(
        "capital_per_build_sat",
        _SAT,
        _LSP.capital_per_build_sat,
        "The LSP's coins in the channels of one factory, in sat.",
    ),
    _lsp_key(
        "capital_max_sat",
        _SAT,
        _LSP.capital_max_sat,
        "The LSP's coins in the channels of all factories, in sat.",
    ),
    _lsp_key(
        "allowed_clients",
        Several(Hex(PUBKEY_SIZE), "NODEID,..."),
        None,
        "Only these clients may join.",
        shown_default="whoever comes",
    ),
    _lsp_key(
        "new_joins_per_block",
        Integer(1, NEW_JOINS_MAX),
        _LSP.new_joins_per_block,
        "Joins between two blocks of clients that were never in a factory: each costs work.",
    ),
    _lsp_key("min_clients", _CLIENTS, _LSP.min_clients, "Fewer make no factory."),
    _lsp_key("max_clients", _CLIENTS, _LSP.max_clients, "More are not taken into one factory."),
    _lsp_key(
        "build_at_clients",
        _CLIENTS,
        None,
        "Build by itself as soon as that many clients wait.",
        shown_default="only when asked",
    ),
    _lsp_key(
        "build_every_blocks",
        _EXPIRY,
        None,
        "Build by itself at every height that this number divides, if enough clients wait.",
        shown_default="only when asked",
    ),
    _lsp_key("leaf_arity", _CLIENTS, _LSP.leaf_arity, "Clients that share a leaf."),
    _lsp_key(
        "inner",
        _VERTEX_KIND,
        None,
        "What every inner level of the tree is: states with a delay, or one transaction without.",
        shown_default=f"dw up to {PICTURE_CLIENTS_MAX} clients, static beyond",
    ),
    _lsp_key(
        "inner_arities",
        Several(Integer(2, N_CLIENTS_MAX), "N,N,..."),
        None,
        "Children at each inner level of the tree, root first; with inner_kinds.",
        shown_default="by the number of clients",
    ),
    _lsp_key(
        "inner_kinds",
        Several(_VERTEX_KIND, "KIND,KIND,..."),
        None,
        "What each of these levels is, dw or static; with inner_arities.",
        shown_default="by the number of clients",
    ),
    _lsp_key("step_blocks", _DELAY, _LSP.step_blocks, "Blocks between the delays of two states."),
    _lsp_key("states", _STATES, _LSP.states_per_layer, "States per layer."),
    _lsp_key(
        "max_exit_delay_blocks",
        _EXPIRY,
        _LSP.max_exit_delay_blocks,
        "Blocks of delay on the longest way out.",
    ),
    _lsp_key(
        "active_blocks",
        _EXPIRY,
        _LSP.active_blocks,
        "Blocks of normal life: the first part of the way to the expiry.",
    ),
    _lsp_key(
        "dying_blocks",
        _EXPIRY,
        _LSP.dying_blocks,
        "Blocks after them in which clients move to another factory.",
    ),
    _lsp_key(
        "ready_min_blocks",
        _EXPIRY,
        _LSP.ready_min_blocks,
        "Active blocks that have to be left when channels become ready.",
    ),
    _lsp_key(
        "patience_blocks",
        _EXPIRY,
        _LSP.patience_blocks,
        "Blocks that the funding transaction may take to confirm.",
    ),
    _lsp_key(
        "fee_policy",
        _FEE_POLICY,
        _LSP.fee_policy.label,
        "How tree transactions pay: their own fee, or a child's.",
    ),
    _lsp_key("feerate_sat_per_vb", FEERATE, None, "Of the tree, in sat/vB.", shown_default="2"),
    _lsp_key(
        "max_feerate_times_estimate",
        _TIMES,
        _LSP.burn_limit.times_estimate,
        f"{_TIMES_HELP}: no factory is built.",
    ),
    _lsp_key(
        "max_burnt_percent",
        _PERCENT,
        _LSP.burn_limit.percent,
        "A channel of which leaving burns more is too small, and capacities and L-stocks of which "
        "everybody's leaving burns more make no factory; in percent.",
    ),
    _lsp_key(
        "funding_feerate_sat_per_vb", FEERATE, Decimal(2), "Of the funding transaction, in sat/vB."
    ),
    _lsp_key(
        "min_depth_blocks",
        Integer(1, MIN_DEPTH_MAX, "BLOCKS"),
        _LSP.min_depth,
        "Confirmations before channels are ready.",
    ),
    _lsp_key(
        "lstock_csv_blocks",
        _DELAY,
        None,
        f"Delay on the LSP's liquidity stock{_AT_LEAST_A_STEP}.",
        shown_default=f"{_LSP.lstock_csv_blocks}, or a step if that is longer",
    ),
    _lsp_key(
        "to_self_delay_lsp_blocks",
        _DELAY,
        None,
        f"Delay on the LSP's balance in a commitment of its own{_AT_LEAST_A_STEP}.",
        shown_default=f"{_LSP.to_self_delay_lsp}, or a step if that is longer",
    ),
    _lsp_key(
        "to_self_delay_client_blocks",
        _DELAY,
        None,
        f"Delay on a client's balance in a commitment of its own{_AT_LEAST_A_STEP}.",
        shown_default=f"{_LSP.to_self_delay_client}, or a step if that is longer",
    ),
    _lsp_key(
        "pool_size",
        Integer(POOL_SIZE_MIN, POOL_SIZE_MAX),
        _LSP.pool_size,
        "Public nonces that a client brings along for each key.",
    ),
    _lsp_key(
        "funding_candidates",
        Integer(1, CANDIDATES_MAX),
        _LSP.funding_candidates,
        "Funding candidates for which clients bring keys along: a fee ladder of no more needs "
        "nobody to join again.",
    ),
    _lsp_key(
        "deadline_seconds",
        Integer(1, DEADLINE_SECONDS_MAX, "SECONDS"),
        _LSP.deadline_seconds,
        "Seconds a client may take to answer.",
    ),
    _lsp_key(
        "fee_base_msat",
        _FEE_BASE,
        _LSP.fee_base_msat,
        "The price of forwarding a payment, whatever its amount, in millisatoshi.",
    ),
    _lsp_key(
        "fee_proportional_millionths",
        _FEE_RATE,
        _LSP.fee_proportional_millionths,
        "And for each million of its amount: 1000 are 0.1 %.",
    ),
    _lsp_key(
        "hold_seconds",
        Integer(0, HOLD_SECONDS_MAX, "SECONDS"),
        _LSP.hold_seconds,
        "Seconds that a payment waits for its payee, and after which a payer is told of a failure.",
    ),
    _lsp_key(
        "announced_hold_seconds",
        Integer(0, ANNOUNCED_HOLD_SECONDS_MAX, "SECONDS"),
        _LSP.announced_hold_seconds,
        "The most that a payment waits for a payee that announced it and asked for that.",
    ),
    _lsp_key(
        "failed_channel_blocks",
        Integer(0, FAILED_CHANNEL_BLOCKS_MAX, "BLOCKS"),
        _LSP.failed_channel_blocks,
        "Blocks after which a channel that failed is brought on chain, if it is worth that.",
    ),
    _lsp_key(
        "forward_beyond_coverage",
        Flag(),
        _LSP.forward_beyond_coverage,
        "Pay clients beyond what the poisons of their leaf's old states cover. A client refuses "
        "that unless it has `receive_beyond_coverage`.",
    ),
    _lsp_key(
        "dying_policy",
        Several(Choice(tuple(step.value for step in DyingStep)), "STEP,..."),
        tuple(step.value for step in _LSP.dying_policy),
        "What is done about a factory that dies, in this order: build the next one for those who "
        "move there, ask for a cooperative close, sweep what nobody claimed once it expired. What "
        "is not named is not done.",
    ),
    _lsp_key(
        "dying_step_percent",
        _PERCENT,
        _LSP.dying_step_percent,
        "Of the dying period: what the first of move and close has before the other begins; in "
        "percent.",
    ),
    _lsp_key(
        "dying_wait_percent",
        _PERCENT,
        _LSP.dying_wait_percent,
        "Of the dying period: for so much of it the next factory waits for clients that are "
        "connected and have not joined; in percent.",
    ),
)


def _client_key(
    name: str,
    kind: KeyKind,
    default: object,
    help_text: str,
    *,
    has_flag: bool = False,
    shown_default: str | None = None,
) -> Key:
    return Key(
        section="client",
        name=name,
        kind=kind,
        default=default,
        help=help_text,
        flag=f"--{name.replace('_', '-')}" if has_flag else None,
        shown_default=shown_default,
    )


# Ranges of terms that a client signs: the key before _min and _max, the policy's field, the kind,
# what is meant.
_RANGES: Final = (
    ("step_blocks", "step_blocks", _DELAY, "blocks between the delays of two states"),
    ("states", "states_per_layer", _STATES, "states per layer"),
    ("active_blocks", "active_blocks", _EXPIRY, "blocks of normal life"),
    ("dying_blocks", "dying_blocks", _EXPIRY, "blocks to move out in"),
    ("ready_min_blocks", "ready_min_blocks", _EXPIRY, "active blocks left at the start"),
    ("patience_blocks", "patience_blocks", _EXPIRY, "blocks the funding may take to confirm"),
    ("min_depth_blocks", "min_depth", Integer(1, MIN_DEPTH_MAX, "BLOCKS"), "confirmations"),
    ("lstock_csv_blocks", "lstock_csv_blocks", _DELAY, "delay on the LSP's liquidity stock"),
    ("to_self_delay_blocks", "to_self_delay_blocks", _DELAY, "delay on balances, either side's"),
    ("dust_limit_sat", "dust_limit_sat", _SAT, "dust limit, in sat"),
    ("max_accepted_htlcs", "max_accepted_htlcs", Integer(1, HTLCS_MAX), "payments in flight"),
    ("max_cltv_blocks", "max_cltv_blocks", _EXPIRY, "blocks a payment may be in flight"),
    (
        "max_in_flight_msat",
        "max_in_flight_msat",
        Integer(1, 1000 * MAX_MONEY_SAT, "MSAT"),
        "value in flight, in millisatoshi",
    ),
    ("pool_size", "pool_size", Integer(POOL_SIZE_MIN, POOL_SIZE_MAX), "nonces for each key"),
)  # fmt: skip
# The policy's field of each key before its _min and its _max.
_RANGES_WITH_FLAG: Final = ("step_blocks", "to_self_delay_blocks")  # What a test network shortens.
CLIENT_RANGES: Final = {name: field for name, field, _, _ in _RANGES}


def _range_keys() -> tuple[Key, ...]:
    found: list[Key] = []
    for name, field, kind, meaning in _RANGES:
        low, high = getattr(_CLIENT, field)
        least = f"The least accepted: {meaning}."
        has_flag = name in _RANGES_WITH_FLAG
        found.append(_client_key(f"{name}_min", kind, low, least, has_flag=has_flag))
        if name == "max_cltv_blocks":
            # It follows `max_exit_delay_blocks` unless it is set.
            shown = f"{high}, and more with a longer max_exit_delay_blocks"
            most = _client_key(
                f"{name}_max", kind, None, f"The most accepted: {meaning}.", shown_default=shown
            )
        else:
            most = _client_key(f"{name}_max", kind, high, f"The most accepted: {meaning}.")
        found.append(most)
    return tuple(found)


_FEERATES: Final = tuple(
    Decimal(sat_per_kw) / SAT_PER_KW_OF_SAT_PER_VB for sat_per_kw in _CLIENT.tree_feerate_sat_per_kw
)
CLIENT_KEYS: Final = (
    _client_key("lsp", Peer(), None, "Whose client this is; `lsp lobby` prints it.", has_flag=True),
    _client_key(
        "max_exit_delay_blocks",
        _EXPIRY,
        _CLIENT.exit_delay_blocks_max,
        "Terms with a longer way out are refused; in blocks.",
        has_flag=True,
    ),
    _client_key(
        "max_expiry_blocks",
        _EXPIRY,
        _CLIENT.expiry_blocks_max,
        "Terms that expire later are refused; in blocks from now.",
    ),
    _client_key(
        "min_feerate_sat_per_vb",
        _TREE_FEERATE,
        _FEERATES[0],
        "Terms whose tree pays less, but not 0, are refused; in sat/vB.",
        has_flag=True,
    ),
    _client_key(
        "max_feerate_sat_per_vb",
        _TREE_FEERATE,
        _FEERATES[1],
        "Terms whose tree pays more are refused; in sat/vB.",
        has_flag=True,
    ),
    _client_key(
        "max_feerate_times_estimate",
        _TIMES,
        _CLIENT.burn_limit.times_estimate,
        f"{_TIMES_HELP}: terms are refused.",
    ),
    _client_key(
        "max_burnt_percent",
        _PERCENT,
        _CLIENT.burn_limit.percent,
        "Terms by which leaving, with a payment in flight, burns more of the capacity are refused; "
        "in percent.",
    ),
    _client_key(
        "fee_policies",
        Several(_FEE_POLICY, "POLICY,..."),
        tuple(policy.label for policy in _CLIENT.fee_policies),
        "How tree transactions may pay: their own fee, or a child's.",
        has_flag=True,
    ),
    _client_key("max_clients", _CLIENTS, _CLIENT.max_clients, "Larger factories are refused."),
    _client_key(
        "max_deadline_seconds",
        Integer(1, DEADLINE_SECONDS_MAX, "SECONDS"),
        _CLIENT.deadline_seconds,
        "Seconds to wait for the LSP in a ceremony.",
    ),
    _client_key(
        "height_slack_blocks",
        Integer(0, 144, "BLOCKS"),
        _CLIENT.build_height_slack_blocks,
        "Blocks that the LSP's tip may be away from one's own.",
    ),
    _client_key(
        "max_fee_base_msat",
        _FEE_BASE,
        _CLIENT.fee_base_msat_max,
        "The highest price of a payment, whatever its amount, where `pay` names no other limit; "
        "in millisatoshi.",
    ),
    _client_key(
        "max_fee_proportional_millionths",
        _FEE_RATE,
        _CLIENT.fee_proportional_millionths_max,
        "And for each million of its amount: 10000 are 1 %.",
    ),
    _client_key(
        "failed_channel_blocks",
        Integer(0, FAILED_CHANNEL_BLOCKS_MAX, "BLOCKS"),
        _CLIENT.failed_channel_blocks,
        "Blocks after which a channel that failed is left, if it is worth an exit.",
    ),
    _client_key(
        "receive_beyond_coverage",
        Flag(),
        _CLIENT.receive_beyond_coverage,
        "Take payments beyond what the poisons of the leaf's old states cover: should one of those "
        "confirm, what is beyond is lost. The LSP offers them if it has `forward_beyond_coverage`.",
    ),
    _client_key(
        "when_dying",
        Choice(tuple(choice.value for choice in WhenDying)),
        _CLIENT.when_dying.value,
        "What is done when a factory dies: move to the next one with all of the balance, or stay "
        "until `client move`, or the exit deadline.",
        has_flag=True,
    ),
    _client_key(
        "moving_capacity_sat",
        _SAT,
        None,
        "The channel that is asked for then, in sat; never less than the balance needs, nor more "
        "than the LSP offers.",
        has_flag=True,
        shown_default="as large as the old one",
    ),
    *_range_keys(),
)
AGENT_KEYS: Final = (
    Key(
        section="agent",
        name="packages_max",
        kind=Integer(1, PACKAGES_LIMIT),
        default=PACKAGES_MAX,
        help="Packages that the agent holds at most.",
        flag="--packages-max",
    ),
)
