"""A factory's copies under other names, and a house and a scan of the chain that know them.

Each copy has a stream, a checkpoint, a place in the house, coins that paid for it, and something
that is watched.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from immutables import Map

from cromford.adapters.sqlite import Journal
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.crypto.keys import sha256
from cromford.daemon.lspd import LSP_ROLE
from cromford.daemon.streams import Stream
from cromford.ports import Checkpoint, Entry
from cromford.protocol.journal.entries import FactoryEntry
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.house import House
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.mail import Post
from cromford.protocol.journal.records import Started, encode_record
from cromford.protocol.journal.scan import Scan
from cromford.protocol.journal.snapshot import Position, Snapshots, references_of
from cromford.protocol.journal.streams import CHAIN, HOUSE, factory_stream
from cromford.wallet.account import CHANGE, WalletPath

FIRST_COPY: Final = 1_000
WRITTEN_BY: Final = "bench"


def write(
    journal: Journal, state: LspState, copies: "Sequence[Copy]", label: Checkpoint | None
) -> None:
    """Write streams of copies of one factory.

    Args:
        journal: Where to.
        state: What has the factory.
        copies: Its copies.
        label: The checkpoint of the factory, if it sleeps; None if it is to be in memory.
    """
    factory = state.factory(copies[0].original).durable
    attempt_id = factory.attempt.attempt_id.hex().encode()
    snapshots: Snapshots[Any] = Snapshots(Factory, references_of(state.config))
    started = encode_record(Started())
    journal.append([Entry(copy.stream, started) for copy in copies])
    for copy in copies:
        snapshot = snapshots.encode(
            copy.of(factory), Position(copy.stream, 1), written_by=WRITTEN_BY
        )
        said, wakes = (b"", None) if label is None else (label.label, label.wake_height)
        named = said.replace(attempt_id, copy.entry.attempt_id.hex().encode())
        journal.replace_checkpoint(Checkpoint(copy.stream, 1, snapshot, named, wakes))


def write_others(journal: Journal, state: LspState, copies: "Sequence[Copy]") -> None:
    """Write the house and the scan of an LSP that has these copies beside its own factories."""
    _replace(journal, HOUSE, copy_house(state.house.durable, copies), state)
    _replace(journal, CHAIN, copy_scan(state.scan, copies), state)


class Copy:
    """A factory's names under another number."""

    def __init__(self, number: int, state: LspState, original: int) -> None:
        entry = state.house.entry_of(original)
        name = number.to_bytes(8, "big")
        clients = range(len(entry.node_ids))
        self.number = number
        self.original = original
        self.source = state
        self.stream = factory_stream(number)
        self.entry: FactoryEntry = replace(
            entry,
            number=number,
            attempt_id=sha256(b"attempt" + name),
            node_ids=tuple(b"\2" + sha256(b"node %d" % n + name) for n in clients),
            factory_pubkeys=tuple(b"\2" + sha256(b"key %d" % n + name) for n in clients),
            own_pubkey=b"\3" + sha256(b"own key" + name),
            funding_txid=Txid(sha256(b"funding" + name)),
            coins=tuple(
                OutPoint(txid=Txid(sha256(b"coin" + name)), vout=vout)
                for vout in range(len(entry.coins))
            ),
        )

    def of(self, factory: Factory) -> Factory:
        """Return a factory under these names."""
        before, funded, book = factory.attempt, factory.attempt.funded, factory.book
        if funded is None:
            raise AssertionError("a factory without a funding is copied")
        names = {
            seat.node_id: name for seat, name in zip(before.seats, self.entry.node_ids, strict=True)
        }
        seats = tuple(replace(seat, node_id=names[seat.node_id]) for seat in before.seats)
        attempt = replace(
            before,
            attempt_id=self.entry.attempt_id,
            blueprint=replace(before.blueprint, seats=seats),
            stage=replace(
                funded, ready_received=frozenset(names[one] for one in funded.ready_received)
            ),
        )
        links = {
            channel_id: replace(link, node_id=names[link.node_id])
            for channel_id, link in book.links.items()
        }
        by_node = {names[node_id]: channels for node_id, channels in book.by_node.items()}
        book = replace(book, links=Map(links), by_node=Map(by_node))
        return replace(factory, number=self.number, begun=attempt, book=book)


def copy_house(house: House, copies: Sequence[Copy]) -> House:
    """Return a house that has these factories, too."""
    of_client = {node: (copy.number,) for copy in copies for node in copy.entry.node_ids}
    tally = house.tally
    for copy in copies:
        tally = tally.funded(
            lent_sat=sum(copy.entry.capacity_sat),
            expiry_height=copy.entry.expiry_height,
            height=house.chain.height,
        )
    return replace(
        house,
        entries=house.entries.update({copy.entry.attempt_id: copy.entry for copy in copies}),
        order=house.order.update({copy.number: copy.entry.attempt_id for copy in copies}),
        of_client=house.of_client.update(of_client),
        keys=house.keys.update(
            {
                key: copy.number
                for copy in copies
                for key in (copy.entry.own_pubkey, *copy.entry.factory_pubkeys)
            }
        ),
        last_seen=house.last_seen.update(dict.fromkeys(of_client, house.chain.height)),
        tally=tally,
        post=_with_copies(house.post, {copy: copy.source.house.post for copy in copies}),
        **_copy_fundings(house, copies),
    )


def _copy_fundings(house: House, copies: Sequence[Copy]) -> dict[str, Any]:
    """Return a wallet that has paid for these factories, too, and where those payments are."""
    wallet, chain, news = house.wallet, house.chain, house.news
    paid = next(coin for coin in wallet.coins.values() if coin.spent_height is not None)
    for copy in copies:
        height = 1 + copy.number % chain.height
        txid = copy.entry.funding_txid
        chain = replace(chain, confirmed=chain.confirmed.set(txid, height))
        news = news.set(height, (*news.get(height, ()), txid))
        coins = {
            outpoint: replace(paid, outpoint=outpoint, height=height, spent_height=height)
            for outpoint in copy.entry.coins
        }
        path = WalletPath(change=CHANGE, index=copy.number)
        wallet = replace(
            wallet.with_reserved(copy.entry.coins, copy.entry.attempt_id),
            coins=wallet.coins.update(coins),
            touched=wallet.touched.set(height, (*wallet.touched.get(height, ()), *coins)),
            scripts=wallet.scripts.set(b"\x51\x20" + sha256(txid), path),
        )
    return {"wallet": wallet, "chain": chain, "news": news}


def _with_copies(post: Post, sources: dict[Copy, Post]) -> Post:
    """Return a post that had letters of these factories, too: as many as of each one's original."""
    originals = {copy: factory_stream(copy.original) for copy in sources}
    return replace(
        post,
        n_sent=post.n_sent.update(
            {copy.stream: of.n_sent[originals[copy]] for copy, of in sources.items()}
        ),
        taken=post.taken.update(
            {copy.stream: of.taken[originals[copy]] for copy, of in sources.items()}
        ),
    )


def copy_scan(scan: Scan, copies: Sequence[Copy]) -> Scan:
    """Return a scan that watches for these factories, too: their coins and their output."""
    watched = {
        copy.stream: dict.fromkeys(
            (*copy.entry.coins, OutPoint(txid=copy.entry.funding_txid, vout=0)), scan.height
        )
        for copy in copies
    }
    told: dict[int, list[str]] = {}
    for copy in copies:
        told.setdefault(1 + copy.number % scan.height, []).append(copy.stream)
    watchers = {
        outpoint: (stream,) for stream, outpoints in watched.items() for outpoint in outpoints
    }
    return replace(
        scan,
        watchers=scan.watchers.update(watchers),
        watched=scan.watched.update({stream: Map(of) for stream, of in watched.items()}),
        told=scan.told.update({height: tuple(streams) for height, streams in told.items()}),
        post=_with_copies(scan.post, {copy: copy.source.scan.post for copy in copies}),
    )


def _replace(journal: Journal, name: str, value: House | Scan, state: LspState) -> None:
    """Let a checkpoint of the house, or the scan, say this."""
    parts = LSP_ROLE.parts
    stream: Stream[Any] = Stream(
        journal,
        name,
        beginning=parts.value(state, name),
        apply=parts.fold(name),
        snapshots=parts.snapshots(state, name),
    )
    stream.keep(stream.begin_checkpoint(value)())
