"""Pictures and plans by the API: what is drawn is what the command line draws."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import CommandLine
from tests.daemon.api.asking import SOCKET, ask_raw, got
from tests.picture.documents import lsp_document, tree_for

from cromford.daemon.api import lsp_pictures
from cromford.daemon.api.calling import ApiClient, read_answer
from cromford.daemon.api.endpoints import endpoints
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.api.handlers import Handler
from cromford.daemon.api.lsp_pictures import PICTURE_PARAMS, Plans, picture_methods
from cromford.daemon.api.pictures import Pictures
from cromford.daemon.api.server import ApiServer
from cromford.picture.factories import factories_picture
from cromford.picture.factory import factory_picture
from cromford.picture.plot import cost_plot
from cromford.planning.idea import Idea
from cromford.planning.plan import plan_factory

SHOWN = lsp_document(tree_for(4))


async def show(params: dict[str, Any]) -> object:
    if params["factory_id"] != "0123":
        raise ApiFailure("factory_not_found", "there is none", exit_code=4)
    return SHOWN


async def lines(_params: dict[str, Any]) -> object:
    return {"factories": [SHOWN]}


def served() -> Any:
    methods = {**picture_methods(show, lines), "factory_show": show}
    return endpoints(methods, params=PICTURE_PARAMS, answers={})


def asked(method: str, **params: Any) -> Any:
    """Return what a plan's operation answers, without a server."""
    handlers: dict[str, Handler] = Plans(Pictures()).methods()

    async def run() -> object:
        return await handlers[method](params)

    return asyncio.run(run())


def test_a_picture_is_svg_byte_for_byte_as_it_is_drawn_elsewhere(tmp_path: Path) -> None:
    async def run() -> None:
        async with ApiServer(tmp_path / SOCKET, served()):
            one, all_of_them, plan = await asyncio.to_thread(ask, ApiClient(tmp_path / SOCKET))
        assert one == factory_picture(SHOWN)
        assert all_of_them == factories_picture({"factories": [SHOWN]})
        assert plan == cost_plot(plan_factory(Idea(n_clients=16)))

    def ask(client: ApiClient) -> tuple[str, str, str]:
        return (
            client.call("factory_show_picture", factory_id="0123"),
            client.call("factories_picture"),
            client.call("plan_picture", clients=16),
        )

    asyncio.run(run())


def test_a_picture_says_its_type_and_a_failure_is_json_as_ever(tmp_path: Path) -> None:
    async def run() -> None:
        async with ApiServer(tmp_path / SOCKET, served()):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET))
            writer.write(got("/v1/factories/picture", "Connection: close"))
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            assert b"content-type: image/svg+xml\r\n" in head.lower() + b"\r\n"
            assert b"cache-control: no-store" in head.lower()
            assert body.decode() == factories_picture({"factories": [SHOWN]})
            # `picture` is no factory's id, and an id beside it is one.
            answers = await ask_raw(
                tmp_path / SOCKET, got("/v1/factories/4567/picture"), got("/v1/factories/0123")
            )
        (missing, _, error), (found, _, shown) = answers
        assert (missing, error["code"], found) == (404, "factory_not_found", 200)
        assert shown["factory_id"] == SHOWN["factory_id"]

    asyncio.run(run())


def test_a_text_that_is_none_is_told_as_such() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n\xff"
    with pytest.raises(ApiFailure) as refused:
        read_answer(answer, media_type="image/svg+xml")
    assert refused.value.code == "unreadable_response"


@pytest.mark.parametrize(
    ("params", "options", "idea"),
    [
        ({}, [], {}),
        ({"clients": 64, "leaf_arity": 4}, ["--clients", "64", "--leaf-arity", "4"],
         {"n_clients": 64, "leaf_arity": 4}),
        ({"feerate": "2.5", "tree_feerate": "1", "capital_rate": "3.25", "loss_rate": "0"},
         ["--feerate", "2.5", "--tree-feerate", "1", "--capital-rate", "3.25", "--loss-rate", "0"],
         {"feerate_sat_per_kw": 625, "tree_feerate_sat_per_kw": 250, "capital_millionths": 32_500,
          "loss_millionths": 0}),
        ({"inner_arities": [2, 2], "inner_kinds": ["static", "dw"], "states": 3},
         ["--inner-arities", "2,2", "--inner-kinds", "static,dw", "--states", "3"], None),
        ({"inner": "static", "step_blocks": 72, "active_blocks": 6000, "dying_blocks": 300,
          "capacity_sat": 500_000, "max_exit_delay_blocks": 2000},
         ["--inner", "static", "--step-blocks", "72", "--active-blocks", "6000",
          "--dying-blocks", "300", "--capacity-sat", "500000", "--max-exit-delay-blocks", "2000"],
         None),
    ],
)  # fmt: skip
def test_a_plan_is_what_the_command_line_plans(
    params: dict[str, Any],
    options: list[str],
    idea: dict[str, Any] | None,
) -> None:
    shown = json.loads(CommandLine(None).run("plan", "--json", *options).stdout)
    answer = asked("plan", **params)
    assert shown == answer
    assert asked("plan_picture", **params) == cost_plot(answer)
    if idea is not None:
        assert answer == plan_factory(Idea(**idea))


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"clients": 0}, "invalid_param", "clients"),
        ({"clients": 2000}, "invalid_param", "clients"),
        ({"arity": 2}, "invalid_param", "arity"),
        ({"feerate": "x"}, "invalid_param", "feerate"),
        ({"feerate": "NaN"}, "invalid_param", "feerate"),
        ({"feerate": "1e999999"}, "invalid_param", "feerate"),
        ({"feerate": "9" * 33}, "invalid_param", "feerate"),
        ({"feerate": "5000"}, "plan_invalid", "feerate"),
        ({"tree_feerate": "0"}, "plan_invalid", "tree_feerate"),
        ({"capital_rate": "-1"}, "plan_invalid", "capital_rate"),
        ({"loss_rate": "100"}, "plan_invalid", "loss_rate"),
        ({"inner": "tall"}, "invalid_param", "inner"),
        ({"inner_arities": [2]}, "invalid_param", "inner_kinds"),
        ({"inner_arities": [2], "inner_kinds": ["tall"]}, "invalid_param", "inner_kinds"),
        ({"inner": "dw", "inner_arities": [2], "inner_kinds": ["dw"]}, "plan_invalid", "inner"),
        ({"inner_arities": [2] * 17, "inner_kinds": ["dw"] * 17}, "invalid_param", "inner_arities"),
        ({"active_blocks": 52_000}, "plan_invalid", "active_blocks"),
        ({"states": 60_000, "step_blocks": 1}, "plan_invalid", "max_exit_delay_blocks"),
    ],
)
def test_a_plan_that_cannot_be_names_the_parameter(
    params: dict[str, Any], code: str, param: str
) -> None:
    for method in ("plan", "plan_picture"):
        with pytest.raises(ApiFailure) as refused:
            asked(method, **params)
        assert (refused.value.code, refused.value.param) == (code, param)
        assert refused.value.status == 400
        assert not refused.value.retryable


def test_what_is_out_of_range_is_told_in_the_unit_that_it_is_given_in() -> None:
    for params, message in (
        ({"feerate": "5000"}, "feerate: expected 0.1 sat/vB..1,000 sat/vB, received 5,000 sat/vB"),
        ({"loss_rate": "100"}, "loss_rate: expected 0 %..99.9999 %, received 100 %"),
    ):
        with pytest.raises(ApiFailure) as refused:
            asked("plan", **params)
        assert str(refused.value) == message


def test_a_plan_is_asked_for_in_a_query(tmp_path: Path) -> None:
    levels = {"inner_arities": [2, 2], "inner_kinds": ["static", "dw"]}

    async def run() -> None:
        async with ApiServer(tmp_path / SOCKET, served()):
            client = ApiClient(tmp_path / SOCKET)
            answer = await asyncio.to_thread(client.call, "plan", **levels)
            assert answer["shape"]["inner_arities"] == [2, 2]
            with pytest.raises(ApiFailure) as refused:
                await asyncio.to_thread(client.call, "plan", clients=0)
            assert refused.value.param == "clients"
            assert await asyncio.to_thread(client.call, "plan_picture", **levels) == cost_plot(
                answer
            )

    asyncio.run(run())


def test_one_plan_is_worked_out_at_a_time_and_the_loop_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def slowly(idea: Idea) -> Any:
        begun.set()
        assert go_on.wait(20)
        return plan_factory(idea)

    monkeypatch.setattr(lsp_pictures, "plan_factory", slowly)

    async def run() -> None:
        plan = Plans(Pictures()).methods()["plan"]
        first = asyncio.ensure_future(plan({}))
        assert await asyncio.to_thread(begun.wait, 20)
        for _ in range(3):
            with pytest.raises(ApiFailure) as busy:
                await plan({"clients": 16})
            assert (busy.value.code, busy.value.retryable, busy.value.status) == (
                *("plan_under_way", True),
                429,
            )
        go_on.set()
        answer: Any = await first
        assert answer["asked"]["n_clients"] == 8
        # One that fails keeps nobody out.
        with pytest.raises(ApiFailure, match="loss_rate"):
            await plan({"loss_rate": "100"})
        again: Any = await plan({"clients": 16})
        assert again["asked"]["n_clients"] == 16

    asyncio.run(run())


def test_where_no_thread_can_begin_a_picture_and_a_plan_are_to_be_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")  # What CPython says: `pids.max`, `ulimit -u`.

    methods = {**picture_methods(show, lines), **Plans(Pictures()).methods()}

    async def run() -> None:
        for method, params in (
            ("factory_show_picture", {"factory_id": "0123"}),
            ("plan", {"clients": 4}),
        ):
            with monkeypatch.context() as full:
                full.setattr(threading.Thread, "start", refuse)
                with pytest.raises(ApiFailure, match="can't start new thread") as failure:
                    await methods[method](params)
            assert (failure.value.code, failure.value.status) == ("thread_unavailable", 503)
            assert failure.value.retryable
            assert await methods[method](params)
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())

    asyncio.run(run())
