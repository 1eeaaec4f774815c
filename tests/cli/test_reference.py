"""docs/cli.md says what the commands say."""

from pathlib import Path

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
