"""What was judged before: a mutant is judged again when its function or what judged it is changed.

What a test notices is kept in the repository, so that of a change only its own mutants are judged.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final, cast

from tests.mutants.bench import CACHE, DIGEST_CHARS
from tests.mutants.rules import REPOSITORY, Mutant
from tests.mutants.verdicts import CAUGHT, Judged, Verdict

LEDGER: Final = CACHE / "judged.jsonl"
NOTICED: Final = Path(__file__).parent / "noticed.txt"
IDS_A_LINE: Final = 10
_HEAD: Final = "# Written by `python -m tests.mutants --keep`: mutants, by who notices them.\n"


class Ledger:
    """The verdicts that are kept: those of this machine one a line, of which the last one counts.

    A mutant that was noticed stays so while its function, the test that noticed it and what of its
    file that test rests on are as they were; one that is mistyped, while its function is. Nobody
    has noticed the others: they are judged again when anything in their module or in one of their
    files of tests is changed.
    """

    def __init__(self, path: Path = LEDGER, noticed: Path = NOTICED) -> None:
        self._path, self._noticed_path = path, noticed
        self._kept: dict[str, dict[str, str]] = {}
        self._noticed = dict(_read_noticed(noticed))
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                self._kept[entry["name"]] = entry

    def known(self, mutant: Mutant) -> Judged | None:
        """Return what was said of a mutant, if it would be said again."""
        for entry in (self._kept.get(mutant.name), self._noticed.get(mutant.id)):
            if entry is not None:
                judged = Judged(mutant, cast("Verdict", entry["verdict"]), entry["by"])
                if entry["digest"] == _digest(judged):
                    return judged
        return None

    def keep(self, mutants: Iterable[Mutant]) -> int:
        """Write which of these mutants a test is known to notice for the repository; count them."""
        found: dict[tuple[str, str, str], list[str]] = {}
        for mutant in mutants:
            judged = self.known(mutant)
            if judged is not None and judged.verdict in CAUGHT:
                head = (judged.by, judged.verdict, _digest(judged))
                found.setdefault(head, []).append(mutant.id)
        lines = [_HEAD]
        for (by, verdict, digest), ids in sorted(found.items()):
            lines.append(f"{verdict} {digest} {by}\n")
            rows = (ids[at : at + IDS_A_LINE] for at in range(0, len(ids), IDS_A_LINE))
            lines += [f"  {' '.join(row)}\n" for row in rows]
        self._noticed_path.write_text("".join(lines), encoding="utf-8")
        return sum(map(len, found.values()))

    def note(self, judged: Judged) -> None:
        """Keep what became of a mutant."""
        entry = {
            "name": judged.mutant.name,
            "verdict": judged.verdict,
            "by": judged.by,
            "digest": _digest(judged),
        }
        self._kept[judged.mutant.name] = entry
        self._path.parent.mkdir(exist_ok=True)
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(entry) + "\n")


def _read_noticed(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    entry: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        if line.startswith("  "):
            yield from ((mutant_id, entry) for mutant_id in line.split())
        elif not line.startswith("#"):
            entry = dict(zip(("verdict", "digest", "by"), line.split(" ", 2), strict=True))


def _digest(judged: Judged) -> str:
    path = judged.mutant.module.path
    if judged.verdict in CAUGHT:
        owner = judged.mutant.owner
        # What counts as the module is imported is in the mutant's name.
        digest = hashlib.sha256(b"" if owner is None else _functions(path)[owner.qualname])
    else:
        digest = hashlib.sha256(_rules(path))
    if judged.verdict == "mistyped":
        return digest.hexdigest()[:DIGEST_CHARS]
    files = [REPOSITORY / "tests" / name for name in judged.mutant.module.tests]
    named, _, test = judged.by.partition("::")
    if judged.verdict in CAUGHT and test and (REPOSITORY / named).exists():
        digest.update(_one_test(REPOSITORY / named, test.partition("[")[0].partition(" ")[0]))
    else:
        for path in files:
            digest.update(_content(path))
    return digest.hexdigest()[:DIGEST_CHARS]


@cache
def _rules(path: Path) -> bytes:
    """Return a module without its comments and lines."""
    return ast.dump(ast.parse(path.read_bytes())).encode()


@cache
def _functions(path: Path) -> dict[str, bytes]:
    """Return the functions of a module, and of its classes, without their comments and lines."""
    found: dict[str, bytes] = {}

    def look(body: Iterable[ast.stmt], names: tuple[str, ...]) -> None:
        for statement in body:
            match statement:
                case ast.ClassDef(name=name, body=inner):
                    look(inner, (*names, name))
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    qualname = ".".join((*names, name))
                    # A property and what sets it have one name.
                    found[qualname] = found.get(qualname, b"") + ast.dump(statement).encode()
                case ast.If(body=inner, orelse=other):
                    look([*inner, *other], names)
                case _:
                    pass

    look(ast.parse(path.read_bytes()).body, ())
    return found


@cache
def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


@cache
def _one_test(path: Path, name: str) -> bytes:
    """Return a test, and all of its file that it rests on."""
    return "\n".join(ast.dump(statement) for statement in _rested_on(path, name)).encode()


def _rested_on(path: Path, name: str) -> list[ast.stmt]:
    """Return those statements of a file that define what a test names, and what these name.

    Its fixtures are among them, for it has them as parameters; so are those that are used by all.
    """
    statements = list(_one_import_each(ast.parse(_content(path)).body))
    told = [_names_of(statement) for statement in statements]
    named, found = {name, "pytestmark"}, set[int]()
    while True:
        more = {
            place
            for place, (defined, _) in enumerate(told)
            if place not in found and (not defined or defined & named)
        }
        if not more:
            return [statements[place] for place in sorted(found)]
        found |= more
        named |= {used for place in more for used in told[place][1]}


def _one_import_each(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements but docstrings, of imports each name by itself."""
    for statement in body:
        match statement:
            case ast.ImportFrom(module=module, names=names, level=level):
                yield from (ast.ImportFrom(module, [one], level) for one in names)
            case ast.Expr(value=ast.Constant()):
                pass
            case _:
                yield statement


def _names_of(statement: ast.stmt) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names that a statement of a module defines, and all that stand in it.

    What counts for every test, as a fixture does that is used by itself, defines none.
    """
    defined, used, is_for_all = set[str](), set[str](), False
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            defined.add(name)
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            defined |= {(one.asname or one.name).partition(".")[0] for one in names}
        case _:
            pass
    is_named = bool(defined)
    for node in ast.walk(statement):
        match node:
            case ast.keyword(arg="autouse"):
                is_for_all = True
            case ast.Name(id=name, ctx=ast.Store()) if not is_named:
                defined.add(name)
            case ast.Name(id=name) | ast.arg(arg=name):
                used.add(name)
            case ast.Constant(value=str(name)):  # A fixture, by `usefixtures`.
                used.add(name)
            case _:
                pass
    return frozenset() if is_for_all else frozenset(defined), frozenset(used)
