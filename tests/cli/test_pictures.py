"""`--svg` and `--html`: a whole file or none, and never over one that is there."""

import json
import os
import stat
from pathlib import Path

import pytest
from tests.cli import answers
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon

from cromford.picture.factories import factories_picture
from cromford.picture.factory import factory_picture
from cromford.picture.page import factory_page
from cromford.picture.plot import cost_plot
from cromford.planning.idea import Idea
from cromford.planning.plan import plan_factory

SHOW = ("lsp", "factory", "show", answers.FACTORY_ID)


def test_an_lsps_factory_is_drawn_and_shown(lsp: FakeDaemon, tmp_path: Path) -> None:
    svg, html = tmp_path / "a.svg", tmp_path / "a.html"
    line = CommandLine(lsp.datadir)
    shown = line.run(*SHOW, "--svg", str(svg), "--html", str(html))
    assert shown.exit_code == 0
    assert shown.stdout == line.run(*SHOW).stdout
    assert shown.stderr.splitlines() == [f"written: {svg}", f"written: {html}"]
    assert svg.read_text(encoding="utf-8") == factory_picture(answers.SHOWN)
    assert html.read_text(encoding="utf-8") == factory_page(answers.SHOWN)


def test_a_clients_branch_is_drawn_too(client: FakeDaemon, tmp_path: Path) -> None:
    svg = tmp_path / "a.svg"
    words = ("client", "factory", "--svg", str(svg))
    assert CommandLine(client.datadir).run(*words).exit_code == 0
    assert svg.read_text(encoding="utf-8") == factory_picture(answers.BRANCH)


def test_all_factories_are_drawn_on_one_line_and_listed(lsp: FakeDaemon, tmp_path: Path) -> None:
    svg = tmp_path / "all.svg"
    line = CommandLine(lsp.datadir)
    listed = line.run("lsp", "factories", "--svg", str(svg))
    assert listed.exit_code == 0
    assert listed.stdout == line.run("lsp", "factories").stdout
    document = json.loads(line.run("lsp", "factories", "--json").stdout)
    assert svg.read_text(encoding="utf-8") == factories_picture(document)
    again = line.run("lsp", "factories", "--svg", str(svg))
    assert (again.exit_code, "--overwrite" in again.stderr) == (1, True)
    assert line.run("lsp", "factories", "--overwrite").exit_code == 2


def test_a_plan_is_drawn_without_a_daemon(tmp_path: Path) -> None:
    svg = tmp_path / "plan.svg"
    assert CommandLine(None).run("plan", "--svg", str(svg)).exit_code == 0
    assert svg.read_text(encoding="utf-8") == cost_plot(plan_factory(Idea()))


def test_with_json_the_answer_is_the_document_and_nothing_else(
    lsp: FakeDaemon, tmp_path: Path
) -> None:
    svg = tmp_path / "a.svg"
    document = CommandLine(lsp.datadir).document(*SHOW, "--svg", str(svg))
    assert document == json.loads(json.dumps(answers.SHOWN))
    assert svg.exists()


def test_a_file_that_is_there_stays_as_it_is(lsp: FakeDaemon, tmp_path: Path) -> None:
    svg = tmp_path / "a.svg"
    svg.write_text("mine", encoding="utf-8")
    line = CommandLine(lsp.datadir)
    result = line.run(*SHOW, "--svg", str(svg), "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    error = json.loads(result.stderr)
    assert error["code"] == "file_exists"
    assert str(svg) in error["message"]
    assert "--overwrite" in error["remediation"]
    assert svg.read_text(encoding="utf-8") == "mine"
    assert line.run(*SHOW, "--svg", str(svg), "--overwrite").exit_code == 0
    assert svg.read_text(encoding="utf-8") == factory_picture(answers.SHOWN)
    assert [path.name for path in tmp_path.iterdir() if "svg" in path.name] == ["a.svg"]


def test_a_link_is_not_followed_to_what_it_names(lsp: FakeDaemon, tmp_path: Path) -> None:
    other, svg = tmp_path / "other", tmp_path / "a.svg"
    other.write_text("mine", encoding="utf-8")
    svg.symlink_to(other)
    line = CommandLine(lsp.datadir)
    assert line.run(*SHOW, "--svg", str(svg)).exit_code == 1
    assert line.run(*SHOW, "--svg", str(svg), "--overwrite").exit_code == 0
    assert other.read_text(encoding="utf-8") == "mine"
    assert not svg.is_symlink()


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_what_is_no_file_is_not_replaced(lsp: FakeDaemon, tmp_path: Path, more: list[str]) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)  # As /dev/stdout is one.
    for path in (pipe, link):
        result = CommandLine(lsp.datadir).run(*SHOW, "--svg", str(path), *more)
        assert result.exit_code == 1
        assert f"{path}: expected a file, received a pipe or a device" in result.stderr
    assert pipe.is_fifo()
    assert link.is_symlink()


@pytest.mark.parametrize("words", [SHOW, ("plan",)])
def test_to_replace_nothing_is_a_mistake(lsp: FakeDaemon, words: tuple[str, ...]) -> None:
    datadir = None if words == ("plan",) else lsp.datadir
    result = CommandLine(datadir).run(*words, "--overwrite")
    assert result.exit_code == 2
    assert "--overwrite: expected a file to draw into, received none" in result.stderr


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_a_file_that_cannot_be_written_is_named(
    lsp: FakeDaemon, tmp_path: Path, more: list[str]
) -> None:
    svg = tmp_path / "nowhere" / "a.svg"
    result = CommandLine(lsp.datadir).run(*SHOW, "--svg", str(svg), *more, "--json")
    assert result.exit_code == 1
    error = json.loads(result.stderr)
    assert error["code"] == "file_not_written"
    assert error["message"] == f"{svg}: No such file or directory"


def test_a_write_that_fails_leaves_nothing_behind(
    lsp: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(os, "fsync", fail)
    result = CommandLine(lsp.datadir).run(*SHOW, "--svg", str(place / "a.svg"), "--json")
    assert json.loads(result.stderr)["message"].endswith("a.svg: No space left on device")
    assert list(place.iterdir()) == []


def test_a_picture_is_as_readable_as_any_other_new_file(lsp: FakeDaemon, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        svg = tmp_path / "a.svg"
        CommandLine(lsp.datadir).run(*SHOW, "--svg", str(svg))
        assert stat.S_IMODE(svg.stat().st_mode) == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)
