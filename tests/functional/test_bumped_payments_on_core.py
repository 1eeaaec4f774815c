"""A payment of the wallet that waits in a Bitcoin Core is replaced there, at the least fee."""

import asyncio
from pathlib import Path

from tests.daemon.test_bumped_payments import pays_more_twice
from tests.daemon.town import town
from tests.functional.test_expiry_on_core import CoreNode


def test_a_payment_that_waits_is_replaced_and_never_paid_twice(
    core: CoreNode, tmp_path: Path
) -> None:
    async def main() -> None:
        async with town(tmp_path, real_node=core) as t:
            await pays_more_twice(t)

    asyncio.run(main())
