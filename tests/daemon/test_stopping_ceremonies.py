"""An LSP that is stopped in the middle of a ceremony, and whom it names for that."""

import asyncio
from pathlib import Path
from typing import Any

from tests.daemon.town import CAPACITY_SAT, town

from cromford.protocol.journal.entries import ABORTED
from cromford.wire import messages as m


def test_whoever_an_lsp_hangs_up_on_as_it_stops_is_not_named_for_its_ceremony(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            names = ("alice", "bob")
            for name in names:
                await t.start_client(name)
                await t.call(name, "join", capacity_sat=CAPACITY_SAT)
                await t.until(name, "status", lambda status: status["joined"])
            lsp: Any = t.running["lsp"][0]
            send = lsp.peers.send

            def not_proposing(node_id: bytes, message: m.Message) -> None:
                if not isinstance(message, m.Propose):
                    send(node_id, message)

            lsp.peers.send = not_proposing
            await t.call("lsp", "build")
            await t.until("lsp", "status", lambda _: lsp.state.open_attempt is not None)
            attempt_id = lsp.state.open_attempt.attempt_id
            await t.stop("lsp")
            assert lsp.state.house.aborts == {}
            await t.start_lsp()
            again: Any = t.running["lsp"][0]
            assert again.state.house.entries[attempt_id].status == ABORTED
            assert again.state.house.aborts == {}

    asyncio.run(scenario())
