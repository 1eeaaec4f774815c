"""A daemon's page, before its API: files for anybody, signing in, and the API for whoever did.

It stands on the TCP listener alone, in front of the application, which knows nothing of it.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Final, TypedDict

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cromford.answers.tokens import ScopeWord
from cromford.answers.units import UnixTime
from cromford.daemon.api import operations as ops
from cromford.daemon.api.application import WrongVerb, answered, body_params, json_answer
from cromford.daemon.api.failures import EXIT_NOT_FOUND, ApiFailure
from cromford.daemon.api.handlers import read_params
from cromford.daemon.api.page_files import ASSETS, INDEX, PageFile
from cromford.daemon.api.sessions import (
    SESSION_SECONDS,
    KeptSession,
    Sessions,
    check_own_page,
    cookie_name,
    is_by_tls,
)

SESSION_PATH: Final = "/session"
SIGN_IN_SIZE_MAX: Final = 4096
# Of every answer by TCP: it is what it says, and no other site's page has any part in it.
HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}

_log = logging.getLogger(__name__)


class PageSession(TypedDict):
    """A session: the token that it was begun with, all that this may be used for, and its end."""

    name: str
    role: str
    scopes: list[ScopeWord]
    expires_at: UnixTime


class NewPageSession(PageSession):
    """A session that has just begun: only a hash of its key is kept, so it is told this once."""

    key: str


class _SignInParams(msgspec.Struct, forbid_unknown_fields=True):
    token: str


class PageFront:
    """Serves the page and its sessions, and leaves everything else to the API; an ASGI application.

    Args:
        api: What answers everything else.
        role: Whose page it is.
        files: What anybody may load, by path.
        sessions: Who is signed in.
        check_host: Raises if a request names us as nobody does but another site's page.
    """

    def __init__(
        self,
        api: ASGIApp,
        *,
        role: str,
        files: Mapping[str, PageFile],
        sessions: Sessions,
        check_host: Callable[[Headers], None],
    ) -> None:
        self._api = api
        self._role = role
        self._files = files
        self._sessions = sessions
        self._check_host = check_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {name for name, _ in message["headers"]}
                more = ((name.encode(), value.encode()) for name, value in HEADERS.items())
                missing = [pair for pair in more if pair[0] not in said]
                message = {**message, "headers": [*message["headers"], *missing]}
            await send(message)

        path = scope["raw_path"].decode("ascii")
        if path == SESSION_PATH:
            await answered(self._session, scope, receive, guarded)
        elif path == INDEX or path.startswith(ASSETS):
            await answered(self._file, scope, receive, guarded)
        else:
            await self._api(scope, receive, guarded)

    async def _file(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._check_host(headers)
        path = scope["raw_path"].decode("ascii")
        file = self._files.get(path)
        if file is None:
            raise ApiFailure(
                "page_file_not_found",
                f"the page has no {path}",
                remediation="Load the page again: it may be of another version.",
                exit_code=EXIT_NOT_FOUND,
            )
        if scope["method"] not in {"GET", "HEAD"}:
            raise WrongVerb(scope["method"], ("GET", "HEAD"))
        await file.answer(headers)(scope, receive, send)

    async def _session(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._check_host(headers)
        match scope["method"]:
            case "POST":
                response = await self._sign_in(headers, receive)
            case "GET":
                response = json_answer(msgspec.json.encode(self._shown(self._sessions.of(headers))))
            case "DELETE":
                response = self._sign_out(headers)
            case verb:
                raise WrongVerb(verb, ("DELETE", "GET", "POST"))
        await response(scope, receive, send)

    async def _sign_in(self, headers: Headers, receive: Receive) -> Response:
        check_own_page(headers)
        said = await body_params(headers, receive, size_max=SIGN_IN_SIZE_MAX)
        begun = self._sessions.begin(read_params(said, _SignInParams).token)
        _log.info("page_signed_in token=%s", begun.session.token.name)
        shown: NewPageSession = {**self._shown(begun.session), "key": begun.key}
        response = json_answer(msgspec.json.encode(shown))
        _set_cookie(response, headers, begun.cookie, seconds=SESSION_SECONDS)
        return response

    def _sign_out(self, headers: Headers) -> Response:
        session = self._sessions.end(headers)
        _log.info("page_signed_out token=%s", session.token.name)
        response = json_answer(msgspec.json.encode({"ended": True}))
        _set_cookie(response, headers, "", seconds=0)
        return response

    def _shown(self, session: KeptSession) -> PageSession:
        scopes = self._sessions.scopes(session)
        return {
            "name": session.token.name,
            "role": self._role,
            "scopes": [one.value for one in ops.Scope if one in scopes],
            "expires_at": session.expires_at,
        }


def _set_cookie(response: Response, asked: Headers, value: str, *, seconds: int) -> None:
    """Let the browser keep a cookie for this long, from all pages, and send it to ours alone."""
    response.set_cookie(
        cookie_name(asked),
        value,
        max_age=seconds,
        path="/",
        secure=is_by_tls(asked),
        httponly=True,
        samesite="strict",
    )
