"""The dashboard asks for numbers that there are, by labels that they have."""

import json
import re
from pathlib import Path
from typing import Any, Final

from tests.daemon.test_metrics import documented

BOARD: Final = Path(__file__).parents[2] / "contrib" / "grafana" / "cromford.json"
NAMED: Final = re.compile(r"cromford_(\w+)(?:\{([^}]*)\})?")
OF_THE_SCRAPE: Final = frozenset({"job", "instance"})


def board() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(BOARD.read_text(encoding="utf-8"))
    return loaded


def test_every_number_that_it_names_is_in_the_docs() -> None:
    named = {name for name, _ in NAMED.findall(BOARD.read_text(encoding="utf-8"))}
    assert named
    assert named <= documented().keys()


def test_what_it_filters_and_names_curves_by_are_labels_of_the_number() -> None:
    told = documented()
    for panel in board()["panels"]:
        for target in panel["targets"]:
            found = NAMED.findall(target["expr"])
            assert found, panel["title"]
            has = frozenset[str]().union(*(told[name][0] for name, _ in found)) | OF_THE_SCRAPE
            by = {label for _, said in found for label in re.findall(r"(\w+)=", said)}
            by |= set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert by <= has, (panel["title"], by - has)


def test_a_counter_is_never_shown_as_it_is() -> None:
    """It begins again at zero with each start: only how fast it rises says anything."""
    for panel in board()["panels"]:
        for target in panel["targets"]:
            counters = [
                name for name, _ in NAMED.findall(target["expr"]) if name.endswith("_total")
            ]
            n_rates = len(re.findall(r"\b(?:rate|increase)\(", target["expr"]))
            assert n_rates == len(counters), panel["title"]


def test_each_panel_has_a_place_and_a_name_of_its_own() -> None:
    panels = board()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
