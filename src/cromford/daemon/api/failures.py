"""Why a request to the local API failed, as its caller reads it; alike on both sides of it.

A failure has a `code` that stays the same between versions, and says whether the same request may
succeed later, what to do, and what a command line ends with. Over HTTP it is the body of an answer
with a status of 400 or more.
"""

from pathlib import Path
from typing import Final

EXIT_USAGE: Final = 2
EXIT_AUTHENTICATION: Final = 3
EXIT_NOT_FOUND: Final = 4

# RFC 9110, section 15, and RFC 6585 for 429.
BAD_REQUEST: Final = 400
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
METHOD_NOT_ALLOWED: Final = 405
CONFLICT: Final = 409
GONE: Final = 410
CONTENT_TOO_LARGE: Final = 413
UNSUPPORTED_MEDIA_TYPE: Final = 415
TOO_MANY_REQUESTS: Final = 429
INTERNAL_ERROR: Final = 500
UNAVAILABLE: Final = 503

# What is asked for is in order, and what it needs is not there now.
_UNAVAILABLE_CODES: Final = frozenset(
    {
        "chain_unavailable",
        "chain_stale",
        "lsp_unreachable",
        "mark_unreachable",
        "payment_waits",
        "thread_unavailable",
    }
)
_STATUS_OF_CODE: Final = {
    **dict.fromkeys(_UNAVAILABLE_CODES, UNAVAILABLE),
    "events_expired": GONE,
    "cursor_unknown": BAD_REQUEST,
    "store_failed": INTERNAL_ERROR,
}
_STATUS_OF_EXIT_CODE: Final = {
    EXIT_USAGE: BAD_REQUEST,
    EXIT_AUTHENTICATION: FORBIDDEN,
    EXIT_NOT_FOUND: NOT_FOUND,
}


class ApiFailure(Exception):
    """A request that failed for a reason its caller can read.

    `code` is in snake case and stays the same between versions; `remediation` says what to do;
    `exit_code` is what a command line ends with; `param` names the parameter that is at fault, if
    one is. `status` is that of HTTP: by default 404 for what was not found, 503 for what waits for
    others, and 409 for what does not go as things stand.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        remediation: str = "",
        exit_code: int = 1,
        status: int | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.remediation = remediation
        self.exit_code = exit_code
        self.param = param
        self.status = _status_of(code, exit_code) if status is None else status


def _status_of(code: str, exit_code: int) -> int:
    return _STATUS_OF_CODE.get(code, _STATUS_OF_EXIT_CODE.get(exit_code, CONFLICT))


class InvalidParam(ApiFailure):
    """A parameter is missing, unknown, or not what it should be."""

    def __init__(self, param: str, complaint: str) -> None:
        super().__init__("invalid_param", f"{param}: {complaint}", status=BAD_REQUEST, param=param)


class DaemonNotRunning(ApiFailure):
    """Nobody listens on the socket."""

    def __init__(self, socket_path: Path) -> None:
        super().__init__(
            "daemon_not_running",
            f"no daemon listens on {socket_path}",
            retryable=True,
            remediation="Start the daemon, or name the data directory of the one that runs.",
        )


class OtherRolesDaemon(ApiFailure):
    """Who listens on the socket is another role's daemon: nothing was done."""

    def __init__(self, *, expected: str, received: str) -> None:
        super().__init__(
            "wrong_role",
            f"the daemon of this data directory: expected {_an(expected)}'s, received "
            f"{_an(received)}'s",
            remediation="Nothing was done. Name the right data directory: see --datadir, and "
            "CROMFORD_DATADIR, which is for one role only.",
            status=CONFLICT,
        )


def _an(role: str) -> str:
    return f"{'an' if role in {'lsp', 'agent'} else 'a'} {role}"
