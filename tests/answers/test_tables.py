"""What the command line is tested with fits the types of answers, and what does not is noticed."""

from typing import Any

import pytest
from tests.answers.fitting import check_fits
from tests.cli import answers, market_answers, test_agent

AGENT_ANSWERS = {
    "status": test_agent.STATUS,
    "list": {"kind": "coinless", "packages": [test_agent.WAITING]},
    "add": {"added": True, **test_agent.WAITING},
    "stop": {"stopping": True},
}
TABLES: dict[str, dict[str, Any]] = {
    "lsp": answers.LSP_ANSWERS,
    "client": answers.CLIENT_ANSWERS,
    "agent": AGENT_ANSWERS,
}
# What a function of the table is asked with.
PARAMS = ({"dry_run": True, "wait_seconds": 0}, {"dry_run": False, "wait_seconds": 60})


@pytest.mark.parametrize(
    ("role", "method"), [(role, method) for role, table in TABLES.items() for method in table]
)
def test_an_answer_of_the_table_fits_its_type(role: str, method: str) -> None:
    answer = TABLES[role][method]
    for params in PARAMS:
        check_fits(answer(params) if callable(answer) else answer, role, method)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"min_sat": -1}, "min_sat"),
        ({"min_sat": "10"}, "min_sat"),
        ({"example": {"amount_sat": 1}}, "example"),
        ({"is_gone": True}, r"without a type: \$\.is_gone"),
        ({"example": market_answers.PRICE["example"] | {"more": 1}}, r"\$\.example\.more"),
    ],
)
def test_a_field_that_is_wrong_missing_or_unknown_is_noticed(
    wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(AssertionError, match=said):
        check_fits(market_answers.PRICE | wrong, "lsp", "price")
