"""docs/cli.md says what the commands say."""

import re
from pathlib import Path
from typing import get_args

from cromford.answers.channels import ChannelStatus
from cromford.cli.payments import balance_command
from cromford.cli.reference import reference

PAGE = Path(__file__).parent.parent.parent / "docs" / "cli.md"


def test_the_page_about_the_command_line_is_what_the_commands_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "run: python -m cromford.cli.reference > docs/cli.md"
    )


def test_the_page_names_every_command_of_a_user() -> None:
    page = reference()
    for name in ("lsp wallet send", "client seed restore", "lsp events", "config dump", "demo"):
        assert f"# `cromford {name}`\n" in page


def test_the_help_of_a_clients_balance_has_every_status_that_it_may_show() -> None:
    told = set(re.findall(r"\w+", balance_command("client").help or ""))
    gone = {"closed", "swept"}  # What is left of these is in the wallet, or nothing.
    statuses = set(get_args(ChannelStatus)) - gone - {"open", "moved_out"}
    assert statuses | {"moved"} <= told, statuses - told
