"""Exit packages go out through a real Bitcoin Core: by an agent, and by hand."""

import asyncio
from pathlib import Path

import pytest
from tests.agent.test_agent_daemon import DEEP, Scenario, lose_a_client_to_an_agent
from tests.agent.test_by_hand import leave_by_hand
from tests.daemon.test_expiry_sweeps import HASTY
from tests.daemon.town import town
from tests.functional.test_demo_on_core import started
from tests.functional.test_expiry_on_core import CoreNode


@pytest.mark.parametrize("scenario", [lose_a_client_to_an_agent, leave_by_hand])
def test_a_package_goes_out_as_core_has_it(tmp_path: Path, scenario: Scenario) -> None:
    datadir = tmp_path / "core"
    datadir.mkdir()

    async def main(core: CoreNode) -> None:
        async with town(tmp_path, lsp_policy=DEEP, client_policy=HASTY, real_node=core) as built:
            await scenario(built)

    for running in started(datadir, "regtest"):
        asyncio.run(main(CoreNode(running.url, running.cookie)))
