"""Fresh is a condition that must hold now: each way to be stale, since when, and its end."""

from dataclasses import replace

import pytest

from cromford.bitcoin.tx import Txid
from cromford.cli.configuration.keys import POLL_SECONDS_MAX
from cromford.daemon.freshness import Freshness, Stale
from cromford.ports import BlockRef, BlocksPruned, ChainStatus, ChainUnavailable

START = 1_700_000_000.0
HEIGHT = 850_000


def status(height: int = HEIGHT, *, headers: int | None = None, at: float = START) -> ChainStatus:
    return ChainStatus(
        tip=BlockRef(height=height, block_hash=Txid(bytes(32))),
        tip_time=int(at),
        header_height=height if headers is None else headers,
    )


def heard(
    told: ChainStatus, *, at: float = START, own_height: int = HEIGHT, has_real_time: bool = True
) -> Freshness:
    begun = Freshness(has_real_time=has_real_time, started_at=START)
    return begun.after_answer(told, own_height=own_height, now=at)


def kind_of(stale: Stale | None) -> str | None:
    return None if stale is None else stale.kind


def test_a_node_that_was_never_heard_is_stale_since_the_start() -> None:
    begun = Freshness(has_real_time=True, started_at=START)
    stale = begun.stale(own_height=HEIGHT, now=START)
    assert stale is not None
    assert (stale.kind, stale.since) == ("node_silent", START)
    assert begun.header_height == -1
    assert not begun.was_asked
    assert begun.after_silence(ChainUnavailable("timed out"), now=START).was_asked
    assert heard(status()).was_asked


@pytest.mark.parametrize(("seconds", "kind"), [(0, None), (120, None), (121, "node_silent")])
def test_a_node_may_be_silent_for_two_minutes(seconds: float, kind: str | None) -> None:
    stale = heard(status()).stale(own_height=HEIGHT, now=START + seconds)
    assert kind_of(stale) == kind
    if stale is not None:
        assert stale.since == START
        assert "since 2023-11-14 22:13:20 UTC" in stale.reason


def test_a_node_that_is_asked_as_seldom_as_may_be_is_never_silent_in_between() -> None:
    """One answer that is late, or lost, included."""
    seldom = float(POLL_SECONDS_MAX)
    assert heard(status()).stale(own_height=HEIGHT, now=START + 2 * seldom) is None
    assert seldom >= 60


def test_a_clock_that_is_set_back_does_not_make_a_silence_shorter() -> None:
    stale = heard(status()).stale(own_height=HEIGHT, now=START - 3_600)
    assert kind_of(stale) == "node_silent"


def test_a_silence_names_what_was_not_answered_and_ends_with_the_next_answer() -> None:
    silent = heard(status())
    for second in (30, 90):
        silent = silent.after_silence(ChainUnavailable("timed out"), now=START + second)
    assert silent.stale(own_height=HEIGHT, now=START + 120) is None
    stale = silent.stale(own_height=HEIGHT, now=START + 125)
    assert stale is not None
    assert stale.reason.endswith(": timed out")
    back = silent.after_answer(status(at=START + 126), own_height=HEIGHT, now=START + 126)
    assert back.stale(own_height=HEIGHT, now=START + 130) is None


@pytest.mark.parametrize(
    ("blocks", "headers", "own_height"),
    [
        (HEIGHT, HEIGHT + 3, HEIGHT),  # the node lags behind its headers
        (HEIGHT, HEIGHT, HEIGHT - 3),  # blocks are still to be read
        (HEIGHT - 3, HEIGHT - 3, HEIGHT),  # the node went back to an ancestor
        (0, 0, HEIGHT),  # it begins anew
        (HEIGHT + 300, HEIGHT + 300, HEIGHT),  # it was silent for 300 blocks
    ],
)
def test_more_than_two_missing_blocks_are_stale_at_once(
    blocks: int, headers: int, own_height: int
) -> None:
    told = heard(status(blocks, headers=headers), own_height=own_height)
    stale = told.stale(own_height=own_height, now=START + 1)
    assert stale is not None
    assert (stale.kind, stale.since) == ("blocks_missing", START)
    assert f"{own_height} were read" in stale.reason
    assert told.header_height == headers


@pytest.mark.parametrize("n_missing", [1, 2])
def test_one_withheld_block_pauses_nobody_for_ten_minutes(n_missing: int) -> None:
    told = heard(status(headers=HEIGHT + n_missing))
    for minute in range(1, 11):
        now = START + 60 * minute
        told = told.after_answer(status(headers=HEIGHT + n_missing), own_height=HEIGHT, now=now)
        assert told.stale(own_height=HEIGHT, now=now) is None
    now = START + 601
    told = told.after_answer(status(headers=HEIGHT + n_missing), own_height=HEIGHT, now=now)
    stale = told.stale(own_height=HEIGHT, now=now)
    assert stale is not None
    assert (stale.kind, stale.since) == ("blocks_missing", START)


def test_blocks_that_come_one_after_another_are_not_ten_minutes_of_missing_ones() -> None:
    told = heard(status())
    for number in range(1, 40):
        now = START + 60 * number
        told = told.after_answer(
            status(HEIGHT + number, at=now), own_height=HEIGHT + number - 1, now=now
        )
        told = told.after_block(own_height=HEIGHT + number)
        assert told.stale(own_height=HEIGHT + number, now=now) is None


def test_a_block_that_was_read_counts_before_the_node_is_asked_again() -> None:
    told = heard(status(HEIGHT + 5), own_height=HEIGHT)
    assert kind_of(told.stale(own_height=HEIGHT + 1, now=START)) == "blocks_missing"
    assert told.stale(own_height=HEIGHT + 5, now=START) is None


@pytest.mark.parametrize(("seconds", "kind"), [(4 * 3600, None), (4 * 3600 + 1, "tip_old")])
def test_a_tip_of_four_hours_ago_is_stale_where_time_is_real(
    seconds: float, kind: str | None
) -> None:
    now = START + seconds
    stale = heard(status(), at=now).stale(own_height=HEIGHT, now=now)
    assert kind_of(stale) == kind
    if stale is not None:
        assert stale.since == START + 4 * 3600
        assert "no connection" in stale.reason
    at_regtest = heard(status(), at=now, has_real_time=False)
    assert at_regtest.stale(own_height=HEIGHT, now=now) is None


@pytest.mark.parametrize(("seconds", "kind"), [(2 * 3600, None), (2 * 3600 + 1, "clock_off")])
def test_a_tip_from_the_future_says_that_the_clock_is_off(seconds: int, kind: str | None) -> None:
    ahead = status(at=START + seconds)
    stale = heard(ahead).stale(own_height=HEIGHT, now=START)
    assert kind_of(stale) == kind
    if stale is not None:
        assert "the clock of this computer is off" in stale.reason
    assert heard(ahead, has_real_time=False).stale(own_height=HEIGHT, now=START) is None


def test_headers_far_ahead_with_a_tip_from_the_future_are_missing_blocks_first() -> None:
    tricky = status(headers=HEIGHT + 1_000, at=START + 3 * 3600)
    told = heard(tricky)
    assert kind_of(told.stale(own_height=HEIGHT, now=START)) == "blocks_missing"
    assert told.header_height == HEIGHT + 1_000


def test_an_initial_download_is_stale_where_time_is_real() -> None:
    loading = replace(status(), is_initial_download=True)
    assert kind_of(heard(loading).stale(own_height=HEIGHT, now=START)) == "initial_download"
    at_regtest = heard(loading, has_real_time=False)
    assert at_regtest.stale(own_height=HEIGHT, now=START) is None


def test_pruned_blocks_are_stale_at_once_and_name_the_way_out() -> None:
    pruned = BlocksPruned(
        needed_height=HEIGHT + 1, kept_height=HEIGHT + 50, header_height=HEIGHT + 90
    )
    told = heard(status(HEIGHT + 300)).after_silence(pruned, now=START + 1)
    stale = told.after_silence(pruned, now=START + 9).stale(own_height=HEIGHT, now=START + 9)
    assert stale is not None
    assert (stale.kind, stale.since) == ("blocks_pruned", START + 1)
    assert f"from height {HEIGHT + 1} to {HEIGHT + 49}" in stale.reason
    assert "--chain-url" in stale.reason
