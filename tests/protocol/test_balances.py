"""What a party can offer now: the largest HTLC that both machines take, and nothing above it.

Without an exposure limit, which is judged for each HTLC by itself.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.channel import specimen
from tests.channel.duet import Duet

from cromford.channel.errors import UpdateRefused
from cromford.channel.messages import UpdateAdd
from cromford.channel.rebase import reserve
from cromford.channel.state import ChannelState
from cromford.channel.terms import ChannelTerms, Party
from cromford.channel.updates import propose_add, receive_update
from cromford.protocol.channels.balances import offerable_msat
from cromford.protocol.htlc_blocks import BLOCK_SECONDS, hold_blocks

OPENER, ACCEPTER = Party.OPENER, Party.ACCEPTER
TERMS = ChannelTerms(
    feerate_per_kw=0,
    to_self_delay_opener=144,
    to_self_delay_accepter=432,
    max_accepted_htlcs=3,
    max_in_flight_msat=500_000_000,
    htlc_minimum_msat=1_000_000,
)


def ready(accepter_msat: int = 400_000_000) -> Duet:
    """Return a channel of 1,000,000 sat, of which the opener has to keep 10,000."""
    duet = Duet(terms=TERMS, accepter_msat=accepter_msat)
    duet.settle()
    return duet


def offered(*amounts_msat: int, by: Party) -> Duet:
    duet = ready()
    for number, amount_msat in enumerate(amounts_msat):
        duet.add(by, amount_msat, number)
    duet.settle()
    return duet


def with_price(price_msat: int) -> Duet:
    duet = ready()
    duet.states = {party: reserve(state, price_msat) for party, state in duet.states.items()}
    return duet


def add(state: ChannelState, amount_msat: int) -> ChannelState:
    made, _ = propose_add(
        state,
        amount_msat=amount_msat,
        payment_hash=specimen.payment_hash(9),
        cltv_expiry=900_000,
    )
    return made


@pytest.mark.parametrize(
    ("make", "party", "most_msat"),
    [
        pytest.param(ready, OPENER, 500_000_000, id="what may be in flight"),
        pytest.param(ready, ACCEPTER, 400_000_000, id="its balance"),
        pytest.param(lambda: ready(500_000_000), OPENER, 490_000_000, id="without the reserve"),
        pytest.param(lambda: ready(988_999_999), OPENER, 1_000_001, id="above the least"),
        pytest.param(lambda: ready(989_000_000), OPENER, 1_000_000, id="the least"),
        pytest.param(lambda: ready(989_000_001), OPENER, 0, id="below the least"),
        pytest.param(lambda: ready(0), ACCEPTER, 0, id="nothing"),
        pytest.param(lambda: with_price(7_000_000), ACCEPTER, 393_000_000, id="without a price"),
        pytest.param(lambda: with_price(7_000_000), OPENER, 500_000_000, id="the other's price"),
        pytest.param(
            lambda: offered(100_000_000, by=OPENER), OPENER, 400_000_000, id="beside one in flight"
        ),
        pytest.param(
            lambda: offered(100_000_000, by=OPENER), ACCEPTER, 400_000_000, id="the other's flight"
        ),
        pytest.param(
            lambda: offered(2_000_000, 3_000_000, by=ACCEPTER), ACCEPTER, 395_000_000, id="a third"
        ),
        pytest.param(lambda: offered(*[2_000_000] * 3, by=ACCEPTER), ACCEPTER, 0, id="a fourth"),
        pytest.param(
            lambda: offered(*[2_000_000] * 3, by=ACCEPTER), OPENER, 500_000_000, id="their third"
        ),
    ],
)
def test_the_largest_htlc_is_taken_and_none_that_is_larger(
    make: Callable[[], Duet], party: Party, most_msat: int
) -> None:
    states = make().states
    for state in states.values():
        assert offerable_msat(state, party) == most_msat, f"as {state.me.name} sees it"
    if most_msat:
        taken = add(states[party], most_msat)
        message = taken.unacked[-1]
        assert isinstance(message, UpdateAdd)
        receive_update(states[party.other], message)
    with pytest.raises(UpdateRefused):
        add(states[party], most_msat + 1 if most_msat else TERMS.htlc_minimum_msat)


def test_who_has_its_balance_in_flight_can_offer_it_again_when_it_came_back() -> None:
    duet = offered(400_000_000, by=ACCEPTER)
    assert offerable_msat(duet.states[ACCEPTER], ACCEPTER) == 0
    duet.fail(OPENER, duet.answerable(OPENER)[0])
    duet.settle()
    assert offerable_msat(duet.states[ACCEPTER], ACCEPTER) == 400_000_000
    limited = replace(TERMS, max_in_flight_msat=399_999_999)
    assert offerable_msat(replace(duet.states[ACCEPTER], terms=limited), ACCEPTER) == 399_999_999


@pytest.mark.parametrize(
    ("seconds", "blocks"),
    [
        (0, 0),
        (1, 1),
        (BLOCK_SECONDS - 1, 1),
        (BLOCK_SECONDS, 1),
        (BLOCK_SECONDS + 1, 2),
        (3_600, 6),
    ],
)
def test_a_hold_is_as_many_blocks_as_may_begin_meanwhile(seconds: int, blocks: int) -> None:
    """One more would only cost; one less, and a payment that waits its time comes too late."""
    assert hold_blocks(seconds) == blocks
