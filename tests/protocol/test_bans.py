"""Three proven faults close the lobby for a day, silence never does, and an operator may."""

from typing import Any

import pytest
from tests.protocol.attacks import at_height, join_of, lone, refusal, with_house
from tests.protocol.forge import stranger
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.pause import BAN_BLOCKS, FAULTS_TO_BAN, PAUSE_BLOCKS, Ban
from cromford.protocol.journal.streams import HOUSE
from cromford.protocol.lobby.banning import BAN_REASON_SIZE_MAX, BANS_MAX
from cromford.protocol.policy import BAN_BLOCKS_MAX
from cromford.protocol.turn import Decision
from cromford.wire import messages as m

# Bans


def banned_until(pump: Pump, client: PumpNode) -> int | None:
    """Return until which height the lobby is closed to a client."""
    pause = pump.lsp.state.house.pause_of(client.node_id)
    return None if pause is None else pause.until_height


def spoil(pump: Pump, culprit: PumpNode) -> None:
    """Let a client spoil one ceremony provably, with a root before its time.

    The blocks before it make the last one too old for the others to do without this client.
    """
    block(pump, PAUSE_BLOCKS + 1)
    pump.join_again()
    pump.build()
    attempt = pump.attempt
    early = m.SignRoot(
        attempt_id=attempt.attempt_id,
        terms_hash=attempt.terms.terms_hash,
        partial_sigs=(bytes(32),),
    )
    pump.tell(pump.lsp, culprit, early)
    pump.handle(pump.lsp, ev.DeadlineReached(stream=HOUSE, deadline=fx.RejoinDeadline()))
    pump.wire.clear()
    for client in pump.clients:
        pump.disconnect(client)
        pump.connect(client)
    pump.run()


def block(pump: Pump, n_blocks: int) -> None:
    for _ in range(n_blocks):
        height = pump.lsp.state.chain.height + 1
        event = ev.BlockAdded(height=height, block_hash=pump.chain.blocks[0][0], txs=())
        pump.handle(pump.lsp, event)


@pytest.mark.parametrize(
    ("heights", "is_banned"),
    [
        ((), False),
        ((100, 100), False),
        ((100, 100, 100), True),
        ((100, 172, 244), True),
        ((100, 172, 245), False),
    ],
)
def test_three_faults_within_144_blocks_ban_for_144_blocks(
    heights: tuple[int, ...], *, is_banned: bool
) -> None:
    pump = lone()
    client = pump.clients[0]
    join = join_of(pump, client)
    state = with_house(pump.lsp.state, members={}, faults={client.node_id: heights})
    last = heights[-1] if heights else 100

    def answer(height: int) -> Decision[LspState]:
        event = ev.MessageReceived(node_id=client.node_id, message=join)
        return lsp_role.decide(at_height(state, height), event)

    until = last + BAN_BLOCKS
    for height in (last, until - 1):
        if is_banned:
            assert f"join again from height {until}" in refusal(answer(height))
        else:
            assert answer(height).records
    assert answer(until).records, "the ban is over"


def test_a_client_that_spoils_three_ceremonies_is_banned_and_the_others_are_not() -> None:
    pump = Pump(3)
    culprit = pump.clients[0]
    for n in range(FAULTS_TO_BAN):
        assert banned_until(pump, culprit) is None, n
        spoil(pump, culprit)
    assert len(pump.lsp.state.house.faults[culprit.node_id]) == FAULTS_TO_BAN
    assert banned_until(pump, culprit) is not None
    assert "too many faults" in (culprit.state.refusal or "")
    for other in pump.clients[1:]:
        assert banned_until(pump, other) is None
        assert other.node_id in pump.lsp.state.house.members


def test_a_ban_survives_a_restart_of_the_lsp() -> None:
    pump = Pump(3)
    culprit = pump.clients[0]
    for _ in range(FAULTS_TO_BAN):
        spoil(pump, culprit)
    until = banned_until(pump, culprit)
    pump.restart(pump.lsp)
    pump.run()
    assert until is not None
    assert banned_until(pump, culprit) == until


def test_silence_is_no_fault_and_bans_nobody_for_a_day() -> None:
    pump = Pump(3)
    silent = pump.clients[0]
    for _ in range(FAULTS_TO_BAN):
        pump.join_again()
        pump.build()
        pump.disconnect(silent)
        pump.connect(silent)
        pump.wire.clear()
        for client in pump.clients[1:]:
            pump.disconnect(client)
            pump.connect(client)
        pump.handle(pump.lsp, ev.DeadlineReached(stream=HOUSE, deadline=fx.RejoinDeadline()))
        pump.run()
    assert silent.node_id not in pump.lsp.state.house.faults
    assert banned_until(pump, silent) is None


# The operator's own


def ban(pump: Pump, client: PumpNode, *, n_blocks: int = 10, reason: str = "noise") -> None:
    wish = ev.BanRequested(node_id=client.node_id, n_blocks=n_blocks, reason=reason)
    pump.handle(pump.lsp, wish)
    pump.run()


def test_who_is_banned_is_told_why_and_until_when_and_may_join_at_that_height() -> None:
    pump = Pump(2)
    banned, other = pump.clients
    until = pump.lsp.state.chain.height + 10
    ban(pump, banned)
    pump.join()
    told = f"banned by the operator (noise): join again from height {until}"
    assert banned.state.refusal == told
    assert set(pump.lsp.state.house.members) == {other.node_id}
    pump.mine(9)
    pump.handle(banned, ev.LeaveRequested())
    pump.join(banned)
    assert banned.state.refusal == told, "the last block of it"
    pump.mine()
    pump.handle(banned, ev.LeaveRequested())
    pump.join(banned)
    assert banned.node_id in pump.lsp.state.house.members
    assert pump.lsp.state.house.bans == {}, "what is over is forgotten"


def test_who_waits_in_the_lobby_goes_and_is_told_when_it_comes_back() -> None:
    pump = Pump(2)
    banned, other = pump.clients
    pump.join()
    ban(pump, banned)
    assert banned.name not in pump.links
    assert set(pump.lsp.state.house.members) == {other.node_id}
    pump.connect(banned)
    pump.run()
    assert (banned.state.refusal or "").startswith("banned by the operator (noise): join again")
    pump.build()
    pump.run()
    assert [seat.node_id for seat in pump.attempt.seats] == [other.node_id]


@pytest.mark.parametrize("message", [m.Propose, m.SignRoot, m.Acknowledge])
def test_a_ceremony_and_a_channel_of_who_is_banned_go_on(message: type[m.Message]) -> None:
    """Others have their money in them: a ban is about the next factory."""
    pump = Pump(2)
    pump.join()
    pump.build()
    pump.run_to(message)
    ban(pump, pump.clients[0])
    assert pump.is_funded()
    pump.mine(pump.attempt.terms.min_depth)
    assert len(pump.attempt.seats) == 2
    assert all(pump.held(client).ready_sent for client in pump.clients)
    assert not pump.wishes(pump.lsp, fx.Disconnect)


def test_a_ban_is_durable_and_a_second_one_takes_its_place() -> None:
    pump = Pump(1)
    (client,) = pump.clients
    ban(pump, client, n_blocks=100, reason="first")
    ban(pump, client, n_blocks=5, reason="second")
    height = pump.lsp.state.chain.height
    pump.restart(pump.lsp)
    pump.run()
    pause = pump.lsp.state.house.pause_of(client.node_id)
    assert pause is not None
    assert (pause.since_height, pause.until_height) == (height, height + 5)
    assert pause.why == "banned by the operator (second)"
    assert pause.is_operators


def test_the_longest_of_all_that_closes_the_lobby_is_told() -> None:
    pump = lone()
    client = pump.clients[0].node_id
    height = pump.lsp.state.chain.height
    state = with_house(pump.lsp.state, faults={client: (height,) * FAULTS_TO_BAN})
    for n_blocks, is_operators in ((BAN_BLOCKS - 1, False), (BAN_BLOCKS, True)):
        wish = ev.BanRequested(node_id=client, n_blocks=n_blocks, reason="no")
        pause = lsp_role.decide(state, wish).state.house.pause_of(client)
        assert pause is not None
        assert pause.is_operators == is_operators
        assert pause.until_height == height + BAN_BLOCKS


def test_a_ban_that_is_lifted_leaves_nothing_whoever_made_it() -> None:
    pump = Pump(3)
    culprit = pump.clients[0]
    for _ in range(FAULTS_TO_BAN):
        spoil(pump, culprit)
    ban(pump, culprit)
    pump.handle(pump.lsp, ev.BanEndRequested(node_id=culprit.node_id))
    house = pump.lsp.state.house
    assert banned_until(pump, culprit) is None
    assert culprit.node_id not in {*house.faults, *house.aborts, *house.joins, *house.bans}
    pump.restart(pump.lsp)
    pump.run()
    assert banned_until(pump, culprit) is None
    pump.join(culprit)
    assert culprit.node_id in pump.lsp.state.house.members


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"node_id": b""}, "invalid_node_id"),
        ({"node_id": b"\x02" + b"\xff" * 32}, "invalid_node_id"),
        ({"node_id": None}, "invalid_node_id"),  # the LSP's own
        ({"n_blocks": 0}, "invalid_ban"),
        ({"n_blocks": BAN_BLOCKS_MAX + 1}, "invalid_ban"),
        ({"reason": ""}, "invalid_ban"),
        ({"reason": "x" * (BAN_REASON_SIZE_MAX + 1)}, "invalid_ban"),
    ],
)
def test_a_ban_that_nobody_can_mean_is_rejected_by_name(changes: dict[str, Any], code: str) -> None:
    state = lone().lsp.state
    asked: dict[str, Any] = {"node_id": stranger(), "n_blocks": 1, "reason": "no"} | changes
    asked["node_id"] = state.config.node_id if asked["node_id"] is None else asked["node_id"]
    with pytest.raises(Rejected) as rejected:
        lsp_role.decide(state, ev.BanRequested(**asked))
    assert rejected.value.code == code


def test_bans_are_bounded_and_one_that_is_there_may_still_be_changed() -> None:
    state = lone().lsp.state
    one = Ban(since_height=0, until_height=state.chain.height + 1, reason="no")
    full = with_house(state, bans={stranger(): one} | dict.fromkeys(range(BANS_MAX - 1), one))
    with pytest.raises(Rejected, match=f"at most {BANS_MAX}") as rejected:
        lsp_role.decide(full, ev.BanRequested(node_id=stranger(2), n_blocks=1, reason="no"))
    assert rejected.value.code == "too_many_bans"
    again = ev.BanRequested(node_id=stranger(), n_blocks=1, reason="no")
    assert lsp_role.decide(full, again).records


def test_a_ban_that_is_not_there_cannot_be_lifted() -> None:
    with pytest.raises(Rejected) as rejected:
        lsp_role.decide(lone().lsp.state, ev.BanEndRequested(node_id=stranger()))
    assert rejected.value.code == "not_banned"


def test_a_reason_of_any_length_that_a_ban_may_have_fits_the_refusal() -> None:
    pump = Pump(1)
    longest = "\N{SNOWMAN}" * (BAN_REASON_SIZE_MAX // 3) + "!!"
    assert len(longest.encode()) == BAN_REASON_SIZE_MAX
    until = pump.lsp.state.chain.height + BAN_BLOCKS_MAX
    ban(pump, pump.clients[0], n_blocks=BAN_BLOCKS_MAX, reason=longest)
    pump.join()
    told = f"banned by the operator ({longest}): join again from height {until}"
    assert pump.clients[0].state.refusal == told
