"""All clients of a factory leave at once, out of a real Bitcoin Core's mempool."""

from pathlib import Path

from tests.functional.test_demo_on_core import started
from tests.functional.test_expiry_on_core import CoreNode
from tests.mass_exit.leaving import Size, run_on

# Core makes its estimates of what is mined: what the others pay to be in the next block.
SIZE = Size(n_clients=5, left_vsize=700, has_market=False)


def test_all_leave_in_one_block_and_it_is_as_each_had_been_told(tmp_path: Path) -> None:
    datadir = tmp_path / "core"
    datadir.mkdir()
    for running in started(datadir, "regtest", f"-blockmaxweight={SIZE.block_weight}"):
        outcome = run_on(tmp_path, CoreNode(running.url, running.cookie), SIZE)
        for line in outcome.lines():
            print(line)  # noqa: T201 - for whoever runs it by hand
        assert list(outcome.broken()) == []
