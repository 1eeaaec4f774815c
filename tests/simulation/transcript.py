"""Everything that leaves and stays in one world, as one hash.

Two versions of the program that behave alike give the same transcript for the same seed: every
record at every participant, every message with its sender and receiver, every transaction and
every connection that is closed, in the order in which it happened.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from btclib_secp256k1 import _scalar

from cromford import effects as fx
from cromford.crypto import curve
from cromford.ports import Archived, Entry
from cromford.protocol import events as ev
from cromford.wire.messages import encode_message
from tests.simulation.sim_node import SimNode, SimStore


class Transcript:
    """A hash that grows with what happens."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.counts: Counter[str] = Counter()

    def note(self, what: str, who: str, *data: bytes) -> None:
        """Add one entry. Lengths keep entries apart."""
        self.counts[what] += 1
        for part in (what.encode(), who.encode(), *data):
            self._hash.update(len(part).to_bytes(4, "big") + part)

    def hexdigest(self) -> str:
        """Return the hash of what was noted so far."""
        return self._hash.hexdigest()


class SeededSecrets:
    """Stands where the library draws the randomness of nonces. Only a transcript may do that."""

    def __init__(self, seed: str) -> None:
        self._dice = random.Random(seed)

    def token_bytes(self, size: int) -> bytes:
        return self._dice.randbytes(size)


def transcript_of(run: Callable[[int], str], seed: int) -> str:
    """Return the hash of all that one world of a seed remembers and says."""
    return played(run, seed).hexdigest()


def played(run: Callable[[int], str], seed: int) -> Transcript:
    """Play one world of a seed, and return all that it remembers and says."""
    with recording(f"transcript {seed}") as transcript:
        described = run(seed)
    transcript.note("ended", "", described.encode())
    return transcript


@contextmanager
def recording(seed: str) -> Iterator[Transcript]:
    """Note what every participant keeps and does; nonces are drawn from the seed meanwhile."""
    transcript = Transcript()
    keep, perform = SimStore.keep, SimNode.perform

    def noted_keep(
        store: SimStore, entries: Sequence[Entry], archived: Sequence[Archived] = ()
    ) -> None:
        transcript.note("kept", store.owner, *(entry.record for entry in entries))
        keep(store, entries, archived)

    def noted_perform(node: SimNode, effect: fx.Performed) -> Iterable[ev.Event]:
        match effect:
            case fx.Send(node_id=receiver, message=message):
                transcript.note("sent", node.name, receiver, encode_message(message))
            case fx.Broadcast(tx=tx):
                transcript.note("published", node.name, tx.serialize())
            case fx.Disconnect(node_id=receiver):
                transcript.note("disconnected", node.name, receiver)
        return perform(node, effect)

    secrets = SeededSecrets(seed)
    with (
        patch.object(SimStore, "keep", noted_keep),
        patch.object(SimNode, "perform", noted_perform),
        patch.object(curve, "secrets", secrets),
        patch.object(_scalar, "secrets", secrets),
    ):
        yield transcript
