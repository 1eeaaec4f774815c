"""Numbers of ceremonies, nonces and reserved coins; and every number has a line in the docs."""

import asyncio
import re
from pathlib import Path
from typing import Final

import pytest
from tests.daemon.town import LSP_POLICY, Town, town
from tests.protocol.attacks import nothing, only_from, proposed
from tests.protocol.pump import Pump

from cromford import effects as fx
from cromford.bitcoin.network import REGTEST
from cromford.daemon.ceremonies import OUTCOMES, PHASES, Ceremonies
from cromford.daemon.metrics import HELP, Sample
from cromford.daemon.signing import nonce_samples
from cromford.protocol import events as ev
from cromford.signing.keychain import FactoryKey, Keychain
from cromford.signing.signer import Signer
from cromford.wire import messages as m

DOCS: Final = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW: Final = re.compile(r"^\| `cromford_(\w+)` \| ([\w, ]*?) ?\| (.*) \|$", re.MULTILINE)


def documented() -> dict[str, tuple[frozenset[str], str]]:
    """Return the labels and the words of each number in the docs."""
    return {
        name: (frozenset(filter(None, labels.split(", "))), words)
        for name, labels, words in ROW.findall(DOCS.read_text(encoding="utf-8"))
    }


def check_documented(samples: list[Sample]) -> None:
    told = documented()
    for name, labels, _ in samples:
        assert frozenset(labels) == told[name][0], name


def test_the_docs_say_of_each_number_what_the_daemon_says() -> None:
    assert {name: words for name, (_, words) in documented().items()} == HELP


def test_the_docs_name_every_outcome() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z]+)` \|", text, re.MULTILINE)) | {"funded"} == set(OUTCOMES)


class Watched:
    """A world whose LSP's records are counted, on a clock that a test moves."""

    def __init__(self, pump: Pump) -> None:
        self.pump = pump
        self.now = 0.0
        self.ceremonies = Ceremonies(lambda: self.now)
        self._n_heard = 0
        self.hear()

    def hear(self) -> None:
        """Tell of all records that came meanwhile."""
        told = self.pump.lsp.store.remembered
        for record in told[self._n_heard :]:
            self.ceremonies.observe(record)
        self._n_heard = len(told)

    def read(self, name: str) -> dict[str, float]:
        """Return a number by its one label, where it is not zero."""
        return {
            next(iter(labels.values())): value
            for one, labels, value in self.ceremonies.samples(self.pump.lsp.state)
            if one == name and value
        }


def test_each_phase_of_a_ceremony_is_timed_and_its_holdouts_are_counted() -> None:
    watched = Watched(proposed(3))
    pump = watched.pump
    for seconds, (phase, kind) in enumerate(
        {
            "signing_below": m.SignBelow,
            "signing_root": m.SignRoot,
            "acknowledging": m.Acknowledge,
        }.items(),
        start=1,
    ):
        pump.run_to(kind)
        watched.hear()
        assert watched.read("ceremony_holdouts") == {phase: 3}
        pump.run(until=lambda: 1 not in pump.attempt.holdouts)
        assert watched.read("ceremony_holdouts") == {phase: 2}
        watched.now += seconds
    pump.run()
    watched.hear()
    assert watched.read("ceremony_holdouts") == {}
    assert watched.read("ceremonies_ended_total") == {"funded": 1}
    assert watched.read("ceremony_phases_total") == {
        "preparing": 1,
        "signing_below": 1,
        "signing_root": 1,
        "acknowledging": 1,
    }
    seconds_of = watched.read("ceremony_phase_seconds_total")
    assert seconds_of == {"signing_below": 1, "signing_root": 2, "acknowledging": 3}


def end_by(watched: Watched, how: str) -> None:
    pump = watched.pump
    attempt, client = pump.attempt, pump.client_at(1)
    match how:
        case "fault":
            pump.handle(pump.lsp, ev.MessageMalformed(node_id=client.node_id, reason="noise"))
        case "silence":
            with pump.tampering(only_from(client, nothing, m.SignBelow)):
                pump.run()
            deadline = fx.AttemptDeadline(attempt_id=attempt.attempt_id)
            pump.pass_deadline(pump.lsp, deadline)
        case "refused":
            pump.tell(pump.lsp, client, m.Abort(attempt_id=attempt.attempt_id, reason="no"))
        case "disconnected":
            pump.disconnect(client)
        case "restarted":
            pump.restart(pump.lsp)
        case "signer":
            request = fx.PartialSign(attempt_id=attempt.attempt_id, requests=())
            pump.handle(pump.lsp, ev.SigningFailed(asked=request, reason="no"))


@pytest.mark.parametrize(
    "how", ["fault", "silence", "refused", "disconnected", "restarted", "signer"]
)
def test_a_ceremony_that_ends_is_counted_under_the_name_of_its_end(how: str) -> None:
    watched = Watched(proposed(2))
    end_by(watched, how)
    watched.hear()
    ended = watched.read("ceremonies_ended_total")
    assert ended.pop("dropped", 0) == (1 if how == "signer" else 0)
    assert ended == {how: 1}


def test_after_an_abort_those_who_have_not_come_back_are_counted() -> None:
    watched = Watched(proposed(3))
    pump = watched.pump
    attempt = pump.attempt
    pump.tell(pump.lsp, pump.client_at(1), m.Abort(attempt_id=attempt.attempt_id, reason="no"))
    watched.hear()
    assert watched.read("ceremony_holdouts") == {"rejoining": 2}
    watched.now += 4
    pump.run()
    watched.hear()
    assert watched.read("ceremony_holdouts") == {}
    assert watched.read("ceremony_phase_seconds_total") == {"rejoining": 4}


def test_a_build_that_nobody_is_left_for_is_counted_as_dropped() -> None:
    pump = Pump(2)
    pump.join()
    pump.build(min_clients=2)
    watched = Watched(pump)
    pump.disconnect(pump.client_at(1))
    watched.hear()
    assert watched.read("ceremonies_ended_total") == {"disconnected": 1, "dropped": 1}


def test_labels_are_few_and_name_nobody() -> None:
    watched = Watched(proposed(3))
    end_by(watched, "fault")
    watched.hear()
    labels = {
        value
        for _, labels, _ in watched.ceremonies.samples(watched.pump.lsp.state)
        for value in labels.values()
    }
    assert labels == {*OUTCOMES, *PHASES}


def test_nonces_are_counted_as_they_are_made_used_and_dropped() -> None:
    signer = Signer(Keychain(bytes(32), REGTEST, journal_number=1))
    assert counted(signer) == (0, 0, 0)
    pool = signer.make_pool(FactoryKey(attempt=0), 8)
    assert counted(signer) == (1, 0, 8)
    signer.drop_pool(pool.pool_id)
    assert counted(signer) == (0, 0, 0)
    pump = proposed(1)
    pump.run_to(m.SignBelow)
    client = pump.clients[0].signer
    assert client is not None
    n_pools, n_used, n_left = counted(client)
    (asked,) = pump.wishes(pump.clients[0], fx.PartialSign)
    assert (n_pools, n_used) == (2, len(asked.requests))
    assert n_used + n_left == 2 * pump.policy.pool_size


def counted(signer: Signer) -> tuple[float, float, float]:
    pools, used, left = (value for _, _, value in nonce_samples(signer))
    return pools, used, left


def test_every_number_of_two_daemons_is_in_the_docs_and_reserved_coins_are_told(
    tmp_path: Path,
) -> None:
    def reserved(t: Town) -> tuple[float, float]:
        found = {name: value for name, _, value in t.running["lsp"][0].samples()}
        return found["reserved_coins"], found["reserved_sat"]

    async def main() -> None:
        async with town(tmp_path, lsp_policy=LSP_POLICY) as t:
            await t.start_client("alice")
            assert reserved(t) == (0, 0)
            await t.call("alice", "join", capacity_sat=200_000)
            await t.until("alice", "status", lambda status: status["joined"])
            await t.call("lsp", "build")
            await t.until("lsp", "factories", lambda a: a["factories"][-1]["phase"] == "funding")
            n_coins, amount_sat = reserved(t)
            assert n_coins == 1
            assert amount_sat > 200_000
            await t.mine(3, mempool=1)
            assert reserved(t) == (0, 0)
            for daemon, _ in t.running.values():
                check_documented(list(daemon.samples()))

    asyncio.run(main())
