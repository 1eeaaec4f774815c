"""What the documents name is in the program: commands and options, modules and rooms, names."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cromford.cli.configuration.keys import KEYS
from cromford.cli.configuration.settings import OF_EVERY_COMMAND, OF_TESTS
from cromford.cli.main import COMMANDS, cromford
from cromford.daemon.metrics import HELP

REPOSITORY = Path(__file__).parent.parent.parent
SOURCE = REPOSITORY / "src" / "cromford"
PAGES = [*(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / "docs" / "protocol").glob("*.md")]
ABOUT_IT = [REPOSITORY / f"{name}.md" for name in ("README", "SECURITY", "CHANGELOG")]
INSIDE = [REPOSITORY / f"{name}.md" for name in ("ARCHITECTURE", "GLOSSARY")]
ALL = sorted([*ABOUT_IT, *INSIDE, REPOSITORY / "CONTRIBUTING.md", *PAGES])
# Generated from the program, and compared with it elsewhere.
WRITTEN_BY_HAND = [path for path in ALL if path.name not in {"cli.md", "api.md"}]
ADRS = sorted((REPOSITORY / "docs" / "adr").glob("0*.md"))

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`]+)`")
RUN = re.compile(rf"\bcromford ((?:{'|'.join(COMMANDS)})\b[^|;&<>)]*)")
MAKE = re.compile(r"(?:^|`)make ([a-z-]+)", re.MULTILINE)
NAME = re.compile(r"\b(?:[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+|(?:[A-Z][a-z0-9]+){2,})\b")
VERTEX = re.compile(r"(?:kickoff|state|static)_(?:root|[\d_]+)")
PATH = re.compile(r"([a-z_]+)(?:/[a-z_]+)+(?:\.py)?")
KEY = re.compile(r"(chain|metrics|api|seed|backup|lsp|client|agent)\.(?!py$|sock$|toml$)[a-z_]+")
VARIABLES = {*(key.variable for key in KEYS), *OF_EVERY_COMMAND, *OF_TESTS}
NOT_OURS = {"cltv_x", "cltv_y", "proxy_buffering", "proxy_read_timeout"}  # Of formulas, of nginx.
GONE = {"--metrics-port"}  # The changelog says what took its place.


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def spans_of(path: Path) -> Iterator[str]:
    """Yield what stands in backticks, a line break in it as a space."""
    for span in SPAN.findall(BLOCK.sub("", text_of(path))):
        yield " ".join(span.split())


def command_lines(path: Path) -> Iterator[str]:
    """Yield each command line, without the name of the program."""
    for kind, block in BLOCK.findall(text_of(path)):
        if kind in {"", "sh"}:
            for line in block.replace("\\\n", " ").splitlines():
                yield from RUN.findall(line.partition(" #")[0])
    for span in spans_of(path):
        whole = RUN.findall(span)
        yield from whole or ([span] if is_short_command(span) else [])


def is_short_command(span: str) -> bool:
    """Say whether it is a command without the program's name: `lsp pay`, or `exit start`."""
    first, _, rest = span.partition(" ")
    return bool(rest) and (first in {"lsp", "client", "agent", "config"} or role_of(first) != "")


def below(command: click.Command, name: str) -> click.Command | None:
    """Return the command of a group, None if there is none."""
    assert isinstance(command, click.Group)
    return command.get_command(click.Context(command), name)


def role_of(group: str) -> str:
    """Return a role that has a group of commands by this name; if both have, the client."""
    for role in ("client", "lsp"):
        within = below(cromford, role)
        assert within is not None
        if isinstance(below(within, group), click.Group):
            return role
    return ""


def problem_with(line: str) -> str | None:
    """Return what of a command line there is not; None if there is all of it."""
    words = shlex.split(line.replace("'", " "))
    if role_of(words[0]):
        words.insert(0, role_of(words[0]))
    command: click.Command = cromford
    takes_value = False
    for word in words:
        if takes_value:
            takes_value = False
        elif word.startswith("--"):
            option = word.partition("=")[0].rstrip(".,")
            found = {name: one for one in (*cromford.params, *command.params) for name in one.opts}
            if option not in {*found, "--help"} and option not in secondary(command):
                return option
            known = found.get(option)
            takes_value = isinstance(known, click.Option) and not known.is_flag and "=" not in word
        elif isinstance(command, click.Group) and re.fullmatch(r"[a-z][a-z-]*", word):
            found_below = below(command, word)
            if found_below is None:
                return word
            command = found_below
    return None


def options_of(command: click.Command) -> Iterator[str]:
    """Yield the options of a command and of all below it."""
    for one in command.params:
        yield from (*one.opts, *one.secondary_opts)
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            within = below(command, name)
            assert within is not None
            yield from options_of(within)


def secondary(command: click.Command) -> set[str]:
    return {name for one in command.params for name in one.secondary_opts}


@pytest.fixture(scope="module")
def words() -> set[str]:
    """Return every word of the program and of what is delivered with it, and its files' names."""
    delivered = [REPOSITORY / "src", REPOSITORY / "contrib", REPOSITORY / "bench"]
    files = [path for root in delivered for path in root.rglob("*") if path.is_file()]
    texts = [text_of(path) for path in files if path.suffix in {".py", ".js", ".html", ".yaml"}]
    tests = {path.stem for path in (REPOSITORY / "tests").rglob("*.py")}
    return {*re.findall(r"\w+", "\n".join(texts)), *(path.stem for path in files), *tests}


def is_known(name: str, words: set[str]) -> bool:
    """Say whether a name is the program's; a message may stand in small letters."""
    as_class = "".join(part.capitalize() for part in name.split("_"))
    number = name.removeprefix("cromford_")
    if number != name:
        return number in HELP or any(one.startswith(f"{number}_") for one in HELP)
    if name.startswith("CROMFORD_"):
        return name in VARIABLES
    return name in words or as_class in words or name in NOT_OURS


def test_there_are_commands_and_names_in_the_documents() -> None:
    lines = [line for path in WRITTEN_BY_HAND for line in command_lines(path)]
    assert len(lines) > 300
    assert {"client exit start", "seed restore"} <= set(lines)
    assert problem_with("client address") == "address"
    assert problem_with("lsp pay --frm x") == "--frm"


@pytest.mark.parametrize("path", WRITTEN_BY_HAND, ids=lambda path: path.stem)
def test_a_command_that_a_document_names_is_one(path: Path) -> None:
    wrong = [f"{line}: {bad}" for line in command_lines(path) if (bad := problem_with(line))]
    assert not wrong, "\n".join(wrong)


def test_an_option_or_a_key_that_a_document_names_is_one() -> None:
    options, keys = {*options_of(cromford), *GONE}, {key.path for key in KEYS}
    spans = [span for path in [*ABOUT_IT, *INSIDE, *PAGES] for span in spans_of(path)]
    named = {found[0] for span in spans if (found := re.match(r"--[a-z-]+", span))}
    assert len(named) > 30
    assert named <= options
    named_keys = {found[0] for span in spans if (found := KEY.fullmatch(span))}
    assert len(named_keys) > 2
    assert named_keys <= keys


@pytest.mark.parametrize("path", [*ABOUT_IT, *INSIDE, *PAGES], ids=lambda path: path.stem)
def test_a_name_that_a_document_names_is_the_programs(path: Path, words: set[str]) -> None:
    named = {name for span in spans_of(path) for name in NAME.findall(span)}
    unknown = {name for name in named if not is_known(name, words) and not VERTEX.fullmatch(name)}
    assert not unknown


@pytest.mark.parametrize("path", [*ALL, *ADRS], ids=lambda path: path.stem)
def test_a_module_that_a_document_names_is_there(path: Path) -> None:
    modules = {f"/{one.relative_to(SOURCE).with_suffix('')}" for one in SOURCE.rglob("*")}
    rooms = {one.name for one in SOURCE.rglob("*") if one.is_dir()}
    named = [
        span for span in spans_of(path) if (found := PATH.fullmatch(span)) and found[1] in rooms
    ]
    gone = [
        one for one in named if not any(m.endswith(f"/{one.removesuffix('.py')}") for m in modules)
    ]
    assert not gone


def test_what_stands_beside_a_module_of_the_architecture_is_in_it() -> None:
    text = " ".join(text_of(REPOSITORY / "ARCHITECTURE.md").split())
    beside = re.findall(r"`([a-z_]+(?:/[a-z_]+)+)` \(`(\w+)`", text)
    assert len(beside) > 15
    sources = {
        f"/{path.relative_to(SOURCE).with_suffix('')}": path for path in SOURCE.rglob("*.py")
    }
    for module, name in beside:
        found = [text_of(path) for one, path in sources.items() if one.endswith(f"/{module}")]
        is_room = any(one.endswith(f"/{module}/{name}") for one in sources)
        assert is_room or re.search(rf"\b{name}\b", "\n".join(found)), f"{module} ({name})"


def test_the_architecture_names_every_room() -> None:
    rooms = {one.stem for one in SOURCE.iterdir() if one.is_dir() or one.suffix == ".py"}
    named = set(re.findall(r"\w+", text_of(REPOSITORY / "ARCHITECTURE.md")))
    assert {one for one in rooms if not one.startswith("_")} <= named


def test_a_word_of_the_glossary_is_in_the_code_as_it_says(words: set[str]) -> None:
    rows = [line.split("|") for line in text_of(REPOSITORY / "GLOSSARY.md").splitlines()]
    in_code = [row[3] for row in rows if len(row) == 6]
    assert len(in_code) > 100
    said = {word for cell in in_code for span in SPAN.findall(cell) for word in span.split()}
    unknown = {one for one in said for part in re.findall(r"\w{3,}", one) if part not in words}
    assert not unknown


def test_every_target_of_make_that_is_named_is_one() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of(REPOSITORY / "Makefile"), re.MULTILINE))
    named = {one for path in [*WRITTEN_BY_HAND, *ADRS] for one in MAKE.findall(text_of(path))}
    assert len(named) > 10
    assert named <= targets


def test_the_readme_leads_to_every_page() -> None:
    readme = text_of(REPOSITORY / "README.md")
    pages = {f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")}
    assert {page for page in pages if f"]({page})" not in readme} == set()


def test_a_decision_says_how_it_stands_and_is_in_the_list() -> None:
    listed = text_of(REPOSITORY / "docs" / "adr" / "README.md")
    assert not [path.name for path in ADRS if f"({path.name})" not in listed]
    assert not [path.name for path in ADRS if "\n**Status:** " not in text_of(path)]


def test_a_decision_that_was_replaced_says_by_which() -> None:
    silent = []
    for path in ADRS:
        status = text_of(path).partition("**Status:**")[2].partition("\n\n")[0]
        replaced = re.findall(r"[Rr]eplaces[^;.]*?\((0[\w-]+\.md)\)", " ".join(status.split()))
        silent += [
            f"{one} does not name {path.name}"
            for one in replaced
            if path.name not in text_of(path.parent / one).partition("\n## ")[0]
        ]
    assert not silent
