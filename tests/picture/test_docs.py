"""The pictures in docs are what the program draws: `python -m tests.picture.test_docs`."""

import re
from pathlib import Path
from typing import Final

import pytest
from tests.picture.documents import (
    client_document,
    lsp_document,
    lsp_line,
    tree_for,
    with_state,
)
from tests.picture.drawn import check

from cromford.factory.branch import branch_of
from cromford.picture.factories import factories_picture
from cromford.picture.factory import factory_picture
from cromford.picture.plot import cost_plot
from cromford.planning.idea import Idea
from cromford.planning.plan import plan_factory

LIVES_TIP: Final = 880_000
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


def shared_svg() -> str:
    """Draw four clients that share an output, of which nothing more is on the chain."""
    return factory_picture(lsp_document(tree_for(4), left_blocks=12_000))


def left_svg() -> str:
    """Draw the branch of one of them, which left alone: all of it is on the chain."""
    tree = tree_for(4)
    names = [node.name for node in branch_of(tree, 3).nodes]
    return factory_picture(
        client_document(tree, 3, published=names, status="on_chain", is_exiting=True)
    )


def lives_svg() -> str:
    """Draw four factories of an LSP, each in another time of its life."""
    return factories_picture(
        {
            "factories": [
                lsp_line(f"{word:0<64}", LIVES_TIP, left_blocks=left, confirmations=deep, **more)
                for word, left, deep, more in (
                    ("1d0c5e0f7a21", 400, 13_600, {"period": "late"}),
                    ("52be90c14d7f", 900, 13_100, {"period": "dying"}),
                    ("a7f36b08e2d5", 6_500, 7_500, {}),
                    ("c904f1a85b3e", 14_000, 0, {"status": "funding", "period": "waiting"}),
                )
            ]
        }
    )


PICTURES: Final = {
    "plan.svg": plan_svg,
    "factory.svg": factory_svg,
    "shared.svg": shared_svg,
    "left.svg": left_svg,
    "lives.svg": lives_svg,
}


def test_every_picture_of_the_documents_is_drawn_here_and_shown_with_what_it_shows() -> None:
    shown: dict[str, str] = {
        name: words
        for page in DOCS.glob("*.md")
        for words, name in re.findall(r"!\[([^\]]*)\]\((\S+\.svg)\)", page.read_text("utf-8"))
    }
    assert set(shown) == set(PICTURES) == {path.name for path in DOCS.glob("*.svg")}
    assert all(len(words.split()) >= 5 for words in shown.values()), shown


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
