"""What a mark and a replica cost a commit, as a ratio to the journal alone.

    .venv/bin/python -m bench.safekeeping [DIRECTORY]

A commit is a few records of usual size, as the committing thread writes them. The directory, by
default the system's for temporary files, has to be on a disk that is really synced.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Final

from cromford.adapters.sqlite import Journal
from cromford.bitcoin.network import REGTEST
from cromford.daemon.backup.asking import Asker
from cromford.daemon.backup.header import Owner
from cromford.daemon.backup.mark_place import MarkPlace
from cromford.daemon.backup.replica import Replica
from cromford.daemon.marks import Marks
from cromford.ports import Entry

N_COMMITS: Final = 500
N_RUNS: Final = 5
RECORDS: Final = (bytes(120), bytes(350), bytes(900))  # Of an event in a channel.
OWNER: Final = Owner(role="lsp", network=REGTEST, fingerprint=bytes(8), secret=bytes(32))


def run(base: Path, *, marks: bool, replica: bool) -> tuple[float, float]:
    """Return the wall-clock and the CPU time of a commit, in microseconds."""
    places = {name: base / name for name in ("home", "second", "third")}
    for name in ("second", "third"):
        places[name].mkdir()
    closing: list[Callable[[], None]] = []
    with Journal(places["home"]) as store:
        marking = None
        if marks:
            marking = Marks(store, MarkPlace(places["third"], "lsp"), Asker("marks", seconds=5))
            closing.append(marking.close)
        if replica:
            following = Replica(store, places["home"], places["second"], OWNER, journal_number=1)
            closing.append(following.close)
        wall, cpu = perf_counter(), process_time()
        for number in range(N_COMMITS):
            entries = [Entry(f"factory:{number % 50}", record) for record in RECORDS]
            store.append(entries, [] if marking is None else [marking.grown(entries)])
            if marking is not None:
                marking.cover()
        spent = perf_counter() - wall, process_time() - cpu
        for close in closing:
            close()
    return spent[0] / N_COMMITS * 1e6, spent[1] / N_COMMITS * 1e6


def main() -> None:
    directory = sys.argv[1] if len(sys.argv) > 1 else None
    rows = [("the journal alone", False, False), ("and a mark", True, False)]
    rows += [("and a replica", False, True), ("and both", True, True)]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in rows}
    for _ in range(N_RUNS):  # In turns: a disk has better and worse minutes.
        for name, marks, replica in rows:
            with TemporaryDirectory(prefix="cromford-bench-", dir=directory) as base:
                found[name].append(run(Path(base), marks=marks, replica=replica))
    print(f"{'a commit of three records':28}{'wall µs':>10}{'ratio':>8}{'CPU µs':>10}")
    alone = median(wall for wall, _ in found[rows[0][0]])
    for name, times in found.items():
        wall, cpu = (median(column) for column in zip(*times, strict=True))
        print(f"{name:28}{wall:10.0f}{wall / alone:8.2f}{cpu:10.0f}")


if __name__ == "__main__":
    main()
