"""What an LSP's factories come to, for whoever scrapes: counted anew only where one changed.

A scrape comes every few seconds, and between two blocks nearly every factory is the value that it
was: to look at ten thousand channels each time would cost a second of a core.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from weakref import ReferenceType, ref

from cromford.answers.channels import ChannelAmounts
from cromford.bitcoin.block import BlockRef
from cromford.daemon.metrics import Sample
from cromford.daemon.views import channels as channel_views
from cromford.daemon.views import lsp as views
from cromford.daemon.views.deadlines import FAR_BLOCKS, factory_deadline_blocks
from cromford.protocol.facts import Facts
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.lsp_state import LspState, tip_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FactoryNumbers:
    """What one factory comes to.

    Attributes:
        status: In a word.
        period: Of its life; empty where it has none.
        n_closing: Closes under way.
        n_closes_waiting: Signed ones that wait for a block.
        locked_sat: Our coins in it.
        n_open: Channels that payments can go through.
        amounts: What its channels hold and can carry.
        deadline_blocks: How far it is to the next height that counts.
        n_held: Payments that wait for their payees.
        n_pending: Those on their way.
        n_finished: Those that came to their end.
        earned_msat: What they brought.
    """

    status: str
    period: str
    n_closing: int
    n_closes_waiting: int
    locked_sat: int
    n_open: int
    amounts: ChannelAmounts
    deadline_blocks: int
    n_held: int
    n_pending: int
    n_finished: int
    earned_msat: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """A factory as it was counted, and all else that its numbers follow from.

    It is not kept in memory by this: whoever asks once may never ask again.
    """

    factory: ReferenceType[Factory]
    tip: tuple[BlockRef, ...]
    is_fresh: bool
    is_markable: bool
    numbers: FactoryNumbers

    def is_of(self, factory: Factory, tip: tuple[BlockRef, ...], facts: Facts) -> bool:
        """Say whether they are the same now."""
        return (
            self.factory() is factory
            and self.tip == tip
            and self.is_fresh == facts.is_fresh
            and self.is_markable == (facts.unmarkable is None)
        )


class AllNumbers:
    """The numbers of every factory in memory, each as it was counted last."""

    def __init__(self) -> None:
        self._seen: Mapping[int, _Seen] = {}

    def of(self, state: LspState, facts: Facts) -> list[FactoryNumbers]:
        """Return the numbers of each factory in memory, oldest first.

        Several threads may ask: what is remembered is replaced, and never changed in place.
        """
        before, seen = self._seen, dict[int, _Seen]()
        for number in sorted(state.factories):
            known, factory = before.get(number), state.factories[number]
            tip = tip_of(factory, state.scan)
            if known is None or not known.is_of(factory, tip, facts):
                numbers = _counted(state, factory.at(tip), facts)
                markable = facts.unmarkable is None
                known = _Seen(ref(factory), tip, facts.is_fresh, markable, numbers)
            seen[number] = known
        self._seen = seen
        return [one.numbers for one in seen.values()]

    def samples(self, state: LspState, facts: Facts) -> Iterator[Sample]:
        """Yield them together for Prometheus, with those of the factories that sleep."""
        loaded, resting = self.of(state, facts), state.resting
        deadline_blocks = min((one.deadline_blocks for one in loaded), default=FAR_BLOCKS)
        if deadline_blocks < FAR_BLOCKS:
            yield "blocks_to_next_deadline", {}, deadline_blocks
        statuses = Counter([one.status for one in loaded]) + Counter(dict(resting.statuses))
        for status, count in statuses.items():
            yield "factories", {"status": status}, count
        periods = Counter([one.period for one in loaded]) + Counter(dict(resting.periods))
        for period, count in periods.items():
            if period:
                yield "factories_in_period", {"period": period}, count
        yield "closes", {"status": "under_way"}, sum(one.n_closing for one in loaded)
        yield "closes", {"status": "waiting"}, sum(one.n_closes_waiting for one in loaded)
        yield "locked_sat", {}, resting.locked_sat + sum(one.locked_sat for one in loaded)
        # In a factory that sleeps no channel is open: nobody of it is here.
        amounts = [one.amounts for one in loaded]
        asleep = channel_views.amounts_of(resting.totals)
        yield from channel_views.channel_samples(
            sum(one.n_open for one in loaded), channel_views.totals([*amounts, asleep])
        )
        yield "earned_msat", {}, resting.earned_msat + sum(one.earned_msat for one in loaded)
        yield "forwards", {"status": "held"}, sum(one.n_held for one in loaded)
        yield "forwards", {"status": "pending"}, sum(one.n_pending for one in loaded)
        n_finished = resting.n_finished + sum(one.n_finished for one in loaded)
        yield "forwards", {"status": "finished"}, n_finished


def _counted(state: LspState, factory: Factory, facts: Facts) -> FactoryNumbers:
    channels = views.channels_of(state.house, factory, facts)
    book = factory.book
    return FactoryNumbers(
        status=views.status_of(factory),
        period=views.period_of(factory),
        n_closing=int(factory.closing is not None),
        n_closes_waiting=views.closes_waiting(factory),
        locked_sat=views.locked_in(factory),
        n_open=sum(one["status"] == "open" for one in channels),
        amounts=channel_views.totals(channels),
        deadline_blocks=factory_deadline_blocks(factory),
        n_held=len(book.held),
        n_pending=len(book.forwards),
        n_finished=book.n_finished,
        earned_msat=book.earned_msat,
    )
