"""docs/example.md tells of a factory that is built here: every number in it is compared."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from tests.protocol import closes
from tests.protocol.paying_clients import balance, newest_link, pay
from tests.protocol.pump import Pump, PumpNode, UsualPump

from cromford.bitcoin.tx import Tx
from cromford.channel.terms import MSAT_PER_SAT
from cromford.daemon.views import lsp as lsp_views
from cromford.daemon.views.exit import exit_plan
from cromford.protocol import events as ev
from cromford.protocol.advancing.buying import answer_to
from cromford.protocol.policy import LspPolicy
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

# In the order in which they join; who sits where is decided by their node ids.
CAPACITIES_SAT: Final = (500_000, 300_000, 400_000, 200_000)
FIRST_SAT: Final = 100_000
SECOND_SAT: Final = 25_000
BOUGHT_SAT: Final = 50_000
MARKED: Final = re.compile(r"(\d[\d,]*)<!--(\w+)-->")
# What is no number of this factory: code, links with their words, and headings.
UNMARKED: Final = re.compile(
    r"```.*?```|`[^`]*`|\[[^\]]*\]\([^)]*\)|^#[^\n]*$", re.DOTALL | re.MULTILINE
)
SAID_ONCE: Final = {"100 days", "10 sat/vB"}


class Listener:
    """Counts what is said, and how large the largest of each kind is."""

    def __init__(self, pump: Pump) -> None:
        self.said: dict[str, list[m.Message]] = {}
        pump.tamper = self._hear

    def _hear(self, _from: PumpNode, _to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        self.said.setdefault(type(message).__name__, []).append(message)
        return (message,)

    def count(self, *names: str) -> int:
        return sum(len(self.said[name]) for name in names)

    def largest(self, name: str) -> int:
        return max(len(m.encode_message(message)) for message in self.said[name])


def gathered() -> tuple[Pump, Listener]:
    """Return a world of four clients whose factory is built, and what was said."""
    pump = UsualPump(4, policy=LspPolicy(min_clients=1))
    listener = Listener(pump)
    for client, sat in zip(pump.clients, CAPACITIES_SAT, strict=True):
        pump.handle(client, ev.JoinRequested(capacity_sat=sat, capacity_least_sat=sat))
    pump.run()
    pump.build()
    pump.run()
    return pump, listener


def ceremony(pump: Pump, heard: Listener) -> dict[str, int]:
    """Return what was said until all was signed."""
    (below, *_), (root, *_) = heard.said["SignBelow"], heard.said["SignRoot"]
    assert isinstance(below, m.SignBelow)
    assert isinstance(root, m.SignRoot)
    (candidate,) = below.candidates
    return {
        "n_join": heard.count("Join"),
        "join_bytes": heard.largest("Join"),
        "n_propose": heard.count("Propose"),
        "propose_bytes": heard.largest("Propose"),
        "n_below": heard.count("SignBelow"),
        "sign_below_bytes": heard.largest("SignBelow"),
        "signed_below_bytes": heard.largest("SignedBelow"),
        "n_below_sigs": len(candidate.partial_sigs),
        "n_root": heard.count("SignRoot"),
        "sign_root_bytes": heard.largest("SignRoot"),
        "signed_root_bytes": heard.largest("SignedRoot"),
        "n_root_sigs": len(root.partial_sigs),
        "n_acknowledge": heard.count("Acknowledge"),
        "acknowledge_bytes": heard.largest("Acknowledge"),
        "pool_size": pump.policy.pool_size,
        "deadline_seconds": pump.policy.deadline_seconds,
    }


def tree(pump: Pump) -> dict[str, int]:
    """Return the tree's numbers, as the LSP shows them to its operator."""
    shown: Any = lsp_views.show(pump.factory)
    txs = {tx["name"]: tx for tx in shown["transactions"]}
    for one, other in (
        ("kickoff_0", "kickoff_1"),
        ("state_0", "state_1"),
        ("kickoff_root", "kickoff_0"),
    ):
        assert [txs[one][key] for key in ("vsize", "fee_sat")] == [
            txs[other][key] for key in ("vsize", "fee_sat")
        ]
    terms, plan = pump.attempt.terms, exit_plan_of(pump)
    anchors = [
        output["amount_sat"]
        for tx in txs.values()
        for output in tx["outputs"]
        if output["kind"] == "anchor"
    ]
    return {
        "root_signers": len(txs["state_root"]["signers"]),
        "leaf_signers": len(txs["state_0"]["signers"]),
        "n_tree_txs": len(txs),
        "kickoff_vsize": txs["kickoff_root"]["vsize"],
        "kickoff_fee_sat": txs["kickoff_root"]["fee_sat"],
        "state_root_vsize": txs["state_root"]["vsize"],
        "state_root_fee_sat": txs["state_root"]["fee_sat"],
        "state_root_input_sat": txs["state_root"]["input_amount_sat"],
        "kickoff_leaf_input_sat": txs["kickoff_0"]["input_amount_sat"],
        "state_leaf_vsize": txs["state_0"]["vsize"],
        "state_leaf_fee_sat": txs["state_0"]["fee_sat"],
        "state_leaf_input_sat": txs["state_0"]["input_amount_sat"],
        "delay_max_blocks": txs["state_0"]["nsequence"],
        **{f"capacity_{seat}_sat": sat for seat, sat in enumerate(terms.capacity_sat, start=1)},
        "capacities_sat": sum(terms.capacity_sat),
        "lstock_sat": terms.lstock_sat[0],
        "lstocks_sat": sum(terms.lstock_sat),
        "fees_sat": sum(tx["fee_sat"] for tx in txs.values()),
        "anchor_sat": anchors[0],
        "anchors_sat": sum(anchors),
        "funding_sat": shown["funding_amount_sat"],
        "build_height": terms.build_height,
        "expiry_height": terms.expiry_height,
        "exit_deadline_height": shown["exit_deadline_height"],
        "dying_height": shown["dying_height"],
        "min_depth": shown["min_depth"],
        "exit_delay_blocks": plan["total_delay_blocks"],
        "exit_blocks": plan["exit_blocks"],
    }


def exit_plan_of(pump: Pump) -> Any:
    """Return how Alice would leave."""
    alice = pump.client_at(1)
    return exit_plan(alice.state, pump.held(alice), OwnFees())


def paid_in(pump: Pump) -> dict[str, int]:
    """Let two payments be made; return what everybody has then."""
    alice, carol = pump.client_at(1), pump.client_at(3)
    assert pay(pump, pump.lsp, alice, FIRST_SAT * MSAT_PER_SAT).status == "paid"
    payment = pay(pump, alice, carol, SECOND_SAT * MSAT_PER_SAT)
    assert payment.status == "paid"
    found = {
        "first_sat": FIRST_SAT,
        "second_sat": SECOND_SAT,
        "fee_sat": payment.fee_msat // MSAT_PER_SAT,
    }
    assert pump.lsp.state.book.earned_msat == payment.fee_msat
    for seat in range(1, 5):
        money = balance(pump.client_at(seat))
        found[f"own_{seat}_sat"] = money.own_msat // MSAT_PER_SAT
        found[f"receivable_{seat}_sat"] = money.receivable_msat // MSAT_PER_SAT
    return found


def bought(pump: Pump) -> dict[str, int]:
    """Let Alice buy; return what she was quoted, and what is so then."""
    alice, attempt_id = pump.client_at(1), pump.attempt.attempt_id
    pump.handle(alice, ev.QuoteRequested(attempt_id=attempt_id, amount_sat=BOUGHT_SAT))
    pump.run()
    quote = answer_to(alice.state.quotes[attempt_id])
    assert isinstance(quote, m.Quote)
    order = ev.PurchaseRequested(
        attempt_id=attempt_id,
        quote_id=quote.quote_id,
        price_max_msat=quote.price_msat,
        beyond_coverage=False,
    )
    pump.handle(alice, order)
    pump.run()
    plan, shown = exit_plan_of(pump), lsp_views.show(pump.factory)
    (path_steps, channel_steps) = plan["steps"], plan["channel"]["steps"]
    commitment, sweep = channel_steps
    (at_ten,) = (one for one in plan["fees_at"] if one["feerate_sat_per_vb"] == 10)
    return {
        "bought_sat": BOUGHT_SAT,
        "price_msat": quote.price_msat,
        "delay_next_blocks": path_steps[-1]["delay_blocks"],
        "capacity_after_sat": newest_link(alice).state.capacity_sat,
        "lstock_after_sat": shown["leaves"][0]["lstock_sat"],
        "sales_left": shown["leaves"][0]["sales_left"],
        "own_after_sat": balance(alice).own_msat // MSAT_PER_SAT,
        "n_path_txs": plan["n_transactions"],
        "path_vsize": plan["total_vsize"],
        "path_fee_sat": plan["total_fee_sat"] + commitment["fee_sat"],
        "commitment_vsize": commitment["vsize"],
        "exit_blocks_after": plan["exit_blocks"],
        "sweep_vsize": sweep["vsize"],
        "sweep_delay_blocks": sweep["delay_blocks"],
        "arrives_sat": plan["channel"]["exit_sat"],
        "children_at_10_sat": at_ten["children_sat"],
    }


def closed(pump: Pump) -> dict[str, int]:
    """Let everybody close together; return who is paid what."""
    closes.close(pump)
    closes.check_all_is_paid(pump)
    (finished,) = closes.finished(pump.lsp)
    cheap, dear = (Tx.parse(data) for data in finished.txs)
    funding_sat = pump.attempt.funding_tx.outputs[0].amount_sat
    return {
        "close_vsize": cheap.vsize,
        "close_fee_sat": funding_sat - sum(output.amount_sat for output in cheap.outputs),
        "close_fee_dear_sat": funding_sat - sum(output.amount_sat for output in dear.outputs),
        **{
            f"paid_{seat}_sat": msat // MSAT_PER_SAT
            for seat, msat in enumerate(finished.balances_msat, start=1)
        },
        "paid_lsp_sat": cheap.outputs[-2].amount_sat,
    }


@pytest.fixture(scope="module")
def numbers() -> dict[str, int]:
    """Live through the whole example; return every number by its name."""
    pump, heard = gathered()
    found = ceremony(pump, heard)
    pump.mine(pump.policy.min_depth)
    return found | tree(pump) | paid_in(pump) | bought(pump) | closed(pump)


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs/example.md").read_text(encoding="utf-8")


def test_every_number_is_the_factorys(page: str, numbers: dict[str, int]) -> None:
    told = [(name, written) for written, name in MARKED.findall(page)]
    assert told == [(name, f"{numbers[name]:,}") for name, _ in told]
    parts = ("capacities_sat", "lstocks_sat", "fees_sat", "anchors_sat")
    capacities, lstocks, fees, anchors = (numbers[part] for part in parts)
    assert capacities + lstocks + fees + anchors == numbers["funding_sat"]
    assert (
        f"{capacities:,} capacities + {lstocks:,} L-stocks + {fees:,} fees + {anchors:,} anchors = "
        f"{numbers['funding_sat']:,} sat"
    ) in page


def test_every_name_is_told_and_no_number_goes_without(page: str, numbers: dict[str, int]) -> None:
    assert set(numbers) - {"lstocks_sat"} == {name for _, name in MARKED.findall(page)}
    rest = UNMARKED.sub("", MARKED.sub("", page))
    for words in SAID_ONCE:
        assert Counter(re.findall(re.escape(words), rest))[words] == 1
        rest = rest.replace(words, "")
    assert re.findall(r"\d\d[\d,]*", rest) == []
