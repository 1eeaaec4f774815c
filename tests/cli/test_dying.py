"""Factories that die, as people read them."""

from typing import Any

import pytest
from tests.cli import answers
from tests.cli.conftest import CommandLine

from cromford.cli.shown.dying import ending_text

OLD, NEW = "f0" * 32, "a1" * 32
STEPS = [
    {"step": "move", "from_height": 1_000, "to_height": 1_431, "what": "the next is built"},
    {"step": "none", "from_height": None, "to_height": None, "what": "nothing is swept"},
]


def client_line(**changes: Any) -> dict[str, Any]:
    moving = {
        "status": "moved",
        "why": "",
        "to_factory_id": NEW,
        "moved_msat": 123_456_000,
        "left_msat": 0,
        **changes,
    }
    return {
        "factory_id": OLD,
        "status": "live",
        "aborted": None,
        "period": "dying",
        "blocks_to_next_period": 432,
        "moving": moving,
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "moved 123,456 sat from factory f0f0f0f0f0f0 to factory a1a1a1a1a1a1"),
        (
            {"why": "200 msat stay"},
            "moved 123,456 sat from factory f0f0f0f0f0f0 to factory a1a1a1a1a1a1: 200 msat stay",
        ),
        (
            {"status": "paying", "left_msat": 5_001},
            "moving 5,001 msat from factory f0f0f0f0f0f0 to factory a1a1a1a1a1a1",
        ),
        (
            {"status": "waiting", "to_factory_id": None, "why": "in the lobby"},
            "moves by itself: in the lobby",
        ),
        ({"status": "staying", "why": "by its policy"}, "stays: by its policy"),
        ({"status": "over", "why": "no payment"}, "does not move: no payment"),
    ],
)
def test_a_client_reads_how_far_it_has_moved(changes: dict[str, Any], said: str) -> None:
    told = ending_text(client_line(**changes))
    assert told == f"factory f0f0f0f0f0f0 dies: 432 blocks to move out; {said}"


def test_an_operator_of_an_lsp_reads_what_will_happen() -> None:
    line = {
        **client_line(),
        "moving": None,
        "n_clients": 8,
        "n_waiting": 3,
        "n_elsewhere": 2,
        "when_dying": STEPS,
    }
    assert ending_text(line) == (
        "factory f0f0f0f0f0f0 dies: 432 blocks to move out; of its 8 clients 3 wait for the next "
        "one and 2 have a channel there; from height 1,000 to 1,431 the next is built; nothing is "
        "swept"
    )
    late = {**line, "period": "late", "blocks_to_next_period": 1}
    told = ending_text(late)
    assert told is not None
    assert told.startswith("factory f0f0f0f0f0f0 is past its exit deadline: it expires in 1 block;")


@pytest.mark.parametrize(
    "changes",
    [
        {"period": "active"},
        {"period": "waiting"},
        {"period": None},
        {"status": "swept"},
        {"status": "on_chain"},
        {"aborted": "client 2: silent"},
    ],
)
def test_of_a_factory_that_does_not_die_or_is_over_nothing_is_said(changes: Any) -> None:
    assert ending_text({**client_line(), **changes}) is None


def test_listings_and_the_command_say_it(fake: Any) -> None:
    line = client_line()
    daemon = fake(
        {
            "factories": {"factories": [answers.client_summary(**line)]},
            "status": answers.CLIENT_STATUS | {"dying": [line]},
            "move": {"factory_id": OLD, "moving": line["moving"]},
        }
    )
    told = "moved 123,456 sat from factory f0f0f0f0f0f0 to factory a1a1a1a1a1a1"
    for words in (("factories",), ("status",), ("move", "f0f0")):
        result = CommandLine(daemon.datadir).run("client", *words)
        assert result.exit_code == 0, result.stderr
        assert told in result.stdout, words
    assert daemon.calls[-1] == ("move", {"factory_id": "f0f0"})


def test_a_wish_that_nobody_typed_says_what_it_is_for(fake: Any) -> None:
    wish = {"capacity_sat": 500_000, "capacity_least_sat": 500_000, "moves_from": OLD}
    daemon = fake({"status": answers.CLIENT_STATUS | {"wish": wish}})
    result = CommandLine(daemon.datadir).run("client", "status")
    assert "500,000 sat, to move out of factory f0f0f0f0f0f0" in result.stdout


def test_money_that_moved_is_no_payment_to_anybody(fake: Any) -> None:
    moved = {
        "direction": "move",
        "status": "paid",
        "amount_msat": 123_456_000,
        "fee_msat": 0,
        "payee": answers.NODE_ID,
        "created_at": None,
        "description": "out of factory f0f0f0f0",
        "label": "",
        "payment_hash": "77" * 32,
        "factory_id": OLD,
        "to_factory_id": NEW,
    }
    daemon = fake({"payments": {"payments": [moved]}})
    result = CommandLine(daemon.datadir).run("client", "payments")
    assert "from factory f0f0f0f0f0f0 to factory a1a1a1a1a1a1" in result.stdout
    assert "moved" in result.stdout
