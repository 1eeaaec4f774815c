"""A bug met while deciding, in real daemons: who goes, who stays, and who is told."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.daemon.town import Town, town

from cromford.daemon import lspd
from cromford.daemon.api.failures import ApiFailure
from cromford.protocol import events as ev
from cromford.protocol import lsp
from cromford.protocol.facts import Facts
from cromford.protocol.journal.intents import DoubleSigning
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.turn import Decision
from cromford.wire import messages as m


class Bug(Exception):
    """What nobody foresaw."""


class Faulty:
    """An LSP's `decide` that has a bug about some events, while it is switched on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.about: Callable[[ev.Event], bool] = lambda _event: False
        self.error: Exception = Bug("a secret word")
        self.n_met = 0
        monkeypatch.setattr(lspd, "LSP_ROLE", replace(lspd.LSP_ROLE, decide=self.decide))

    def decide(self, state: LspState, event: ev.Event, facts: Facts) -> Decision[LspState]:
        decision = lsp.decide(state, event, facts)
        if self.about(event):
            self.n_met += 1
            raise self.error
        return decision


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Faulty:
    return Faulty(monkeypatch)


async def payment(t: Town, payer: str, payee: str, amount_msat: int) -> str:
    invoice = await t.call(payee, "invoice", amount_msat=amount_msat)
    paid = await t.call(payer, "pay", invoice=invoice["invoice"], wait_seconds=20.0)
    status: str = paid["status"]
    return status


@pytest.mark.sampled(1)
@pytest.mark.parametrize("error", [Bug("a secret word"), AssertionError(), DoubleSigning()])
def test_the_peer_goes_and_the_daemon_serves_everybody_else(
    tmp_path: Path, faulty: Faulty, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(t: Town) -> None:
        await t.build("alice", "bob", "carol")
        for name in ("alice", "bob", "carol"):
            await t.until(name, "factory", lambda a: a["channel_status"] == "open")
            assert await payment(t, "lsp", name, 20_000_000) == "paid"
        alice_id = bytes.fromhex((await t.call("alice", "status"))["node_id"])

        faulty.error = error
        faulty.about = lambda event: (
            isinstance(event, ev.MessageReceived)
            and event.node_id == alice_id
            and isinstance(event.message, m.CommitmentSigned)
        )
        invoice = await t.call("bob", "invoice", amount_msat=1_000_000)
        paying = asyncio.create_task(
            t.call("alice", "pay", invoice=invoice["invoice"], wait_seconds=30.0)
        )
        status = await t.until("lsp", "status", lambda a: a["failed_decisions"])
        assert await payment(t, "bob", "carol", 2_000_000) == "paid"

        (failed,) = status["failed_decisions"]
        assert (failed["event"], failed["error"]) == ("CommitmentSigned", type(error).__name__)
        assert (failed["node_id"], failed["alarm"]) == (
            alice_id.hex(),
            isinstance(error, DoubleSigning),
        )
        assert "secret" not in str(status)
        # The bug is mended: she is let in again, and goes on where she was.
        faulty.about = lambda _event: False
        assert (await paying)["status"] == "paid"
        balance = await t.call("alice", "balance")
        assert balance["total"]["own_msat"] == 20_000_000 - 1_000_000 - invoice_fee(1_000_000)

    async def main() -> None:
        async with town(tmp_path) as built:
            await scenario(built)

    asyncio.run(main())
    told = [record for record in caplog.records if "decision_failed" in record.getMessage()]
    assert told
    assert told[0].exc_info is not None
    alarms = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert bool(alarms) == isinstance(error, DoubleSigning)


def invoice_fee(amount_msat: int) -> int:
    return 1_000 + amount_msat // 1_000


def test_a_request_that_cannot_be_decided_fails_alone(tmp_path: Path, faulty: Faulty) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            faulty.about = lambda event: isinstance(event, ev.AddressRequested)
            with pytest.raises(ApiFailure) as failure:
                await t.call("lsp", "address")
            assert failure.value.code == "internal_error"
            assert "secret" not in failure.value.message
            faulty.about = lambda _event: False
            await t.call("lsp", "address")
            (failed,) = (await t.call("lsp", "status"))["failed_decisions"]
            assert (failed["event"], failed["node_id"]) == ("AddressRequested", None)

    asyncio.run(main())


def test_a_block_that_cannot_be_decided_stops_the_daemon(tmp_path: Path, faulty: Faulty) -> None:
    """It cannot be skipped: whatever is decided later would stand on a gap."""

    async def main() -> None:
        async with town(tmp_path) as t:
            before = (await t.call("lsp", "status"))["height"]
            faulty.about = lambda event: isinstance(event, ev.BlockAdded)
            t.node.call("generatetoaddress", 1, t.mining_address)
            daemon, task = t.running.pop("lsp")
            async with asyncio.timeout(30):
                with pytest.raises(Exception, match="Bug"):
                    await task
            assert (faulty.n_met, daemon.height) == (1, before)

    asyncio.run(main())
