"""What an LSP remembers of what ended a factory: a sweep, or a close, block by block."""

from tests.protocol.test_close_limits import spend_of
from tests.protocol.test_closing_words import stages as lsp_stages
from tests.protocol.test_why_an_lsp_leaves import block, bobs, factory_in, offering
from tests.protocol.unanswered import WORTH_MSAT

from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import exit_records as xr


def test_what_a_sweep_took_is_told_once_and_an_htlc_in_it_came_back_six_blocks_deep() -> None:
    whole = offering(WORTH_MSAT)
    attempt = factory_in(whole).attempt
    sweep = spend_of(attempt.funding_outpoint, 1_000)
    decision = block(whole, sweep)
    (swept,) = (one for one in decision.records if isinstance(one, xr.OutputsSwept))
    assert (bytes(swept.txid), swept.outputs) == (bytes(sweep.txid), ("funding",))
    assert swept.height == whole.chain.height + 1
    assert swept.amount_sat == attempt.funding_tx.outputs[0].amount_sat
    (live,) = bobs(whole).state.htlcs
    back = cr.HtlcDecided(
        channel_id=bobs(whole).channel_id, htlc_id=live.htlc.htlc_id, preimage=None
    )
    told: list[list[object]] = []
    for _ in range(6):
        told.append([one for one in decision.records if isinstance(one, cr.HtlcDecided)])
        decision = block(decision.state)
        assert not [one for one in decision.records if isinstance(one, xr.OutputsSwept)]
    assert told == [[], [], [], [], [], [back]]


def test_a_close_is_no_sweep() -> None:
    state = lsp_stages().finished
    (close,) = factory_in(state).closed.values()
    decision = block(state, close.txs[0])
    assert not [one for one in decision.records if isinstance(one, xr.OutputsSwept)]
    (confirmed,) = (one for one in decision.records if isinstance(one, cl.CloseConfirmed))
    assert bytes(confirmed.txid) == bytes(close.txs[0].txid)
    script = factory_in(state).attempt.payout_script
    paid = [out.amount_sat for out in close.txs[0].outputs if out.script_pubkey == script]
    assert confirmed.amount_sat == sum(paid)
    again = block(decision.state)
    assert not [one for one in again.records if isinstance(one, cl.CloseConfirmed)]


def test_what_a_close_spent_is_lent_no_more_once_it_is_six_blocks_deep() -> None:
    state = lsp_stages().finished
    (close,) = factory_in(state).closed.values()
    decision = block(state, close.txs[0])
    told: list[list[tuple[int, ...]]] = []
    for _ in range(8):
        told.append([one.clients for one in decision.records if isinstance(one, cl.PartClosed)])
        decision = block(decision.state)
    assert told == [[], [], [], [], [], [(1, 2)], [], []]
    links = factory_in(decision.state).book.links.values()
    assert {link.failure for link in links} == {
        "the factory, or this part of it, was closed together"
    }
