"""`token`: what is passed on, and what people read of it."""

from typing import Any

import pytest
from tests.cli.conftest import CommandLine

from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.api.tokens import NOT_ASKED

SHOP = {"name": "shop", "scopes": ["read", "receive"], "made_at": 1_790_000_000}
TOKEN = "cromford_drawn"
ANSWERS = {
    "token_add": {**SHOP, "token": TOKEN, "warnings": []},
    "tokens": {"tokens": [SHOP]},
    "token_revoke": SHOP,
}
ROLES = pytest.mark.parametrize("role", ["lsp", "client"])


@ROLES
def test_a_token_is_made_for_what_was_said_and_shown_to_people_and_programs(
    fake: Any, role: str
) -> None:
    daemon = fake(ANSWERS)
    line = CommandLine(daemon.datadir)
    words = (role, "token", "add", "--name", "shop", "--scope", "read", "--scope", "receive")
    assert line.document(*words)["token"] == TOKEN
    told = line.run(*words).stdout
    assert told.splitlines()[0] == TOKEN
    assert "read, receive" in told
    assert "this once" in told
    assert "WARNING" not in told
    asked = {"name": "shop", "scopes": ["read", "receive"]}
    assert daemon.calls == [("token_add", asked)] * 2


def test_a_token_for_which_nobody_is_asked_comes_with_a_warning(fake: Any) -> None:
    answers = {"token_add": {**SHOP, "token": TOKEN, "warnings": [NOT_ASKED]}}
    line = CommandLine(fake(answers).datadir)
    words = ("lsp", "token", "add", "--name", "shop", "--scope", "read")
    first, *rest = line.run(*words).stdout.splitlines()
    assert first == TOKEN
    assert rest[-1] == f"WARNING: {NOT_ASKED}"


@ROLES
def test_the_list_says_what_each_is_for_and_nothing_of_what_it_is(fake: Any, role: str) -> None:
    line = CommandLine(fake(ANSWERS).datadir)
    told = line.run(role, "token", "list").stdout
    for part in ("shop", "read, receive", "2026-09-21"):
        assert part in told
    assert TOKEN not in told
    assert CommandLine(fake({"tokens": {"tokens": []}}).datadir).run(
        role, "token", "list"
    ).stdout == ("no tokens\n")


@ROLES
def test_one_is_revoked_by_its_name(fake: Any, role: str) -> None:
    daemon = fake(ANSWERS)
    assert (
        "shop is revoked" in CommandLine(daemon.datadir).run(role, "token", "revoke", "shop").stdout
    )
    assert daemon.calls == [("token_revoke", {"name": "shop"})]


@pytest.mark.parametrize(
    "words",
    [
        ("add", "--name", "shop"),
        ("add", "--scope", "read"),
        ("add", "--name", "shop", "--scope", "everything"),
        ("revoke",),
    ],
)
def test_what_is_not_whole_is_a_usage_error_and_asks_nobody(
    fake: Any, words: tuple[str, ...]
) -> None:
    daemon = fake(ANSWERS)
    assert CommandLine(daemon.datadir).run("client", "token", *words).exit_code == 2
    assert daemon.calls == []


def test_who_is_not_there_is_not_found(fake: Any) -> None:
    def missing(_params: dict[str, Any]) -> object:
        raise ApiFailure("token_not_found", "there is no token 'shop'", exit_code=4)

    daemon = fake({"token_revoke": missing})
    result = CommandLine(daemon.datadir).run("lsp", "token", "revoke", "shop")
    assert result.exit_code == 4
    assert "there is no token 'shop'" in result.stderr
