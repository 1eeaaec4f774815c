"""What a client believes of a finished close that it is told: by signatures, and to its payout."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.test_closing_words_of_clients import OTHER, decide, ended, sent, stages

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.channel.terms import MSAT_PER_SAT
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.closing.checks import check_closed
from cromford.protocol.faults import FaultyLsp
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.link import Link
from cromford.wire import messages as m

NOWHERE: Final = OutPoint.parse(bytes(36))


def txs() -> tuple[Tx, ...]:
    """Return the finished transactions, the cheapest first."""
    return tuple(Tx.parse(one.tx) for one in stages().closed.txs)


def told(*finished: Tx, close_id: bytes | None = None) -> m.Closed:
    closed = stages().closed
    return replace(
        closed,
        close_id=closed.close_id if close_id is None else close_id,
        txs=tuple(m.ClosedTx(tx=tx.serialize()) for tx in finished),
    )


def channel(state: ClientState) -> Link:
    (link,) = state.book.ordered_links
    return link


def with_channel(state: ClientState, link: Link) -> ClientState:
    book = replace(state.book, links=state.book.links.set(link.channel_id, link))
    return replace(state, book=book)


def signed() -> ClientState:
    return stages().signed


def the_close() -> SignedClose:
    (close,) = channel(signed()).closes
    return close


def test_what_was_signed_is_believed_in_any_order_and_each_part_of_it() -> None:
    cheap, dear = txs()
    for given, expected in (
        ((cheap, dear), (cheap, dear)),
        ((dear, cheap), (cheap, dear)),
        ((dear,), (dear,)),
        ((cheap,), (cheap,)),
    ):
        found = check_closed(signed(), told(*given))
        assert found is not None
        closable, finished, close = found
        assert (finished, close) == (expected, the_close())
        assert closable.link == channel(signed())


def test_by_which_name_it_is_told_does_not_matter_unless_two_were_signed() -> None:
    """Each close of one output pays what it was signed for: unnamed, no more than the least."""
    close = the_close()
    more = replace(close, close_id=OTHER, balance_msat=close.balance_msat + 5_000_000)
    state = with_channel(signed(), replace(channel(signed()), closes=(more, close)))
    for close_id in (close.close_id, b"\x08" * 32):
        found = check_closed(state, told(*txs(), close_id=close_id))
        assert found is not None
        assert found[2] == close
    with pytest.raises(FaultyLsp, match="a finished close pays"):
        check_closed(state, told(*txs(), close_id=OTHER))


def test_it_pays_the_client_what_it_signed_for() -> None:
    close = the_close()
    paid_sat = close.balance_msat // MSAT_PER_SAT
    for extra_sat in (0, 1):
        owed = replace(close, balance_msat=MSAT_PER_SAT * (paid_sat + extra_sat))
        state = with_channel(signed(), replace(channel(signed()), closes=(owed,)))
        if not extra_sat:
            assert check_closed(state, told(*txs())) is not None
            continue
        said = f"a finished close pays {paid_sat} sat, expected {paid_sat + 1}"
        with pytest.raises(FaultyLsp, match=said):
            check_closed(state, told(*txs()))


def test_what_is_none_of_its_closes_says_nothing() -> None:
    cheap, dear = txs()
    elsewhere = replace(cheap, inputs=(replace(cheap.inputs[0], outpoint=NOWHERE),))
    unsigned = with_channel(signed(), replace(channel(signed()), closes=()))
    other_place = replace(the_close(), outpoint=NOWHERE)
    of_another = with_channel(signed(), replace(channel(signed()), closes=(other_place,)))
    assert check_closed(signed(), told()) is None
    assert check_closed(signed(), told(elsewhere)) is None
    assert check_closed(signed(), replace(told(cheap), attempt_id=OTHER)) is None
    assert check_closed(unsigned, told(cheap)) is None
    assert check_closed(of_another, told(cheap)) is None
    finished = stages().finished
    assert check_closed(finished, told(cheap, dear)) is None
    assert check_closed(finished, told(dear)) is None


def test_what_is_finished_is_told_again_in_vain_but_for_a_transaction_that_is_new() -> None:
    """An LSP that tells the same under ever new names would fill the journal."""
    cheap, dear = txs()
    at = stages()
    half = decide("signed", at.heard(told(cheap))).state
    (close,) = half.closed.values()
    assert close.txs == (cheap,)
    for again in (told(cheap), told(cheap, dear), told(cheap, close_id=OTHER)):
        decision = client_role.decide(half, at.heard(again))
        assert (decision.records, decision.faults) == ((), ())
    whole = client_role.decide(half, at.heard(told(cheap, dear, close_id=OTHER))).state
    assert whole.closed[OTHER].txs == (cheap, dear)


@pytest.mark.parametrize(
    ("witness", "said"),
    [
        ((bytes(64),), "does not verify"),
        ((), "does not verify"),
        ("twice", "does not verify"),
    ],
)
def test_a_signature_that_is_none_is_the_lsps_fault_and_ends_what_is_under_way(
    witness: tuple[bytes, ...] | str, said: str
) -> None:
    at = stages()
    cheap, dear = txs()
    right = cheap.inputs[0].witness
    bad = cheap.with_witnesses(right * 2 if isinstance(witness, str) else tuple(witness))
    for given in ((bad, dear), (dear, bad)):
        with pytest.raises(FaultyLsp, match=said):
            check_closed(signed(), told(*given))
    decision = decide("signed", at.heard(told(bad, dear)))
    assert (ended(decision) or "").startswith("the LSP is at fault: ")
    assert [type(one) for one in sent(decision)] == [m.CloseEnd]
    other = decide("signed", at.heard(told(bad, dear, close_id=OTHER)))
    assert (other.records, other.faults) == ((), ())


def test_what_has_not_the_form_of_a_close_is_none_whatever_signs_it() -> None:
    cheap, _ = txs()
    for changed in (replace(cheap, version=2), replace(cheap, nlocktime=1)):
        with pytest.raises(FaultyLsp, match="a finished close is none"):
            check_closed(signed(), told(changed))


def test_what_is_no_transaction_is_the_lsps_fault() -> None:
    without_inputs = bytes.fromhex("030000000001000000000000")
    for data in (b"", b"\x00", bytes(60), without_inputs):
        closed = replace(told(), txs=(m.ClosedTx(tx=data),))
        with pytest.raises(FaultyLsp, match="is no transaction"):
            check_closed(signed(), closed)


def forgetful(**changes: Any) -> ClientState:
    """Return the client as a store that lacks the close, and may lack more."""
    link = channel(signed())
    state = replace(link.state, **changes)
    return with_channel(signed(), replace(link, closes=(), is_behind=True, state=state))


def test_a_store_that_lacks_state_believes_what_everybody_signed_if_it_is_not_less() -> None:
    cheap, dear = txs()
    found = check_closed(forgetful(), told(cheap, dear))
    assert found is not None
    _, finished, close = found
    paid_msat = MSAT_PER_SAT * (the_close().balance_msat // MSAT_PER_SAT)
    assert finished == (cheap, dear)
    assert close == SignedClose(
        close_id=stages().close_id, outpoint=the_close().outpoint, balance_msat=paid_msat
    )
    owns_more = forgetful(accepter_msat=paid_msat + MSAT_PER_SAT)
    with pytest.raises(FaultyLsp, match="that we do not know pays only"):
        check_closed(owns_more, told(cheap, dear))
    owns_less = forgetful(accepter_msat=paid_msat - MSAT_PER_SAT)
    assert check_closed(owns_less, told(cheap, dear)) is not None
    # What it does remember it knows by what it signed for, whatever else it may lack.
    link = replace(channel(signed()), is_behind=True)
    knows = with_channel(signed(), link)
    found = check_closed(knows, told(cheap, dear))
    assert found is not None
    assert found[2] == the_close()


def test_a_channel_that_is_not_taken_up_in_this_connection_is_not_closed() -> None:
    """Nothing is known then of what is still on its way."""
    at = stages()
    gone = decide("before", ev.ConnectionClosed(node_id=at.before.lsp_node_id)).state
    decision = client_role.decide(gone, at.heard(at.begin))
    (refused,) = sent(decision)
    assert isinstance(refused, m.CloseEnd)
    assert refused.reason.endswith("received not taken up in this connection")


def test_a_balance_that_changed_after_the_word_was_given_is_not_signed_for() -> None:
    at = stages()
    link = channel(at.waiting)
    state = replace(
        link.state,
        accepter_msat=link.state.accepter_msat - 1_000,
        opener_msat=link.state.opener_msat + 1_000,
    )
    changed = with_channel(at.waiting, replace(link, state=state))
    decision = client_role.decide(changed, at.heard(at.propose))
    assert (ended(decision) or "").startswith("refused: balance_msat: expected ")
