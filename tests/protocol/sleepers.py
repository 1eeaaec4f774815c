"""An LSP whose factories sleep at every chance, and a small world that may be played without that.

One seed decides who comes and goes, pays, leaves and restarts: whether a factory was in memory
meanwhile changes nothing of it.
"""

import itertools
import random
from collections.abc import Callable
from typing import Any, Final

from tests.protocol import paying_clients
from tests.protocol.exits import POLICY, ExitPump, ask_to_leave
from tests.protocol.paying_clients import book, make_invoice
from tests.protocol.pump import Pump, PumpNode

from cromford.protocol.journal.lsp_state import LspState

N_STEPS: Final = 60
REST_BLOCKS: Final = 80  # Longer than an exit takes, and what is claimed of it.


def lsp_state(pump: Pump) -> LspState:
    """Return all that the LSP has in memory."""
    state: Any = pump.lsp.state
    assert isinstance(state, LspState)
    return state


def sleeping(pump: Pump) -> set[int]:
    """Return the factories that are not in memory."""
    return set(lsp_state(pump).asleep)


def all_away(pump: Pump) -> None:
    """Let every client go, and each factory sleep in which nothing happens."""
    for client in pump.clients:
        pump.disconnect(client)
    pump.run()
    pump.lsp.checkpoint()


class SleepyNode(PumpNode):
    """An LSP that lets its quiet factories sleep after every event."""

    checkpoint_rate = 1.0
    n_slept = 0

    def checkpoint(self) -> None:
        """Let those sleep in which nothing happens."""
        assert self.driver is not None
        self.settle()
        for name in list(self.driver.quiet()):
            self.driver.keep(self.driver.begin_checkpoint(name)())
            assert self.driver.put_to_sleep(name)
            self.n_slept += 1


class Village(ExitPump):
    """Clients without a factory yet, and a chain that may go back.

    Args:
        seed: Decides in what order everything arrives.
        lsp_kind: What its LSP is like.
        n_clients: How many live there.
    """

    def __init__(self, seed: int, lsp_kind: type[PumpNode], *, n_clients: int) -> None:
        paying_clients._numbers = itertools.count(1)
        self.lsp_kind = lsp_kind
        self.dice = random.Random(f"village {seed}")
        self.traps, self.silent = {}, set()
        self.n_reorgs = self.n_paid_beside_an_exit = 0
        Pump.__init__(self, n_clients, policy=POLICY, order=seed)
        self.tamper = self.lose

    def found(self, *clients: PumpNode) -> None:
        """Build a factory with these clients, and bury its funding."""
        self.join(*clients)
        self.build()
        self.run()
        self.mine(4)


def settled(seed: int, lsp_kind: type[PumpNode], *sizes: int) -> Village:
    """Return a village with a factory of each size, whose clients are in no other."""
    village = Village(seed, lsp_kind, n_clients=sum(sizes))
    clients = iter(village.clients)
    for size in sizes:
        village.found(*itertools.islice(clients, size))
    return village


def live_through(village: Village, seed: int) -> None:
    """Let a life happen to a village, and come to rest."""
    dice = random.Random(f"life {seed}")
    acts: dict[Callable[[Village, random.Random], None], int] = {
        _come_or_go: 10,
        _pay: 10,
        _mine: 5,
        _restart: 1,
        _reorganise: 1,
    }
    leaves_at, builds_at = dice.randrange(20, N_STEPS), dice.randrange(10, N_STEPS)
    for step in range(N_STEPS):
        (act,) = dice.choices(tuple(acts), tuple(acts.values()))
        act(village, dice)
        village.run()
        if step == leaves_at:
            ask_to_leave(village, dice.choice(("client", "lsp")), dice.choice(village.clients))
        if step == builds_at:
            village.heal(village.clients[0])
            village.found(village.clients[0])
    for _ in range(2):
        for client in village.clients:
            village.heal(client)
        village.run()
        village.mine(REST_BLOCKS)
        for client in village.clients:
            village.disconnect(client)
        village.mine()


def _come_or_go(village: Village, dice: random.Random) -> None:
    client = dice.choice(village.clients)
    if client.name in village.links:
        village.disconnect(client)
    else:
        village.heal(client)


def _pay(village: Village, dice: random.Random) -> None:
    payee = dice.choice(village.clients)
    payer = dice.choice([village.lsp, *(one for one in village.clients if one is not payee)])
    request = make_invoice(village, payee, dice.randrange(700_000, 9_000_000))
    if request.payment_hash in book(payee).invoices:
        village.handle(payer, request)


def _mine(village: Village, dice: random.Random) -> None:
    village.mine(dice.randint(1, 3))


def _restart(village: Village, _dice: random.Random) -> None:
    village.restart(village.lsp)


def _reorganise(village: Village, dice: random.Random) -> None:
    village.reorganise(dice.randint(1, 3), forgets=dice.random() < 0.5)
