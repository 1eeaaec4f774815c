"""A proposal that was refused: what is in it breaks no answer, by its id or without one."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.daemon.town import Town, town

from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.clientd import ClientDaemon
from cromford.protocol import events as ev
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.opening import client as opening
from cromford.protocol.opening.client import on_propose
from cromford.protocol.turn import Turn
from cromford.wire import messages as m


def daemon_of(t: Town, name: str) -> ClientDaemon:
    daemon, _ = t.running[name]
    assert isinstance(daemon, ClientDaemon)
    return daemon


def garbage(live: m.Propose) -> m.Propose:
    """Return a proposal that is well-formed as a message and nothing more."""
    return replace(live, terms=b"\xff\xfe\xfd", terms_hash=b"\x0b" * 32, client=999, candidates=())


def without_funding(live: m.Propose) -> m.Propose:
    """Return a proposal whose funding transaction is no transaction."""
    (candidate,) = live.candidates
    return replace(live, candidates=(replace(candidate, funding_tx=b"\x02\x00"),))


def again(live: m.Propose) -> m.Propose:
    """Return the live factory's own proposal, for another join."""
    return live


def heard_by(daemon: ClientDaemon, heard: list[m.Propose]) -> m.Propose:
    """Return the proposal that this client heard, among those of all clients."""
    keys = {attempt.join.factory_pool.pubkey for attempt in daemon.state.attempts.values()}
    (own,) = (propose for propose in heard if propose.factory_pubkey in keys)
    return own


async def propose(t: Town, kind: object) -> tuple[str, str]:
    """Let a client of a live factory be proposed nonsense; return both ids."""
    heard: list[m.Propose] = []

    def hear(turn: Turn[ClientState], propose: m.Propose) -> None:
        heard.append(propose)
        on_propose(turn, propose)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(opening, "on_propose", hear)
        live_id = await t.build("alice", "bob")
    daemon = daemon_of(t, "alice")
    await t.call("alice", "join", capacity_sat=200_000)
    await t.until("alice", "status", lambda status: status["joined"])
    joining = daemon.state.joining
    assert joining is not None
    assert callable(kind)
    refused = replace(
        kind(heard_by(daemon, heard)),
        factory_pubkey=joining.join.factory_pool.pubkey,
        attempt_id=b"\x0a" * 32,
    )
    sender = daemon.state.config.lsp_node_id
    daemon.post(ev.MessageReceived(node_id=sender, message=refused))
    await t.until("alice", "factories", lambda a: a["factories"][-1]["aborted"])
    return live_id, "0a" * 32


async def check_answers(t: Town, live_id: str, refused_id: str) -> None:
    listed = (await t.call("alice", "factories"))["factories"]
    assert [one["factory_id"] for one in listed] == [live_id, refused_id]
    assert (listed[1]["status"], listed[1]["capacity_sat"]) == ("aborted", None)
    assert listed[1]["aborted"].startswith("refused: ")
    # Without an id the live one is meant.
    assert (await t.call("alice", "factory"))["factory_id"] == live_id
    verdict = await t.call("alice", "verify")
    assert (verdict["factory_id"], verdict["ok"]) == (live_id, True)
    assert (await t.call("alice", "exit_plan"))["factory_id"] == live_id
    shown = await t.call("alice", "factory", factory_id=refused_id)
    assert (shown["terms"], shown["transactions"], shown["funding"]) == (None, [], None)
    for method, code in (
        ("verify", "factory_refused"),
        ("exit_plan", "factory_not_complete"),
        ("exit_start", "factory_not_complete"),
    ):
        with pytest.raises(ApiFailure) as failure:
            await t.call("alice", method, factory_id=refused_id)
        assert failure.value.code == code
        assert not failure.value.retryable
    channels = (await t.call("alice", "balance"))["channels"]
    assert [channel["factory_id"] for channel in channels] == [live_id]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", [garbage, without_funding, again])
def test_a_refused_proposal_breaks_no_answer_before_or_after_a_restart(
    tmp_path: Path, kind: object
) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            live_id, refused_id = await propose(t, kind)
            await check_answers(t, live_id, refused_id)
            await t.stop("alice")
            await t.start_client("alice")
            await check_answers(t, live_id, refused_id)
            await t.mine(1)
            await t.call("alice", "exit_start")
            assert (await t.call("alice", "factory"))["status"] == "exiting"

    asyncio.run(main())


def test_a_proposal_that_is_being_checked_has_nothing_to_verify_yet(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            await t.start_client("alice")
            await t.call("alice", "join", capacity_sat=200_000)
            await t.until("alice", "status", lambda status: status["joined"])
            daemon = daemon_of(t, "alice")
            joining = daemon.state.joining
            assert joining is not None
            nothing = m.Propose(
                factory_pubkey=joining.join.factory_pool.pubkey,
                attempt_id=b"\x0a" * 32,
                terms_hash=bytes(32),
                terms=b"",
                client=1,
                factory_pubkeys=(),
                candidates=(),
            )
            daemon.post(
                ev.MessageReceived(node_id=joining.join.factory_pool.pubkey, message=nothing)
            )
            # Before the chain answered: nothing has run since.
            for method in (daemon.methods()["verify"], daemon.methods()["exit_plan"]):
                with pytest.raises(
                    ApiFailure, match=r"being checked|not completely signed"
                ) as failure:
                    await method({})
                assert failure.value.retryable

    asyncio.run(main())
