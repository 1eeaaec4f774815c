"""What an LSP has read of the chain, and for whom it watches: one scan for all factories.

What spends a watched outpoint is news for its watcher, and so is what spends the outputs of that:
they are watched at once, until the watcher says what of them matters.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from immutables import Map

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.changed import changed
from cromford.protocol.journal import mail
from cromford.protocol.journal import records as r
from cromford.protocol.journal import scan_records as sc
from cromford.protocol.journal.known_chain import RECENT_BLOCKS
from cromford.protocol.journal.mail import Letter, Post
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.streams import HOUSE
from cromford.shelf import Shelf, key_bytes

UNKNOWN: Final = Txid(bytes(32))  # A block that left the chain, by its height alone.


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The state value of the chain's stream.

    Attributes:
        recent: The newest blocks, oldest first: where a reorganisation forked is found by them.
        recorded_height: The tip's, also where no block is remembered; -1 before the first.
        watchers: By outpoint: whose news its spend is.
        watched: By stream: its outpoints, and the letter to it that tells why each is watched.
        told: Whom a block was told to, by its height, besides the house, which hears of all.
        post: Its mail.
    """

    recent: tuple[BlockRef, ...] = ()
    recorded_height: int = -1
    watchers: Shelf[OutPoint, tuple[str, ...]] = field(default_factory=Shelf)
    watched: Shelf[str, Map[OutPoint, int]] = field(default_factory=Shelf)
    told: Shelf[int, tuple[str, ...]] = field(default_factory=Shelf)
    post: Post = field(default_factory=Post)

    @property
    def height(self) -> int:
        """The height of the tip; -1 before the first block was seen."""
        return self.recent[-1].height if self.recent else -1

    def tip_for(self, stream: str, *, taken: int) -> tuple[BlockRef, ...]:
        """Return the newest block that a stream has heard all of: no height without its news.

        Args:
            stream: The stream.
            taken: How many letters of the chain it took.
        """
        for content in self.post.untaken(stream, taken=taken):
            if isinstance(content, mail.Found):
                return tuple(block for block in self.recent if block.height < content.height)[-1:]
            if isinstance(content, mail.Lost):
                return (BlockRef(height=content.height, block_hash=UNKNOWN),)
        return self.recent[-1:]

    def findings(self, txs: Sequence[Tx]) -> Mapping[str, list[Tx]]:
        """Return the transactions of one block that are somebody's news, by stream."""
        found: dict[str, list[Tx]] = {}
        created: dict[OutPoint, set[str]] = {}
        watchers = self.watchers.among({tx_in.outpoint for tx in txs for tx_in in tx.inputs})
        for tx in txs:
            streams = {
                stream
                for tx_in in tx.inputs
                for watching in (created, watchers)
                for stream in watching.get(tx_in.outpoint, ())
            }
            for stream in sorted(streams):
                found.setdefault(stream, []).append(tx)
            if streams:
                created.update(dict.fromkeys(tx.outpoints, streams))
        return found


ScanRecord = r.Started | sc.ScanRecord | MailTaken


def apply_to_scan(scan: Scan, record: r.AnyRecord, at: int = 0) -> Scan:  # noqa: ARG001 - blocks have heights
    """Return the scan after remembering one thing; when that was makes no difference."""
    if not isinstance(record, ScanRecord):
        raise AssertionError(f"{type(record).__name__} is no record of the scan")
    match record:
        case r.Started():
            return scan
        case sc.Scanned():
            return _with_block(scan, record)
        case sc.ScanUndone(height=height):
            return _without_block(scan, height)
        case MailTaken(sender=sender, number=number, mail=mail.Watch() as asked):
            taken = changed(scan, post=scan.post.with_taken(sender, number))
            return _with_watch(taken, sender, asked)
        case MailTaken(mail=content):
            raise AssertionError(f"{type(content).__name__} is no mail for the chain")
        case _:
            assert_never(record)


def _with_block(scan: Scan, record: sc.Scanned) -> Scan:
    block = BlockRef(height=record.height, block_hash=Txid(record.block_hash))
    concerned = {finding.stream: finding.txs for finding in record.found}
    watchers, watched = scan.watchers, scan.watched
    for stream, data in concerned.items():
        if stream == HOUSE:
            continue
        letter = scan.post.n_sent.get(stream, 0) + 1
        news = dict.fromkeys(
            (outpoint for one in data for outpoint in Tx.parse(one).outpoints), letter
        )
        watched = watched.set(stream, watched.get(stream, Map()).update(news))
        watchers = _with_watcher(watchers, stream, news)
    told = tuple(stream for stream in concerned if stream != HOUSE)
    letters = (
        Letter(
            stream,
            mail.Found(
                height=record.height,
                block_hash=record.block_hash,
                txs=concerned.get(stream, ()),
            ),
        )
        for stream in (HOUSE, *told)
    )
    return changed(
        scan,
        recent=(*scan.recent[-RECENT_BLOCKS + 1 :], block),
        recorded_height=record.height,
        watchers=watchers,
        watched=watched,
        told=scan.told.set(record.height, told) if told else scan.told,
        post=scan.post.with_sent(letters),
    )


def _without_block(scan: Scan, height: int) -> Scan:
    """Return the scan after a block, and all above it, left the chain.

    A rescan names only the lowest that it takes back. What they made watched stays so: no harm.
    """
    above = dict(scan.told.walk(key_bytes(height)))
    concerned = {stream for streams in above.values() for stream in streams}
    told = scan.told
    for gone in above:
        told = told.delete(gone)
    return replace(
        scan,
        recent=tuple(block for block in scan.recent if block.height < height),
        recorded_height=height - 1,
        told=told,
        post=scan.post.with_sent(
            Letter(stream, mail.Lost(height=height)) for stream in (HOUSE, *sorted(concerned))
        ),
    )


def _with_watch(scan: Scan, stream: str, asked: mail.Watch) -> Scan:
    """Return the scan with what a stream wants; what it has not heard of stays."""
    wanted = dict.fromkeys((OutPoint.parse(data) for data in asked.outpoints), asked.heard)
    before = scan.watched.get(stream, Map())
    later = {outpoint: letter for outpoint, letter in before.items() if letter > asked.heard}
    now = Map({**wanted, **later})
    watchers = scan.watchers
    for outpoint in before:
        if outpoint not in now:
            others = tuple(other for other in watchers[outpoint] if other != stream)
            watchers = watchers.set(outpoint, others) if others else watchers.delete(outpoint)
    watchers = _with_watcher(watchers, stream, now)
    return replace(
        scan,
        watchers=watchers,
        watched=scan.watched.set(stream, now) if now else scan.watched.delete(stream),
        post=scan.post.with_sent((Letter(stream, mail.Watched(height=asked.height)),)),
    )


def _with_watcher(
    watchers: Shelf[OutPoint, tuple[str, ...]], stream: str, outpoints: Iterable[OutPoint]
) -> Shelf[OutPoint, tuple[str, ...]]:
    return watchers.update(
        {outpoint: tuple(sorted({*watchers.get(outpoint, ()), stream})) for outpoint in outpoints}
    )
