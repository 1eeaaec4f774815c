"""How a finished close is published: which of its transactions, and what may be paid for it."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.closes import closable_factory, close
from tests.protocol.closes import finished as close_records
from tests.protocol.test_close_limits import spend_of
from tests.protocol.test_closing_words import factory_in
from tests.protocol.test_closing_words import stages as lsp_stages
from tests.protocol.test_closing_words_of_clients import stages
from tests.protocol.test_looked_after import mined

from cromford import effects as fx
from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.tx import Tx
from cromford.factory.close import CloseScope
from cromford.protocol.closing.confirming import close_broadcast, owed_by_client, owed_by_factory
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.close_scopes import client_scope
from cromford.watch.bumping import Bumping
from cromford.watch.feerates import BELIEVED_SAT_PER_KW, OwnFees

QUIET: Final = OwnFees(estimates=((6, 900), (144, 25)))


def finished() -> ClientState:
    return stages().finished


def txs() -> tuple[Tx, Tx]:
    """Return the two transactions of the close, the cheapest first."""
    (close,) = finished().closed.values()
    cheap, dear = close.txs
    return cheap, dear


def scope() -> CloseScope:
    (attempt,) = finished().attempts.values()
    found = client_scope(attempt, txs()[0].inputs[0].outpoint)
    assert found is not None
    return found


def fee_sat(tx: Tx) -> int:
    return scope().amount_sat - sum(output.amount_sat for output in tx.outputs)


def bumping_of(state: ClientState, fees: OwnFees = QUIET) -> Bumping:
    (one,) = owed_by_client(state, fees)
    assert one.bumping is not None
    return one.bumping


def at(height: int) -> ClientState:
    chain = finished().chain
    recent = (replace(chain.recent[-1], height=height),)
    return replace(finished(), chain=replace(chain, recent=recent))


def test_the_cheapest_that_pays_a_days_estimate_is_published_else_the_dearest() -> None:
    cheap, dear = txs()
    enough = 1000 * fee_sat(cheap) // (4 * cheap.vsize)
    assert fee_sat_of(vsize=cheap.vsize, feerate_sat_per_kw=enough) == fee_sat(cheap)
    for day, expected in ((25, cheap), (enough, cheap), (enough + 1, dear), (200_000, dear)):
        (one,) = owed_by_client(finished(), OwnFees(estimates=((144, day),)))
        assert one.tx == expected
        assert one.bumping is not None
        assert one.bumping.fee_sat == fee_sat(expected)


def test_half_of_what_it_pays_us_may_go_for_a_child_of_that_output() -> None:
    cheap, dear = txs()
    script = next(iter(finished().attempts.values())).join.payout_script
    (paid_sat,) = (out.amount_sat for out in cheap.outputs if out.script_pubkey == script)
    bumping = bumping_of(finished())
    assert (bumping.budget_sat, bumping.own_script) == (paid_sat // 2, script)
    assert set(bumping.twins) == {cheap.txid, dear.txid}
    assert (bumping.spares_rivals, bumping.gives_way) == (True, False)


def test_whom_it_pays_nothing_has_no_child_to_pay_with() -> None:
    (close,) = finished().closed.values()
    nobody = b"\x51\x20" + bytes(32)
    one = close_broadcast(close, scope(), fees=QUIET, own_script=nobody, n_blocks=144)
    assert one.bumping is not None
    assert (one.bumping.budget_sat, one.bumping.own_script) == (0, b"")


@pytest.mark.parametrize(("left", "feerate"), [(1_000, 25), (145, 25), (144, 25), (143, 900)])
def test_a_client_waits_a_day_for_it_or_until_it_would_have_to_leave(
    left: int, feerate: int
) -> None:
    (link,) = finished().book.ordered_links
    deadline = link.remaining(finished().chain).exit_deadline_height
    assert deadline is not None
    assert bumping_of(at(deadline - left)).feerate_sat_per_kw == feerate


def test_an_lsp_waits_a_day_for_it() -> None:
    factory = factory_in(lsp_stages().finished)
    (one,) = owed_by_factory(factory, QUIET)
    assert one.bumping is not None
    assert one.bumping.feerate_sat_per_kw == 25
    (paid_sat,) = (
        out.amount_sat
        for out in one.tx.outputs
        if out.script_pubkey == factory.attempt.payout_script
    )
    assert one.bumping.budget_sat == paid_sat // 2


def test_what_a_block_has_or_something_else_spent_is_published_no_more() -> None:
    state, (cheap, _) = finished(), txs()
    where = cheap.inputs[0].outpoint
    for spender in (cheap, spend_of(where, 1_000)):
        spent = replace(state, chain=mined(state.chain, spender))
        assert owed_by_client(spent, QUIET) == ()
    factory = factory_in(lsp_stages().finished)
    (close,) = factory.closed.values()
    taken = replace(factory, chain=mined(factory.chain, close.txs[0]))
    assert owed_by_factory(taken, QUIET) == ()


def test_the_only_transaction_there_is_is_published_on_the_dearest_day() -> None:
    (close,) = finished().closed.values()
    one = replace(close, txs=close.txs[:1])
    dear = OwnFees(estimates=((144, 200_000),))
    published = close_broadcast(one, scope(), fees=dear, own_script=b"", n_blocks=144)
    assert published.tx == txs()[0]


def test_a_channel_that_is_settled_on_chain_waits_a_day_whatever_the_height() -> None:
    (link,) = finished().book.ordered_links
    settled = at(link.expiry_height - 10)
    confirmed = settled.chain.confirmed.update({step.txid: 90 for step in link.path})
    settled = replace(settled, chain=replace(settled.chain, confirmed=confirmed))
    assert bumping_of(settled).feerate_sat_per_kw == 25
    assert bumping_of(at(link.expiry_height - 10)).feerate_sat_per_kw == 900


def test_an_lsp_publishes_a_close_as_soon_as_it_is_finished_and_then_tells_it() -> None:
    """Whoever it is told to publishes it, too; nobody waits for a block to do so."""
    pump = closable_factory(1)
    close(pump)
    (record,) = close_records(pump.lsp)
    published = [one for one in pump.wishes(pump.lsp, fx.Broadcast) if one.name.startswith("close")]
    assert [one.tx.serialize() for one in published] == [record.txs[0]]


@pytest.mark.parametrize("estimate", [BELIEVED_SAT_PER_KW, BELIEVED_SAT_PER_KW + 1, 2_500_000])
def test_no_estimate_that_nobody_should_believe_is_paid_out_of_what_it_pays(estimate: int) -> None:
    """A node that errs would burn half of it, of an LSP's part of a whole factory, too."""
    fees = OwnFees(estimates=((1, estimate), (144, estimate), (1008, 60)))
    feerate = estimate if estimate == BELIEVED_SAT_PER_KW else 60
    (link,) = finished().book.ordered_links
    deadline = link.remaining(finished().chain).exit_deadline_height
    assert deadline is not None
    for left in (1_000, 1):
        assert bumping_of(at(deadline - left), fees).feerate_sat_per_kw == feerate
    (theirs,) = owed_by_factory(factory_in(lsp_stages().finished), fees)
    assert theirs.bumping is not None
    assert theirs.bumping.feerate_sat_per_kw == feerate


@pytest.mark.parametrize(
    ("minimum", "has_budget"), [(BELIEVED_SAT_PER_KW, True), (BELIEVED_SAT_PER_KW + 1, False)]
)
def test_nor_a_minimum_of_our_mempool(minimum: int, *, has_budget: bool) -> None:
    """A `minrelaytxfee` of 0.1 is one in bitcoin per 1000 vB: 10,000 sat/vB."""
    fees = OwnFees(mempool_min_sat_per_kw=minimum, min_relay_sat_per_kw=minimum)
    assert bool(bumping_of(finished(), fees).budget_sat) is has_budget
    (theirs,) = owed_by_factory(factory_in(lsp_stages().finished), fees)
    assert theirs.bumping is not None
    assert bool(theirs.bumping.budget_sat) is has_budget
