"""Which part of a factory an LSP's policy closes next, by who is here and what is on chain."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import pytest
from immutables import Map
from tests.protocol.decisions import in_factory, remembered
from tests.protocol.five_seats import ALL, holding, known, spent_by, split, tx_of, whole, with_block
from tests.protocol.test_close_limits import spend_of

from cromford.bitcoin.tx import OutPoint
from cromford.protocol.closing.by_policy import close_what_can_be, waits_for_clients
from cromford.protocol.dying_steps import Closers
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.closes import FinishedClose
from cromford.protocol.journal.closing import Closing, EndedClose
from cromford.protocol.journal.factory import Factory

OTHER: Final = b"\x09" * 32
NOBODY, LSP, EVERYBODY = Closers.NOBODY, Closers.LSP, Closers.EVERYBODY


def begun(factory: Factory, closers: Closers, here: Iterable[int] = ALL) -> tuple[int, ...]:
    """Return the clients of the part of which a close is begun; nobody, if none is."""
    turn = in_factory(factory, known=known(here))
    close_what_can_be(turn, closers)
    records = remembered(turn, cl.CloseBegun)
    assert len(records) <= 1
    return records[0].clients if records else ()


def ended(factory: Factory, vertex: str) -> Factory:
    """Return the factory where the newest close came to nothing, which was of a vertex."""
    close = EndedClose(close_id=OTHER, reason="no", outpoint=spent_by(vertex))
    return replace(factory, close_ended=close)


def test_all_of_it_is_closed_while_its_root_is_not_spent() -> None:
    assert begun(whole(), EVERYBODY) == ALL
    assert begun(holding(whole(), *ALL), LSP, here=()) == ALL


def test_nothing_is_closed_where_nobody_may_be_asked_or_a_close_is_under_way() -> None:
    outpoint = spent_by("static_root")
    closing = Closing(close_id=OTHER, outpoint=outpoint, clients=ALL, feerates_sat_per_kw=(1_000,))
    assert begun(whole(), NOBODY) == begun(holding(whole(), *ALL), NOBODY) == ()
    assert begun(replace(split(), closing=closing), EVERYBODY) == ()


def test_the_largest_part_whose_clients_are_here_goes_first() -> None:
    assert begun(split(), EVERYBODY) == (1, 2)
    assert begun(split(), EVERYBODY, here=(2, 3, 4, 5)) == (3, 4)
    assert begun(split(), EVERYBODY, here=(2, 4, 5)) == (5,)
    assert begun(split(), EVERYBODY, here=(2, 4)) == ()


def test_the_lsp_alone_closes_what_it_signs_all_of_and_nothing_else() -> None:
    """Who is here is not asked, though it would make a larger part."""
    assert begun(holding(split(), 1, 3, 4), LSP) == (3, 4)
    assert begun(holding(split(), 1, 3), LSP) == ()
    assert begun(holding(split(), 5), LSP, here=()) == (5,)


def test_whoever_moved_out_need_not_be_here() -> None:
    assert begun(holding(split(), 1), EVERYBODY, here=(2,)) == (1, 2)


def test_a_channel_on_chain_is_a_part_of_its_own() -> None:
    landed = with_block(split(), tx_of("kickoff_0"), tx_of("state_0"))
    assert begun(landed, EVERYBODY, here=(1, 2)) == (1,)
    assert begun(landed, EVERYBODY, here=(2,)) == (2,)
    assert begun(landed, EVERYBODY) == (3, 4), "a whole leaf is larger"


@pytest.mark.parametrize(
    ("vertex", "following"), [("kickoff_0", (3, 4)), ("kickoff_1", (5,)), ("kickoff_2", (1, 2))]
)
def test_after_a_close_that_came_to_nothing_the_next_part_goes_first(
    vertex: str, following: tuple[int, ...]
) -> None:
    assert begun(ended(split(), vertex), EVERYBODY) == following


def test_what_came_to_nothing_is_asked_for_again_where_no_other_part_can_be_closed() -> None:
    assert begun(ended(split(), "kickoff_0"), EVERYBODY, here=(1, 2)) == (1, 2)


def finished(factory: Factory, outpoint: OutPoint) -> Factory:
    close = FinishedClose(close_id=OTHER, outpoint=outpoint, txs=(spend_of(outpoint, 1_000),))
    return replace(factory, closed=Map({OTHER: close}))


def test_a_part_is_closed_once_also_where_something_else_took_its_coin() -> None:
    """Whoever published against the close that it signed is leaving, and is not asked again."""
    kicked_off = with_block(finished(split(), spent_by("kickoff_0")), tx_of("kickoff_0"))
    assert begun(kicked_off, EVERYBODY) == (3, 4)
    landed = with_block(kicked_off, tx_of("state_0"))
    assert begun(landed, EVERYBODY, here=(1, 2)) == (1,)
    channel = landed.funding_on_chain(1).outpoint
    assert begun(finished(landed, channel), EVERYBODY, here=(1, 2)) == (2,)


def test_what_is_no_part_any_more_has_no_next_one() -> None:
    """A root of which a close was finished and lost its coin, and one that came to nothing."""
    lost = finished(split(), spent_by("static_root"))
    assert begun(lost, EVERYBODY) == begun(ended(lost, "static_root"), EVERYBODY) == (1, 2)


@pytest.mark.parametrize(("blocks", "part"), [(-1, (1, 2)), (0, ()), (1, ())])
def test_from_the_expiry_on_the_tree_itself_is_swept_and_not_closed(
    blocks: int, part: tuple[int, ...]
) -> None:
    height = whole().attempt.terms.expiry_height + blocks
    assert begun(with_block(holding(split(), *ALL), height=height), LSP) == part


def test_channels_on_chain_are_closed_after_the_expiry_too() -> None:
    landed = with_block(split(), tx_of("kickoff_0"), tx_of("state_0"))
    late = with_block(holding(landed, *ALL), height=whole().attempt.terms.expiry_height)
    assert begun(late, LSP) == (1,)


@pytest.mark.parametrize(
    ("closers", "held", "here", "waits"),
    [
        (LSP, ALL, (), False),
        (LSP, (2, 3, 4, 5), ALL, True),
        (LSP, (1, 2, 3, 4), ALL, True),
        (LSP, (), ALL, True),
        (EVERYBODY, (), ALL, False),
        (EVERYBODY, (), (2, 3, 4, 5), True),
        (EVERYBODY, (), (1, 2, 3, 4), True),
        (EVERYBODY, (1, 5), (2, 3, 4), False),
        (NOBODY, ALL, ALL, True),
    ],
)
def test_a_whole_factory_waits_for_whoever_is_needed_and_not_here(
    closers: Closers, held: tuple[int, ...], here: tuple[int, ...], *, waits: bool
) -> None:
    turn = in_factory(holding(whole(), *held), known=known(here))
    assert waits_for_clients(turn, closers) is waits
