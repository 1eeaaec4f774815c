"""What is installed is the program, its types and its licence, and nothing of how it is tested."""

import configparser
import email
import importlib
import zipfile
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build our wheel as pip would, without a place of its own for the back-end."""
    backend: Any = importlib.import_module("flit_core.buildapi")
    place = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        name = backend.build_wheel(str(place))
    return zipfile.ZipFile(place / name)


def test_a_wheel_holds_the_program_its_types_and_its_licence(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    sources = {
        str(path.relative_to(REPOSITORY / "src"))
        for path in (REPOSITORY / "src" / "cromford").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == sources
    assert "cromford/py.typed" in sources
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_a_wheel_brings_one_command(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    scripts = configparser.ConfigParser()
    scripts.read_string(wheel.read(name).decode())
    assert {section: dict(scripts[section]) for section in scripts.sections()} == {
        "console_scripts": {"cromford": "cromford.cli.main:main"}
    }


def test_a_wheel_asks_for_what_the_program_stands_on_and_for_no_test(
    wheel: zipfile.ZipFile,
) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    told = email.message_from_bytes(wheel.read(name))
    asked = " ".join(told.get_all("Requires-Dist") or [])
    assert "click==" in asked
    assert "pytest" not in asked
    assert told["Requires-Python"] == ">=3.11"
