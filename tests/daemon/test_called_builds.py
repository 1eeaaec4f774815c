"""`lsp build` asked again by its external id, on the embedded node."""

import asyncio
from pathlib import Path

import pytest
from tests.daemon.ladder_town import FEERATES, ladder
from tests.daemon.town import CAPACITY_SAT, Town, town

from cromford.daemon.api.failures import ApiFailure

ASKED = {"funding_feerates_sat_per_vb": FEERATES, "external_id": "may"}


async def refused(t: Town, **params: object) -> ApiFailure:
    with pytest.raises(ApiFailure) as failure:
        await t.call("lsp", "build", **params)
    return failure.value


def test_a_factory_that_was_built_before_is_told_of_and_built_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            line = await ladder(t, external_id="may")
            await t.start_client("bob")
            await t.call("bob", "join", capacity_sat=CAPACITY_SAT)
            await t.until("bob", "status", lambda status: status["joined"])
            await t.stop("lsp")
            await t.start_lsp()
            for _ in range(2):
                again = await t.call("lsp", "build", **ASKED)
                assert again["started"]
                assert again["terms"]["attempt_id"] == line["factory_id"]
                assert again["funding_amount_sat"] == line["funding_amount_sat"]
                rungs = [(one["fee_sat"], one["feerate_sat_per_vb"]) for one in again["candidates"]]
                shown = line["candidates"]
                assert rungs == [(one["fee_sat"], one["feerate_sat_per_vb"]) for one in shown]
                assert again["funding_fee_sat"] == rungs[0][0]
                assert len(again["placed"]) == 1
            assert len((await t.call("lsp", "factories"))["factories"]) == 1
            for other in ({"max_clients": 7}, {"min_clients": 7}):
                failure = await refused(t, **ASKED, **other)
                assert failure.code == "external_id_taken"
                assert "received 7" in failure.message
            failure = await refused(t, external_id="may")
            assert failure.code == "external_id_taken"
            assert "expected 2.0, 8.0, 30.0 sat/vB, received the daemon's one" in failure.message
            await t.call(
                "lsp", "factory_abandon", factory_id=line["factory_id"], feerate_sat_per_vb="40"
            )
            failure = await refused(t, **ASKED)
            assert failure.code == "factory_abandoned"
            assert line["factory_id"] in failure.message

    asyncio.run(main())
