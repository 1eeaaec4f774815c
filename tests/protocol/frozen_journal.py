"""Journals of one small life, as they were written once. Running this writes them.

    PYTHONHASHSEED=0 python -m tests.protocol.frozen_journal

It writes the newest of the folders below, and nothing where that is already: see its README.md.
"""

import base64
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from tests.protocol.journal_digest import digest_of
from tests.protocol.paying_clients import begin_payment, newest_link, pay
from tests.protocol.pump import PumpNode
from tests.protocol.sleepers import Village
from tests.simulation.transcript import recording

from cromford import __version__
from cromford import effects as fx
from cromford.adapters.memory import MemoryJournal
from cromford.daemon.parts import ClientParts, LspParts, Parts
from cromford.daemon.streams import Stream
from cromford.ports import Checkpoint, Entry, Row
from cromford.protocol import events as ev
from cromford.wire import messages as m

VECTORS: Final = Path(__file__).parent.parent / "vectors"
IN_ONE_PIECE: Final = VECTORS / "journal-v2"  # Its checkpoints, from before there were shelves.
SHELVED: Final = VECTORS / "journal-v2-shelved"  # The same life, and rows beside its checkpoints.
FIRST_MSAT: Final = 30_000_000
AMOUNT_MSAT: Final = 5_000_000
SCRIPT: Final = bytes.fromhex("5120") + b"\x07" * 32


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A journal as it was kept, and what it said.

    Attributes:
        entries: All records, in order.
        archive: By stream and key.
        checkpoints: One of each stream, of the middle of the life or of its end.
        digest: What each stream folds to.
    """

    entries: list[Entry]
    archive: dict[tuple[str, bytes], bytes]
    checkpoints: dict[str, Checkpoint]
    digest: dict[str, Any] = field(default_factory=dict)

    def store(self, *, with_checkpoints: bool) -> MemoryJournal:
        """Return a journal of it that a role may go on with."""
        store = MemoryJournal(entries=list(self.entries), archive=dict(self.archive))
        for checkpoint in self.checkpoints.values() if with_checkpoints else ():
            store.replace_checkpoint(checkpoint)
        return store


class Life(Village):
    """Three clients, and what becomes of them: the one place where it is told."""

    def __init__(self) -> None:
        super().__init__(2, PumpNode, n_clients=3)
        self.checkpoints: dict[str, dict[str, Checkpoint]] = {"lsp": {}, "client": {}}

    def live(self) -> None:
        """Live."""
        alice, bob, carol = self.clients
        self.abort(alice, carol)
        self.found(alice, bob)
        self.found(carol)
        for client in self.clients:
            pay(self, self.lsp, client, FIRST_MSAT)
        for payer, payee in ((alice, bob), (alice, carol), (carol, alice), (bob, alice)):
            pay(self, payer, payee, AMOUNT_MSAT)
        pay(self, alice, bob, AMOUNT_MSAT, payment_secret=bytes(32))
        pay(self, self.lsp, carol, AMOUNT_MSAT, payment_secret=bytes(32))
        self.pay_on_chain(alice)
        self.take_checkpoints()
        self.restart(self.lsp)
        self.restart(alice)
        self.run()
        pay(self, carol, bob, AMOUNT_MSAT)
        self.leave(alice)
        pay(self, bob, carol, AMOUNT_MSAT)
        self.disconnect(carol)
        self.take_checkpoints("factory:0", "factory:2")
        begin_payment(self, bob, carol, AMOUNT_MSAT)

    def abort(self, *clients: PumpNode) -> None:
        """Let a ceremony end because one of its clients goes, and come back."""
        self.join(*clients)
        self.build(min_clients=len(clients))
        self.run_to(m.SignRoot)
        self.disconnect(clients[-1])
        self.run()
        self.pass_deadline(self.lsp, fx.RejoinDeadline())
        self.run()
        self.heal(clients[-1])
        self.run()

    def pay_on_chain(self, client: PumpNode) -> None:
        """Let the LSP pay out of its wallet, and give a second payment up that nobody takes."""
        for amount_sat in (50_000, 60_000):
            self.handle(
                self.lsp,
                ev.SpendingRequested(
                    script_pubkey=SCRIPT, amount_sat=amount_sat, feerate_sat_per_kw=500
                ),
            )
            if amount_sat == 50_000:
                self.mine()
        (txid,) = self.lsp.state.wallet.payments
        self.chain.mempool.clear()
        self.handle(self.lsp, ev.AbandonRequested(txid=txid, reason="min relay fee not met, 2 < 9"))
        self.handle(client, ev.AddressRequested())
        self.mine()

    def leave(self, client: PumpNode) -> None:
        """Let a client leave, with a block that is replaced on the way."""
        link = newest_link(client)
        self.handle(client, ev.ExitRequested(attempt_id=link.attempt_id))
        self.mine(2)
        self.reorganise(2, forgets=False)
        self.mine(link.exit_blocks + link.setting.terms.to_self_delay_accepter + 2)

    def take_checkpoints(self, *names: str) -> None:
        """Take checkpoints of streams, or of all of everybody; the records stay where they are."""
        for role, node in (("lsp", self.lsp), ("client", self.clients[0])):
            assert node.driver is not None
            for name in names or node.driver.open_streams:
                if not names or role == "lsp":
                    self.checkpoints[role][name] = node.driver.begin_checkpoint(name)()


def parts_of(role: str) -> Parts[Any]:
    """Return how a role is made of streams."""
    parts: Parts[Any] = LspParts() if role == "lsp" else ClientParts()
    return parts


def folded(role: str, beginning: Any, stream: str, frozen: Frozen, *, goes_on: bool) -> Any:
    """Return what one stream folds to, alone: from its first record, or from its checkpoint."""
    parts = parts_of(role)
    opened: Stream[Any] = Stream(
        frozen.store(with_checkpoints=goes_on),
        stream,
        beginning=parts.value(beginning, stream),
        apply=parts.fold(stream),
        snapshots=parts.snapshots(beginning, stream),
    )
    return opened.state


def read(role: str, folder: Path = IN_ONE_PIECE) -> Frozen:
    """Return a frozen journal."""
    data = json.loads((folder / f"{role}.json").read_text(encoding="utf-8"))
    digest = json.loads((folder / f"{role}-digest.json").read_text(encoding="utf-8"))
    return Frozen(
        entries=[Entry(*one) for one in _unpacked(data["entries"])],
        archive={(stream, key): value for stream, key, value in _unpacked(data["archive"])},
        checkpoints={one[0]: _checkpoint_of(*one) for one in _unpacked(data["checkpoints"])},
        digest=digest,
    )


def _checkpoint_of(*written: Any) -> Checkpoint:
    checkpoint = Checkpoint(*written)  # Without rows, where it is from before there were any.
    return checkpoint._replace(rows=[Row(*row) for row in checkpoint.rows])


def _unpacked(text: str) -> Any:
    return msgspec.msgpack.decode(zlib.decompress(base64.b64decode(text)))


def _packed(value: Any) -> str:
    data = zlib.compress(msgspec.msgpack.encode(value), 9)
    return base64.b64encode(data).decode()


def _write(role: str, node: PumpNode, checkpoints: dict[str, Checkpoint]) -> None:
    assert node.driver is not None
    store = node.store
    frozen = Frozen(entries=store.entries, archive=store.archive, checkpoints=checkpoints)
    beginning, parts = node.driver.beginning, parts_of(role)
    digest = {
        stream: digest_of(folded(role, beginning, stream, frozen, goes_on=False))
        for stream in sorted(filter(parts.is_ours, store.heads()))
    }
    document = {
        "written_by": __version__,
        "n_records": store.heads(),
        "entries": _packed([tuple(entry) for entry in store.entries]),
        "archive": _packed([(*key, value) for key, value in store.archive.items()]),
        "checkpoints": _packed([tuple(one) for _, one in sorted(checkpoints.items())]),
    }
    for name, content in ((role, document), (f"{role}-digest", digest)):
        text = json.dumps(content, indent=1)
        (SHELVED / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Live, and write it down."""
    SHELVED.mkdir(exist_ok=True)
    if list(SHELVED.glob("*.json")):
        raise SystemExit(f"{SHELVED} is there: what was written once stays as it is")
    with recording("frozen journal"):
        life = Life()
        life.live()
    _write("lsp", life.lsp, life.checkpoints["lsp"])
    _write("client", life.clients[0], life.checkpoints["client"])


if __name__ == "__main__":
    main()
