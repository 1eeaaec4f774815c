"""What is kept of the webhooks: where each posts, which events, its secret, how far it is.

The secret is the key of the signatures, so it is kept as it is, and not as a hash: in a file that
only its owner reads. Its form is that of the Standard Webhooks: `whsec_` and 32 drawn bytes in
Base64. It is in no error, no log, and no answer but the first.
"""

import base64
import binascii
import secrets
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from cromford.adapters.directories import replace_file
from cromford.adapters.peer_address import can_be_looked_up, is_of_one_machine
from cromford.daemon.event_filter import BadFilter, EventFilter
from cromford.daemon.home_file import read_home_file
from cromford.daemon.loopback import is_loopback

FILE_NAME: Final = "webhooks.json"
FILE_VERSION: Final = 1
SECRET_SIZE: Final = 32
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - it begins every secret, and is none
URL_LENGTH_MAX: Final = 2_048
# RFC 1123, and what is found in names all the same.
_IN_NAMES: Final = frozenset(f"{string.ascii_letters}{string.digits}-._")
_DEFAULT_PORT: Final = {"http": 80, "https": 443}


class BadWebhooks(Exception):
    """The file of the webhooks is damaged, or of another version."""


class BadUrl(ValueError):
    """An address to which nothing is posted. The message has no password, where the URL has one."""


class Webhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of a webhook.

    Attributes:
        name: What its owner calls it.
        url: Where it posts.
        only: The names of the events that it posts; none for all.
        secret: The key of its signatures, in text.
        made_at: When it was made, in unix seconds.
        cursor: That of the last event it is done with.
        delivered_at: When an event was last taken, in unix seconds; None before the first.
        missed_after: The cursor after which events were gone before they were taken, the last time
            that this was so.
    """

    name: str
    url: str
    only: tuple[str, ...]
    secret: str
    made_at: int
    cursor: str
    delivered_at: int | None = None
    missed_after: str | None = None

    @property
    def told(self) -> EventFilter:
        """Which events it posts."""
        return EventFilter(names=frozenset(self.only))


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An address, as a connection needs it.

    Attributes:
        is_tls: Whether by TLS.
        host: A name, or an address without brackets.
        port: The port.
        path: What is asked for there, with its query.
    """

    is_tls: bool
    host: str
    port: int
    path: str


class _WebhookFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int
    webhooks: tuple[Webhook, ...]


_DECODER: Final = msgspec.json.Decoder(_WebhookFile)


def target_of(url: str) -> Target:
    """Return where a URL leads: by TLS to anywhere, without to this machine alone.

    Raises:
        BadUrl: If nothing is posted there.
    """
    if not 0 < len(url) <= URL_LENGTH_MAX:
        raise BadUrl(f"expected 1..{URL_LENGTH_MAX} characters, received {len(url)}")
    if not all("!" <= character <= "~" for character in url):
        raise BadUrl("expected visible ASCII characters only, received others")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadUrl(f"expected a host and a port that can be, received {_why(error)}") from error
    if "@" in parts.netloc:
        raise BadUrl("expected no user and no password, received some")
    if "#" in url:
        raise BadUrl(f"expected no fragment, received {url!r}")
    if parts.scheme not in _DEFAULT_PORT or not parts.hostname or port == 0:
        raise BadUrl(f"expected https://HOST[:PORT][/PATH], received {url!r}")
    is_tls = parts.scheme == "https"
    if not is_tls and not is_loopback(parts.hostname):
        raise BadUrl(
            f"expected https, or http to an address of this machine alone, received {url!r}"
        )
    return Target(
        is_tls=is_tls,
        host=parts.hostname,
        port=port or _DEFAULT_PORT[parts.scheme],
        path=_path_of(parts),
    )


def new_target_of(url: str) -> Target:
    """Return where a URL leads that is given now, and whose host somebody could be asked for.

    Of one that was kept this is not asked: a daemon starts, whatever its webhooks come to.

    Raises:
        BadUrl: If nothing is posted there, or ever could be.
    """
    target = target_of(url)
    is_name = ":" not in target.host
    if (is_name and not _IN_NAMES.issuperset(target.host)) or not can_be_looked_up(target.host):
        raise BadUrl(f"expected a host that can be looked up, received {target.host!r}")
    if not is_of_one_machine(target.host):
        raise BadUrl(f"expected an address of one machine, received {target.host!r}")
    return target


def _why(error: ValueError) -> str:
    # What Python says may quote the part before the host.
    return "a port out of range" if "range" in str(error) else "others"


def _path_of(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def drawn_secret() -> str:
    """Return a new secret, in text."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_SIZE)).decode()


def key_of(secret: str) -> bytes:
    """Return the key that a secret stands for.

    Raises:
        ValueError: If it is no secret; the message does not repeat it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or len(key) != SECRET_SIZE:
        expected = f"{SECRET_PREFIX} and {SECRET_SIZE} bytes in Base64"
        raise ValueError(f"secret: expected {expected}, received something else")
    return key


def read_webhooks(home: Path) -> tuple[Webhook, ...]:
    """Return the webhooks of a daemon.

    Args:
        home: Its directory.

    Raises:
        BadWebhooks: If the file cannot be understood.
        OSError: If it cannot be read.
    """
    path = home / FILE_NAME
    read = read_home_file(path, _DECODER, version=FILE_VERSION, unreadable=BadWebhooks)
    if read is None:
        return ()
    names = set[str]()
    for webhook in read.webhooks:
        if webhook.name in names:
            raise BadWebhooks(f"{path}: {webhook.name}: expected it once, received it twice")
        names.add(webhook.name)
        try:
            target_of(webhook.url)
            key_of(webhook.secret)
            _ = webhook.told
        except BadUrl as error:
            raise BadWebhooks(f"{path}: {webhook.name}: url: {error}") from error
        except BadFilter as error:
            raise BadWebhooks(f"{path}: {webhook.name}: {error.field}: {error}") from error
        except ValueError as error:
            raise BadWebhooks(f"{path}: {webhook.name}: {error}") from error
    return read.webhooks


def write_webhooks(home: Path, webhooks: Sequence[Webhook]) -> None:
    """Write the file anew: durable, and for its owner's eyes only.

    Raises:
        OSError: If the disk refuses; then it is as it was.
    """
    kept = _WebhookFile(version=FILE_VERSION, webhooks=tuple(webhooks))
    replace_file(home / FILE_NAME, msgspec.json.encode(kept))
