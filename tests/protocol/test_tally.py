"""What is added up over factories is what a look at each of them would say, at any height."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from cromford.protocol.journal.tally import Tally

HEIGHTS = st.integers(-1, 12)
STEPS = st.one_of(
    st.tuples(st.just("funded"), st.integers(1, 5), st.integers(0, 12)),
    st.tuples(st.just("died"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("freed"), st.integers(0, 3), st.integers(1, 5)),
    st.tuples(st.just("at"), HEIGHTS, st.just(0)),
)


@dataclass
class Lent:
    lent_sat: int
    expiry_height: int
    is_dead: bool = False


@given(steps=st.lists(STEPS, max_size=30))
def test_what_is_lent_ends_with_its_factory_and_comes_back_with_a_block_that_left(
    steps: list[tuple[str, int, int]],
) -> None:
    tally, height, model = Tally(), -1, list[Lent]()
    for what, number, more in steps:
        match what:
            case "funded":
                model.append(Lent(number, expiry_height=more))
                tally = tally.funded(lent_sat=number, expiry_height=more, height=height)
            case "died" if number < len(model) and not model[number].is_dead:
                one = model[number]
                one.is_dead = True
                tally = tally.died(
                    b"%d" % number,
                    lent_sat=one.lent_sat,
                    expiry_height=one.expiry_height,
                    height=height,
                )
            case "freed" if number < len(model) and not model[number].is_dead:
                one = model[number]
                freed_sat = min(one.lent_sat, more)
                one.lent_sat -= freed_sat
                tally = tally.freed(
                    lent_sat=freed_sat, expiry_height=one.expiry_height, height=height
                )
            case "at":
                tally, height = tally.at(height=number, before=height), number
        live = [one for one in model if not one.is_dead and height < one.expiry_height]
        assert tally.lent_sat == sum(one.lent_sat for one in live)
        assert tally.n_funded == len(model)
        assert tally.dead == {b"%d" % n for n, one in enumerate(model) if one.is_dead}


def test_what_several_blocks_end_at_once_is_what_each_of_them_ends() -> None:
    tally = Tally()
    for expiry_height in range(1, 6):
        tally = tally.funded(lent_sat=10**expiry_height, expiry_height=expiry_height, height=0)
    for low in range(6):
        lent_sat = sum(10**height for height in range(low + 1, 6))
        for high in range(low, 6):
            ended_sat = sum(10**height for height in range(low + 1, high + 1))
            before = tally.at(height=low, before=0)
            assert before.lent_sat == lent_sat
            after = before.at(height=high, before=low)
            assert after.lent_sat == lent_sat - ended_sat, (low, high)
            assert after.at(height=low, before=high) == before
