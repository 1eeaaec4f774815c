"""Whether an LSP may bring a channel on chain: by a request, and with a store that was restored."""

from dataclasses import replace
from functools import cache
from typing import Final

import pytest
from tests.protocol.closes import closable_factory, close
from tests.protocol.decisions import in_factory, remembered, said, wished
from tests.protocol.left_factories import (
    ALICE,
    BOB,
    channel,
    having,
    leaving,
    on,
    overtaken,
    paid,
    path,
    restored,
    seeing,
    unfunded,
    unready,
    without_funding,
)
from tests.protocol.seen_blocks import buried, spending, up_to

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol.exiting.closes import SPENT_UNKNOWN
from cromford.protocol.exiting.lsp import exit_effects, owed, take
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.mark import StoreMark
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

FEES: Final = OwnFees()


def asked(factory: Factory, client: int | None = ALICE, *, stale: bool = False) -> list[str]:
    """Let the operator ask for an exit; return why it began."""
    turn = in_factory(factory)
    event = ev.ExitRequested(
        attempt_id=factory.attempt.attempt_id, client=client, publishes_stale=stale
    )
    take(turn, event)
    return [one.reason for one in remembered(turn, xr.ExitStarted)]


def refusal(factory: Factory, *, stale: bool = False) -> tuple[str, str]:
    with pytest.raises(Rejected) as refused:
        asked(factory, stale=stale)
    return refused.value.code, str(refused.value)


def expired(factory: Factory) -> Factory:
    return on(factory, up_to(factory.chain, factory.attempt.terms.expiry_height))


# What is refused


@cache
def closed() -> Factory:
    """Return a factory that was closed as a whole, in the newest block."""
    pump = closable_factory(2)
    close(pump)
    pump.mine(1)
    return pump.factory


def test_nobody_leaves_what_was_never_funded() -> None:
    code, why = refusal(unfunded())
    assert code == "factory_not_found"
    assert f"no funded factory {unfunded().attempt.attempt_id.hex()}" in why


def test_nobody_leaves_before_the_funding_is_in_a_block_and_then_at_once() -> None:
    """There is no channel yet whose updates could end, and its first commitment is there."""
    factory = unready()
    assert refusal(factory)[0] == "factory_not_funded"
    there = on(factory, buried(factory.chain, 1, factory.attempt.funding_tx))
    assert asked(there) == ["the operator's wish"]


def test_nobody_leaves_what_something_else_took_the_place_of() -> None:
    """As deep as a funding has to be; before that it is only not in a block."""
    code, why = refusal(overtaken(paid()))
    assert (code, "something else spends a coin of its funding" in why) == ("factory_dead", True)
    assert refusal(without_funding(paid()))[0] == "factory_not_funded"


def test_nobody_leaves_what_was_closed() -> None:
    assert refusal(closed())[0] == "factory_closed"


def test_nobody_leaves_what_was_swept_above_it_and_hears_if_that_was_before_the_expiry() -> None:
    """Then somebody else has the LSP's key."""
    swept = spending(paid().attempt.funding_outpoint)
    code, why = refusal(seeing(expired(paid()), swept))
    assert (code, "expired, and was swept above this channel" in why) == ("factory_swept", True)
    code, why = refusal(seeing(paid(), swept))
    assert (code, SPENT_UNKNOWN in why) == ("factory_swept", True)


def test_nobody_leaves_from_the_expiry_on_unless_it_is_under_way() -> None:
    code, why = refusal(expired(paid()))
    assert (code, "expired: what is left of it is swept" in why) == ("factory_swept", True)
    assert asked(expired(seeing(paid(), *path(paid(), ALICE)))) == ["the operator's wish"]


# With a store that was restored


def test_a_restored_factory_leaves_nothing_unless_its_operator_takes_the_risk() -> None:
    factory = restored(paid())
    code, why = refusal(factory)
    assert (code, "the store was restored from a backup" in why) == ("store_restored", True)
    turn = in_factory(factory)
    event = ev.ExitRequested(
        attempt_id=factory.attempt.attempt_id, client=ALICE, publishes_stale=True
    )
    take(turn, event)
    (allowed,) = remembered(turn, cr.StaleAllowed)
    assert allowed.channel_id == channel(factory, ALICE).channel_id
    assert [one.name for one in wished(turn, fx.Broadcast)] == ["kickoff_root"]
    # It is said once, and holds for good.
    again = in_factory(turn.state)
    take(again, event)
    assert not [*remembered(again, cr.StaleAllowed), *remembered(again, xr.ExitStarted)]
    assert asked(turn.state) == [], "a plain wish is as good from then on"


def test_where_the_channel_is_on_chain_and_was_not_used_since_its_own_store_is_the_newest() -> None:
    """A store that knows of no channel yet, or of one that is not marked, says all of it.

    While the path is off the chain it may be superseded, so it is not published.
    """
    factory = restored(paid())
    unmarked = having(factory, ALICE, mark=None)
    assert refusal(unmarked)[0] == "store_restored"
    there = seeing(unmarked, *path(unmarked, ALICE))
    assert asked(there) == ["the operator's wish"]
    assert refusal(seeing(factory, *path(factory, ALICE)))[0] == "store_restored"
    assert refusal(having(paid(), ALICE, mark=StoreMark()))[0] == "store_restored"


def test_a_channel_that_a_restored_store_does_not_know_may_have_been_used() -> None:
    factory = unready()
    there = on(factory, buried(factory.chain, 1, factory.attempt.funding_tx))
    marked = replace(there, is_marked=True)
    assert refusal(marked)[0] == "store_restored"
    on_chain = seeing(marked, *path(marked, ALICE))
    assert refusal(on_chain)[0] == "store_restored"
    assert asked(seeing(there, *path(there, ALICE))) == ["the operator's wish"]
    # It was leaving before: from then on it took no update.
    assert asked(leaving(on_chain, ALICE)) == []
    turn = in_factory(leaving(on_chain, ALICE))
    take(turn, ev.ExitRequested(attempt_id=marked.attempt.attempt_id, client=ALICE))
    assert [one.name for one in wished(turn, fx.Broadcast)] == ["commitment"]


def test_of_a_restored_factory_no_path_is_published_but_one_whose_risk_is_taken() -> None:
    factory = leaving(restored(paid()), ALICE, BOB)
    assert exit_effects(factory, ALICE, FEES) == ()
    risked = having(factory, ALICE, publishes_stale=True)
    (root,) = exit_effects(risked, ALICE, FEES)
    assert isinstance(root, fx.Broadcast)
    assert root.name == "kickoff_root"
    assert exit_effects(risked, BOB, FEES) == ()
    assert [one for one in owed(risked, FEES) if isinstance(one, fx.Broadcast)] == [root]
    # Nor is one of a channel that it does not know yet.
    young = unready()
    there = on(young, buried(young.chain, 1, young.attempt.funding_tx))
    unknown = leaving(replace(there, is_marked=True), ALICE)
    assert exit_effects(unknown, ALICE, FEES) == ()


def test_who_leaves_tells_the_client_once_and_a_second_wish_only_publishes() -> None:
    turn = in_factory(paid())
    event = ev.ExitRequested(attempt_id=paid().attempt.attempt_id, client=ALICE)
    take(turn, event)
    assert len(said(turn, m.ChannelFailure)) == 1
    again = in_factory(turn.state)
    take(again, event)
    assert not said(again, m.ChannelFailure)
    assert not remembered(again, xr.ExitStarted)
    assert [one.name for one in wished(again, fx.Broadcast)] == ["kickoff_root"]
