"""Bearer tokens: who may ask a daemon over TCP, and for what."""

from typing import Literal, TypeAlias, TypedDict

from cromford.answers.units import UnixTime

ScopeWord: TypeAlias = Literal["read", "receive", "spend", "operate"]


class BearerToken(TypedDict):
    """A token, without what it is: what it may be used for, and since when it is there."""

    name: str
    scopes: list[ScopeWord]
    made_at: UnixTime


class NewBearerToken(BearerToken):
    """A token that was just made: only a hash of it is kept, so it is shown this once.

    `warnings` says that nobody is asked for it, where the API is not served by TCP.
    """

    token: str
    warnings: list[str]


class BearerTokens(TypedDict):
    """The tokens there are, without what they are."""

    tokens: list[BearerToken]
