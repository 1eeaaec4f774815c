"""What a demo shall show, checked before the first process starts."""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from cromford.bitcoin.fees import P2TR_DUST_SAT
from cromford.daemon.options import ChainOptions
from cromford.demo.failure import refused
from cromford.factory.kinds import VertexKind
from cromford.factory.odometer import Odometer
from cromford.factory.shape import check_exit_delay, check_truc_size, default_levels, shape_of
from cromford.factory.terms import FeePolicy, InvalidTerms
from cromford.protocol.policy import ClientPolicy, LspPolicy

CLIENTS_MAX: Final = 64  # One process each, on one machine.
CAPACITY_DEFAULT_SAT: Final = 1_000_000
_LSP: Final = LspPolicy()
_CLIENT: Final = ClientPolicy()
CAPACITY_MAX_SAT: Final = _LSP.capacity_max_sat
CAPACITY_MIN_SAT: Final = 2 * P2TR_DUST_SAT  # Half of it is the L-stock of a leaf of one.
STEP_BLOCKS_MIN, STEP_BLOCKS_MAX = _CLIENT.step_blocks
STATES_MAX: Final = _CLIENT.states_per_layer[1]
# The expiry lies beyond the exit, and a client accepts no expiry further away than this.
MAX_EXIT_DELAY_MAX: Final = 40_000
PAYMENTS_MAX: Final = 100_000
SEED_BITS: Final = 32
SEED_MAX: Final = 2**SEED_BITS - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """One demo. `exit_client` counts from 1, in placement order; `feerate` in sat/vB.

    `inner_kind` is of every vertex above the leaves; None: as an LSP chooses.

    `n_payments` is how many payments the clients make between them, None for a few, 0 for no
    payments at all, the LSP's included; `seed` chooses them, None a new one. `chain` is a regtest
    node of the user's; None starts the embedded one.
    """

    n_clients: int = 4
    leaf_arity: int = _LSP.leaf_arity
    inner_kind: VertexKind | None = None
    max_exit_delay_blocks: int = _LSP.max_exit_delay_blocks
    step_blocks: int = _LSP.step_blocks
    states: int = _LSP.states_per_layer
    capacity_sat: int = CAPACITY_DEFAULT_SAT
    feerate: Decimal | None = None
    fee_policy: FeePolicy = FeePolicy.ENDOGENOUS
    keep: Path | None = None
    n_payments: int | None = None
    seed: int | None = None
    exit_client: int | None = None
    chain: ChainOptions | None = None


def check_settings(settings: DemoSettings) -> None:
    """Refuse what cannot work.

    Raises:
        DemoFailed: Naming the option, and what it could be instead.
    """
    _check_exit(settings)
    if settings.n_clients == 1 and settings.n_payments:
        raise refused("--payments", "one client has no other to pay")
    if settings.n_payments == 0 and settings.seed is not None:
        raise refused("--seed", "with --payments 0 there is nothing to choose")
    try:
        odometer = Odometer(states_per_layer=settings.states, step_blocks=settings.step_blocks)
    except ValueError as error:
        raise refused("--step-blocks, --states", str(error)) from error
    try:
        inner = default_levels(
            settings.n_clients,
            leaf_arity=settings.leaf_arity,
            kind=settings.inner_kind,
            delay_max_blocks=odometer.delay_max_blocks,
            max_exit_delay_blocks=settings.max_exit_delay_blocks,
        )
        if settings.inner_kind is not None and not inner.arities:
            raise refused("--inner", f"{settings.n_clients} clients in one leaf have nothing above")
        shape = shape_of(settings.n_clients, leaf_arity=settings.leaf_arity, inner=inner)
        check_exit_delay(
            shape,
            delay_max_blocks=odometer.delay_max_blocks,
            max_exit_delay_blocks=settings.max_exit_delay_blocks,
        )
        for leaf in shape.leaves():
            check_truc_size(leaf, n_p2tr_outputs=leaf.n_clients + 1)
    except InvalidTerms as error:
        raise refused(
            "--max-exit-delay-blocks",
            str(error),
            remediation="Allow a longer delay, fewer blocks per step, more clients per leaf, or "
            "--inner static.",
        ) from error
    keep = settings.keep
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise refused("--keep", f"{keep} is not empty", remediation="Name a new directory.")


def _check_exit(settings: DemoSettings) -> None:
    client = settings.exit_client
    if client is None:
        return
    if not 1 <= client <= settings.n_clients:
        raise refused("--exit", f"expected a client in 1..{settings.n_clients}, received {client}")
