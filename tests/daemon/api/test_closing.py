"""`lsp close --wait` over the API: which close is waited for, while others begin and end."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cromford.bitcoin.tx import OutPoint, Txid
from cromford.daemon.api import lsp_closing
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.api.lsp_closing import LspClosing
from cromford.protocol.journal.closing import EndedClose

FIRST, SECOND = b"\x01" * 32, b"\x02" * 32
OUTPOINT = OutPoint(txid=Txid(bytes(32)), vout=0)
REASON = "client 2 disconnected"


class Owner:
    """An LSP whose first close ends as it is waited for, and perhaps a second after it."""

    events: Any = None
    facts: Any = None

    def __init__(self, ended: bytes | None, under_way: bytes | None) -> None:
        attempt = SimpleNamespace(attempt_id=bytes(32))
        self.factory: Any = SimpleNamespace(
            attempt=attempt,
            closing=None,
            closed={},
            close_ended=None,
            config=SimpleNamespace(policy=SimpleNamespace(deadline_seconds=1)),
        )
        self._ended, self._under_way = ended, under_way

    def factory_named(self, _wanted: str) -> Any:
        return self.factory

    def foresee(self, _event: object) -> Any:
        return None

    def request(self, _event: object) -> None:
        self.factory.closing = SimpleNamespace(close_id=FIRST)

    async def pass_time(self, *_args: object, **_options: object) -> None:
        """The close ends, and what came after it."""
        follower = self._under_way
        self.factory.closing = None if follower is None else SimpleNamespace(close_id=follower)
        if self._ended is not None:
            ended = EndedClose(close_id=self._ended, reason=REASON, outpoint=OUTPOINT)
            self.factory.close_ended = ended


@pytest.mark.parametrize(
    ("ended", "under_way", "told"),
    [
        (FIRST, None, REASON),
        (SECOND, None, "another one followed"),
        (FIRST, SECOND, REASON),
        (None, SECOND, "another one followed"),
    ],
)
def test_the_reason_that_is_told_is_that_of_the_close_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, ended: bytes | None, under_way: bytes | None, told: str
) -> None:
    owner = Owner(ended, under_way)
    monkeypatch.setattr(lsp_closing, "wait_until", owner.pass_time)
    monkeypatch.setattr(lsp_closing, "plan_close", lambda *_args: None)
    monkeypatch.setattr(lsp_closing, "planned_close", lambda *_args: {})
    with pytest.raises(ApiFailure) as failure:
        asyncio.run(LspClosing(owner).methods()["close"]({"factory_id": "ab", "wait": True}))  # type: ignore[arg-type]  # a coroutine
    assert failure.value.code == "close_ended"
    assert told in failure.value.message
    assert (REASON in failure.value.message) is (told == REASON)
