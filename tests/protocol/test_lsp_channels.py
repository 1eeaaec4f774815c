"""Whom the LSP hears, takes up, pays and lets go in one factory's channels."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.arrivals import decided, failures, held, moment
from tests.protocol.decisions import (
    STALE,
    UNMARKABLE,
    Known,
    in_factory,
    remembered,
    wished,
)
from tests.protocol.signed_closes import CLOSE_ID

from cromford import effects as fx
from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import Tx, Txid, TxIn
from cromford.changed import changed
from cromford.channel.messages import UpdateAdd
from cromford.factory.terms import SAFETY_BLOCKS
from cromford.protocol.channels import lsp as channels
from cromford.protocol.channels.depth import NOT_DEEP
from cromford.protocol.channels.finish import NOT_DELIVERED
from cromford.protocol.channels.forwarding import hold_deadline
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.htlc_blocks import CLAIM_BLOCKS
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import records as r
from cromford.protocol.journal.book_fold import with_refused_forward
from cromford.protocol.journal.closes import SETTLED_DEPTH, SignedClose
from cromford.protocol.journal.encoding import journalled_update
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mail import ForwardRefused, PayAsked
from cromford.protocol.turn import Turn
from cromford.wire import messages as m

HOUSE: Final = "house"
STRANGER: Final = b"\x02" * 33
ASKER: Final = "factory:5"
CANNOT: Final = "the channel cannot carry it now: "


def carols(factory: Factory | None = None) -> Link:
    known = (factory or moment().factory).book.links.values()
    return next(link for link in known if link.node_id == moment().carol)


def with_carols(**about: Any) -> Factory:
    return moment().with_link(changed(carols(), **about))


def closed_together() -> Factory:
    close = SignedClose(
        close_id=CLOSE_ID,
        outpoint=carols().present.outpoint,
        balance_msat=30_000_000,
        is_finished=True,
    )
    return with_carols(closes=(close,))


def keys_held() -> Factory:
    return changed(moment().factory, held_keys=frozenset({carols().client}))


def away(**about: Any) -> Factory:
    state = changed(carols().state, is_connected=False)
    return with_carols(state=state, pool_id=None, **about)


# Who is heard


def test_a_channel_is_heard_of_from_its_client_alone() -> None:
    here = moment()
    over = m.ChannelFailure(channel_id=carols().channel_id, reason="enough")

    def heard(factory: Factory, node_id: bytes, message: m.ChannelMessage) -> int:
        turn = in_factory(factory, known=Known(here=here.everybody))
        channels.on_channel_message(turn, node_id, message)
        failed = remembered(turn, cr.ChannelFailed)
        assert all(one.channel_id == carols().channel_id for one in failed)
        return len(failed)

    assert heard(here.factory, here.carol, over) == 1
    assert heard(here.factory, here.alice, over) == 0
    assert heard(here.factory, here.carol, replace(over, channel_id=bytes(32))) == 0
    assert heard(closed_together(), here.carol, over) == 0, "its client is told of the close"
    assert heard(keys_held(), here.carol, over) == 0, "nothing is under way there"


def begun(factory: Factory, node_id: bytes, *, is_here: bool = True) -> list[bytes]:
    """Return for which channels a nonce is asked when a client says that its factory is ready."""
    known = Known(here=moment().everybody | {STRANGER} if is_here else frozenset())
    turn = in_factory(factory, known=known)
    channels.begin(turn, node_id)
    return [one.channel_id for one in wished(turn, fx.PrepareNonce)]


def test_a_channel_is_taken_up_with_a_client_that_is_here_and_has_its_keys() -> None:
    here, unprepared = moment(), away()
    assert begun(unprepared, here.carol) == [carols().channel_id]
    assert begun(unprepared, here.carol, is_here=False) == []
    assert begun(unprepared, STRANGER) == []
    without = changed(unprepared.book, links=unprepared.book.links.delete(carols().channel_id))
    assert begun(changed(unprepared, book=without), here.carol) == [], "before it is funded"
    assert begun(changed(unprepared, held_keys=keys_held().held_keys), here.carol) == []
    assert begun(away(closes=carols(closed_together()).closes), here.carol) == []


def test_with_a_clients_connection_its_nonces_go_and_nothing_is_written_twice() -> None:
    here = moment()
    turn = in_factory(here.factory)
    channels.on_disconnection(turn, here.carol)
    assert remembered(turn, r.PeerDisconnected) == [r.PeerDisconnected(node_id=here.carol)]
    assert [one.pool_ids for one in wished(turn, fx.DropPools)] == [carols().pool_ids]
    again = in_factory(turn.state)
    channels.on_disconnection(again, here.carol)
    assert again.decision.is_nothing
    waiting = in_factory(away(awaits_nonce=True))
    channels.on_disconnection(waiting, here.carol)
    assert len(remembered(waiting, r.PeerDisconnected)) == 1
    assert not wished(waiting, fx.DropPools), "there was none yet"


# At each block


def spent_otherwise(depth: int) -> Factory:
    """Return the factory when something else spent what a finished close of Carol's does."""
    factory = away(closes=carols(closed_together()).closes)
    chain = factory.chain
    rival = Tx(
        version=2, inputs=(TxIn(outpoint=carols().present.outpoint, nsequence=0),), outputs=()
    )
    for number in range(depth):
        block = BlockRef(height=chain.height + 1, block_hash=Txid(bytes([number]) * 32))
        chain = chain.with_block(block, (rival,) if number == 0 else ())
    return changed(factory, chain=chain)


@pytest.mark.parametrize("depth", [SETTLED_DEPTH - 1, SETTLED_DEPTH, SETTLED_DEPTH + 1])
def test_a_channel_whose_close_is_void_for_good_begins_anew_once(depth: int) -> None:
    turn = in_factory(spent_otherwise(depth))
    channels.on_block(turn)
    gone = [one.node_id for one in wished(turn, fx.Disconnect)]
    assert gone == ([moment().carol] if depth == SETTLED_DEPTH else [])
    assert all(one.is_ours for one in wished(turn, fx.Disconnect))


def late(factory: Factory) -> Turn[Factory]:
    expiry = moment().live.htlc.cltv_expiry
    turn = in_factory(factory, replace(FRESH, header_height=expiry))
    channels.on_block(turn)
    return turn


def test_what_waits_too_long_by_its_blocks_goes_back_in_the_same_decision() -> None:
    turn = late(held())
    assert len(remembered(turn, cr.HoldEnded)) == 1
    assert failures(turn) == [NOT_DELIVERED.reason]
    turn = late(decided(known=Known(streams=(ASKER,))).state)
    assert len(remembered(turn, cr.ForwardWithdrawn)) == 1
    assert failures(turn) == [NOT_DELIVERED.reason]


def test_what_waits_too_long_by_the_clock_goes_back_in_the_same_decision() -> None:
    for factory, n_withdrawn in ((held(), 0), (decided(known=Known(streams=(ASKER,))).state, 1)):
        turn = in_factory(factory)
        channels.on_hold_ended(turn, hold_deadline(moment().key))
        assert len(remembered(turn, cr.ForwardWithdrawn)) == n_withdrawn
        assert failures(turn) == [NOT_DELIVERED.reason]


def test_what_was_refused_elsewhere_after_its_hold_goes_back_in_the_same_decision() -> None:
    asking = decided(known=Known(streams=(ASKER,)))
    turn = in_factory(asking.state)
    turn.remember(cr.HoldEnded(channel_id=moment().key[0], htlc_id=moment().key[1]))
    told = in_factory(turn.state)
    told.amend(refused(turn.state))
    channels.on_forward_refused(told, ASKER, refusal())
    assert failures(told) == [NOT_DELIVERED.reason]


def refusal() -> ForwardRefused:
    return ForwardRefused(channel_id=moment().key[0], htlc_id=moment().key[1], reason="no room")


def refused(factory: Factory) -> Factory:
    """Return the factory when a letter says that another does not take what waits."""
    return changed(factory, book=with_refused_forward(factory.book, refusal()))


def unsent(expiry: int, **about: Any) -> Factory:
    """Return the factory with an HTLC for Carol that waits for the signature it leaves with."""
    turn = in_factory(decided().state, known=Known(here=moment().everybody))
    awaiting = changed(carols(turn.state), peer_pubnonce=None)
    turn.amend(moment().with_link(awaiting, turn.state))
    delta = expiry - turn.chain.height
    channels.on_pay_asked(turn, HOUSE, asked(min_final_cltv_expiry_delta=delta))
    (waits,) = carols(turn.state).unsent
    assert waits.htlc.cltv_expiry == expiry
    return moment().with_link(changed(carols(turn.state), **about), turn.state)


def test_an_htlc_that_never_left_is_taken_back_once_its_payee_would_refuse_it() -> None:
    """Of a channel that is over nothing leaves, and who lost state cannot say what it signed."""
    expiry = moment().factory.chain.height + 1_500
    link = carols()
    blocks = link.remaining(moment().factory.chain).exit_blocks + CLAIM_BLOCKS + SAFETY_BLOCKS
    for height, about, is_taken in (
        (expiry - blocks, {}, False),
        (expiry - blocks + 1, {}, True),
        (expiry - blocks + 1, {"failure": "over"}, False),
    ):
        turn = in_factory(unsent(expiry, **about), replace(FRESH, header_height=height))
        channels.on_block(turn)
        back = [one.channel_id for one in remembered(turn, cr.AddsTakenBack)]
        assert back == ([link.channel_id] if is_taken else [])


# Paying


def asked(**about: Any) -> PayAsked:
    return PayAsked(
        **{
            "payment_hash": b"\x21" * 32,
            "payment_secret": b"\x22" * 32,
            "payee": moment().carol,
            "amount_msat": 1_000_000,
            "description": "tea",
            "min_final_cltv_expiry_delta": 1_500,
            "text": "an invoice",
            **about,
        }
    )


def paid(factory: Factory | None = None, facts: Facts = FRESH, **about: Any) -> Turn[Factory]:
    turn = in_factory(factory or decided().state, facts, Known(here=moment().everybody))
    channels.on_pay_asked(turn, HOUSE, asked(**about))
    return turn


def test_a_client_is_paid_out_of_the_lsps_side_of_its_channel() -> None:
    turn = paid()
    (started,) = remembered(turn, cr.PaymentStarted)
    assert (started.channel_id, started.asker) == (carols().channel_id, HOUSE)
    assert (started.amount_msat, started.fee_msat, started.label) == (1_000_000, 0, "")
    assert (started.text, started.description) == ("an invoice", "tea")
    (update,) = (journalled_update(one.message) for one in remembered(turn, cr.UpdateProposed))
    assert isinstance(update, UpdateAdd)
    assert update.amount_msat == 1_000_000
    assert update.cltv_expiry == moment().factory.chain.height + 1_500
    assert not remembered(turn, cr.PayDeclined)
    assert len(wished(turn, fx.SignCommitment)) == 1


def left() -> Factory:
    return changed(moment().factory, exits=frozenset({carols().client}))


def failed() -> Factory:
    return with_carols(failure="over")


def too_late() -> Factory:
    chain = moment().factory.chain
    height = carols().exit_deadline_height
    block = BlockRef(height=height, block_hash=Txid(bytes(32)))
    return changed(moment().factory, chain=chain.with_block(block, ()))


def shallow(factory: Factory | None = None) -> Factory:
    factory = factory or moment().factory
    funding = factory.attempt.funding_tx.txid
    return changed(factory, chain=factory.chain.without(10**6, [funding]))


UNKNOWN: Final = ("payee_unknown", "the payee has no live channel with this LSP")
REFUSALS: Final[list[tuple[Callable[[], Factory], tuple[str, str]]]] = [
    (left, UNKNOWN),
    (keys_held, UNKNOWN),
    (failed, UNKNOWN),
    (closed_together, UNKNOWN),
    (too_late, UNKNOWN),
    (lambda: shallow(left()), UNKNOWN),
    (away, ("payee_offline", "the payee is not connected")),
]


@pytest.mark.parametrize(("factory", "refusal"), REFUSALS)
def test_why_a_client_cannot_be_paid_is_told(
    factory: Callable[[], Factory], refusal: tuple[str, str]
) -> None:
    state = factory()
    assert channels.pay_refusal(state, moment().carol) == refusal
    turn = paid(state)
    (declined,) = turn.decision.records
    assert isinstance(declined, cr.PayDeclined)
    assert (declined.asker, declined.payment_hash) == (HOUSE, b"\x21" * 32)
    assert declined.reason == refusal[1]


def test_nobody_is_paid_on_a_funding_that_is_not_deep() -> None:
    refusal = channels.pay_refusal(shallow(), moment().carol)
    assert refusal is not None
    assert refusal[0] == NOT_DEEP
    assert "has 0 of 1 confirmation" in refusal[1]
    (declined,) = paid(shallow()).decision.records
    assert isinstance(declined, cr.PayDeclined)
    assert declined.reason == refusal[1]


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"facts": STALE}, "our chain is stale"),
        ({"facts": UNMARKABLE}, "no mark can be written here"),
        ({"payee": STRANGER}, UNKNOWN[1]),
        ({"amount_msat": 10**12}, "the channel cannot carry it now: max_htlc_value_in_flight_msat"),
        (
            {"factory": lambda: with_carols(quiet_for=b"q" * 32)},
            "the channel cannot carry it now: close",
        ),
        ({"min_final_cltv_expiry_delta": 1}, "the channel cannot carry it now: cltv_expiry"),
    ],
)
def test_why_a_payment_was_not_begun_is_told(about: dict[str, Any], reason: str) -> None:
    told = {name: value() if callable(value) else value for name, value in about.items()}
    turn = paid(**told)
    (declined,) = remembered(turn, cr.PayDeclined)
    assert declined.reason.startswith(reason)
    assert not remembered(turn, cr.PaymentStarted)
