"""The pictures in docs are what the program draws: `python -m tests.picture.test_docs`."""

from pathlib import Path
from typing import Final

import pytest
from tests.picture.documents import lsp_document, tree_for, with_state
from tests.picture.drawn import check

from cromford.picture.factory import factory_picture
from cromford.picture.plot import cost_plot
from cromford.planning.idea import Idea
from cromford.planning.plan import plan_factory

DOCS: Final = Path(__file__).parent.parent.parent / "docs"


def plan_svg() -> str:
    return cost_plot(plan_factory(Idea()))


def factory_svg() -> str:
    document = lsp_document(
        tree_for(8),
        left_blocks=7_000,
        published=["static_root", "kickoff_1", "state_1"],
        leaving=[3],
        moved_out=[8],
    )
    return factory_picture(with_state(document, "state_2", 1))


PICTURES: Final = {"plan.svg": plan_svg, "factory.svg": factory_svg}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_in_the_documents_is_what_the_program_draws(name: str) -> None:
    drawn = PICTURES[name]()
    check(drawn)
    assert (DOCS / name).read_text(encoding="utf-8") == drawn, (
        "run: python -m tests.picture.test_docs"
    )


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (DOCS / name).write_text(draw(), encoding="utf-8")
