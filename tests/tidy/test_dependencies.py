"""What we stand on is pinned, hashed and explained."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
PYPROJECT = REPOSITORY / "pyproject.toml"
LOCK = REPOSITORY / "requirements.lock"
LOCKS = sorted(REPOSITORY.glob("requirements*.lock"))
PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[\w,-]+\])?==([0-9][A-Za-z0-9.+!]*)")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def canonical(name: str) -> str:
    """PEP 503: one spelling for each name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def project() -> dict[str, Any]:
    return tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))


def requirements() -> list[str]:
    config = project()
    groups = [config["project"]["dependencies"], config["build-system"]["requires"]]
    groups += config["dependency-groups"].values()
    groups += config["project"].get("optional-dependencies", {}).values()
    return [requirement for group in groups for requirement in group]


def locked(lock: Path = LOCK) -> dict[str, tuple[str, list[str]]]:
    """Read a lock: name to version and hashes, refusing a line that is anything else."""
    joined = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    packages: dict[str, tuple[str, list[str]]] = {}
    for line in joined.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        requirement, *rest = line.split()
        pinned = PINNED.fullmatch(requirement)
        assert pinned, f"not pinned: {requirement}"
        markers = line.split(";", 1)[1].split("--hash", 1)[0].split() if ";" in line else []
        hashes = [part for part in rest if part not in markers and part != ";"]
        assert all(HASH.fullmatch(part) for part in hashes), f"{requirement}: {hashes}"
        packages[canonical(pinned[1])] = (pinned[2], hashes)
    return packages


def test_every_dependency_is_pinned() -> None:
    loose = [text for text in requirements() if not PINNED.fullmatch(text)]
    assert loose == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_locked_package_has_a_hash(lock: Path) -> None:
    packages = locked(lock)
    assert packages
    assert [name for name, (_, hashes) in packages.items() if not hashes] == []


def test_the_lock_holds_every_dependency_at_its_version() -> None:
    packages = locked()
    for requirement in requirements():
        pinned = PINNED.fullmatch(requirement)
        assert pinned
        version, _ = packages.get(canonical(pinned[1]), ("nothing", []))
        assert version == pinned[2], requirement


def test_every_dependency_and_every_opt_out_in_the_configuration_has_its_reason() -> None:
    """An entry stands on a line of its own, with a comment."""
    config = project()
    ruff = config["tool"]["ruff"]["lint"]
    entries = [*config["project"]["dependencies"], *ruff["ignore"]]
    entries += [text for group in config["dependency-groups"].values() for text in group]
    entries += [code for codes in ruff["per-file-ignores"].values() for code in codes]
    lines = PYPROJECT.read_text(encoding="utf-8").splitlines()
    for entry in set(entries):
        here = [line for line in lines if line.strip().startswith(f'"{entry}"')]
        assert len(here) >= entries.count(entry), f"{entry} shares its line"
        for line in here:
            assert re.search(r'",?\s*# \S', line), line
    overrides = [line for line in lines if line.startswith("ignore_missing_imports")]
    assert overrides
    assert all("# " in line for line in overrides), overrides
