"""The API's bans: typed parameters, typed errors, and one that is told, durable, and lifted."""

import asyncio
from pathlib import Path
from typing import Any, Final

import pytest
from tests.cli.ban_answers import NODE_ID
from tests.daemon.town import Town, town

from cromford.daemon.api.failures import ApiFailure

GOOD: Final[dict[str, Any]] = {"node_id": NODE_ID, "blocks": 3, "reason": "no"}
BAD: Final[list[dict[str, Any]]] = [
    {"node_id": ""},
    {"node_id": "zz"},
    {"node_id": "02" + "ff" * 32},
    {"node_id": NODE_ID[2:]},
    {"blocks": 0},
    {"blocks": 52_561},
    {"reason": ""},
    {"reason": "x" * 201},
]


async def refused(t: Town, method: str, **params: object) -> ApiFailure:
    with pytest.raises(ApiFailure) as failure:
        await t.call("lsp", method, **params)
    return failure.value


def test_a_ban_is_typed_told_durable_and_lifted(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            await t.start_client("alice")
            alice = (await t.call("alice", "status"))["node_id"]
            own = (await t.call("lsp", "status"))["node_id"]
            for changes in (*BAD, {"node_id": own}):
                failure = await refused(t, "ban_add", **GOOD | changes)
                assert failure.code == "invalid_param"
                assert failure.message.startswith(f"{next(iter(changes))}: expected "), failure
            unknown = await refused(t, "ban_remove", node_id=alice)
            assert (unknown.code, unknown.exit_code) == ("not_banned", 4)
            assert await t.call("lsp", "bans") == {"bans": []}

            ban = await t.call("lsp", "ban_add", **GOOD | {"node_id": alice})
            assert (ban["by"], ban["blocks_left"], ban["n_faults"]) == ("operator", 3, 0)
            await t.call("alice", "join", capacity_sat=100_000)
            told = f"{ban['why']}: join again from height {ban['until_height']}"
            await t.until("alice", "status", lambda status: status["refusal"] == told)

            await t.stop("lsp")
            await t.start_lsp()
            (kept,) = (await t.call("lsp", "bans"))["bans"]
            assert kept == ban | {"is_connected": False}
            assert await t.call("lsp", "ban_remove", node_id=alice) == kept
            await t.stop("lsp")
            await t.start_lsp()
            assert await t.call("lsp", "bans") == {"bans": []}

    asyncio.run(main())
