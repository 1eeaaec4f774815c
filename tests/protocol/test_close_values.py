"""What a cooperative close binds, as a value: by what is signed of it, and by the chain."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from msgspec.structs import replace as said_otherwise
from tests.protocol.closes import closable_factory, close
from tests.protocol.houses import spend_of, txid_of
from tests.protocol.test_known_chain import chain_of

from cromford.bitcoin.tx import OutPoint
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.client_state import ClientState, apply
from cromford.protocol.journal.close_scopes import client_scope, is_intended, lsp_scope
from cromford.protocol.journal.closes import (
    SETTLED_DEPTH,
    FinishedClose,
    SignedClose,
    is_frozen,
    limit_msat,
    with_close,
)
from cromford.protocol.journal.closing import Agreed, Agreeing, Closing, Signing
from cromford.protocol.journal.factory import Factory, apply_to_factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.journal.pause import JOINS_TO_PAUSE, PAUSE_BLOCKS
from cromford.signing.nonces import PublicPool

FUNDING = spend_of(OutPoint(txid=txid_of(70), vout=0))
COIN = FUNDING.outpoint(0)
CLOSE = spend_of(COIN, pays=b"\x52")
RIVAL = spend_of(COIN, pays=b"\x53")


def signed(**changes: Any) -> SignedClose:
    known: dict[str, Any] = {
        "close_id": b"one",
        "outpoint": COIN,
        "balance_msat": 5_000,
        "txids": (CLOSE.txid,),
    }
    return SignedClose(**(known | changes))


def test_a_signed_close_may_be_finished_until_its_coin_is_spent_for_good() -> None:
    one = signed()
    waiting = chain_of((FUNDING,))
    assert one.spender(waiting) is None
    assert (one.is_live(waiting), one.is_confirmed(waiting), one.binds(waiting)) == (
        True,
        False,
        False,
    )
    assert replace(one, is_finished=True).binds(waiting)
    for n in range(1, SETTLED_DEPTH + 2):
        after = [()] * (n - 1)
        mine, other = chain_of((CLOSE,), *after), chain_of((RIVAL,), *after)
        is_live = n < SETTLED_DEPTH
        assert (one.is_live(mine), one.is_live(other)) == (is_live, is_live)
        assert (one.is_confirmed(mine), one.is_confirmed(other)) == (True, False)
        assert (one.binds(mine), one.binds(other)) == (True, False)
        assert replace(one, is_finished=True).binds(other) is is_live
        assert is_frozen((one,), mine)
        assert is_frozen((signed(outpoint=OutPoint(txid=txid_of(9), vout=0)), one), mine)
        assert not is_frozen((one,), other)
    assert is_frozen((), waiting) is False


def test_a_channel_may_owe_no_more_than_the_least_that_any_live_close_pays() -> None:
    chain = chain_of((FUNDING,))
    closes = (signed(), signed(close_id=b"two", balance_msat=4_000))
    assert limit_msat(closes, chain) == 4_000
    assert limit_msat((), chain) is None
    assert limit_msat(closes, chain_of((RIVAL,), *[()] * SETTLED_DEPTH)) is None


def test_one_close_binds_for_each_outpoint_and_what_was_signed_stays_known() -> None:
    one = signed()
    tighter = signed(close_id=b"two", balance_msat=4_000, txids=(RIVAL.txid,))
    assert with_close((one,), tighter) == (replace(tighter, txids=(CLOSE.txid, RIVAL.txid)),)
    assert with_close((tighter,), one) == (tighter, one), "an earlier one that pays less still may"
    same = replace(tighter, close_id=b"three")
    assert with_close((tighter,), same) == (same,)
    finished = replace(one, is_finished=True)
    assert with_close((finished,), tighter) == (finished, tighter)
    more = signed(balance_msat=9_000, is_finished=True)
    assert with_close((one,), more) == (more,), "the same close, once it is finished"
    elsewhere = signed(close_id=b"two", outpoint=OutPoint(txid=txid_of(9), vout=0), balance_msat=1)
    assert with_close((one,), elsewhere) == (one, elsewhere)


def test_a_finished_close_waits_until_its_coin_is_there_and_is_over_once_another_has_it() -> None:
    one = FinishedClose(close_id=b"one", outpoint=COIN, txs=(CLOSE,))
    assert one.txids == (CLOSE.txid,)
    assert not one.is_waiting(KnownChain())
    assert one.is_waiting(chain_of((FUNDING,)))
    mine = chain_of((FUNDING,), (CLOSE,), *[()] * SETTLED_DEPTH)
    assert (one.is_live(mine), one.is_waiting(mine), one.confirmed(mine)) == (True, False, CLOSE)
    for n in range(1, SETTLED_DEPTH + 1):
        other = chain_of((FUNDING,), (RIVAL,), *[()] * (n - 1))
        assert one.is_live(other) is (n < SETTLED_DEPTH)
        assert (one.is_waiting(other), one.confirmed(other)) == (False, None)
    assert one.is_live(chain_of((FUNDING,)))
    assert one.confirmed(chain_of((FUNDING,))) is None


# What the LSP leads


def test_a_close_asks_those_whose_keys_the_lsp_does_not_sign_with() -> None:
    pool = PublicPool(pubkey=b"\2" * 33, pubnonces=())
    word = Agreed(balance_msat=1, pool=pool)
    agreed = {2: replace(word, is_ours=True), 3: word}
    closing = Closing(
        close_id=b"one",
        outpoint=COIN,
        clients=(1, 2, 3),
        feerates_sat_per_kw=(500,),
        stage=Signing(pool=pool, agreed=agreed, txs=()),
    )
    assert (closing.own, closing.others) == ((2,), (1, 3))
    begun = replace(closing, stage=Agreeing())
    assert (begun.own, begun.others) == ((), (1, 2, 3))


# What a client remembers


@cache
def closed_together() -> tuple[ClientState, ClientState, list[Any], LspAttempt]:
    """Return a client before and after a close was finished, and its records of it."""
    pump = closable_factory(2)
    client = pump.client_at(1)
    before, n_before = client.state, len(client.store.remembered)
    close(pump)
    pump.run()
    kinds = cl.SharedCloseRecord | cl.ClientCloseRecord
    records = [one for one in client.store.remembered[n_before:] if isinstance(one, kinds)]
    assert isinstance(before, ClientState)
    assert isinstance(client.state, ClientState)
    assert isinstance(records[-1], cl.CloseFinished)
    return before, client.state, records, pump.attempt


def test_a_channel_is_quiet_from_a_clients_word_until_it_signed_or_the_close_ended() -> None:
    before, _, records, _ = closed_together()
    (agreed,) = [one for one in records if isinstance(one, cl.CloseAgreed)]
    (signing,) = [one for one in records if isinstance(one, cl.CloseSigned)]
    ended = cl.CloseEnded(attempt_id=agreed.attempt_id, close_id=agreed.close_id, reason="why")
    quiet = apply(before, agreed)
    link = quiet.book.links[agreed.channel_id]
    assert link.quiet_for == agreed.close_id
    assert quiet.close_heights[-1] == before.chain.height
    over = apply(quiet, ended)
    assert (over.book.links[agreed.channel_id].quiet_for, over.closing.get(agreed.close_id)) == (
        b"",
        None,
    )
    after = apply(quiet, signing)
    link = after.book.links[agreed.channel_id]
    assert link.quiet_for == b""
    (bound,) = link.closes
    assert (bound.balance_msat, bound.is_finished) == (agreed.balance_msat, False)
    assert set(after.intents) > set(quiet.intents)
    another = replace(link, quiet_for=b"another")
    book = replace(after.book, links=after.book.links.set(link.channel_id, another))
    late = apply(replace(after, book=book), ended)
    assert late.book.links[link.channel_id].quiet_for == b"another", "a later close is agreed on"
    assert late.book.links[link.channel_id].closes == (bound,), "what is signed stays signed"


def test_a_close_of_which_nothing_says_what_it_pays_is_never_signed() -> None:
    """A restored store agrees without a balance; then the record of its signature has it."""
    before, _, records, _ = closed_together()
    (agreed,) = [one for one in records if isinstance(one, cl.CloseAgreed)]
    (signing,) = [one for one in records if isinstance(one, cl.CloseSigned)]
    blind = apply(before, said_otherwise(agreed, balance_msat=None))
    with pytest.raises(AssertionError, match="nothing says what it pays"):
        apply(blind, signing)
    after = apply(blind, said_otherwise(signing, balance_msat=0))
    assert after.book.links[agreed.channel_id].closes[0].balance_msat == 0


def test_a_finished_close_is_taken_whether_or_not_it_was_under_way_here() -> None:
    before, after, records, _ = closed_together()
    finished = records[-1]
    for state in (before, after):
        one = apply(state, finished)
        assert one.closed[finished.close_id].outpoint == OutPoint.parse(finished.outpoint)
        assert finished.close_id not in one.closing
        (channel_id,) = finished.channels
        assert one.book.links[channel_id].closes[-1].is_finished
    agreed = apply(before, records[0])
    assert apply(agreed, finished).closing.get(finished.close_id) is None
    confirmed = cl.CloseConfirmed(
        attempt_id=finished.attempt_id,
        close_id=finished.close_id,
        height=9,
        txid=b"",
        amount_sat=1,
    )
    assert apply(after, confirmed).closing == after.closing


def test_only_so_many_newest_agreements_are_counted_and_they_close_the_door_for_an_hour() -> None:
    before, _, records, _ = closed_together()
    (agreed,) = [one for one in records if isinstance(one, cl.CloseAgreed)]
    state, height = before, before.chain.height
    for n in range(JOINS_TO_PAUSE):
        assert state.may_close is True, n
        state = apply(state, agreed)
    assert not state.may_close
    assert len(apply(state, agreed).close_heights) == JOINS_TO_PAUSE
    for n_blocks, may in ((PAUSE_BLOCKS - 1, False), (PAUSE_BLOCKS, True)):
        heights = (height - n_blocks,) * JOINS_TO_PAUSE
        assert replace(state, close_heights=heights).may_close is may


def test_a_scope_is_an_output_of_the_factory_and_none_of_a_client_that_is_not_on_its_path() -> None:
    before, after, records, lsp = closed_together()
    (attempt,) = before.attempts.values()
    root = next(iter(attempt.branch.nodes)).tx.inputs[0].outpoint
    for outpoint, clients in ((root, (1, 2)), (attempt.setting.funding.outpoint, (1,))):
        scope = client_scope(attempt, outpoint)
        assert scope is not None
        assert (scope.outpoint, scope.clients) == (outpoint, clients)
        other = lsp_scope(lsp, outpoint)
        assert (other.outpoint, other.amount_sat, other.clients) == (
            outpoint,
            scope.amount_sat,
            clients,
        )
    neighbours = lsp.fundings(2)[0].outpoint
    assert client_scope(attempt, neighbours) is None
    assert lsp_scope(lsp, neighbours).clients == (2,)
    with pytest.raises(AssertionError, match="is no output of the factory"):
        lsp_scope(lsp, OutPoint(txid=txid_of(9), vout=0))
    close_id = records[-1].close_id
    outpoint = OutPoint.parse(records[-1].outpoint)
    assert is_intended(after.intents, close_id, outpoint)
    assert not is_intended(before.intents, close_id, outpoint)
    assert not is_intended(after.intents, b"another", outpoint)
    first = {key: sighash for key, sighash in after.intents.items() if key[2] == 0}
    assert is_intended(first, close_id, outpoint), "a close of one option"


# What an LSP remembers


@cache
def led() -> tuple[Factory, list[Any]]:
    """Return a factory before a close of it, and what its LSP remembers of that."""
    pump = closable_factory(2)
    before, n_before = pump.factory, len(pump.lsp.store.remembered)
    close(pump)
    pump.run()
    kinds = cl.SharedCloseRecord | cl.LspCloseRecord
    found = [one for one in pump.lsp.store.remembered[n_before:] if isinstance(one, kinds)]
    assert isinstance(found[-1], cl.CloseFinished)
    return before, found


def after_records(*kinds: type[Any]) -> Factory:
    """Return a factory after its LSP's records of these kinds."""
    factory, records = led()
    for record in records:
        if isinstance(record, kinds):
            factory = apply_to_factory(factory, record)
    return factory


def test_an_lsp_counts_its_closes_and_ends_one_as_it_is_named() -> None:
    before, records = led()
    begun = after_records(cl.CloseBegun)
    assert (before.closing, begun.n_closes) == (None, before.n_closes + 1)
    assert begun.closing is not None
    name, close_id = begun.attempt.attempt_id, begun.closing.close_id
    assert all(link.quiet_for == close_id for link in begun.book.links.values())
    ended = cl.CloseEnded(attempt_id=name, close_id=close_id, reason="why")
    over = apply_to_factory(begun, ended)
    assert (over.closing, over.n_closes) == (None, begun.n_closes)
    assert over.close_ended is not None
    assert (over.close_ended.close_id, over.close_ended.reason) == (close_id, "why")
    assert not any(link.quiet_for for link in over.book.links.values())
    again = apply_to_factory(over, records[0])
    assert again.close_ended is None
    for factory, record in (
        (over, ended),
        (begun, said_otherwise(ended, close_id=b"another")),
    ):
        with pytest.raises(AssertionError, match="is not under way"):
            apply_to_factory(factory, record)
    confirmed = cl.CloseConfirmed(
        attempt_id=name, close_id=close_id, height=9, txid=b"", amount_sat=1
    )
    assert apply_to_factory(over, confirmed) == over
    finished = apply_to_factory(begun, records[-1])
    assert (finished.closing, finished.closed[close_id].close_id) == (None, close_id)
    assert all(link.closes[-1].is_finished for link in finished.book.links.values())


def test_a_close_is_proposed_with_nonces_and_signed_once_it_is_proposed() -> None:
    agreed = (cl.CloseBegun, cl.CloseAgreementReceived)
    with pytest.raises(AssertionError, match="before its nonces were made"):
        after_records(*agreed, cl.CloseProposed)
    with pytest.raises(AssertionError, match="agreeing where signing was expected"):
        after_records(*agreed, cl.ClosePoolMade, cl.ClosePartialsReceived)
    signing = after_records(*agreed, cl.ClosePoolMade, cl.CloseProposed)
    assert signing.closing is not None
    assert signing.closing.stage.done == frozenset()
    assert not any(link.closes for link in signing.book.links.values())
    signed = after_records(*agreed, cl.ClosePoolMade, cl.CloseProposed, cl.ClosePartialsReceived)
    assert signed.closing is not None
    assert signed.closing.stage.done == {1, 2}
    assert all(len(link.closes) == 1 for link in signed.book.links.values())
