"""The numbers of an LSP's factories, of which one that was put back leaves out millions."""

from dataclasses import replace

import pytest
from tests.protocol.paying_clients import live_factory
from tests.protocol.sleepers import lsp_state

from cromford.protocol.restored import ATTEMPTS_SKIPPED
from cromford.shelf import Shelf

FEW = (0, 1, 5)
MANY = tuple(range(0, 3_500, 2))
RESTORED_TWICE = (0, 3, ATTEMPTS_SKIPPED + 4, 2 * ATTEMPTS_SKIPPED + 5, 2 * ATTEMPTS_SKIPPED + 7)


@pytest.mark.parametrize("numbers", [(), (0,), FEW, MANY, RESTORED_TWICE])
def test_factories_are_found_newest_first_across_any_gap(numbers: tuple[int, ...]) -> None:
    house = replace(lsp_state(live_factory(1)).house, order=Shelf(dict.fromkeys(numbers, b"name")))
    for below in {0, 1, *numbers, max(numbers, default=0) + 1, 1 << 31}:
        expected = [number for number in reversed(numbers) if number < below]
        assert [*house.numbers_below(below)] == expected, below
