"""One package by hand: what can be in the next block, from wherever the path is, to the end."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.agent.path_chain import PathChain
from tests.watch.packages import package

from cromford.agent.broadcasting import broadcast_once, broadcast_to_the_end
from cromford.answers.packages import BroadcastPackage
from cromford.bitcoin.tx import TxOut
from cromford.ports import CredentialsRefused
from cromford.watch.package import ExitPackage
from cromford.watch.package_reading import InvalidPackage

ALICE, LEAVING = package(5, 3), package(5, 3, is_leaving=True)
NAMES = ["kickoff_root", "state_root", "kickoff_0", "state_0", "kickoff_0_2", "state_0_2"]


def funded(*packages: ExitPackage) -> PathChain:
    chain = PathChain()
    chain.fund(*packages)
    return chain


def statuses(document: BroadcastPackage) -> list[str]:
    return [step["status"] for step in document["steps"]]


def once(chain: PathChain, given: ExitPackage = ALICE) -> BroadcastPackage:
    return asyncio.run(broadcast_once(chain, given))


def watched(
    chain: PathChain, given: ExitPackage
) -> tuple[BroadcastPackage, list[BroadcastPackage]]:
    """Go on to the end, with a block each time that somebody waits for one."""
    told: list[BroadcastPackage] = []

    async def sleep(_seconds: float) -> None:
        chain.is_silent = False
        chain.confirm()

    end = asyncio.run(
        broadcast_to_the_end(chain, given, poll_seconds=1, told=told.append, sleep=sleep)
    )
    return end, told


@pytest.mark.parametrize("n_confirmed", range(len(ALICE.txs) + 1))
def test_one_pass_goes_on_from_wherever_the_path_is_whoever_published_it(
    n_confirmed: int,
) -> None:
    chain = funded(ALICE)
    chain.confirm_path(ALICE.txs[:n_confirmed])
    document = once(chain)
    assert [step["name"] for step in document["steps"]] == NAMES
    assert statuses(document)[:n_confirmed] == ["confirmed"] * n_confirmed
    assert document["is_expiry_checked"] == (n_confirmed == 0)
    if n_confirmed == len(ALICE.txs):
        assert document["status"] == "on_chain"
        assert chain.n_broadcast == 0
        return
    step = ALICE.steps[n_confirmed]
    if step.delay_blocks > 1:
        parent = ALICE.txs[n_confirmed - 1]
        earliest = chain.unspent[parent.outpoint(0)][0] + step.delay_blocks
        assert document["next"] == f"publish {step.name}, which can be in block {earliest}"
        assert (statuses(document)[n_confirmed], document["refused"]) == ("waits", None)
        assert chain.n_broadcast == 0
        chain.confirm(earliest - 1 - chain.height)
        document = once(chain)
    assert document["next"] == f"{step.name} is published and waits for a block"
    assert statuses(document)[n_confirmed] == "published"
    assert statuses(document)[n_confirmed + 1 :] == ["later"] * (len(NAMES) - n_confirmed - 1)
    assert chain.mempool == [step.tx]
    assert once(chain) == document  # Twice is no more than once.


def test_what_the_node_refuses_is_said() -> None:
    chain = funded(ALICE)
    chain.refusal = "min relay fee not met"
    document = once(chain)
    assert document["refused"] == "min relay fee not met"
    assert statuses(document)[0] == "refused"
    assert "the node refused it, min relay fee not met" in document["next"]


def test_without_an_output_of_the_path_nothing_is_published() -> None:
    chain = PathChain()
    document = once(chain)
    assert (document["status"], document["exit_deadline_height"]) == ("nothing_found", None)
    end, told = watched(chain, ALICE)
    assert end["status"] == "nothing_found"
    assert len(told) == 1
    assert chain.n_broadcast == 0


def test_a_funding_that_is_another_on_the_chain_is_refused_and_nothing_published() -> None:
    chain = funded(ALICE)
    other = TxOut(amount_sat=1, script_pubkey=ALICE.funding_txout.script_pubkey)
    chain.unspent[ALICE.funding_outpoint] = (0, other)
    with pytest.raises(InvalidPackage, match=r"funding\.amount_sat: expected 1, as the chain"):
        once(chain)
    chain.unspent[ALICE.funding_outpoint] = (0, replace(other, script_pubkey=b"\x51"))
    with pytest.raises(InvalidPackage, match=r"funding\.script_pubkey: expected 51, as the chain"):
        once(chain)
    assert chain.n_broadcast == 0


@pytest.mark.parametrize("given", [ALICE, LEAVING])
def test_watching_it_goes_on_block_by_block_to_the_end(given: ExitPackage) -> None:
    chain = funded(given)
    end, told = watched(chain, given)
    assert end["status"] == "on_chain"
    assert set(statuses(end)) == {"confirmed"}
    published = [one["next"].split()[0] for one in told if "is published" in one["next"]]
    assert published == [step.name for step in given.steps]
    assert (given.channel_outpoint in chain.unspent) == (given.commitment is None)
    # And until what it published is six deep: a block may be taken back.
    last = given.steps[-1].tx
    height, _ = chain.unspent[last.outpoint(0)]
    assert chain.height - height == 5


@pytest.mark.parametrize(
    ("n_steps", "n_depth", "status"), [(6, 2, "on_chain"), (2, 1, "nothing_found")]
)
def test_watching_ends_once_nothing_of_it_was_there_for_six_blocks(
    n_steps: int, n_depth: int, status: str
) -> None:
    """Its owner took what it led to in time; or something else was first."""
    chain = funded(ALICE)
    last = ALICE.steps[n_steps - 1].tx.outpoint(0)
    spent_heights: list[int] = []

    async def sleep(_seconds: float) -> None:
        chain.confirm()
        if last in chain.unspent and chain.height - chain.unspent[last][0] + 1 == n_depth:
            chain.unspent.clear()
            chain.mempool.clear()
            spent_heights.append(chain.height)

    end = asyncio.run(
        broadcast_to_the_end(chain, ALICE, poll_seconds=1, told=lambda _one: None, sleep=sleep)
    )
    assert end["status"] == status
    assert [chain.height - height for height in spent_heights] == [5], "until then it may be undone"


def test_watching_outlives_a_node_that_does_not_answer_and_one_that_refuses() -> None:
    chain = funded(ALICE)
    chain.silent_calls = set(range(1, 40, 3))
    end, _ = watched(chain, ALICE)
    assert end["status"] == "on_chain"
    chain = funded(ALICE)
    chain.refusal = "mempool min fee not met"
    told: list[BroadcastPackage] = []

    async def sleep(_seconds: float) -> None:
        chain.confirm()
        if chain.height == 3:
            chain.refusal = None

    asyncio.run(broadcast_to_the_end(chain, ALICE, poll_seconds=1, told=told.append, sleep=sleep))
    assert [one["refused"] for one in told[:2]] == ["mempool min fee not met", None]


def test_watching_ends_where_the_node_lets_nobody_in_any_more() -> None:
    class Closed(PathChain):
        async def status(self) -> Any:
            raise CredentialsRefused("401")

    with pytest.raises(CredentialsRefused):
        watched(Closed(), ALICE)
