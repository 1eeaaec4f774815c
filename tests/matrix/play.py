"""One cell of the matrix, played to its end and judged."""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cromford.protocol import events as ev
from tests.matrix.accounts import Account, Accounts, Confirmed
from tests.matrix.market import LOW, MARKETS
from tests.matrix.scenarios import SCENARIOS
from tests.matrix.thief import Thief
from tests.matrix.world import MatrixWorld

SOON_BLOCKS: Final = 12  # A close is in a block by then, and nothing can take it back.
REST_BLOCKS: Final = 80  # Longer than any delay after a commitment.
CHUNK_BLOCKS: Final = 40
END_BLOCKS_MAX: Final = 400


@dataclass(frozen=True, kw_only=True)
class Case:
    """A cell: the scenario's name, how many clients, the market's name, and the dice."""

    scenario: str
    n_clients: int
    market: str
    seed: int = 0

    @property
    def command(self) -> str:
        """What plays it again."""
        return (
            f'python -m tests.matrix --only "{self.scenario}" --clients {self.n_clients} '
            f"--market {self.market} --seed {self.seed}"
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a cell came to.

    Attributes:
        case: Which.
        accounts: By name.
        cheaters: Who went rogue.
        losses: What must not be: who lost or won what, in words. Nothing if all is well.
        n_refused: How often consensus refused what was tried against it.
        start_height: When the cheating began.
        blocks: How long it took.
        undecided: What nobody owns alone.
        story: What confirmed, in order.
    """

    case: Case
    accounts: dict[str, Account]
    cheaters: tuple[str, ...]
    losses: tuple[str, ...]
    n_refused: int
    start_height: int
    blocks: int
    undecided: tuple[str, ...]
    story: tuple[Confirmed, ...]


def play(case: Case) -> Outcome:
    """Play a cell and judge it."""
    scenario = SCENARIOS[case.scenario]
    world = MatrixWorld(
        n_clients=case.n_clients,
        market=MARKETS[case.market],
        seed=_seed_of(case),
        has_outsider=scenario.has_outsider,
        n_states=scenario.n_states,
    )
    try:
        thief = scenario.cheat(world)
        accounts = finish(world, [node.name for node in thief.nodes])
        return judged(case, world, thief, accounts)
    finally:
        world.chain.close()


def attempt(case: Case) -> Outcome | str:
    """Play a cell, in any process; return why in words, where it broke."""
    try:
        return play(case)
    except Exception:  # noqa: BLE001 - whatever went wrong, the case replays it
        return traceback.format_exc()


def _seed_of(case: Case) -> str:
    return f"{case.seed} {case.scenario} {case.n_clients} {case.market}"


def finish(world: MatrixWorld, cheaters: Sequence[str]) -> Accounts:
    """Let time pass until everything is somebody's."""
    world.mine(SOON_BLOCKS)
    accounts = Accounts(world, cheaters)
    if accounts.is_over:
        return accounts
    world.mine_to(world.expiry_height + 1)
    _settle(world)
    end = world.chain.height + END_BLOCKS_MAX
    world.mine(REST_BLOCKS)
    accounts = Accounts(world, cheaters)
    if accounts.undecided:
        # What waits and loses nothing by it goes on once blocks are cheap again.
        world.chain.calm(LOW)
    while accounts.undecided and world.chain.height < end:
        _settle(world)
        world.mine(CHUNK_BLOCKS)
        accounts = Accounts(world, cheaters)
    return accounts


def _settle(world: MatrixWorld) -> None:
    """Let the honest end their channels that are on chain and that nobody has to leave."""
    world.dozing.clear()
    for client in world.members:
        outpoint = world.channel_outpoint(client)
        if outpoint not in world.chain.spends and outpoint.txid in world.chain.confirmed:
            node = client if client.driver is not None else world.lsp
            if node.driver is not None:
                _, end = world.ends[client.name]
                place = None if node is client else end.client
                asked = ev.ExitRequested(attempt_id=end.attempt_id, client=place)
                world.handle(node, asked)


def judged(case: Case, world: MatrixWorld, thief: Thief, accounts: Accounts) -> Outcome:
    """Compare what everybody has with what was rightly its own."""
    cheaters = tuple(node.name for node in thief.nodes)
    losses = []
    for name, account in accounts.by_name.items():
        may_lose_sat = world.at_risk_sat.get(name, 0)
        if name not in cheaters and account.gain_sat < -may_lose_sat:
            losses.append(f"{name}, honest, lost {-account.gain_sat} sat")
        fees_sat = account.fees_sat + account.anchors_sat
        if name not in cheaters and fees_sat > world.market.honest_fees_max_sat:
            losses.append(f"{name}, honest, paid {fees_sat} sat of fees")
    gained_sat = sum(accounts.by_name[name].gain_sat for name in cheaters)
    if gained_sat > sum(world.at_risk_sat.values()):
        losses.append(f"{' and '.join(cheaters)} won {gained_sat} sat by cheating")
    held_sat = sum(account.held_sat + account.fees_sat for account in accounts.by_name.values())
    loose_sat = sum(holding.amount_sat for holding in accounts.loose)
    assert held_sat + loose_sat == accounts.total_sat, "a satoshi came from nowhere"
    scenario = SCENARIOS[case.scenario]
    losses += [why for expects in thief.expectations for why in expects()]
    happened = any(one.name.startswith(scenario.happens) for one in accounts.story)
    assert happened or thief.n_refused, f"the cheating did not happen: {thief.refusals}"
    return Outcome(
        case=case,
        accounts=accounts.by_name,
        cheaters=cheaters,
        losses=tuple(losses),
        n_refused=thief.n_refused,
        start_height=world.start_height,
        blocks=world.chain.height - world.start_height,
        undecided=tuple(
            f"{one.kind} {one.outpoint} {one.amount_sat}" for one in accounts.undecided
        ),
        story=tuple(accounts.story),
    )
