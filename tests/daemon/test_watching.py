"""Events, logs and metrics: what an operator sees, and what nobody must see."""

import asyncio
import json
import logging
import urllib.request
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.adapters.memory import MemoryJournal
from cromford.bitcoin.network import REGTEST
from cromford.daemon.api.events import events_method
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.backup.high_water import NO_RECORD
from cromford.daemon.event_log import CursorExpired, CursorUnknown, EventLog
from cromford.daemon.logs import JsonFormatter, set_up_logging
from cromford.daemon.metrics import MetricsServer
from cromford.ports import EVENTS_KEPT, Checkpoint, Entry
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal import records as r
from cromford.protocol.journal.records import encode_record

NODE_ID = b"\2" * 33


def log_of(*records: r.AnyRecord, store: MemoryJournal | None = None) -> EventLog:
    store = MemoryJournal() if store is None else store
    store.append([Entry("client", encode_record(record)) for record in records])
    return EventLog(store, journal_number=0x7F)


def test_events_are_told_in_the_order_of_the_journal() -> None:
    log = log_of(
        r.Started(),
        r.PeerConnected(node_id=NODE_ID),
        r.BlockConnected(height=7, block_hash=bytes(32), txs=(b"tx",)),
    )

    assert log.after(0) == [
        {"cursor": "7f-1", "event": "started", "at": None},
        {"cursor": "7f-2", "event": "peer_connected", "at": None, "node_id": NODE_ID.hex()},
        {"cursor": "7f-3", "event": "block_connected", "at": None, "height": 7},
    ]
    assert log.after(2) == log.after(0)[2:]
    assert log.after(3) == []


def test_the_network_of_an_event_is_the_hash_of_its_first_block_as_people_read_it() -> None:
    log = log_of(r.Created(role="client", network=bytes(REGTEST.genesis_hash), journal_number=1))
    genesis = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
    assert log.after(0)[0]["network"] == genesis


@given(
    n_events=st.lists(st.integers(0, 7), min_size=1, max_size=6),
    limit=st.integers(1, 5),
    data=st.data(),
)
def test_a_reader_with_the_last_cursor_sees_each_event_once_over_restarts(
    n_events: list[int], limit: int, data: st.DataObject
) -> None:
    store, seen, cursor, height = MemoryJournal(), [], "", 0
    for n in n_events:
        blocks = [
            r.BlockConnected(height=height + i, block_hash=bytes(32), txs=()) for i in range(n)
        ]
        height += n
        log = log_of(*blocks, store=store)
        if data.draw(st.booleans()):
            store.replace_checkpoint(Checkpoint("client", height, b""))
        for event in log.after(log.number_of(cursor), limit=limit):
            seen.append(event["height"])
            cursor = event["cursor"]
    assert seen == list(range(len(seen)))


def test_a_cursor_from_before_what_is_kept_is_answered_with_that() -> None:
    """A gap that nobody told of would be the worst of answers."""
    store = MemoryJournal([Entry("client", encode_record(r.Started()))] * (EVENTS_KEPT + 2))
    log = log_of(store=store)
    assert log.number_of("7f-2") == 2
    assert log.after(log.number_of(""))[0] == {"cursor": "7f-3", "event": "started", "at": None}
    with pytest.raises(CursorExpired, match="only the newest 10000 events are kept"):
        log.number_of("7f-1")


@pytest.mark.parametrize(
    ("cursor", "complaint"),
    [
        ("7", "is no cursor"),
        ("7f-1 ", "is no cursor"),
        ("7f-\u0661", "is no cursor"),
        ("-1", "is no cursor"),
        ("80-1", "of another journal"),
        ("7f-2", "that this journal does not have"),
    ],
)
def test_what_this_journal_never_gave_is_no_cursor(cursor: str, complaint: str) -> None:
    with pytest.raises(CursorUnknown, match=complaint):
        log_of(r.Started()).number_of(cursor)


def put_back(*restores: tuple[int, bytes]) -> EventLog:
    """Return the log of five events; before some of them the journal was put back."""
    store = MemoryJournal([Entry("client", encode_record(r.Started()))] * 5)
    return EventLog(store, journal_number=0x7F, restores=lambda: restores)


def test_an_event_in_the_place_of_one_that_was_lost_has_another_cursor() -> None:
    log = put_back((3, bytes.fromhex("01020304")), (5, bytes.fromhex("0a0b0c0d")))
    cursors = [event["cursor"] for event in log.after(0)]
    assert cursors == ["7f-1", "7f-2", "7f-01020304-3", "7f-01020304-4", "7f-0a0b0c0d-5"]
    assert [log.number_of(cursor) for cursor in cursors] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "cursor", ["7f-3", "7f-5", "7f-01020304-5", "7f-0a0b0c0d-4", "7f-01020304-2", "7f-ffffffff-3"]
)
def test_a_reader_that_saw_what_was_lost_is_told_so(cursor: str) -> None:
    log = put_back((3, bytes.fromhex("01020304")), (5, bytes.fromhex("0a0b0c0d")))
    with pytest.raises(CursorUnknown, match="put back from a backup, which may have lost it"):
        log.number_of(cursor)


async def ask(log: EventLog, **params: object) -> Any:
    return await events_method(log)(params)


@pytest.mark.parametrize(
    ("after", "code"), [("7f-1", "events_expired"), ("80-9", "cursor_unknown")]
)
def test_the_api_names_what_is_wrong_with_a_cursor(after: str, code: str) -> None:
    store = MemoryJournal([Entry("client", encode_record(r.Started()))] * (EVENTS_KEPT + 2))
    with pytest.raises(ApiFailure, match="after: ") as refused:
        asyncio.run(ask(log_of(store=store), after=after))
    assert refused.value.code == code
    assert "without a cursor" in refused.value.remediation


def test_an_answer_ends_with_the_cursor_to_go_on_from() -> None:
    log = log_of(r.Started(), r.PeerConnected(node_id=NODE_ID))
    answer = asyncio.run(ask(log))
    assert answer["cursor"] == "7f-2"
    assert asyncio.run(ask(log, after="7f-2")) == {"events": [], "cursor": "7f-2"}
    assert asyncio.run(ask(log_of())) == {"events": [], "cursor": "7f-0"}
    assert log.number_of("7f-0") == 0


def test_an_event_tells_no_signature_and_no_message() -> None:
    log = log_of(
        op.BelowPartialsMade(
            attempt_id=bytes(32),
            partial_sigs=(b"\xabpartial", b"\xabsecond"),
            commitment_partial_sig=b"\xabcommitment",
            own_partial_sig=b"\xabown",
        ),
        op.ExitFinished(
            attempt_id=bytes(32), signatures=(b"\xabsig",), commitment_signature=b"\xabwhole"
        ),
        lr.ClientJoined(node_id=NODE_ID, message=b"\xabjoin", is_moving=False),
    )

    assert "ab" not in json.dumps(log.after(0)).replace("attempt", "")


def filled(kind: type[msgspec.Struct]) -> Any:
    """Return a record whose every field can be told from the others' wherever it appears."""
    values: dict[str, object] = {}
    for number, field in enumerate(msgspec.structs.fields(kind), start=1):
        of_type: dict[object, object] = {
            bytes: bytes([0xA0 + number]) * 32,
            str: f"<text {number}>",
            int: 7_000_000 + number,
            bool: True,
            tuple[bytes, ...]: (bytes([0xA0 + number]) * 64,),
            bytes | None: bytes([0xA0 + number]) * 32,
        }
        if field.type in of_type:
            values[field.name] = of_type[field.type]
    return kind(**values)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (cr.ChannelPrepared, "channel_id"),
        (cr.NonceAwaited, "channel_id"),
        (cr.ChannelReestablished, "channel_id"),
        (cr.UpdateProposed, "channel_id"),
        (cr.UpdateReceived, "channel_id"),
        (cr.CommitmentIntended, "channel_id"),
        (cr.CommitmentFinished, "channel_id"),
        (cr.RevocationReceived, "channel_id"),
        (cr.ChannelFailed, "channel_id reason height is_behind"),
        (cr.PeerLostState, "channel_id"),
        (cr.PeerMarked, "channel_id"),
        (cr.MarksCompared, "channel_id own_msat"),
        (cr.StaleAllowed, "channel_id"),
        (cr.InvoiceIssued, "payment_hash amount_msat expires_at label external_id"),
        (cr.InvoiceExpired, "payment_hash"),
        (cr.InvoicePaid, "payment_hash channel_id htlc_id amount_msat"),
        (cr.PaymentStarted, "payment_hash payee amount_msat fee_msat channel_id htlc_id label"),
        (cr.HtlcHeld, "channel_id htlc_id reason"),
        (cr.HoldEnded, "channel_id htlc_id"),
        (cr.HtlcForwarded, "channel_id htlc_id to fee_msat"),
        (cr.ForwardOffered, "in_channel_id in_htlc_id channel_id htlc_id"),
        (cr.ForwardDeclined, "in_channel_id in_htlc_id reason"),
        (cr.HtlcDecided, "channel_id htlc_id"),
        (cr.FeeEarned, "channel_id htlc_id payment_hash fee_msat"),
    ],
)
def test_an_event_about_a_payment_tells_these_fields_and_nothing_else(
    kind: type[msgspec.Struct], told: str
) -> None:
    record = filled(kind)
    (event,) = log_of(record).after(0)
    assert set(event) == {"cursor", "event", "at", *told.split()}
    hidden = set(kind.__struct_fields__) - set(told.split())
    text = json.dumps(event)
    for name in hidden:
        value = getattr(record, name)
        for one in value if isinstance(value, tuple) else (value,):
            assert (one.hex() if isinstance(one, bytes) else str(one)) not in text, name


def test_a_reader_that_waits_is_let_go_when_the_daemon_stops() -> None:
    async def scenario() -> None:
        log = log_of()
        waiting = asyncio.create_task(log.wait_after(0, seconds=60))
        await asyncio.sleep(0)
        log.close()
        assert await waiting == []
        assert await log.wait_beyond(0, seconds=60) is False

    asyncio.run(scenario())


def test_a_reader_waits_for_the_next_event_and_no_longer() -> None:
    async def scenario() -> None:
        store = MemoryJournal()
        log = log_of(store=store)
        assert await log.wait_after(0, seconds=0.01) == []
        waiting = asyncio.create_task(log.wait_after(0, seconds=10))
        await asyncio.sleep(0)
        store.append([Entry("client", encode_record(r.Started()))])
        log.news()
        assert [event["event"] for event in await waiting] == ["started"]

    asyncio.run(scenario())


def test_a_json_log_line_has_the_fields_of_its_call() -> None:
    record = logging.LogRecord(
        "room", logging.WARNING, "file", 1, "tx_refused name=%s n=%s", ("funding", 3), None
    )

    line = json.loads(JsonFormatter().format(record))

    assert {key: line[key] for key in ("level", "room", "event", "name", "n")} == {
        "level": "warning",
        "room": "room",
        "event": "tx_refused",
        "name": "funding",
        "n": 3,
    }


@pytest.mark.parametrize(("level", "form"), [("loud", "text"), ("info", "xml")])
def test_unknown_log_settings_are_refused(level: str, form: str) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        set_up_logging(level=level, form=form)


def test_metrics_are_served_on_loopback_as_they_are_when_asked() -> None:
    numbers = {"live": 1.0}

    def read() -> list[tuple[str, dict[str, str], float]]:
        return [("height", {}, 7.0), ("factories", {"status": "live"}, numbers["live"])]

    server = MetricsServer(("127.0.0.1", 0), read)
    try:
        numbers["live"] = 2.0
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        server.close()

    assert "cromford_height 7.0" in text
    assert 'cromford_factories{status="live"} 2.0' in text


def test_a_cursor_of_before_a_restore_was_proven_is_good_after_it() -> None:
    """A mark's place that was away for a while proves it late: readers were told names by then."""
    cursor = put_back((2, b"rest")).cursor_of(3)
    proven = put_back((NO_RECORD, b"rest"))
    assert cursor != proven.cursor_of(3)
    assert proven.number_of(cursor) == 3
    assert proven.number_of(proven.cursor_of(3)) == 3
    lost_since = put_back((NO_RECORD, b"rest"), (3, b"more"))
    for one in (cursor, proven.cursor_of(3)):
        with pytest.raises(CursorUnknown, match="put back from a backup"):
            lost_since.number_of(one)
    with pytest.raises(CursorUnknown, match="put back from a backup"):
        proven.number_of(cursor.replace(b"rest".hex(), b"none".hex()))
