"""A peer that a decision failed for goes; the daemon stays, and the peer may come back later."""

import asyncio
import itertools
from dataclasses import dataclass, field

import pytest
from tests.daemon.test_reconnecting import in_jumping_time

from cromford.daemon.driver import Undecided
from cromford.daemon.failed_decisions import KINDS_MAX, FailedDecisions
from cromford.daemon.offences import (
    FORGOTTEN_SECONDS,
    PAUSE_FIRST_SECONDS,
    PAUSE_MAX_SECONDS,
    PEERS_MAX,
    Offences,
)
from cromford.daemon.peers import Peers
from cromford.ports import ConnectionLost
from cromford.protocol import events as ev
from cromford.protocol.journal.intents import DoubleSigning
from cromford.wire.messages import Leave, encode_message

PEER = b"\x02" * 33
OTHER = b"\x03" * 33
WORD = encode_message(Leave(factory_pubkey=PEER))


@dataclass(eq=False)
class Talking:
    """A connection whose peer says one word, and then nothing until it is closed."""

    node_id: bytes = PEER
    n_said: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, *_messages: bytes) -> None:
        raise AssertionError("the peer is told nothing")

    async def receive(self) -> bytes:
        self.n_said += 1
        if self.n_said == 1:
            return WORD
        await self.ended.wait()
        raise ConnectionLost("closed")

    async def close(self) -> None:
        self.ended.set()


def peers_that_cannot_decide(happened: list[ev.Event], *, about: type[ev.PeerEvent]) -> Peers:
    def post(event: ev.Event) -> None:
        if isinstance(event, about) and event.node_id == PEER:
            raise Undecided("AssertionError")
        happened.append(event)

    return Peers(post)


@pytest.mark.parametrize("about", [ev.ConnectionOpened, ev.MessageReceived])
def test_the_peer_goes_and_the_others_stay(about: type[ev.PeerEvent]) -> None:
    happened: list[ev.Event] = []

    async def scenario() -> None:
        peers = peers_that_cannot_decide(happened, about=about)
        other = asyncio.create_task(peers.run(Talking(node_id=OTHER)))
        await asyncio.sleep(0.1)
        faulty = Talking()
        await peers.run(faulty)
        assert faulty.ended.is_set()
        assert (peers.n_connected, other.done()) == (1, False)
        other.cancel()
        await asyncio.wait({other})

    in_jumping_time(scenario())
    assert ev.ConnectionClosed(node_id=PEER, is_ours=True) in happened, "the bug is ours"
    assert not [e for e in happened if isinstance(e, ev.MessageReceived) and e.node_id == PEER]


def test_who_causes_it_again_and_again_stays_out_longer_and_never_for_good() -> None:
    happened: list[ev.Event] = []
    served: list[float] = []

    async def scenario() -> None:
        peers = peers_that_cannot_decide(happened, about=ev.MessageReceived)
        now = asyncio.get_running_loop().time
        while len(served) < 14:
            line = Talking()
            await peers.run(line)
            if line.n_said:
                served.append(now())
            await asyncio.sleep(0.5)

    in_jumping_time(scenario())
    gaps = [round(b - a) for a, b in itertools.pairwise(served)]
    assert gaps[:4] == [1, 2, 4, 8]
    assert gaps[-3:] == [PAUSE_MAX_SECONDS] * 3


def test_an_offence_is_forgotten_and_strangers_take_no_room_without_end() -> None:
    offences = Offences()
    assert not offences.keeps_out(PEER, now=0.0)
    assert offences.note(PEER, now=0.0) == PAUSE_FIRST_SECONDS
    assert offences.note(PEER, now=2.0) == 2 * PAUSE_FIRST_SECONDS
    assert offences.keeps_out(PEER, now=3.9)
    assert not offences.keeps_out(PEER, now=4.0)
    assert offences.note(PEER, now=2.0 + FORGOTTEN_SECONDS) == PAUSE_FIRST_SECONDS
    for i in range(PEERS_MAX):
        offences.note(i.to_bytes(33, "big"), now=2.0 + FORGOTTEN_SECONDS)
    assert not offences.keeps_out(PEER, now=2.0 + FORGOTTEN_SECONDS)
    assert offences.keeps_out(bytes(33), now=2.0 + FORGOTTEN_SECONDS)


def raised(error: Exception) -> Exception:
    """Return an error as who catches it sees it: with the place that raised it."""

    def raise_it() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        raise_it()
    return caught.value


def test_the_operator_reads_what_failed_and_no_word_of_it() -> None:
    failed = FailedDecisions()
    said = ev.MessageReceived(node_id=PEER, message=Leave(factory_pubkey=PEER))
    for unix_time in (100, 200):
        failed.note(said, raised(ValueError("a secret")), unix_time=unix_time)
    failed.note(ev.LeaveRequested(), raised(DoubleSigning("x")), unix_time=300)
    first, second = failed.shown()
    assert {key: first[key] for key in ("event", "error", "alarm", "node_id", "count")} == {
        "event": "Leave",
        "error": "ValueError",
        "alarm": False,
        "node_id": PEER.hex(),
        "count": 2,
    }
    assert (first["first_time"], first["last_time"]) == (100, 200)
    assert first["place"].startswith("test_offences.py:")
    assert (second["event"], second["alarm"], second["node_id"]) == ("LeaveRequested", True, None)
    assert "secret" not in str(failed.shown())
    assert list(failed.samples()) == [
        ("failed_decisions", {}, 3),
        ("double_signings_prevented", {}, 1),
    ]


def test_kinds_of_failures_are_bounded() -> None:
    failed = FailedDecisions()
    for n in range(KINDS_MAX + 1):
        error = type(f"Error{n}", (Exception,), {})
        failed.note(ev.LeaveRequested(), raised(error()), unix_time=n)
    assert len(failed.shown()) == KINDS_MAX
    assert failed.shown()[-1]["error"] == f"Error{KINDS_MAX}"
