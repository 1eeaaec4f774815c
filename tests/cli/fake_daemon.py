"""A daemon that answers the local API from a table, on a real socket."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from cromford.agent import agentd
from cromford.daemon import clientd, lspd
from cromford.daemon.api.calling import SOCKET_NAME
from cromford.daemon.api.endpoints import endpoints
from cromford.daemon.api.handlers import Handler
from cromford.daemon.api.server import ApiServer

# Of whatever role: where two have an operation, what stands in its query is the same.
PARAMS = {**agentd.PARAMS, **clientd.PARAMS, **lspd.PARAMS}
Answer = object | Callable[[dict[str, Any]], object]


class FakeDaemon:
    """Answers with constants, or with what a function makes of the parameters.

    `calls` holds what was asked, in order.
    """

    def __init__(
        self,
        datadir: Path,
        answers: dict[str, Answer],
        network: str = "regtest",
        *,
        role: str | None = None,
    ) -> None:
        self.datadir = datadir
        self._role = role
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._home = datadir / network
        self._answers = answers
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run)

    def _handler(self, method: str, answer: Answer) -> Handler:
        async def handle(params: dict[str, Any]) -> object:
            self.calls.append((method, params))
            return answer(params) if callable(answer) else answer

        return handle

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        methods = {name: self._handler(name, answer) for name, answer in self._answers.items()}
        served = endpoints(methods, params=PARAMS, answers={})
        async with ApiServer(self._home / SOCKET_NAME, served, role=self._role):
            self._started.set()
            await self._stopping.wait()

    def __enter__(self) -> Self:
        self._home.mkdir(parents=True)
        self._thread.start()
        assert self._started.wait(timeout=10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=10)
