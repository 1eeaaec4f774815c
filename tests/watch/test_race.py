"""The newest state wins, whoever sleeps: for all numbers of states, steps and heights."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factory.test_inner_advance import Vertices, histories, path_to
from tests.factory.test_leaf import buy, one_leaf
from tests.watch.test_exit import delay_of

from cromford.bitcoin.timelock import DELAY_BLOCKS_MAX
from cromford.factory.odometer import Odometer
from cromford.factory.tree import Tree
from cromford.watch.race import Race, first_difference, first_height, race_of
from cromford.watch.schedule import MARGIN_BLOCKS, state_deadline_height

ON_CHAIN_LOOK = 6


@dataclass(frozen=True)
class Drawn:
    """A race, and the index of the state that was replaced in it."""

    odometer: Odometer
    replaced: int
    race: Race


@st.composite
def races(draw: st.DrawFn, step_max: int = DELAY_BLOCKS_MAX) -> Drawn:
    states_per_layer = draw(st.one_of(st.integers(2, 8), st.integers(2, 200)))
    most = min(step_max, DELAY_BLOCKS_MAX // (states_per_layer - 1))
    step_blocks = draw(st.one_of(st.integers(1, min(12, most)), st.integers(1, most)))
    odometer = Odometer(states_per_layer=states_per_layer, step_blocks=step_blocks)
    replaced = draw(st.integers(0, states_per_layer - 2))
    return Drawn(
        odometer,
        replaced,
        Race(
            kickoff_height=draw(st.integers(1, 900_000)),
            delay_blocks=odometer.delay_blocks(replaced + 1),
            step_blocks=step_blocks,
        ),
    )


@given(drawn=races())
def test_each_state_can_confirm_a_step_before_the_one_it_replaced(drawn: Drawn) -> None:
    """By BIP 68 alone; whoever waits for the kickoff loses one block of it at the last index."""
    race, odometer = drawn.race, drawn.odometer
    old_delay = odometer.delay_blocks(drawn.replaced)
    assert race.rival_height == race.kickoff_height + old_delay
    assert race.rival_height - (race.kickoff_height + race.delay_blocks) == race.step_blocks
    is_last = drawn.replaced + 1 == odometer.states_per_layer - 1
    assert race.rival_height - race.first_height == race.step_blocks - is_last
    for older in range(drawn.replaced):
        assert race.kickoff_height + odometer.delay_blocks(older) >= (
            race.rival_height + race.step_blocks
        )


@st.composite
def looks(draw: st.DrawFn, race: Race, look_blocks: int) -> list[int]:
    """Draw the tips at which somebody looks: at least that often, and often once it has begun."""
    often = min(look_blocks, ON_CHAIN_LOOK)
    tip = race.kickoff_height + draw(st.integers(0, look_blocks - 1))
    looked = [tip]
    # However it looked until then, it may look at any of these next.
    tip = max(tip, race.first_height - 2 * often)
    while tip < race.first_height:
        tip += draw(st.integers(1, often))
        looked.append(tip)
    return looked


def published_at(race: Race, looked: list[int]) -> int:
    """Return the first look at which the next block can hold the newest state."""
    return next(tip for tip in looked if tip + 1 >= race.kickoff_height + max(race.delay_blocks, 1))


@settings(max_examples=200)
@given(drawn=races(step_max=80), data=st.data())
def test_whoever_sleeps_the_newest_state_is_out_half_a_step_before_the_old_one_may_be_mined(
    drawn: Drawn, data: st.DataObject
) -> None:
    """An LSP looks every quarter of a step, a client every half; any one of them is enough."""
    race, step_blocks = drawn.race, drawn.race.step_blocks
    lsp_look, client_look = max(1, step_blocks // 4), max(1, step_blocks // 2)
    lsp_is_awake = data.draw(st.booleans())
    n_clients = data.draw(st.integers(0 if lsp_is_awake else 1, 3))
    awake = [lsp_look] * lsp_is_awake + [client_look] * n_clients

    published = min(published_at(race, data.draw(looks(race, look))) for look in awake)
    assert published <= race.published_height(min(awake))
    n_blocks = race.rival_height - 1 - published
    assert n_blocks >= race.blocks_to_win(min(awake)) >= step_blocks - min(awake)
    assert race.blocks_to_win(client_look) >= step_blocks // 2 or step_blocks == 1
    # Each of those blocks may hold the newest, and none of them the old one (BIP 68).
    for height in (published + 1, race.rival_height - 1):
        if n_blocks:
            assert height - race.kickoff_height >= race.delay_blocks
            assert height - race.kickoff_height < race.delay_blocks + step_blocks


@settings(max_examples=50)
@given(drawn=races(step_max=20), look_blocks=st.integers(1, 20))
def test_the_worst_look_is_as_late_as_is_said_and_no_later(drawn: Drawn, look_blocks: int) -> None:
    """All ways of looking, by brute force over where the looks before and after the kickoff are."""
    race = drawn.race
    often = min(look_blocks, ON_CHAIN_LOOK)
    worst = 0
    for phase in range(look_blocks):
        for gap in range(1, often + 1):
            for first_gap in range(1, often + 1):
                first = race.kickoff_height + phase
                looked = [first, *range(first + first_gap, race.rival_height + 2 * often, gap)]
                if looked[-1] + 1 >= race.first_height:
                    worst = max(worst, published_at(race, looked))
    assert worst == race.published_height(look_blocks)


def test_the_default_numbers() -> None:
    """A step of 144: an LSP that looks every 36 blocks, a client every 72."""
    for delay_blocks, lsp_blocks, client_blocks in ((0, 108, 72), (144, 139, 139), (288, 139, 139)):
        race = Race(kickoff_height=1_000, delay_blocks=delay_blocks, step_blocks=144)
        assert race.blocks_to_win(36) == lsp_blocks
        assert race.blocks_to_win(72) == client_blocks
        assert race.first_height == 1_000 + max(delay_blocks, 1)
        assert race.rival_height == 1_144 + delay_blocks


def test_a_step_of_one_block_leaves_none_at_the_last_index() -> None:
    """The newest may be in the kickoff's own block; whoever waits for that comes with the old."""
    last = Race(kickoff_height=1_000, delay_blocks=0, step_blocks=1)
    assert last.first_height == last.rival_height == 1_001
    assert last.blocks_to_win(1) == 0
    assert Race(kickoff_height=1_000, delay_blocks=1, step_blocks=1).blocks_to_win(1) == 1
    assert Race(kickoff_height=1_000, delay_blocks=0, step_blocks=2).blocks_to_win(1) == 1


def test_a_childs_first_block_is_the_next_or_that_of_its_delay() -> None:
    assert [first_height(100, delay) for delay in (0, 1, 2, 144)] == [101, 101, 102, 244]


# Whole paths


@settings(max_examples=30)
@given(history=histories(), height=st.integers(1, 900_000), data=st.data())
def test_the_first_difference_of_two_readings_decides_and_the_newer_wins_it_by_a_step(
    history: tuple[Tree, list[Vertices], list[tuple[int, ...]]], height: int, data: st.DataObject
) -> None:
    """Whatever was advanced between them: leaves, inner states, both, any number of times."""
    tree, steps, paths = history
    older = data.draw(st.integers(0, len(steps) - 2))
    newer = data.draw(st.integers(older + 1, len(steps) - 1))
    path = data.draw(st.sampled_from(paths[older:newer]))
    shape = next(v.first.shape for v in steps[0] if v.first.shape.path == path)
    client = data.draw(st.sampled_from(shape.clients))
    before, after = path_to(steps[older], client), path_to(steps[newer], client)
    differing = first_difference(before, after)
    assert differing is not None
    old, new = differing
    assert old.tx.inputs[0].outpoint == new.tx.inputs[0].outpoint, "one kickoff"
    step_blocks = tree.terms.step_blocks
    assert (delay_of(old.tx) - delay_of(new.tx)) % step_blocks == 0
    assert delay_of(old.tx) - delay_of(new.tx) >= step_blocks
    race = race_of(new, kickoff_height=height, step_blocks=step_blocks)
    assert race is not None
    assert height + delay_of(new.tx) + step_blocks == race.rival_height
    assert race.rival_height <= height + delay_of(old.tx)

    place = [vertex.last.shape.path for vertex in before].index(old.shape.path)
    above = [(v.first.tx.txid, v.last.tx.txid) for v in before[:place]]
    assert above == [(v.first.tx.txid, v.last.tx.txid) for v in after[:place]]
    below = {node.tx.txid for vertex in after[place + 1 :] for node in vertex.nodes}
    dead = {node.tx.txid for vertex in before[place + 1 :] for node in vertex.nodes}
    assert below.isdisjoint(dead), "what hangs from the loser hangs from nothing"


@settings(max_examples=30)
@given(history=histories(), data=st.data())
def test_without_an_advance_on_its_path_a_client_has_no_race(
    history: tuple[Tree, list[Vertices], list[tuple[int, ...]]], data: st.DataObject
) -> None:
    tree, steps, paths = history
    client = data.draw(st.integers(1, tree.terms.n_clients))
    before, after = path_to(steps[0], client), path_to(steps[-1], client)
    own = {vertex.first.shape.path for vertex in before}
    assert (first_difference(before, after) is None) is own.isdisjoint(paths)
    for vertex in before:
        race = race_of(vertex.last, kickoff_height=5, step_blocks=tree.terms.step_blocks)
        assert race is None, "nothing older exists"
        deadline = state_deadline_height(
            vertex.last, kickoff_height=5, step_blocks=tree.terms.step_blocks
        )
        assert deadline is None


def test_a_raced_state_hurries_until_six_blocks_before_its_rival() -> None:
    leaf = buy(one_leaf([100_000], 50_000), 1, 10_000)
    first, second = leaf.states
    assert state_deadline_height(first, kickoff_height=1_000, step_blocks=144) is None
    race = race_of(second, kickoff_height=1_000, step_blocks=144)
    assert race == Race(kickoff_height=1_000, delay_blocks=288, step_blocks=144)
    assert race.rival_height == 1_000 + delay_of(first.tx)
    deadline = state_deadline_height(second, kickoff_height=1_000, step_blocks=144)
    assert deadline == race.rival_height - MARGIN_BLOCKS == 1_426
