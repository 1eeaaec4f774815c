"""What anybody may load of the page: its files and no other, and nothing of the daemon's."""

import base64
import hashlib
import re
from pathlib import Path

import pytest
from tests.daemon.api.asking import ask_server, got
from tests.daemon.api.browsing import Served, with_page
from tests.picture.documents import lsp_document, tree_for

from cromford.daemon.api import page_files as rooms
from cromford.daemon.api.page_files import page_files
from cromford.picture.factory import factory_picture

PACKAGE = Path(rooms.__file__).parents[2] / "page"
TRICKS = [
    "/page/",
    "/page/.",
    "/page/..",
    "/page/../lsp.html",
    "/page/../answers/__init__.py",
    "/page/%2e%2e/answers/__init__.py",
    "/page/..%2fanswers%2f__init__.py",
    "/page/%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/page//etc/passwd",
    "/page/..\\..\\pyproject.toml",
    "/page/client.html",
    "/page/client.html%00.css",
    "/page/index.html",
    "/page/__init__.py",
    "/page/__pycache__",
]


@pytest.mark.parametrize("role", ["lsp", "client"])
def test_a_role_has_its_page_and_every_asset_of_the_package(role: str) -> None:
    found = page_files(role)
    assert found["/"].body == (PACKAGE / f"{role}.html").read_bytes()
    assets = {path.name for path in PACKAGE.iterdir() if path.suffix in {".css", ".js", ".svg"}}
    assert set(found) == {"/"} | {f"/page/{name}" for name in assets}


def test_what_is_served_is_what_a_browser_knows_and_nothing_below(tmp_path: Path) -> None:
    for name in ("client.html", "lsp.html", "a.js", "a.css", "a.svg", "a.py", "a.js.map", ".env"):
        (tmp_path / name).write_text(name)
    (tmp_path / "more.js").mkdir()
    found = page_files("client", tmp_path)
    kinds = {path: file.media_type for path, file in found.items()}
    assert kinds == {
        "/": "text/html; charset=utf-8",
        "/page/a.js": "text/javascript; charset=utf-8",
        "/page/a.css": "text/css; charset=utf-8",
        "/page/a.svg": "image/svg+xml",
    }


def test_anybody_may_load_the_page_and_it_says_what_it_may_do(tmp_path: Path) -> None:
    async def scenario(s: Served) -> None:
        visitor = s.browser(site="none")
        answer = await visitor.ask("/")
        assert (answer.status, answer.body) == (200, page_files("client")["/"].body)
        told = answer.headers
        assert told["content-type"] == "text/html; charset=utf-8"
        assert told["cache-control"] == "no-cache"
        assert told["x-content-type-options"] == "nosniff"
        assert told["referrer-policy"] == "no-referrer"
        assert told["cross-origin-opener-policy"] == "same-origin"
        assert told["cross-origin-resource-policy"] == "same-origin"
        assert "set-cookie" not in told
        rules = dict(rule.split(" ", 1) for rule in told["content-security-policy"].split("; "))
        assert rules.pop("style-src").startswith("'self' 'sha256-")
        assert rules == {
            "default-src": "'none'",
            "script-src": "'self'",
            "connect-src": "'self'",
            "img-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
            "trusted-types": "cromford",
        }

    with_page(tmp_path, scenario)


def test_the_style_that_is_let_in_is_that_of_our_pictures() -> None:
    picture = factory_picture(lsp_document(tree_for(4)))
    (style,) = re.findall(r"<style>(.*?)</style>", picture, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'self' 'sha256-{digest}';" in rooms.POLICY
    assert not re.search(r"\sstyle=", picture)


def test_who_has_a_file_already_is_told_only_that(tmp_path: Path) -> None:
    async def scenario(s: Served) -> None:
        visitor = s.browser()
        first = await visitor.ask("/")
        etag = first.headers["etag"]
        for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            again = await visitor.ask("/", f"If-None-Match: {known}")
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
            assert again.headers["content-security-policy"] == rooms.POLICY
        assert (await visitor.ask("/", 'If-None-Match: "other"')).status == 200

    with_page(tmp_path, scenario)


def test_what_names_the_page_changes_with_each_file_that_it_loads(tmp_path: Path) -> None:
    """So a page that stays open sees that the daemon was replaced by another version, or role."""
    for name in ("lsp.html", "client.html", "pay.js", "style.css"):
        (tmp_path / name).write_bytes(b"before")
    before = page_files("client", tmp_path)
    assert page_files("client", tmp_path) == before
    tags = {before["/"].etag}
    for name in ("pay.js", "style.css", "client.html"):
        (tmp_path / name).write_bytes(b"after")
        tags.add(page_files("client", tmp_path)["/"].etag)
    assert len(tags) == 4
    assert page_files("lsp")["/"].etag != page_files("client")["/"].etag


def test_a_head_has_no_body_and_other_methods_are_none(tmp_path: Path) -> None:
    async def scenario(s: Served) -> None:
        visitor = s.browser()
        whole, head = await visitor.ask("/"), await visitor.ask("/", verb="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers == whole.headers
        for verb in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "NONSENSE"):
            refused = await visitor.ask("/", verb=verb)
            assert (refused.status, refused.code) == (405, "unknown_operation"), verb
            assert refused.headers["allow"] == "GET, HEAD"
            assert not [name for name in refused.headers if name.startswith("access-control")]

    with_page(tmp_path, scenario)


def test_no_path_leads_out_of_the_page(tmp_path: Path) -> None:
    async def scenario(s: Served) -> None:
        visitor = s.browser()
        for path in TRICKS:
            refused = await visitor.ask(path)
            assert (refused.status, refused.code) == (404, "page_file_not_found"), path
            assert refused.headers["x-content-type-options"] == "nosniff"
            assert refused.headers["content-security-policy"].startswith("default-src 'none'")
        # What is no path of the page's is the API's, which tells nothing to who may do nothing.
        for path in ("//", "/page", "/PAGE/style.css", "/%70age/style.css", "/./", "/lsp.html"):
            assert (await visitor.ask(path)).status == 401, path

    with_page(tmp_path, scenario)


def test_the_page_is_none_of_another_name_that_leads_here(tmp_path: Path) -> None:
    async def scenario(s: Served) -> None:
        for host in ("evil.example", f"evil.example:{s.server.tcp_port}"):
            for path in ("/", "/page/style.css", "/session"):
                refused = await s.browser(host=host).ask(path)
                assert (refused.status, refused.code) == (403, "host_refused")

    with_page(tmp_path, scenario)


def test_on_the_unix_socket_is_no_page(tmp_path: Path) -> None:
    for target in ("/", "/page/style.css", "/session"):
        ((status, _, body),) = ask_server(tmp_path, got(target))
        assert (status, body["code"]) == (404, "unknown_operation"), target
