"""Real daemons answer with the fields that the command line is tested with, and only with those.

The command line's tests ask a table of answers instead of a daemon. A field that the table has and
no daemon sends, or the reverse, would make those tests prove nothing.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.answers.fitting import check_fits, declared
from tests.cli import answers, ban_answers
from tests.daemon.town import CAPACITY_SAT, LSP_POLICY, Town, town

from cromford.answers.index import BY_ROLE
from cromford.daemon.api.failures import InvalidParam
from cromford.daemon.api.handlers import Handler
from cromford.daemon.lspd import LspDaemon
from cromford.daemon.views import lsp as lsp_views
from cromford.protocol.journal.gathered import Build
from cromford.protocol.journal.pause import FAULTS_TO_BAN

SMALL_MSAT = 2_600_000  # Of an HTLC that leaves less than its sweep costs, where fees are high.
FIRST_MSAT = 60_000_000
DEAR_SAT_PER_KW = 2_500
# Where something is sold, in `test_liquidity`.
OF_THE_MARKET = {"price", "set_price", "ledger", "liquidity_quote", "liquidity_buy"}
DEAR = replace(LSP_POLICY, tree_feerate_sat_per_kw=DEAR_SAT_PER_KW)


def fields_of(value: object, path: str = "") -> Iterator[str]:
    """Yield the path of every field, however deep; the items of a list are taken together."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{path}.{name}"
            yield from fields_of(inner, f"{path}.{name}")
    if isinstance(value, list | tuple):
        for item in value:
            yield from fields_of(item, f"{path}[]")


def handlers_of(t: Town, name: str) -> dict[str, Handler]:
    daemon, _ = t.running[name]
    return daemon.served_methods()


class Heard:
    """The fields of every answer of a real daemon, by role and method."""

    def __init__(self, t: Town) -> None:
        self._t = t
        self.fields: dict[tuple[str, str], set[str]] = {}

    async def ask(self, name: str, method: str, **params: object) -> Any:
        answer = await handlers_of(self._t, name)[method](params)
        role = self._t.role_of(name)
        check_fits(answer, role, method)
        self.fields.setdefault((role, method), set()).update(fields_of(answer))
        return answer


async def refuse(*_asked: object) -> str:
    """Say what a node says that takes no transaction."""
    return "mempool min fee not met"


async def ban_and_lift(heard: Heard) -> None:
    stranger = ban_answers.NODE_ID
    await heard.ask("lsp", "ban_add", node_id=stranger, blocks=3, reason="no")
    await heard.ask("lsp", "bans")
    await heard.ask("lsp", "ban_remove", node_id=stranger)


async def gather_and_build(t: Town, heard: Heard) -> None:
    for name in ("alice", "bob"):
        await t.start_client(name)
        await heard.ask(name, "join", capacity_sat=CAPACITY_SAT)
        await t.until(name, "status", lambda status: status["joined"])
    await heard.ask("bob", "leave")
    await t.until("lsp", "lobby", lambda a: len(a["waiting"]) == 1)
    await heard.ask("bob", "join", capacity_sat=CAPACITY_SAT)
    await t.until("lsp", "lobby", lambda a: len(a["waiting"]) == 2)
    await heard.ask("alice", "status")
    await heard.ask("lsp", "lobby")
    await heard.ask("lsp", "build", funding_feerates_sat_per_vb=["2", "8"])
    found = await t.until("lsp", "factories", lambda a: a["factories"][-1]["phase"] == "funding")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cromford.daemon.lspd.refusal_of", refuse)
        factory_id = found["factories"][-1]["factory_id"]
        asked = {"factory_id": factory_id, "feerate_sat_per_vb": "50"}
        await heard.ask("lsp", "factory_abandon", **asked, dry_run=True)
    await t.until("lsp", "status", lambda _: t.node.call("getrawmempool"))
    await heard.ask("lsp", "factory_replace", factory_id=factory_id, dry_run=True)
    await heard.ask("lsp", "factory_bump", factory_id=factory_id, feerate_sat_per_vb="10")
    await t.mine(6, mempool=2)
    for name in ("alice", "bob"):
        await t.until(name, "factory", lambda a: a["channel_status"] == "open")
    await t.until("lsp", "balances", lambda a: {c["status"] for c in a["channels"]} == {"open"})
    await heard.ask("lsp", "close", factory_id=factory_id, dry_run=True)


async def pay_and_be_paid(t: Town, heard: Heard) -> None:
    first = await heard.ask("alice", "invoice", amount_msat=FIRST_MSAT)
    await heard.ask("lsp", "pay", invoice=first["invoice"], dry_run=True)
    await heard.ask("lsp", "pay", invoice=first["invoice"])
    await t.until("alice", "balance", lambda b: b["total"]["own_msat"] == FIRST_MSAT)
    second = await heard.ask("bob", "invoice", amount_msat=9_000_000)
    await heard.ask("alice", "pay", invoice=second["invoice"], dry_run=True)
    await heard.ask("alice", "pay", invoice=second["invoice"])
    third = await heard.ask("bob", "invoice", amount_msat=SMALL_MSAT)
    await t.stop("bob")
    await heard.ask("alice", "pay", invoice=third["invoice"], wait_seconds=0)
    await t.until("lsp", "payments", lambda a: a["forwards"][0]["status"] == "held")


def hear_what_is_rare(t: Town, heard: Heard) -> None:
    """Show a ban, and a build that waits for a client that is away, as the daemon would."""
    lsp, _ = t.running["lsp"]
    assert isinstance(lsp, LspDaemon)
    banned = replace(lsp.state.house, faults={lsp.identity.node_id: (lsp.height,) * FAULTS_TO_BAN})
    heard.fields["lsp", "lobby"].update(fields_of(lsp_views.lobby(banned)))
    waiting = Build(
        attempt=None, node_ids=(), reasons=(), capacity_sat=(), min_clients=1, max_clients=1
    )
    shown = {"build": lsp_views.show_build(waiting, None)}
    heard.fields.setdefault(("lsp", "status"), set()).update(fields_of(shown))


async def look(t: Town, heard: Heard) -> None:
    payment = {"address": (await heard.ask("alice", "address"))["address"], "amount_sat": 50_000}
    await heard.ask("lsp", "wallet_send", **payment)
    await t.mine(1, mempool=1)
    too_cheap = payment | {"amount_sat": 20_000, "feerate_sat_per_vb": "0.01"}
    for name in ("lsp", "alice"):
        refused = await t.call(name, "wallet_send", **too_cheap)
        # A refusal that came only after the abandoning would still be in the status below.
        await t.until(name, "status", lambda status: status["refused"])
        more = {"feerate_sat_per_vb": "0.12", "dry_run": True}
        await heard.ask(name, "wallet_bump", txid=refused["txid"], **more)
        await heard.ask(name, "wallet_balance")
        await heard.ask(name, "wallet_abandon", txid=refused["txid"])
    await heard.ask("alice", "wallet_send", **payment | {"amount_sat": None, "dry_run": True})
    for name in ("lsp", "alice"):
        await heard.ask(name, "wallet_split", n_coins=2, dry_run=True)
    factory_id = (await heard.ask("lsp", "factories"))["factories"][-1]["factory_id"]
    for method in ("factory_show", "factory_export"):
        await heard.ask("lsp", method, factory_id=factory_id)
    for name in ("lsp", "alice"):
        for method in ("status", "address", "wallet_balance", "wallet_coins", "payments"):
            await heard.ask(name, method)
        await heard.ask(name, "backup_create", file=str(t.base / f"{name}.backup"))
    await heard.ask("alice", "backup_status")
    await heard.ask("lsp", "balances")
    for name in ("lsp", "alice"):
        await heard.ask(name, "rescan", from_height=2)
        await t.mine(1)
    t.node.call("setmempoolminimum", "0.00100")  # So that leaving takes a child, and a coin.
    for method in ("factories", "factory", "verify", "exit_plan", "balance", "exit_start"):
        await heard.ask("alice", method)
    # Its coin does not reach for that minimum: the node has said so.
    seen = ("waiting", "coins", "refused")
    await t.until("alice", "exit_status", lambda status: all(status[one] for one in seen))
    for method in ("exit_status", "exit_pause", "stop"):
        await heard.ask("alice", method)
    await heard.ask("lsp", "exit_start", factory_id=factory_id, client=1)
    await heard.ask("lsp", "stop")
    for name in ("alice", "lsp"):
        _, task = t.running.pop(name)
        await task


def fields_of_the_table(answer: object) -> set[str]:
    if callable(answer):
        return {
            field for dry_run in (True, False) for field in fields_of(answer({"dry_run": dry_run}))
        }
    return set(fields_of(answer))


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], set[str]]:
    async def main() -> Heard:
        base = tmp_path_factory.mktemp("town")
        async with town(
            base,
            lsp_policy=replace(DEAR, funding_candidates=2),
            fallback_sat_per_kw=DEAR_SAT_PER_KW,
        ) as t:
            found = Heard(t)
            for place in ("second", "third"):
                (base / place).mkdir()
            t.more["alice"] = {"backup_dir": base / "second", "mark_dir": base / "third"}
            await ban_and_lift(found)
            await gather_and_build(t, found)
            await pay_and_be_paid(t, found)
            hear_what_is_rare(t, found)
            await look(t, found)
            return found

    return asyncio.run(main()).fields


@pytest.mark.sampled(11)
@pytest.mark.parametrize(
    ("role", "method", "answer"),
    [
        (role, method, answer)
        for role, table in (("lsp", answers.LSP_ANSWERS), ("client", answers.CLIENT_ANSWERS))
        for method, answer in table.items()
        if method not in OF_THE_MARKET
    ],
)
def test_an_answer_of_the_table_has_the_fields_of_the_real_one(
    heard: dict[tuple[str, str], set[str]], role: str, method: str, answer: object
) -> None:
    real, told = heard[role, method], fields_of_the_table(answer)
    assert {"missing": real - told, "invented": told - real} == {
        "missing": set(),
        "invented": set(),
    }


def test_a_parameter_that_a_method_does_not_take_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            await t.start_client("alice")
            for name in ("lsp", "alice"):
                handlers = handlers_of(t, name)
                types = BY_ROLE[t.role_of(name)]
                assert {method: declared(handler) for method, handler in handlers.items()} == types
                for handler in handlers.values():
                    with pytest.raises(InvalidParam):
                        await handler({"nonsense": 1})

    asyncio.run(main())
