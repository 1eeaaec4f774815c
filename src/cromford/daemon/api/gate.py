"""Who may come in by TCP: with a token or a session, and not by another site's page."""

from starlette.datastructures import Headers

from cromford.daemon.api.caller import caller
from cromford.daemon.api.failures import (
    EXIT_AUTHENTICATION,
    FORBIDDEN,
    UNAUTHORIZED,
    ApiFailure,
)
from cromford.daemon.api.operations import Scope
from cromford.daemon.api.sessions import Sessions, cookies
from cromford.daemon.api.tokens import Token, Tokens
from cromford.daemon.loopback import LOCALHOST, names_us


class TokenGate:
    """Lets in who has a token, or signed in with one, and asks for us by our address or our name.

    So the pages of other sites are kept out, whatever their names resolve to.

    Args:
        tokens: The tokens.
        host: Where we listen, as it was said.
        sessions: Who signed in; None where nobody can.
    """

    def __init__(self, tokens: Tokens, *, host: str, sessions: Sessions | None = None) -> None:
        self._tokens = tokens
        self._sessions = sessions
        self._names = {LOCALHOST, host.lower()}

    def __call__(self, headers: Headers) -> frozenset[Scope]:
        """Return what the caller may do.

        Raises:
            ApiFailure: If it may do nothing.
        """
        self.check_host(headers)
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and token.strip():
            return self._let_in(self._tokens.find(token.strip()))
        if self._sessions is not None and any(cookies(headers)):
            return self._let_in(self._sessions.of(headers).token)
        raise ApiFailure(
            "token_missing",
            "authorization: expected a bearer token, received none",
            remediation="Make one with `token add`, and send `Authorization: Bearer TOKEN`.",
            exit_code=EXIT_AUTHENTICATION,
            status=UNAUTHORIZED,
        )

    def _let_in(self, token: Token) -> frozenset[Scope]:
        caller.set(token.name)
        return self._tokens.scopes(token)

    def check_host(self, headers: Headers) -> None:
        """Check that a request names us as we are.

        Raises:
            ApiFailure: If it does not.
        """
        asked = headers.get("host", "")
        if not names_us(asked, self._names):
            raise ApiFailure(
                "host_refused",
                f"host: expected an address, or a name of this daemon, received {asked!r}",
                remediation="Ask by the address that --api-listen names.",
                exit_code=EXIT_AUTHENTICATION,
                status=FORBIDDEN,
            )
