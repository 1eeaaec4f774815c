"""The LSP's API for cooperative closes: what one would pay, and closing."""

from typing import Any, Final, Protocol

import msgspec

from cromford.answers.closes import CloseAnswer, CloseTransactions
from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.handlers import Handler, Params, read_params
from cromford.daemon.api.payments import wait_until
from cromford.daemon.api.wallet import given_feerate
from cromford.daemon.event_log import EventLog
from cromford.daemon.views.closing import planned_close
from cromford.protocol import events as ev
from cromford.protocol.closing.planning import FEERATES, plan_close
from cromford.protocol.facts import Facts
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Decision
from cromford.wire.messages import N_CLOSE_OPTIONS_MAX

# Two steps of the clients', each with a deadline of its own, and our signer's.
STEPS: Final = 3


class ClosingLsp(Protocol):
    """What an LSP's daemon offers these methods."""

    events: EventLog

    @property
    def facts(self) -> Facts:
        """What a decision may read now."""

    def factory_named(self, wanted: str) -> Factory:
        """Return a factory by its id, or the beginning of it."""

    def foresee(self, event: ev.Event) -> Decision[Any]:
        """Return what a request would do, or raise why it is impossible."""

    def request(self, event: ev.Event) -> None:
        """Handle an operator's request."""


class _CloseParams(msgspec.Struct, forbid_unknown_fields=True):
    factory_id: str
    vertex: str | None = None
    client: int | None = None
    feerates_sat_per_vb: tuple[str, ...] = ()  # decimal numbers; none: what our node says
    dry_run: bool = False
    wait: bool = False


PARAMS: Final[Params] = {"close": _CloseParams}


class LspClosing:
    """The method `close`."""

    def __init__(self, owner: ClosingLsp) -> None:
        self._owner = owner

    def methods(self) -> dict[str, Handler]:
        """Return the methods by name."""
        return {"close": self._close}

    async def _close(self, params: dict[str, Any]) -> CloseAnswer:
        wanted = read_params(params, _CloseParams)
        if len(wanted.feerates_sat_per_vb) > N_CLOSE_OPTIONS_MAX:
            raise InvalidParam(
                FEERATES,
                f"expected at most {N_CLOSE_OPTIONS_MAX}, "
                f"received {len(wanted.feerates_sat_per_vb)}",
            )
        if wanted.dry_run and wanted.wait:
            raise InvalidParam("wait", "expected false with dry_run: there is nothing to wait for")
        factory = self._owner.factory_named(wanted.factory_id)
        asked = ev.CloseRequested(
            attempt_id=factory.attempt.attempt_id,
            vertex=wanted.vertex,
            client=wanted.client,
            feerates_sat_per_kw=tuple(
                given_feerate(one, FEERATES) for one in wanted.feerates_sat_per_vb
            ),
        )
        self._owner.foresee(asked)
        plan = planned_close(factory, plan_close(factory, self._owner.facts, asked))
        answer: CloseAnswer = {**plan, "started": False, "close_id": None, "finished": None}
        if wanted.dry_run:
            return answer
        self._owner.request(asked)
        begun = self._owner.factory_named(wanted.factory_id)
        if begun.closing is None:
            raise _ended(begun)
        close_id = begun.closing.close_id
        answer |= {"started": True, "close_id": close_id.hex()}
        if wanted.wait:
            answer["finished"] = await self._outcome(wanted.factory_id, close_id)
        return answer

    async def _outcome(self, factory_id: str, close_id: bytes) -> CloseTransactions | None:
        """Return what was finished; None if it is still under way.

        Raises:
            ApiFailure: If it came to nothing.
        """

        def is_over() -> bool:
            closing = self._owner.factory_named(factory_id).closing
            return closing is None or closing.close_id != close_id

        factory = self._owner.factory_named(factory_id)
        seconds = STEPS * factory.config.policy.deadline_seconds
        await wait_until(self._owner.events, is_over, seconds=seconds)
        factory = self._owner.factory_named(factory_id)
        finished = factory.closed.get(close_id)
        if finished is not None:
            return {"txids": [str(tx.txid) for tx in finished.txs]}
        if is_over():
            raise _ended(factory, close_id)
        return None


def _ended(factory: Factory, close_id: bytes | None = None) -> ApiFailure:
    """Return why a close of a factory came to nothing: by default the newest."""
    ended = factory.close_ended
    reason = "another one followed"
    if ended is not None and close_id in {None, ended.close_id}:
        reason = ended.reason
    return ApiFailure(
        "close_ended",
        f"the close came to nothing: {reason}",
        retryable=True,
        remediation="Nobody lost anything, and every channel goes on. Ask again.",
    )
