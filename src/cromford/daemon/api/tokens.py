"""Bearer tokens: who may ask over TCP, and for what.

A token is 32 drawn bytes in text (RFC 6750). It is shown once, when it is made; the file in the
daemon's home holds a SHA-256 of it, from which nobody gets it back. What was drawn needs no slow
hash. A token that is revoked is refused from the next request on, and what it follows ends.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from cromford.adapters.directories import replace_file
from cromford.answers.tokens import BearerToken, BearerTokens, NewBearerToken
from cromford.daemon.api.failures import (
    EXIT_AUTHENTICATION,
    EXIT_NOT_FOUND,
    UNAUTHORIZED,
    ApiFailure,
    InvalidParam,
)
from cromford.daemon.api.handlers import (
    Handler,
    Params,
    check_name,
    read_params,
    without_params,
)
from cromford.daemon.api.operations import INCLUDED, Scope
from cromford.daemon.home_file import read_home_file

FILE_NAME: Final = "tokens.json"
FILE_VERSION: Final = 1
TOKENS_MAX: Final = 100
NOT_ASKED: Final = (
    "the daemon serves its API on its unix socket alone, where nobody is asked for a token; "
    "`--api-listen` serves it by TCP, too"
)
TOKEN_SIZE: Final = 32
# So that a search for leaked secrets finds it.
TOKEN_PREFIX: Final = "cromford_"  # noqa: S105 - it begins every token, and is none


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of a token: not the token.

    Attributes:
        name: What its owner calls it.
        scopes: What it was made for.
        sha256: Of the token, in hex.
        made_at: When, in unix seconds.
    """

    name: str
    scopes: tuple[Scope, ...]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    made_at: int


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int
    tokens: tuple[Token, ...]


class BadTokens(Exception):
    """The file of the tokens is damaged, or of another version."""


class _TokenParams(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    scopes: list[Scope]


class _RevokeParams(msgspec.Struct, forbid_unknown_fields=True):
    name: str


PARAMS: Final[Params] = {"token_add": _TokenParams, "token_revoke": _RevokeParams}
_DECODER: Final = msgspec.json.Decoder(_File)


class Tokens:
    """The tokens of a daemon.

    Args:
        home: Its directory.
        are_asked: Whether it serves its API by TCP, where alone anybody is asked for one.

    Raises:
        BadTokens: If the file cannot be understood.
        OSError: If it cannot be read.
    """

    def __init__(self, home: Path, *, are_asked: bool = True) -> None:
        self._path = home / FILE_NAME
        self._warnings = [] if are_asked else [NOT_ASKED]
        read = read_home_file(self._path, _DECODER, version=FILE_VERSION, unreadable=BadTokens)
        self._tokens = () if read is None else read.tokens

    def find(self, presented: str) -> Token:
        """Return what is kept of a token.

        All are compared, so that the time it takes says nothing about any of them.

        Raises:
            ApiFailure: If it is none of ours.
        """
        digest = _digest(presented)
        found = [one for one in self._tokens if hmac.compare_digest(one.sha256, digest)]
        if not found:
            raise _unknown()
        return found[0]

    def has(self, token: Token) -> bool:
        """Say whether a token is one of ours still."""
        return token in self._tokens

    def scopes(self, token: Token) -> frozenset[Scope]:
        """Return what one that was found may be used for now.

        Raises:
            ApiFailure: If it was revoked since.
        """
        if not self.has(token):
            raise _unknown()
        return frozenset().union(*(INCLUDED[scope] for scope in token.scopes))

    def methods(self) -> dict[str, Handler]:
        """Return the operations, by name."""
        return {
            "token_add": self._add,
            "tokens": without_params(self._list),
            "token_revoke": self._revoke,
        }

    async def _add(self, params: dict[str, Any]) -> NewBearerToken:
        wanted = read_params(params, _TokenParams)
        check_name(wanted.name)
        if not wanted.scopes:
            raise InvalidParam("scopes", "expected at least one")
        if self._named(wanted.name) is not None:
            raise ApiFailure(
                "token_exists",
                f"there is a token {wanted.name!r} already",
                remediation="Name another, or revoke that one first.",
            )
        if len(self._tokens) >= TOKENS_MAX:
            raise ApiFailure(
                "too_many_tokens",
                f"there are {TOKENS_MAX} tokens, the most there may be",
                remediation="Revoke those that nobody uses: `token list` shows them.",
            )
        text = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_SIZE)
        token = Token(
            name=wanted.name,
            scopes=tuple(scope for scope in Scope if scope in wanted.scopes),
            sha256=_digest(text),
            made_at=int(time.time()),
        )
        self._keep((*self._tokens, token))
        return {**_shown(token), "token": text, "warnings": self._warnings}

    async def _list(self) -> BearerTokens:
        return {"tokens": [_shown(token) for token in self._tokens]}

    async def _revoke(self, params: dict[str, Any]) -> BearerToken:
        name = read_params(params, _RevokeParams).name
        token = self._named(name)
        if token is None:
            raise ApiFailure(
                "token_not_found",
                f"there is no token {name!r}",
                remediation="`token list` shows them.",
                exit_code=EXIT_NOT_FOUND,
            )
        self._keep(tuple(one for one in self._tokens if one is not token))
        return _shown(token)

    def _named(self, name: str) -> Token | None:
        return next((token for token in self._tokens if token.name == name), None)

    def _keep(self, tokens: Sequence[Token]) -> None:
        """Remember tokens, durably before they count.

        Raises:
            ApiFailure: If the disk refuses.
        """
        kept = _File(version=FILE_VERSION, tokens=tuple(tokens))
        try:
            replace_file(self._path, msgspec.json.encode(kept))
        except OSError as error:
            raise ApiFailure(
                "tokens_not_written", f"{self._path}: {error.strerror}", retryable=True
            ) from error
        self._tokens = kept.tokens


def _unknown() -> ApiFailure:
    return ApiFailure(
        "token_unknown",
        "the bearer token is none of this daemon's, or was revoked",
        remediation="Make one with `token add`.",
        exit_code=EXIT_AUTHENTICATION,
        status=UNAUTHORIZED,
    )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _shown(token: Token) -> BearerToken:
    return {
        "name": token.name,
        "scopes": [scope.value for scope in token.scopes],
        "made_at": token.made_at,
    }
