"""Daemons whose store is kept safe: put back from every kind of backup, marked before effects."""

import asyncio
import contextlib
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cli.conftest import CommandLine
from tests.daemon.test_durable_daemons import AMOUNT_MSAT, pay
from tests.daemon.town import Town, town

from cromford.daemon import mark_keeping, safekeeping
from cromford.daemon.api import beside
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.backup.replica import Replica
from cromford.daemon.backup.restored import RecordsLost
from cromford.daemon.seed_file import read_phrase
from cromford.wire import messages as m


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (mark_keeping, safekeeping):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.1)
    places = tmp_path / "places"
    for whose in (".", "lsp", "alice"):
        for name in ("second", "third"):
            (places / whose / name).mkdir(parents=True)
    return places


def kept_safe(places: Path) -> dict[str, Any]:
    return {"backup_dir": places / "second", "mark_dir": places / "third"}


async def backup_status(t: Town, name: str) -> dict[str, Any]:
    found: dict[str, Any] = await t.call(name, "backup_status")
    return found


async def safe(t: Town, name: str) -> dict[str, Any]:
    """Wait until everything that a daemon remembers is where it is kept safe."""

    def is_safe(status: dict[str, Any]) -> bool:
        replica, mark = status["replica"], status["mark"]
        return bool(
            replica["behind_records"] == 0
            and replica["is_reachable"]
            and mark["marked_records"] == mark["records"] == status["records"]
        )

    found: dict[str, Any] = await t.until(name, "backup_status", is_safe)
    return found


async def lose(t: Town, name: str) -> CommandLine:
    """Lose a stopped daemon's disk; make a home of its words, and return its command line."""
    home = t.base / name / "regtest"
    phrase = read_phrase(home, None)
    shutil.rmtree(t.base / name)
    line = CommandLine(t.base / name)
    result = await asyncio.to_thread(
        line.run, name_of(name), "seed", "restore", "--yes", typed=phrase
    )
    assert result.exit_code == 0, result.stderr
    return line


def name_of(name: str) -> str:
    return "lsp" if name == "lsp" else "client"


def marks_in(place: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in place.glob("*/*.mark")}


async def put_back(t: Town, name: str, backup: Path) -> dict[str, Any]:
    line = await lose(t, name)
    words = (name_of(name), "backup", "restore", str(backup), "--yes")
    answer: dict[str, Any] = await asyncio.to_thread(line.document, *words)
    return answer


def no_thread(*_job: object) -> object:
    raise RuntimeError("can't start new thread")  # What CPython says: `pids.max`, `ulimit -u`.


def test_seed_and_backup_on_a_new_machine_see_the_coins_and_the_tree_path_is_published(
    tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            factory_id = await t.build("alice")
            await pay(t, "lsp", "alice", AMOUNT_MSAT)
            address = (await t.call("alice", "address"))["address"]
            await t.call("lsp", "wallet_send", address=address, amount_sat=70_000)
            await t.mine(1, mempool=1)
            coins = (await t.call("alice", "wallet_coins"))["coins"]
            with monkeypatch.context() as full:
                loop = SimpleNamespace(run_in_executor=no_thread)
                full.setattr(beside, "asyncio", SimpleNamespace(get_running_loop=lambda: loop))
                with pytest.raises(ApiFailure) as failure:
                    await t.call("alice", "backup_create", file=str(places / "one"))
            assert (failure.value.code, failure.value.retryable) == ("thread_unavailable", True)
            made = await t.call("alice", "backup_create", file=str(places / "one"))
            with pytest.raises(ApiFailure, match="exists"):
                await t.call("alice", "backup_create", file=str(places / "one"))
            with pytest.raises(ApiFailure, match="absolute"):
                await t.call("alice", "backup_create", file="two")
            seen = await asyncio.to_thread(
                CommandLine(t.base / "alice").document,
                *("client", "backup", "verify", str(places / "one")),
            )
            assert (seen["records"], seen["channels"]) == (made["records"], 1)
            assert seen["behind_records"] >= 0
            await t.stop("alice")
            restored = await put_back(t, "alice", places / "one")
            assert restored["backup_id"] == made["backup_id"]
            assert restored["marked_streams"] == 1

            await t.start_client("alice")
            status = await backup_status(t, "alice")
            assert (status["is_restored"], status["source"]) == (True, str(places / "one"))
            assert (await t.call("alice", "wallet_coins"))["coins"] == coins
            factory = (await t.call("alice", "factories"))["factories"][-1]
            assert factory["factory_id"] == factory_id
            await t.call("alice", "exit_start")
            async with asyncio.timeout(20):
                while not t.node.call("getrawmempool"):  # noqa: ASYNC110 - another process's
                    await asyncio.sleep(0.05)
            (txid,) = t.node.call("getrawmempool")
            branch = (await t.call("alice", "factory"))["transactions"]
            assert txid in {tx["txid"] for tx in branch}

            await t.call("lsp", "backup_create", file=str(places / "lsp.backup"))
            await t.stop("lsp")
            restored = await put_back(t, "lsp", places / "lsp.backup")
            assert (restored["channels"], restored["marked_streams"]) == (1, 2)
            await t.start_lsp()
            status = await backup_status(t, "lsp")
            assert (status["is_restored"], status["source"]) == (True, str(places / "lsp.backup"))
            factory = (await t.call("lsp", "factories"))["factories"][-1]
            assert factory["factory_id"] == factory_id

    asyncio.run(scenario())


def test_what_was_paid_since_the_backup_is_not_paid_again(tmp_path: Path, places: Path) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            await t.build("alice", "bob")
            await pay(t, "lsp", "alice", AMOUNT_MSAT)
            await t.call("alice", "backup_create", file=str(places / "one"))
            invoice = (await t.call("bob", "invoice", amount_msat=AMOUNT_MSAT // 2))["invoice"]
            assert (await t.call("alice", "pay", invoice=invoice))["status"] == "paid"
            await t.stop("alice")
            await put_back(t, "alice", places / "one")
            await t.start_client("alice")
            with pytest.raises(ApiFailure) as refused:
                await t.call("alice", "pay", invoice=invoice)
            assert (refused.value.code, refused.value.retryable) == ("may_be_paid", False)
            assert "for a new invoice" in refused.value.remediation

    asyncio.run(scenario())


@pytest.mark.sampled(0)
def test_a_replica_that_lost_nothing_is_proven_by_the_mark_and_an_older_one_is_not(
    tmp_path: Path, places: Path
) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            for name in ("lsp", "alice"):
                t.more[name] = kept_safe(places / name)
            await t.stop("lsp")
            await t.start_lsp()
            await t.build("alice")
            await pay(t, "lsp", "alice", AMOUNT_MSAT)
            for name in ("alice", "lsp"):
                await safe(t, name)
            second = places / "alice" / "second"
            shutil.copytree(second, places / "older")
            await pay(t, "lsp", "alice", AMOUNT_MSAT)
            await safe(t, "alice")
            own_msat = (await t.call("alice", "balance"))["total"]["own_msat"]
            seen = (await t.call("alice", "events"))["cursor"]
            await t.stop("alice")

            await put_back(t, "alice", second)
            before = marks_in(places / "alice" / "third")
            await t.start_client("alice")
            daemon, _ = t.running["alice"]
            assert daemon.safe.marks is not None
            assert daemon.safe.marks.is_proven
            assert (await t.call("alice", "balance"))["total"]["own_msat"] == own_msat
            assert (await t.call("alice", "events", after=seen))["events"], "nothing was lost"
            await t.stop("alice")

            for path, mark in before.items():
                await asyncio.to_thread(path.write_bytes, mark)
            await put_back(t, "alice", places / "older")
            await t.start_client("alice")
            daemon, _ = t.running["alice"]
            assert daemon.safe.marks is not None
            assert not daemon.safe.marks.is_proven
            assert (await backup_status(t, "alice"))["is_restored"]
            while (await t.call("alice", "backup_status"))["records"] < int(seen.split("-")[1], 16):
                await t.mine(1)  # Until it has an event of that number, too.
            with pytest.raises(ApiFailure, match="put back from a backup"):
                await t.call("alice", "events", after=seen)
            assert before.items() <= marks_in(places / "alice" / "third").items()

    asyncio.run(scenario())


async def paid_at_last(t: Town, invoice: str) -> None:
    """Let the LSP pay, however often it is refused or hung up on meanwhile."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(ApiFailure):
                paid = await t.call("lsp", "pay", invoice=invoice, wait_seconds=5)
                if paid["status"] == "paid":
                    return
            await asyncio.sleep(0.05)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["lsp", "alice"])
def test_what_could_not_be_marked_is_not_said_and_goes_on_when_it_can_be(
    tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    away = places / "away"

    async def scenario() -> None:
        async with town(tmp_path) as t:
            t.more[name] = kept_safe(places)
            if name == "lsp":
                await t.stop("lsp")
                await t.start_lsp()
            await t.build("alice")
            await pay(t, "lsp", "alice", AMOUNT_MSAT)
            daemon, _ = t.running[name]
            said: list[type[m.Message]] = []
            send = daemon.peers.send

            def note(node_id: bytes, message: m.Message) -> None:
                said.append(type(message))
                send(node_id, message)

            invoice = await t.call("alice", "invoice", amount_msat=AMOUNT_MSAT)
            (places / "third").rename(away)
            monkeypatch.setattr(daemon.peers, "send", note)
            paying = asyncio.create_task(paid_at_last(t, invoice["invoice"]))
            await t.until(name, "backup_status", lambda s: not s["mark"]["is_reachable"])
            await asyncio.sleep(0.5)
            assert not {m.RevokeAndAck, m.CommitmentSigned} & {*said}
            (warning, *_) = (await t.call(name, "status"))["backup_warnings"]
            assert warning.startswith("no channel is updated: ")
            assert not paying.done()
            away.rename(places / "third")
            await paying
            await safe(t, name)

    asyncio.run(scenario())


def test_an_old_copy_and_an_emptied_place_are_found_out_at_a_start(
    tmp_path: Path, places: Path
) -> None:
    third = places / "third"

    async def scenario() -> None:
        async with town(tmp_path) as t:
            await t.stop("lsp")
            home = t.base / "lsp" / "regtest"
            await asyncio.to_thread(shutil.copytree, home, places / "older")
            t.more["lsp"] = kept_safe(places)
            await t.start_lsp()
            await t.mine(1)
            await safe(t, "lsp")
            daemon, _ = t.running["lsp"]
            samples = {name: value for name, _, value in daemon.samples()}
            assert samples["mark_reachable"] == samples["replica_reachable"] == 1
            assert samples["replica_behind_records"] == samples["store_restored"] == 0
            with pytest.raises(ApiFailure, match="the mark is as it should be"):
                await t.call("lsp", "backup_begin_mark")
            await t.stop("lsp")

            await asyncio.to_thread(third.rename, places / "kept")
            third.mkdir()
            await t.start_lsp()
            mark = (await backup_status(t, "lsp"))["mark"]
            assert (mark["is_reachable"], mark["needs_begin_mark"]) == (False, True)
            assert "Was it emptied, or is a file system not mounted?" in mark["reason"]
            assert t.running["lsp"][0].facts.unmarkable == mark["reason"]
            began = await t.call("lsp", "backup_begin_mark")
            assert began["is_reachable"]
            assert t.running["lsp"][0].facts.unmarkable is None
            assert not (await backup_status(t, "lsp"))["is_restored"]
            await t.stop("lsp")

            await asyncio.to_thread(shutil.rmtree, home)
            await asyncio.to_thread(shutil.copytree, places / "older", home)
            await t.start_lsp()
            status = await backup_status(t, "lsp")
            assert status["is_restored"]
            assert "another copy of this store, which went on" in status["source"]
            warnings = (await t.call("lsp", "status"))["backup_warnings"]
            assert any("this store was restored" in warning for warning in warnings)
            assert len(marks_in(third)) == 2

    asyncio.run(scenario())


async def become_older(t: Town, place: Path) -> None:
    """Copy alice's store while she is stopped, let it go on with its replica, put the copy back."""
    home = t.base / "alice" / "regtest"
    await asyncio.to_thread(shutil.copytree, home, place)
    await t.start_client("alice")
    await pay(t, "lsp", "alice", AMOUNT_MSAT)
    await t.until("alice", "backup_status", lambda s: s["replica"]["behind_records"] == 0)
    await t.stop("alice")
    await asyncio.to_thread(shutil.rmtree, home)
    await asyncio.to_thread(shutil.copytree, place, home)


def test_an_old_copy_is_found_out_by_its_replica_where_no_mark_is_kept(
    tmp_path: Path, places: Path
) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            t.more["alice"] = {"backup_dir": places / "second"}
            await t.build("alice")
            await pay(t, "lsp", "alice", AMOUNT_MSAT)
            await t.stop("alice")
            await become_older(t, places / "older")
            await t.start_client("alice")
            status = await backup_status(t, "alice")
            assert status["is_restored"]
            assert "an older copy: " in status["source"]
            assert "in the replica in " in status["source"]
            (link,) = t.running["alice"][0].driver.state.book.links.values()
            assert link.mark is not None

    asyncio.run(scenario())


def test_a_replica_that_comes_back_and_leads_ends_the_daemon_and_its_next_start_is_marked(
    tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safekeeping, "Replica", partial(Replica, retry_seconds=0.1))
    second, away = places / "second", places / "away"

    async def scenario() -> None:
        async with town(tmp_path) as t:
            t.more["alice"] = {"backup_dir": second}
            await t.build("alice")
            await t.stop("alice")
            await become_older(t, places / "older")
            await asyncio.to_thread(second.rename, away)
            await t.start_alone("alice")
            assert not (await backup_status(t, "alice"))["is_restored"]
            _, running = t.running.pop("alice")
            await asyncio.to_thread(away.rename, second)
            async with asyncio.timeout(20):
                while not running.done():
                    t.node.call("generatetoaddress", 1, t.mining_address)
                    await asyncio.sleep(0.2)
            with pytest.raises(RecordsLost, match="the replica in "):
                await running
            await t.start_alone("alice")
            assert (await backup_status(t, "alice"))["is_restored"]

    asyncio.run(scenario())
