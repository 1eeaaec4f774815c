"""For how many blocks everybody was here: kept as of who came or went last, and told as of now."""

from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.pump import Pump

from cromford.bitcoin.tx import Txid
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal.house import House
from cromford.protocol.journal.house_fold import apply_to_house
from cromford.protocol.journal.mail import Found
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.pause import FORGET_EVERY_BLOCKS, UPTIME_WINDOW_BLOCKS
from cromford.protocol.journal.streams import CHAIN
from cromford.protocol.lobby import lsp as lobby
from cromford.protocol.turn import Turn

NAMES = [b"\2" + bytes([n]) * 32 for n in range(3)]
LONG = UPTIME_WINDOW_BLOCKS + FORGET_EVERY_BLOCKS
WINDOW = (1 << UPTIME_WINDOW_BLOCKS) - 1
HOUSE = Pump(0).lsp.state.house


def after_block(house: House) -> House:
    number = house.post.taken.get(CHAIN, 0) + 1
    height = house.chain.height + 1
    found = Found(height=height, block_hash=Txid(height.to_bytes(32, "big")), txs=())
    return apply_to_house(house, MailTaken(sender=CHAIN, number=number, mail=found))


steps = st.lists(
    st.tuples(
        st.frozensets(st.sampled_from(NAMES)),  # who is here from now on
        st.frozensets(st.sampled_from(NAMES), max_size=1),  # who spoils a ceremony then
        st.integers(0, 20) | st.sampled_from([FORGET_EVERY_BLOCKS, UPTIME_WINDOW_BLOCKS - 1]),
    ),
    max_size=6,
)


@given(steps)
def test_it_is_what_counting_everybody_at_each_block_gives(
    told: list[tuple[frozenset[bytes], frozenset[bytes], int]],
) -> None:
    house, counted = HOUSE, dict.fromkeys(NAMES, 0)
    for here, spoilers, n_blocks in told:
        came, went = here - house.present, house.present - here
        house = apply_to_house(house, lr.Attendance(came=tuple(came), went=tuple(went)))
        house = apply_to_house(house, lr.RejoinMissed(node_ids=tuple(spoilers)))
        counted |= dict.fromkeys(spoilers, 0)
        for _ in range(n_blocks):
            house = after_block(house)
            counted = {
                name: (seen << 1 | (name in here)) & WINDOW for name, seen in counted.items()
            }
        assert {name: house.seen_in(name) for name in NAMES} == counted


def test_whoever_is_away_for_the_whole_window_leaves_nothing() -> None:
    house = apply_to_house(HOUSE, lr.Attendance(came=(NAMES[0],), went=()))
    house = apply_to_house(after_block(house), lr.Attendance(came=(), went=(NAMES[0],)))
    assert house.uptime_blocks(NAMES[0]) == 1
    for _ in range(LONG):
        house = after_block(house)
    assert not house.uptime
    assert not house.uptime_at


def test_a_block_asks_nobody_while_nobody_comes_or_goes() -> None:
    pump = Pump(2)
    pump.join()
    pump.mine()
    house = pump.lsp.state.house
    assert not house.is_stirred
    assert pump.clients[0].node_id in house.present
    quiet = Turn(house, apply_to_house, pump.lsp.facts)
    lobby.note_attendance(quiet)
    assert quiet.decision.is_nothing
    pump.disconnect(pump.clients[0])
    assert pump.lsp.state.house.is_stirred
    pump.mine()
    assert pump.clients[0].node_id not in pump.lsp.state.house.present
