"""A factory on a bad day that ends on chain: states to leave from, ways to leave, reorganisations.

One seed decides what is pending where, which messages are lost, who leaves and who is away.
"""

import itertools
import random
from dataclasses import dataclass, replace
from typing import Any, Final

from tests.protocol import paying_clients
from tests.protocol.paying_clients import book, lsp_link, make_invoice, newest_link, open_factory
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.shoppers import ask_price, buy_what_is_quoted
from tests.simulation.sim_node import SimNode

from cromford import effects as fx
from cromford.factory.kinds import VertexKind
from cromford.protocol import events as ev
from cromford.protocol.journal.link import Link
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m

POLICY: Final = LspPolicy(
    min_clients=1,
    min_depth=1,
    step_blocks=4,
    states_per_layer=2,
    lstock_csv_blocks=4,
    to_self_delay_lsp=4,
    to_self_delay_client=5,
)
INNER_KINDS: Final = (None, *VertexKind)
REORG_BLOCKS_MAX: Final = 4  # Below the depth at which a role believes the chain.
HALF: Final = 0.5
DISTURBED_RATE: Final = 0.25  # Of payments beside an exit.
NAP_RATE: Final = 0.3  # Of accidents.
NAP_BLOCKS_MAX: Final = 6  # A fraction of what there is to claim an HTLC in.
PAYMENTS_MAX: Final = 8
TRADING_BLOCKS: Final = 60  # Longer than an exit takes: neighbours pay before and after it.
TRIMMED_MSAT: Final = (1_000, 700_000)
WORTH_MSAT: Final = (3_000_000, 9_000_000)  # Each is worth an exit by itself.
SELLING_STATES: Final = 4
SOLD_SAT: Final = (10_000, 30_000)
CUT_RATE: Final = 0.7
ADVANCE_LOSSES: Final = (
    m.AdvanceAgree,
    m.AdvanceCommit,
    m.AdvanceSign,
    m.AdvanceDone,
    m.AdvanceHeld,
    m.UpdateRebase,
    m.RevokeAndAck,
    m.CommitmentSigned,
)
LOSSES: Final = (m.UpdateAddHtlc, m.CommitmentSigned, m.RevokeAndAck, m.UpdateFulfillHtlc)
# What happens before a payment: nothing, the payee goes, its answer is lost, or the LSP's to the
# payer is; any message is lost; a process dies; a connection is good again. How often each.
DISTURBANCES: Final = {
    "none": 1,
    "away": 1,
    "unheard": 3,
    "unpaid": 3,
    "lost": 4,
    "restart": 1,
    "heal": 1,
}
LEAVERS: Final = ("client", "lsp", "both", "nobody")


class ExitPump(Pump):
    """A pump whose messages are lost from a chosen one on, and whose chain may go back."""

    def __init__(
        self, seed: int, *, n_clients: int, sells: bool = False, policy: LspPolicy = POLICY
    ) -> None:
        # Payment hashes are the same in every run: whatever is sorted by them comes out alike.
        paying_clients._numbers = itertools.count(1)
        self.dice = random.Random(f"exits {seed}")
        self.traps: dict[tuple[str, str], tuple[type[m.Message], int]] = {}
        self.silent: set[tuple[str, str]] = set()
        self.n_reorgs = 0
        self.n_paid_beside_an_exit = 0
        policy = replace(policy, inner_kind=INNER_KINDS[seed % len(INNER_KINDS)])
        if sells:
            policy = replace(policy, states_per_layer=SELLING_STATES)
        super().__init__(n_clients, policy=policy, order=seed)
        self.tamper = self.lose
        open_factory(self)
        self.mine(REORG_BLOCKS_MAX)  # The funding stays where it is.

    def lose(
        self, sender: PumpNode, receiver: PumpNode, message: m.Message
    ) -> tuple[m.Message, ...]:
        """Lose a message that is trapped, and all that follows it on its way."""
        route = (sender.name, receiver.name)
        trap = self.traps.get(route)
        if trap is not None and isinstance(message, trap[0]):
            self.traps[route] = (trap[0], trap[1] - 1)
            if trap[1] == 0:
                del self.traps[route]
                self.silent.add(route)
        return () if route in self.silent else (message,)

    def trap(
        self, sender: PumpNode, receiver: PumpNode, lost: type[m.Message], *, n_before: int = 0
    ) -> None:
        """Lose a message of this type, and all that follows it, once so many passed."""
        self.traps[sender.name, receiver.name] = (lost, n_before)

    def handle_any(self, node: SimNode, event: ev.Event) -> None:
        """Let a node handle an event."""
        assert isinstance(node, PumpNode)
        self.handle(node, event)

    def heal(self, client: PumpNode) -> None:
        """Let a client have a connection on which everything arrives."""
        for route in ((client.name, self.lsp.name), (self.lsp.name, client.name)):
            self.silent.discard(route)
            self.traps.pop(route, None)
        self.disconnect(client)
        if client.driver is not None and self.lsp.driver is not None:
            self.connect(client)

    def connect(self, client: PumpNode) -> None:
        if client.driver is not None and self.lsp.driver is not None:
            super().connect(client)

    def stop(self, node: PumpNode) -> None:
        """Stop a process, until it is told to start."""
        for client in self.clients if node is self.lsp else [node]:
            self.disconnect(client)
        node.die()

    def wake(self, node: PumpNode) -> None:
        """Start a process again, and let it connect."""
        node.fuse = None
        if node.driver is None:
            node.start()
        for client in self.clients if node is self.lsp else [node]:
            self.heal(client)

    def sync(self) -> None:
        """Let everybody see the chain as it is now, in any order."""
        nodes = [self.lsp, *self.clients]
        if hasattr(self, "dice"):
            self.dice.shuffle(nodes)
        for node in nodes:
            while node.driver is not None and not self._is_on_chain(node):
                self.handle(node, ev.BlockRemoved(height=node.state.chain.height))
        for node in nodes:
            while node.driver is not None and node.state.chain.height < self.chain.height:
                height = node.state.chain.height + 1
                block_hash, txs = self.chain.blocks[height]
                event = ev.BlockAdded(height=height, block_hash=block_hash, txs=node.relevant(txs))
                self.handle(node, event)

    def _is_on_chain(self, node: PumpNode) -> bool:
        recent = node.state.chain.recent
        if not recent:
            return True
        height = recent[-1].height
        is_known = height <= self.chain.height
        return is_known and bool(self.chain.blocks[height][0] == recent[-1].block_hash)

    def reorganise(self, n_blocks: int, *, forgets: bool) -> None:
        """Replace the last blocks by one more, in which others may come first.

        Args:
            n_blocks: How many leave.
            forgets: Whether their transactions have to be published again.
        """
        self.n_reorgs += 1
        self.chain.remove_tip(n_blocks)
        if forgets:
            self.chain.mempool.clear()
        self.mine(n_blocks + 1)


@dataclass(frozen=True, kw_only=True)
class Story:
    """How one seed goes.

    Attributes:
        leavers: Who asks for the exit.
        client: Whose channel.
        gone: Who dies as it begins, and comes back when all is over.
        accidents: How often, per block, a process dies and starts again, at once or at its next
            steps, or a connection is good again.
        reorgs: How often blocks are replaced, per block.
        trades: How often somebody pays while others leave, per block.
    """

    leavers: str
    client: int
    gone: str | None
    accidents: float
    reorgs: float
    trades: float


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A story that is over, and where it happened."""

    pump: ExitPump
    story: Story


def play(seed: int, *, reorgs: bool = False, sells: bool = False) -> Ended:
    """Play one seed until everything on chain is taken, and everything off it is answered.

    Args:
        seed: The seed.
        reorgs: Whether blocks may be replaced.
        sells: Whether liquidity is bought before, and payments go on beside a purchase.
    """
    dice = random.Random(f"story {seed}")
    pump = ExitPump(seed, n_clients=dice.randint(2, 4), sells=sells)
    _give_everybody_something(pump, dice)
    if sells:
        _sell(pump, dice)
    _trade(pump, dice)
    story = Story(
        leavers=dice.choice(LEAVERS),
        client=dice.randrange(len(pump.clients)),
        gone=dice.choice([None, None, None, "lsp", *(one.name for one in pump.clients)]),
        accidents=dice.choice((0.0, 0.0, 0.1)),
        reorgs=0.06 if reorgs else 0.0,
        trades=dice.choice((0.0, 0.3, 0.7)),
    )
    return live_through(pump, story, dice)


def live_through(pump: ExitPump, story: Story, dice: random.Random) -> Ended:
    """Let a story happen to whatever is pending, to its end."""
    _leave(pump, story)
    _pass_time(pump, story, dice)
    _come_to_rest(pump)
    return Ended(pump=pump, story=story)


def _give_everybody_something(pump: ExitPump, dice: random.Random) -> None:
    for client in pump.clients:
        amount_msat = dice.randrange(25_000_000, 45_000_000)
        pump.handle(pump.lsp, make_invoice(pump, client, amount_msat))
    pump.run()


def _trade(pump: ExitPump, dice: random.Random) -> None:
    """Let some pay while messages are lost, connections break and processes die."""
    for _ in range(dice.randint(1, PAYMENTS_MAX)):
        payee = dice.choice(pump.clients)
        payer = dice.choice([pump.lsp, *(one for one in pump.clients if one is not payee)])
        request = make_invoice(pump, payee, dice.randrange(*_range(dice)))
        if request.payment_hash not in book(payee).invoices:
            continue
        _disturb(pump, dice, payer, payee)
        pump.handle(payer, request)
        if dice.random() < 0.8:
            pump.run()
    if dice.random() < HALF:
        pump.run()
    else:
        budget = iter(range(dice.randint(0, 12)))
        pump.run(until=lambda: next(budget, None) is None)


def _sell(pump: ExitPump, dice: random.Random) -> None:
    """Let some buy; the last purchase stops anywhere, its messages lost from there on."""
    for place in range(n_sales := dice.randint(1, SELLING_STATES - 1)):
        buyer = dice.choice(pump.clients)
        ask_price(pump.handle_any, buyer, dice.randrange(*SOLD_SAT))
        pump.run()
        buy_what_is_quoted(pump.handle_any, buyer)
        if place == n_sales - 1 and dice.random() < CUT_RATE:
            client = dice.choice(pump.clients)
            route = dice.choice(((client, pump.lsp), (pump.lsp, client)))
            pump.trap(*route, dice.choice(ADVANCE_LOSSES))
        pump.run()


def _range(dice: random.Random) -> tuple[int, int]:
    return TRIMMED_MSAT if dice.random() < 0.25 else WORTH_MSAT


def _disturb(pump: ExitPump, dice: random.Random, payer: PumpNode, payee: PumpNode) -> None:
    client = dice.choice([one for one in (payer, payee) if one is not pump.lsp])
    (what,) = dice.choices(tuple(DISTURBANCES), tuple(DISTURBANCES.values()))
    match what:
        case "away":
            pump.disconnect(payee)
        case "unheard":
            pump.trap(payee, pump.lsp, m.UpdateFulfillHtlc)
        case "unpaid" if payer is not pump.lsp:
            pump.trap(pump.lsp, payer, m.UpdateFulfillHtlc)
        case "lost":
            route = dice.choice(((client, pump.lsp), (pump.lsp, client)))
            pump.trap(*route, dice.choice(LOSSES), n_before=dice.randint(0, 2))
        case "restart":
            pump.restart(dice.choice((pump.lsp, *pump.clients)))
        case "heal":
            pump.heal(dice.choice(pump.clients))


def ask_to_leave(pump: ExitPump, leavers: str, client: PumpNode) -> None:
    """Let one side of a client's channel, or both, or nobody wish to be on chain."""
    link = newest_link(client)
    if leavers in ("client", "both"):
        pump.handle(client, ev.ExitRequested(attempt_id=link.attempt_id))
    if leavers in ("lsp", "both"):
        asked = ev.ExitRequested(attempt_id=link.attempt_id, client=link.client)
        pump.handle(pump.lsp, asked)


def _leave(pump: ExitPump, story: Story) -> None:
    ask_to_leave(pump, story.leavers, pump.clients[story.client])
    for node in (pump.lsp, *pump.clients):
        if node.name == story.gone:
            pump.stop(node)
    pump.run()


def _pass_time(pump: ExitPump, story: Story, dice: random.Random) -> None:
    """Mine until every HTLC has expired, and what came of it is claimed and deep enough.

    For a while some go on paying, whoever leaves.
    """
    trading_end = pump.chain.height + TRADING_BLOCKS
    end = trading_end
    asleep: tuple[PumpNode, int] | None = None
    while pump.chain.height < end:
        if pump.chain.height < trading_end:
            if dice.random() < story.trades:
                _pay_somebody(pump, dice)
            end = _last_expiry(pump) + max(link.exit_blocks for link in all_links(pump)) + 40
        if asleep is not None and pump.chain.height >= asleep[1]:
            pump.wake(asleep[0])
            asleep = None
        alive = [node for node in (pump.lsp, *pump.clients) if node.driver is not None]
        if alive and dice.random() < story.accidents:
            node = dice.choice(alive)
            if asleep is None and dice.random() < NAP_RATE:
                asleep = (node, pump.chain.height + dice.randint(1, NAP_BLOCKS_MAX))
                pump.stop(node)
            else:
                _have_an_accident(pump, node, dice)
        if dice.random() < story.reorgs:
            pump.reorganise(dice.randint(1, REORG_BLOCKS_MAX), forgets=dice.random() < HALF)
        pump.mine()


def _pay_somebody(pump: ExitPump, dice: random.Random) -> None:
    """Let one who is awake pay another, if both may; messages may be lost."""
    awake = [node for node in (pump.lsp, *pump.clients) if node.driver is not None]
    payees = [node for node in awake if node is not pump.lsp]
    if len(awake) < 2 or not payees:
        return
    payee = dice.choice(payees)
    payer = dice.choice([node for node in awake if node is not payee])
    for client in (payer, payee):
        if client is not pump.lsp and dice.random() < HALF:
            pump.heal(client)
    request = make_invoice(pump, payee, dice.randrange(*_range(dice)))
    if request.payment_hash not in book(payee).invoices:
        return
    if dice.random() < DISTURBED_RATE:
        _disturb(pump, dice, payer, payee)
    pump.handle(payer, request)
    pump.run()
    payment = book(payer).payments.get(request.payment_hash)
    root_txid = newest_link(payee).path[0].txid
    if payment is not None and payment.status == "paid" and root_txid in pump.chain.confirmed:
        pump.n_paid_beside_an_exit += 1


def _have_an_accident(pump: ExitPump, node: PumpNode, dice: random.Random) -> None:
    match dice.choice(("restart", "fuse", "fuse", "heal")):
        case "restart":
            pump.restart(node)
        case "fuse":
            node.fuse = dice.randint(1, 8)
        case "heal" if node is not pump.lsp and dice.random() < 0.2:
            pump.heal(node)


def _last_expiry(pump: ExitPump) -> int:
    expiries = [live.htlc.cltv_expiry for link in all_links(pump) for live in link.state.htlcs]
    return max(expiries, default=pump.chain.height)


def all_links(pump: ExitPump) -> list[Link]:
    """Return everybody's ends of all channels, as their journals have them."""
    nodes: list[Any] = [pump.lsp, *pump.clients]
    return [link for node in nodes for link in node.durable_state().book.links.values()]


def _come_to_rest(pump: ExitPump) -> None:
    """Let everybody come back, hear everything, and take what is still theirs."""
    for node in (*pump.clients, pump.lsp):
        pump.wake(node)
    pump.mine()
    for owner, deadline in pump.deadlines_of(fx.HoldDeadline):
        pump.pass_deadline(owner, deadline)
    pump.run()
    # Whoever comes back late may still have to leave, and to wait for its delay.
    pump.mine(max(link.exit_blocks for link in all_links(pump)) + 30)


def ends_of(pump: ExitPump, client: PumpNode) -> tuple[Link, Link]:
    """Return the LSP's and a client's end of the client's channel."""
    link = newest_link(client)
    return lsp_link(pump, link), link
