"""Events are posted in order, signed, once where all goes well, and until they are taken."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import socket
import threading
from pathlib import Path

import pytest
from tests.daemon.webhooks.receiver import Got, House, Receiver, play, status

from cromford.adapters.memory import MemoryJournal
from cromford.daemon.webhooks import delivering, kept, posting
from cromford.daemon.webhooks.delivering import BACKOFF_SECONDS_MAX, backoff_seconds
from cromford.daemon.webhooks.kept import Target
from cromford.daemon.webhooks.posting import Message
from cromford.ports import Kept


def heights(got: list[Got]) -> list[int]:
    return [json.loads(one.body)["height"] for one in got]


def ids(got: list[Got]) -> list[str]:
    return [one.headers["webhook-id"] for one in got]


def signed(secret: str, got: Got) -> str:
    """Return the signature that a request should have, by the words of the Standard Webhooks."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    stamp = got.headers["webhook-timestamp"]
    content = got.headers["webhook-id"].encode() + b"." + stamp.encode() + b"." + got.body
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def test_each_event_is_posted_once_in_order_and_signed(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        house.happen(1, 2)
        async with Receiver().open() as receiver, house.webhooks:
            secret = await house.add(receiver.port, path="/hook?shop=7")
            house.happen(3, 4)
            await receiver.until(2)
            house.happen(5)
            got = await receiver.until(3)
            shown = await house.until(lambda one: one["cursor"] == "7f-5")
        assert heights(got) == [3, 4, 5]  # From when it was made on.
        assert ids(got) == ["evt_7f-3", "evt_7f-4", "evt_7f-5"]
        assert [json.loads(one.body) for one in got] == house.log.after(2)
        for one in got:
            assert one.request == "POST /hook?shop=7 HTTP/1.1"
            assert one.headers["host"] == f"127.0.0.1:{receiver.port}"
            assert one.headers["content-type"] == "application/json"
            assert one.headers["webhook-signature"] == signed(secret, one)
        assert shown["delivered_at"] >= int(got[-1].headers["webhook-timestamp"])
        assert (shown["failures"], shown["last_error"], shown["next_try_at"]) == (0, None, None)
        assert house.n_failures == []

    play(scenario)


def test_what_is_not_taken_is_posted_again_with_its_id_and_nothing_overtakes_it(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        receiver = Receiver()
        async with receiver.open(), house.webhooks:
            elsewhere = f"Location: http://127.0.0.1:{receiver.port}/elsewhere"
            receiver.answers = [status(500), status(302, elsewhere), status(410), b"nonsense\r\n"]
            await house.add(receiver.port)
            house.happen(1, 2)
            got = await receiver.until(6)
            await house.until(lambda one: one["cursor"] == "7f-2")
        assert ids(got) == ["evt_7f-1"] * 5 + ["evt_7f-2"]
        assert len({one.body for one in got[:5]}) == 1
        assert {one.request for one in got} == {"POST /hook HTTP/1.1"}  # No redirect was followed.
        assert house.n_failures == [1, 2, 3, 4]

    play(scenario)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (status(500), "status 500"),
        (status(307, "Location: /x"), "status 307: redirects are not followed"),
        (b"SSH-2.0-secret\r\n", "no answer of HTTP: BadStatusLine"),
        (b"", "the connection ended without an answer"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", "no answer of HTTP: LineTooLong"),
    ],
    ids=["error", "redirect", "no_http", "nothing", "endless_header"],
)
def test_a_failure_is_told_in_words_and_the_log_has_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: bytes, said: str
) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        house.backoff = lambda _n: 3_000.0
        async with Receiver([answer]).open() as receiver, house.webhooks:
            secret = await house.add(receiver.port, path="/hook?password=hidden")
            house.happen(1)
            shown = await house.until(lambda one: one["failures"])
        assert shown["last_error"] == said
        assert shown["failures"] == 1
        assert shown["next_try_at"] > shown["made_at"] + 2_000
        assert (shown["cursor"], shown["delivered_at"]) == ("7f-0", None)
        assert "webhook_failed name=shop failures=1" in caplog.text
        assert secret not in caplog.text
        assert "hidden" not in caplog.text

    with caplog.at_level(logging.DEBUG):
        play(scenario)


def test_a_receiver_that_comes_up_late_gets_all_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        # Bound, and so nobody else's; nobody listens there yet.
        place = socket.socket()
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
        async with house.webhooks:
            await house.add(place.getsockname()[1])
            house.happen(1, 2, 3)
            shown = await house.until(lambda one: one["failures"] >= 2)
            assert shown["last_error"] == "Connection refused"
            async with Receiver().open(sock=place) as receiver:
                got = await receiver.until(3)
                shown = await house.until(lambda one: one["cursor"] == "7f-3")
        assert heights(got) == [1, 2, 3]
        assert (shown["failures"], shown["last_error"], shown["next_try_at"]) == (0, None, None)

    play(scenario)


def test_after_a_restart_it_goes_on_where_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        async with Receiver().open() as receiver:
            async with house.webhooks:
                secret = await house.add(receiver.port)
                house.happen(1, 2)
                await receiver.until(2)
                await house.until(lambda one: one["cursor"] == "7f-2")
            house.happen(3, 4)
            house.begin_anew()
            async with house.webhooks:
                got = await receiver.until(4)
                house.happen(5)
                await receiver.until(5)
        assert heights(got) == [1, 2, 3, 4, 5]
        assert all(one.headers["webhook-signature"] == signed(secret, one) for one in got)

    play(scenario)


def test_a_crash_lets_some_be_posted_again_under_the_ids_they_had_and_leaves_none_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "UNWRITTEN_TAKEN_MAX", 2)

    async def scenario() -> None:
        house = House(tmp_path)
        receiver = Receiver([status(200)] * 3 + [status(500)])
        async with receiver.open():
            async with house.webhooks:
                await house.add(receiver.port)
                house.happen(1)
                before = await house.until_written("7f-1")
                house.happen(2, 3, 4, 5)
                await house.until(lambda one: one["cursor"] == "7f-5")
            await house.until_written("7f-5")  # As it ended, at the latest.
            (tmp_path / kept.FILE_NAME).write_bytes(before)
            house.begin_anew()
            async with house.webhooks:
                got = await receiver.until(10)
        assert heights(got) == [1, 2, 3, 4, 4, 5, 2, 3, 4, 5]
        assert ids(got) == [f"evt_7f-{height}" for height in heights(got)]

    play(scenario)


def test_what_is_taken_is_on_disk_once_nothing_waits_and_now_and_then_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = kept.write_webhooks

    def noted(home: Path, webhooks: list[kept.Webhook]) -> None:
        written.extend(webhook.cursor for webhook in webhooks)
        write(home, webhooks)

    monkeypatch.setattr(delivering, "write_webhooks", noted)
    monkeypatch.setattr(delivering, "UNWRITTEN_TAKEN_MAX", 4)
    monkeypatch.setattr(delivering, "UNWRITTEN_SEEN_MAX", 6)

    async def scenario() -> None:
        house = House(tmp_path)
        async with Receiver().open() as receiver:
            await house.add(receiver.port)
            house.happen(*range(1, 11))
            async with house.webhooks:
                await receiver.until(10)
                await house.until_written("7f-a")
            assert written == ["7f-0", "7f-4", "7f-8", "7f-a"]
            await house.ask("webhook_remove", name="shop")
            written.clear()
            await house.add(receiver.port, only=["peer_connected"])
            house.happen(*range(11, 18))
            house.begin_anew()
            async with house.webhooks:
                await house.until(lambda one: one["cursor"] == "7f-11")
        # Of those that nobody wants it remembers little, and where it was as it ended.
        assert written == ["7f-a", "7f-10", "7f-11"]

    play(scenario)


class Forgetful(MemoryJournal):
    """A journal that has no record before the fifth."""

    @property
    def oldest(self) -> int:
        return 5


@pytest.mark.parametrize(
    ("store", "journal_number", "expected"),
    [(Forgetful, 0x7F, [5, 6]), (MemoryJournal, 0x80, [1, 2, 3, 4, 5, 6])],
    ids=["forgotten", "another_journal"],
)
def test_where_events_are_gone_it_goes_on_with_the_oldest_and_says_so(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    store: type[MemoryJournal],
    journal_number: int,
    expected: list[int],
) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        house.happen(1, 2)
        async with Receiver().open() as receiver:
            await house.add(receiver.port)
            house.happen(3, 4, 5, 6)
            later = House(
                tmp_path, store=store(entries=house.store.entries), journal_number=journal_number
            )
            async with later.webhooks:
                got = await receiver.until(len(expected))
            assert heights(got) == expected
            assert (await later.shown())["missed_after"] == "7f-2"
            later.begin_anew()
            assert (await later.shown())["missed_after"] == "7f-2"
        assert "webhook_missed name=shop" in caplog.text

    play(scenario)


class Busy(MemoryJournal):
    """A journal of three records, to which another comes when it is about to be read first."""

    n_to_come = 1

    @property
    def oldest(self) -> int:
        return max(1, self.newest - 2)

    def history(self, *, after: int, limit: int) -> list[Kept]:
        if self.n_to_come:
            self.n_to_come -= 1
            self.append([self.entries[-1]])
        return super().history(after=after, limit=limit)


def test_events_that_go_while_they_are_about_to_be_read_end_no_webhook(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        async with Receiver().open() as receiver:
            await house.add(receiver.port)
            house.happen(1, 2, 3, 4, 5, 6)
            later = House(tmp_path, store=Busy(entries=house.store.entries))
            async with later.webhooks:
                shown = await later.until(lambda one: one["cursor"] == "7f-7")
                later.happen(8)
                got = await receiver.until(4)
        assert ids(got) == ["evt_7f-5", "evt_7f-6", "evt_7f-7", "evt_7f-8"]
        assert shown["missed_after"] == "7f-0"
        assert shown["last_error"] is None
        assert "webhook_ended" not in caplog.text

    play(scenario)


def test_only_the_events_that_are_asked_for_are_posted_and_each_webhook_has_its_own(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        async with Receiver().open() as all_of_them, Receiver().open() as none, house.webhooks:
            await house.add(none.port, name="a", only=["peer_connected", "invoice_paid"])
            await house.add(all_of_them.port, name="b", only=["block_connected"])
            house.happen(1, 2)
            await all_of_them.until(2)
            shown = await house.until(lambda one: one["cursor"] == "7f-2")
        assert none.got == []
        assert shown["only"] == ["invoice_paid", "peer_connected"]
        assert shown["delivered_at"] is None

    play(scenario)


def test_one_that_fails_holds_up_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        silent = Receiver(is_silent=True)
        async with silent.open(), Receiver().open() as other, house.webhooks:
            await house.add(silent.port, name="a")
            await house.add(other.port, name="b")
            house.happen(1, 2, 3)
            await silent.until(1)
            assert heights(await other.until(3)) == [1, 2, 3]
        assert heights(silent.got) == [1]

    play(scenario)


def test_how_many_fail_is_counted_until_they_are_taken(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        house.backoff = lambda n_failures: 1.0 if n_failures == 1 else 0.0
        refusing = Receiver([status(500)])
        async with refusing.open(), Receiver().open() as other, house.webhooks:
            await house.add(refusing.port, name="a")
            await house.add(other.port, name="b")
            assert [*house.webhooks.samples()] == [("webhooks_failing", {}, 0)]
            house.happen(1)
            await other.until(1)
            await house.until(lambda one: one["failures"] == 1)
            assert [*house.webhooks.samples()] == [("webhooks_failing", {}, 1)]
            await house.until(lambda one: one["delivered_at"])
            assert [*house.webhooks.samples()] == [("webhooks_failing", {}, 0)]

    play(scenario)


def test_a_webhook_that_is_removed_stops_while_it_posts_or_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        house.backoff = lambda _n: 3_000.0
        silent, refusing = Receiver(is_silent=True), Receiver([status(500)])
        async with silent.open(), refusing.open(), house.webhooks:
            await house.add(silent.port, name="silent")
            await house.add(refusing.port, name="refusing")
            house.happen(1)
            await silent.until(1)
            await refusing.until(1)
            for name in ("silent", "refusing"):
                assert (await house.ask("webhook_remove", name=name))["name"] == name
            assert await house.ask("webhooks") == {"webhooks": []}
            await silent.is_left.wait()  # What it waited for was given up.
            secret = await house.add(refusing.port, name="new")
            house.happen(2)
            got = await refusing.until(2)
        assert heights(silent.got) == [1]
        assert heights(got) == [1, 2]
        assert got[1].headers["webhook-signature"] == signed(secret, got[1])

    play(scenario)


def test_a_receiver_that_does_not_answer_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async def patient(target: Target, key: bytes, message: Message) -> None:
        # Longer than any test: whoever waited for it would never be done.
        await posting.post(target, key, message, unix_time=1, seconds=100_000.0)

    async def scenario() -> None:
        house = House(tmp_path)
        house.begin_anew(poster=patient)
        silent = Receiver(is_silent=True)
        async with silent.open():
            async with house.webhooks:
                await house.add(silent.port)
                house.happen(1)
                await silent.until(1)
            await silent.is_left.wait()
            house.begin_anew()
            silent.is_silent = False
            async with house.webhooks:
                assert ids(await silent.until(2)) == ["evt_7f-1"] * 2

    play(scenario)


def test_a_disk_that_refuses_is_told_and_nothing_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        async with Receiver().open() as receiver:
            async with house.webhooks:
                await house.add(receiver.port)
                with monkeypatch.context() as full:

                    def refuse(_home: Path, _webhooks: list[kept.Webhook]) -> None:
                        raise OSError(28, "No space left on device")

                    full.setattr(delivering, "write_webhooks", refuse)
                    house.happen(1)
                    await receiver.until(1)
                    house.happen(2)
                    await house.until(lambda one: one["cursor"] == "7f-2")
                    async with asyncio.timeout(60):
                        while "webhooks_not_written" not in caplog.text:  # noqa: ASYNC110 - a log
                            await asyncio.sleep(0.005)
            assert b"7f-2" in (tmp_path / kept.FILE_NAME).read_bytes()  # As it ended.

    play(scenario)


def test_where_no_thread_can_begin_a_webhook_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")  # What CPython says: `pids.max`, `ulimit -u`.

    async def scenario() -> None:
        taken: list[str] = []

        async def take(_target: Target, _key: bytes, message: Message) -> None:
            taken.append(message.message_id)

        house = House(tmp_path)
        house.begin_anew(poster=take)
        async with house.webhooks:
            await house.add(1, name="old")
            with monkeypatch.context() as full:
                full.setattr(threading.Thread, "start", refuse)
                house.happen(1)
                await house.until(lambda _one: "webhooks_not_written" in caplog.text)
                await house.add(1, name="shop")
                await house.ask("webhook_remove", name="old")
            assert await house.log.wait_after(0, seconds=1.0)  # By a thread, which is had again.
            assert [one.name for one in kept.read_webhooks(tmp_path)] == ["shop"]
            house.happen(2)
            await house.until_written("7f-2")
        assert taken == ["evt_7f-1", "evt_7f-2"]

    play(scenario)


def test_the_waits_grow_from_a_second_to_an_hour_and_are_drawn() -> None:
    for n_failures in range(1, 40):
        drawn = [backoff_seconds(n_failures) for _ in range(50)]
        longest = min(BACKOFF_SECONDS_MAX, 2.0**n_failures)
        assert all(longest / 2 <= seconds <= longest for seconds in drawn)
        assert len(set(drawn)) > 1
    assert 1 <= backoff_seconds(1) <= 2
    assert backoff_seconds(10**6) <= 3_600
