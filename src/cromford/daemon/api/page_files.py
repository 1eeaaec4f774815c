"""What anybody may load of a daemon's page: its files, which hold nothing of the daemon's.

They are read once, out of the package, and found by the whole path that is asked for: no path is
put together of what a caller says.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response

from cromford.picture.paper import STYLE

NOT_MODIFIED: Final = 304
INDEX: Final = "/"
ASSETS: Final = "/page/"
HTML: Final = ".html"
MEDIA_TYPES: Final = {
    HTML: "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFile:
    """A file of the page.

    Attributes:
        body: What it holds.
        media_type: What that is.
        loads: What it is of use with alone: other files, which a browser loads after it.
    """

    body: bytes
    media_type: str
    loads: tuple[bytes, ...] = ()

    @property
    def etag(self) -> str:
        """What changes with it, and with all that it loads (RFC 9110, section 8.8.3)."""
        digests = (hashlib.sha256(body).digest() for body in (self.body, *self.loads))
        return f'"{hashlib.sha256(b"".join(digests)).hexdigest()}"'

    def answer(self, asked: Headers) -> Response:
        """Return it, or only that it is what the caller has already."""
        headers = {
            "etag": self.etag,
            "cache-control": "no-cache",
            "content-security-policy": POLICY,
        }
        if _knows(asked.getlist("if-none-match"), self.etag):
            return Response(status_code=NOT_MODIFIED, headers=headers)
        return Response(self.body, headers={"content-type": self.media_type, **headers})


def page_files(role: str, package: Traversable | None = None) -> dict[str, PageFile]:
    """Return the files of a role's page, by the paths that they are asked for by.

    Args:
        role: Whose page it is.
        package: Where they are, side by side; by default what was installed with this program.
    """
    page = files("cromford") / "page" if package is None else package
    found = {
        entry.name: PageFile(body=entry.read_bytes(), media_type=kind)
        for entry in page.iterdir()
        if (kind := _media_type(entry.name)) is not None and entry.is_file()
    }
    assets = {ASSETS + name: file for name, file in found.items() if not name.endswith(HTML)}
    loads = tuple(found[name].body for name in sorted(found) if not name.endswith(HTML))
    return {INDEX: replace(found[role + HTML], loads=loads), **assets}


def _media_type(name: str) -> str | None:
    return next((kind for end, kind in MEDIA_TYPES.items() if name.endswith(end)), None)


def _knows(conditions: Iterable[str], etag: str) -> bool:
    """Say whether `If-None-Match` has a tag, compared weakly (RFC 9110, section 13.1.2)."""
    tags = {tag.strip().removeprefix("W/") for line in conditions for tag in line.split(",")}
    return not tags.isdisjoint({etag, "*"})


def _policy() -> str:
    """Return what the page may load and do (Content Security Policy, level 3).

    Beside its own files there is the one style of all pictures, named by its hash. Text becomes
    markup in one place alone, which is called `cromford` (Trusted Types).
    """
    style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    rules: Mapping[str, str] = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": f"'self' 'sha256-{style}'",
        "connect-src": "'self'",
        "img-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "cromford",
    }
    return "; ".join(f"{what} {allowed}" for what, allowed in rules.items())


POLICY: Final = _policy()
