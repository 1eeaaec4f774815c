"""One decision about channels while it is being made: what is remembered counts at once."""

from cromford import effects as fx
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.book_fold import apply_to_book
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Decision
from cromford.wire.messages import Message


class Turn:
    """Collects the records and effects of one decision; lives as long as the decision.

    Args:
        book: As it is before the decision.
    """

    def __init__(self, book: Book) -> None:
        self.book = book
        self._records: list[cr.BookRecord] = []
        self._effects: list[fx.Effect] = []
        self._touched: dict[bytes, None] = {}

    def remember(self, record: cr.BookRecord) -> None:
        """Add a record; the book is the one after it from here on."""
        self.book = apply_to_book(self.book, record)
        self._records.append(record)
        if isinstance(record, cr.ChannelRecord):
            self._touched[record.channel_id] = None

    def wish(self, *effects: fx.Effect) -> None:
        """Add effects."""
        self._effects.extend(effects)

    def send(self, link: Link, message: Message) -> None:
        """Wish for a message to a link's peer."""
        self.wish(fx.Send(node_id=link.node_id, message=message))

    def link(self, channel_id: bytes) -> Link:
        """Return a channel as it is now."""
        return self.book.links[channel_id]

    @property
    def touched(self) -> tuple[bytes, ...]:
        """The channels that have a record in this turn, in the order of their first."""
        return tuple(self._touched)

    @property
    def decision(self) -> Decision:
        """What was collected."""
        return Decision(records=tuple(self._records), effects=tuple(self._effects))
