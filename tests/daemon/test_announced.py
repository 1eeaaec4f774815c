"""An LSP behind somebody else's address shows that one to be handed on, and listens on its own."""

import asyncio
from pathlib import Path

from tests.daemon.town import town


def test_what_is_announced_is_shown_to_be_handed_on_and_what_is_listened_on_stays(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            before = await t.call("lsp", "status")
            assert before["address"] == t.lsp_address == f"{before['node_id']}@{before['listen']}"
            await t.stop("lsp")
            t.more["lsp"] = {"announce": ("lsp.example.org", 9750)}
            await t.start_lsp()
            status = await t.call("lsp", "status")
            assert status["address"] == t.lsp_address
            assert t.lsp_address == f"{status['node_id']}@lsp.example.org:9750"
            assert status["listen"].startswith("127.0.0.1:")

    asyncio.run(main())
