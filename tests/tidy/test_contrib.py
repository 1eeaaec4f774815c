"""What operators install names files, commands, variables and ports that there are."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import get_completion_class
from tests.cli.conftest import CommandLine

from cromford.bitcoin.network import REGTEST
from cromford.cli.configuration.keys import KEYS
from cromford.cli.configuration.settings import OF_EVERY_COMMAND
from cromford.cli.failures import EXIT_USAGE
from cromford.cli.main import COMMANDS, cromford
from cromford.cli.man import pages

REPOSITORY = Path(__file__).parent.parent.parent
CONTRIB = REPOSITORY / "contrib"
DOCKERFILE = CONTRIB / "docker" / "Dockerfile"
COMPOSE = CONTRIB / "docker" / "compose.yaml"
UNITS = sorted((CONTRIB / "systemd").glob("*.service"))
DROP_INS = sorted((CONTRIB / "systemd").glob("*.conf"))
VARIABLES = {key.variable: key for key in KEYS}
# What systemd puts in the place of a specifier, as it would for an instance called signet.
SPECIFIERS = {"%i": "signet", "%S": "/var/lib", "%E": "/etc", "%d": "/run/credentials/x", "%p": "x"}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def parsed(words: list[str]) -> click.Command:
    """Return the command of a line, whose options all exist; nothing is run."""
    command: click.Command = cromford
    context = click.Context(command, info_name="cromford")
    while isinstance(command, click.Group):
        name, words = words[0], words[1:]
        below = command.get_command(context, name)
        assert below is not None, f"{context.command_path} {name}: there is no such command"
        command = below
        context = click.Context(command, info_name=name, parent=context)
    for word in words:
        option = word.partition("=")[0]
        known = {name for param in command.params for name in param.opts}
        assert not word.startswith("-") or option in known, f"{context.command_path} {option}"
    return command


def lists_after(key: str, text: str) -> Iterator[list[str]]:
    for inside in re.findall(rf"\b{key}: \[([^\]]*)\]", text):
        yield [word.strip().strip('"') for word in inside.split(",")]


def value_of(text: str) -> str:
    """Return a value as it is without an environment: `${NAME:-this}`."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text.strip().strip('"'))


def with_specifiers(text: str) -> str:
    for specifier, meaning in SPECIFIERS.items():
        text = text.replace(specifier, meaning)
    assert "%" not in text, text
    return text


def test_an_image_is_made_of_what_there_is_and_of_what_it_is_sent() -> None:
    text = text_of(DOCKERFILE).replace("\\\n", " ")
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert sources
    sent = [
        line[1:] for line in text_of(REPOSITORY / ".dockerignore").splitlines() if line[0] == "!"
    ]
    assert sorted(sources) == sorted(sent)
    assert all((REPOSITORY / source).exists() for source in sources)
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["cromford"]
    assert 'ENTRYPOINT ["cromford"]' in text
    for name in re.findall(r"\b(CROMFORD_\w+)=", text):
        assert name in {*VARIABLES, *OF_EVERY_COMMAND}


def test_a_container_is_told_only_what_the_program_knows() -> None:
    text = text_of(COMPOSE)
    told = re.findall(r"^\s+(CROMFORD_\w+): (.*)$", text, re.MULTILINE)
    assert {"CROMFORD_LSP_ANNOUNCE", "CROMFORD_CLIENT_LSP"} <= {name for name, _ in told}
    for name, written in told:
        value = value_of(written)
        if value:  # An empty variable says nothing.
            VARIABLES[name].kind.of_text(value)
    assert (COMPOSE.parent / "../.." / "contrib/docker/Dockerfile").exists()
    assert "dockerfile: contrib/docker/Dockerfile" in text


def test_a_containers_command_lines_are_commands() -> None:
    text = text_of(COMPOSE)
    commands = list(lists_after("command", text))
    assert sorted(commands) == [["client", "run"], ["client", "run"], ["lsp", "run"]]
    probes = list(lists_after("test", text))
    assert len(probes) == len(commands)
    for words in commands:
        parsed(words)
    for cmd, program, *words in probes:
        assert (cmd, program) == ("CMD", "cromford")
        parsed(words)


def test_a_containers_ports_are_the_programs() -> None:
    text = text_of(COMPOSE)
    _, listen = VARIABLES["CROMFORD_LSP_LISTEN"].default
    (metrics,) = re.findall(r"CROMFORD_METRICS_LISTEN: \S+:(\d+)", text)
    ours = {str(listen), metrics}
    assert set(re.findall(r"^EXPOSE (.+)$", text_of(DOCKERFILE), re.MULTILINE)[0].split()) == ours
    published = [port.split(":")[-2:] for ports in lists_after("ports", text) for port in ports]
    assert published == [[str(listen)] * 2, [metrics] * 2]
    assert VARIABLES["CROMFORD_CHAIN_NETWORK"].default == REGTEST.name
    assert f"CROMFORD_CHAIN_URL: http://node:{REGTEST.rpc_port}\n" in text


def test_a_container_is_there_again_after_its_machine_was_off_and_hears_what_ends_it() -> None:
    """`on-failure` leaves out what ended as the engine did, and nobody looks at deadlines then."""
    text = text_of(COMPOSE)
    assert re.findall(r"^ +restart: (.+)$", text, re.MULTILINE) == ["unless-stopped"] * 2
    # The kernel lets a first process hear no signal that it has no handler for yet.
    assert re.findall(r"^  init: (.+)$", text, re.MULTILINE) == ["true"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_and_reloads_its_role(unit: Path) -> None:
    role = unit.name.removeprefix("cromford-").removesuffix("@.service")
    settings = dict(
        line.split("=", 1) for line in text_of(unit).splitlines() if "=" in line and line[0] != "#"
    )
    program, *words = shlex.split(with_specifiers(settings["ExecStart"]))
    assert Path(program).name == "cromford"
    assert words[:2] == [role, "run"]
    parsed(words)
    place = words[words.index("--datadir") + 1]
    assert place == f"/var/lib/{with_specifiers(settings['StateDirectory'])}"
    assert words[words.index("--config") + 1].startswith("/etc/cromford/")
    assert settings["Type"] == "notify"
    assert "-HUP" in settings["ExecReload"]
    # Whoever is needed by a height is tried again, unless only an operator can help.
    assert settings["Restart"] == "on-failure"
    assert settings["RestartPreventExitStatus"].split() == [str(EXIT_USAGE)]
    # Without these what is watched could end by what only the daemon's own would.
    assert {"WatchdogSec", "TimeoutStartSec", "TimeoutStopSec", "Restart"} <= set(settings)


def test_there_is_a_unit_for_each_role_that_runs_and_they_differ_by_what_they_are_for() -> None:
    assert [unit.name for unit in UNITS] == [
        f"cromford-{role}@.service" for role in ("agent", "client", "lsp")
    ]
    hardening = {
        text_of(unit).split("# What it may touch")[1].replace(unit.name[9:-9], "ROLE")
        for unit in UNITS
    }
    assert len(hardening) == 1


def test_a_drop_in_sets_variables_that_there_are() -> None:
    said = [
        pair.split("=", 1)
        for path in DROP_INS
        for pair in re.findall(r"^Environment=(.+)$", text_of(path), re.MULTILINE)
    ]
    assert [name for name, _ in said] == ["CROMFORD_SEED_PASSPHRASE_FILE"]
    for name, value in said:
        VARIABLES[name].kind.of_text(with_specifiers(value))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completions_are_what_the_program_makes(shell: str) -> None:
    found = get_completion_class(shell)
    assert found is not None
    made = found(cromford, {}, "cromford", "_CROMFORD_COMPLETE").source()
    assert text_of(CONTRIB / "completions" / f"cromford.{shell}").rstrip("\n") == made.rstrip(
        "\n"
    ), f"run: _CROMFORD_COMPLETE={shell}_source cromford > contrib/completions/cromford.{shell}"


def test_a_shell_is_told_what_may_stand_next() -> None:
    asked = {"COMP_WORDS": "cromford lsp st", "COMP_CWORD": "2"}
    result = CommandLine(None).run(env={"_CROMFORD_COMPLETE": "bash_complete", **asked})
    assert result.stdout.split() == ["plain,status", "plain,stop"]


def test_every_command_and_every_option_is_in_a_man_page() -> None:
    made = pages()
    assert set(made) == {"cromford.1", *(f"cromford-{name}.1" for name in COMMANDS)}
    client = made["cromford-client.1"]
    assert ".SS cromford client exit start\n" in client
    assert "\\fB\\-\\-timeout SECONDS\\fR" in client
    for name, page in made.items():
        lines = page.splitlines()
        assert lines[0].startswith(f'.TH "{name.removesuffix(".1").upper()}" "1"')
        requests = {line.split()[0] for line in lines if line.startswith(".")}
        assert requests <= {".TH", ".SH", ".SS", ".PP", ".TP", ".BR"}, requests
        sections = [line[4:] for line in lines if line.startswith(".SH ")]
        assert sections[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]
        assert not [line for line in lines if line.startswith("'")]
