"""A fee ladder on Bitcoin Core: its own mempool lets each candidate take the other's place."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.daemon.ladder_town import each_in_turn, given_up, siblings_give_way
from tests.daemon.town import Town, town
from tests.functional.test_expiry_on_core import CoreNode


@pytest.mark.parametrize("scene", [each_in_turn, siblings_give_way, given_up])
def test_a_ladder_on_core(
    scene: Callable[[Town], Awaitable[None]], core: CoreNode, tmp_path: Path
) -> None:
    async def main() -> None:
        async with town(tmp_path, real_node=core) as t:
            await scene(t)

    asyncio.run(main())
