"""Sessions: what a browser shows instead of a token, once somebody signed in with one.

A browser sends a cookie to every port of a host, whoever listens there. So the cookie alone opens
nothing: beside it each request needs a key in a header, which no form and no link can send, and
which the page keeps where pages of this port alone can read it. Both are drawn, and kept in memory
only, as SHA-256.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers

from cromford.daemon.api.failures import EXIT_AUTHENTICATION, FORBIDDEN, UNAUTHORIZED, ApiFailure
from cromford.daemon.api.operations import Scope
from cromford.daemon.api.tokens import Token, Tokens

SESSIONS_MAX: Final = 100
SESSION_SECONDS: Final = 12 * 3600
SECRET_SIZE: Final = 32
KEY_HEADER: Final = "cromford-key"
HTTP_PORT: Final = 80
_PORT: Final = re.compile(r":(\d{1,5})$", re.ASCII)
# What a browser says of a request of our own page, and of one that its user typed (Fetch Metadata).
_OWN_SITES: Final = frozenset({"same-origin", "none"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptSession:
    """What is kept of a session: neither its cookie nor its key.

    Attributes:
        token: What it was begun with: it lasts no longer.
        key_sha256: Of its key.
        expires_at: When it ends, in unix seconds.
        ends_after: When it ends all the same, whoever sets the clock, in seconds of uptime.
    """

    token: Token
    key_sha256: bytes
    expires_at: int
    ends_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunSession:
    """A session that has just begun, with what its browser is told this once.

    Attributes:
        session: What is kept of it.
        cookie: What the browser keeps from its pages.
        key: What its page keeps.
    """

    session: KeptSession
    cookie: str
    key: str


class Sessions:
    """The sessions of a daemon, of this run.

    Args:
        tokens: What they are begun with.
        now: Returns the time, in unix seconds.
        uptime: Returns seconds of a clock that nobody sets, and that may stand while the machine
            sleeps: so a session ends with the first of the two.
    """

    def __init__(
        self,
        tokens: Tokens,
        *,
        now: Callable[[], float] = time.time,
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens = tokens
        self._now = now
        self._uptime = uptime
        # By the SHA-256 of their cookies, in the order in which each was last of use.
        self._kept: dict[bytes, KeptSession] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def begin(self, presented: str) -> BegunSession:
        """Begin one with a token.

        Raises:
            ApiFailure: If the token is none of ours.
        """
        token = self._tokens.find(presented)
        self._make_room(token)
        cookie, key = secrets.token_urlsafe(SECRET_SIZE), secrets.token_urlsafe(SECRET_SIZE)
        session = KeptSession(
            token=token,
            key_sha256=_sha256(key),
            expires_at=int(self._now()) + SESSION_SECONDS,
            ends_after=self._uptime() + SESSION_SECONDS,
        )
        self._kept[_sha256(cookie)] = session
        return BegunSession(session=session, cookie=cookie, key=key)

    def of(self, headers: Headers) -> KeptSession:
        """Return the session that a request belongs to.

        Raises:
            ApiFailure: If it belongs to none, its token was revoked, or another site sent it.
        """
        return self._kept[self._found(headers)]

    def scopes(self, session: KeptSession) -> frozenset[Scope]:
        """Return what a session may be used for.

        Raises:
            ApiFailure: If its token was revoked.
        """
        return self._tokens.scopes(session.token)

    def end(self, headers: Headers) -> KeptSession:
        """End the session that a request belongs to, and return what it was.

        Raises:
            ApiFailure: As of `of`.
        """
        return self._kept.pop(self._found(headers))

    def _found(self, headers: Headers) -> bytes:
        check_own_page(headers)
        key_sha256 = _sha256(headers.get(KEY_HEADER, ""))
        for cookie in cookies(headers):
            place = _sha256(cookie)
            session = self._kept.get(place)
            if session is None or not hmac.compare_digest(session.key_sha256, key_sha256):
                continue
            if self._is_too_old(session):
                del self._kept[place]
                continue
            self._tokens.scopes(session.token)
            self._kept[place] = self._kept.pop(place)
            return place
        raise ApiFailure(
            "session_unknown",
            "this is no session of the daemon's: it has ended, or its key is another",
            remediation="Sign in again.",
            exit_code=EXIT_AUTHENTICATION,
            status=UNAUTHORIZED,
        )

    def _make_room(self, comer: Token) -> None:
        """Let one go, if there are as many as may be: of the token that has the most of them.

        Where the one that comes has as many as any, it is its own. So no token, however often
        somebody signs in with it, takes the place of another that has fewer.
        """
        if len(self._kept) < SESSIONS_MAX:
            return
        self._kept = {
            place: session for place, session in self._kept.items() if not self._is_over(session)
        }
        if len(self._kept) < SESSIONS_MAX:
            return
        counts = Counter(session.token.sha256 for session in self._kept.values())
        most = max(counts.values())
        crowds = {token for token, n_sessions in counts.items() if n_sessions == most}
        yielding = {comer.sha256} & crowds or crowds
        place = next(
            place for place, session in self._kept.items() if session.token.sha256 in yielding
        )
        del self._kept[place]

    def _is_over(self, session: KeptSession) -> bool:
        return self._is_too_old(session) or not self._tokens.has(session.token)

    def _is_too_old(self, session: KeptSession) -> bool:
        return session.expires_at <= self._now() or session.ends_after <= self._uptime()


def check_own_page(headers: Headers) -> None:
    """Check that a request comes from our own page, as far as its browser says.

    Raises:
        ApiFailure: If it comes from elsewhere.
    """
    host = headers.get("host", "").lower()
    origins = {origin.partition("://")[2].lower() for origin in headers.getlist("origin")}
    if not origins <= {host} or not _OWN_SITES.issuperset(headers.getlist("sec-fetch-site")):
        raise ApiFailure(
            "origin_refused",
            f"the page that asks: expected one of {host!r} itself, received another",
            remediation="Open the page that the daemon serves, by the address it is asked by.",
            exit_code=EXIT_AUTHENTICATION,
            status=FORBIDDEN,
        )


def is_by_tls(headers: Headers) -> bool:
    """Say whether a browser asks by TLS, which a proxy speaks for us: its page's origin says so."""
    return any(origin.startswith("https://") for origin in headers.getlist("origin"))


def cookie_name(headers: Headers) -> str:
    """Return what the cookie is called: it has the port, since all ports of a host share cookies.

    The port is the one that the browser knows, which is not ours where a tunnel is between.
    """
    port = _PORT.search(headers.get("host", ""))
    return f"cromford_{HTTP_PORT if port is None else port[1]}"


def cookies(headers: Headers) -> Iterator[str]:
    """Yield what a request has in cookies of our name.

    There may be as many as fit in its head: other ports of this host may set cookies of that name,
    too, and those come first if their path is longer (RFC 6265, section 5.4). Any may be ours.
    """
    name = cookie_name(headers)
    pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
    yield from (value for key, _, value in pairs if key == name)


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
