"""What needs the node is done once it answers; what it refuses is shown until it is over."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.scripted_chain import ScriptedChain

from cromford import effects as fx
from cromford.answers.chain import RefusedTransaction
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.daemon.chain_effects import LAGS_MAX, ChainEffects
from cromford.daemon.refusals import REFUSALS_MAX, UNTRIED_BLOCKS_MAX, Refusals, RefusedTx
from cromford.ports import Coin
from cromford.protocol import events as ev
from cromford.protocol.journal.exit_records import ExitPaused
from cromford.protocol.journal.records import BlockConnected
from cromford.protocol.journal.spending_records import SpendingAbandoned

ATTEMPT_ID = bytes(32)
FUNDED = OutPoint(txid=Txid(b"\x07" * 32), vout=1)
MISSING = OutPoint(txid=Txid(b"\x08" * 32), vout=0)
TXOUT = TxOut(amount_sat=1_000, script_pubkey=b"\x51")
COIN = Coin(outpoint=FUNDED, txout=TXOUT, confirmations=3)
ASKED = fx.LookUpCoins(attempt_id=ATTEMPT_ID, outpoints=(FUNDED, MISSING))
TOO_CHEAP = "mempool min fee not met"


def tx_spending(outpoint: OutPoint, amount_sat: int = 900) -> Tx:
    return Tx(
        version=2,
        inputs=(TxIn(outpoint=outpoint, nsequence=0),),
        outputs=(TxOut(amount_sat=amount_sat, script_pubkey=b"\x51"),),
    )


TX = tx_spending(FUNDED)
FUNDING = fx.Broadcast(name="funding", tx=TX)


def block(height: int, *txs: Tx) -> BlockConnected:
    data = tuple(tx.serialize() for tx in txs)
    return BlockConnected(height=height, block_hash=bytes(32), txs=data)


@dataclass
class Daemon:
    """What the effects ask of a daemon."""

    chain: ScriptedChain
    events: list[ev.Event] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    height: int = 100
    is_waiting: bool = True

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    def effects(self) -> ChainEffects:
        return ChainEffects(
            self.chain,
            post=self.events.append,
            spawn=self.spawn,
            height=lambda: self.height,
            is_pending=lambda _deadline: self.is_waiting,
            sign=lambda child: child.tx,
            retry_seconds=0,
        )

    async def done(self) -> None:
        while self.tasks:
            await self.tasks.pop()


def test_coins_are_told_once_the_node_has_told_all_of_them() -> None:
    async def scenario() -> None:
        chain = ScriptedChain(coins={FUNDED: COIN}, silent_calls=set(range(1, 9)))
        daemon = Daemon(chain)
        daemon.effects().look_up(ASKED)
        await daemon.done()
        coins = ((FUNDED, COIN), (MISSING, None))
        assert daemon.events == [ev.CoinsLookedUp(asked=ASKED, coins=coins)]

    asyncio.run(scenario())


def test_a_node_that_does_not_answer_has_not_said_that_a_coin_does_not_exist() -> None:
    async def scenario() -> None:
        chain = ScriptedChain(coins={FUNDED: COIN}, is_silent=True)
        daemon = Daemon(chain)
        daemon.effects().look_up(ASKED)
        await chain.until_asked(20)
        assert daemon.events == []
        daemon.is_waiting = False  # The ceremony's deadline passed.
        await daemon.done()
        assert daemon.events == []

    asyncio.run(scenario())


def test_a_coin_of_a_block_that_our_node_sees_a_moment_later_is_found() -> None:
    """Its LSP proposes as soon as its own node has the block; a wish must not end with that."""

    async def scenario() -> None:
        chain = ScriptedChain()
        daemon = Daemon(chain)
        daemon.effects().look_up(replace(ASKED, outpoints=(FUNDED,)))
        await chain.until_asked(2)
        assert daemon.events == []
        chain.coins[FUNDED] = COIN
        await daemon.done()
        (told,) = daemon.events
        assert isinstance(told, ev.CoinsLookedUp)
        assert told.coins == ((FUNDED, COIN),)

    asyncio.run(scenario())


def test_coins_that_never_come_are_waited_for_together_and_not_for_long() -> None:
    async def scenario() -> None:
        chain = ScriptedChain()
        daemon = Daemon(chain)
        missing = tuple(replace(MISSING, vout=vout) for vout in range(20))
        daemon.effects().look_up(replace(ASKED, outpoints=missing))
        await daemon.done()
        (told,) = daemon.events
        assert isinstance(told, ev.CoinsLookedUp)
        assert told.coins == tuple((outpoint, None) for outpoint in missing)
        assert chain.n_calls == len(missing) + LAGS_MAX

    asyncio.run(scenario())


def test_nothing_is_published_before_the_node_is_known_to_be_ours() -> None:
    async def scenario() -> None:
        daemon = Daemon(ScriptedChain())
        effects = daemon.effects()
        effects.broadcast(FUNDING)
        effects.broadcast(FUNDING)
        assert daemon.tasks == []
        effects.node_answers()
        await daemon.done()
        assert daemon.chain.mempool == [TX]

    asyncio.run(scenario())


def test_what_a_node_that_is_away_did_not_hear_is_published_when_it_is_back() -> None:
    async def scenario() -> None:
        daemon = Daemon(ScriptedChain(is_silent=True))
        effects = daemon.effects()
        effects.node_answers()
        effects.broadcast(FUNDING)
        await daemon.done()
        assert daemon.chain.mempool == []
        daemon.chain.is_silent = False
        effects.node_answers()
        await daemon.done()
        effects.node_answers()
        await daemon.done()
        assert (daemon.chain.mempool, daemon.events) == ([TX], [])

    asyncio.run(scenario())


def test_what_a_node_did_not_hear_of_an_exit_that_rests_now_is_not_published() -> None:
    """Else it would go on by itself once the node is back; a block asks for what is owed else."""

    async def scenario() -> None:
        daemon = Daemon(ScriptedChain(is_silent=True))
        effects = daemon.effects()
        effects.node_answers()
        effects.broadcast(replace(FUNDING, name="root"))
        await daemon.done()
        effects.observe(ExitPaused(attempt_id=ATTEMPT_ID))
        daemon.chain.is_silent = False
        effects.node_answers()
        await daemon.done()
        assert daemon.chain.mempool == []

    asyncio.run(scenario())


@pytest.mark.parametrize("is_confirmed", [False, True])
def test_a_refusal_stands_until_the_transaction_is_accepted_or_confirmed(
    is_confirmed: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    async def scenario() -> None:
        daemon = Daemon(ScriptedChain(refusal=TOO_CHEAP))
        effects = daemon.effects()
        effects.node_answers()
        for height in (100, 101, 102):
            daemon.height = height
            effects.observe(block(height))
            effects.broadcast(FUNDING)
            await daemon.done()
        assert daemon.events == [ev.BroadcastRefused(asked=FUNDING, reason=TOO_CHEAP)] * 3
        assert effects.refusals.shown() == [
            {
                "name": "funding",
                "txid": str(TX.txid),
                "reason": TOO_CHEAP,
                "first_height": 100,
                "height": 102,
                "count": 3,
            }
        ]
        if is_confirmed:
            effects.observe(block(103, TX))
        else:
            daemon.chain.refusal = None
            effects.broadcast(FUNDING)
            await daemon.done()
        assert len(effects.refusals) == 0

    asyncio.run(scenario())


def test_what_nobody_publishes_any_more_is_no_longer_shown() -> None:
    refusals = Refusals()
    refusals.refused("funding", TX, TOO_CHEAP, height=100)
    refusals.forget_untried(height=100 + UNTRIED_BLOCKS_MAX)
    assert len(refusals) == 1
    refusals.forget_untried(height=101 + UNTRIED_BLOCKS_MAX)
    assert len(refusals) == 0


def test_a_refusal_is_news_once_for_each_reason() -> None:
    refusals = Refusals()
    assert refusals.refused("funding", TX, TOO_CHEAP, height=100)
    assert not refusals.refused("funding", TX, TOO_CHEAP, height=101)
    assert refusals.refused("funding", TX, "txn-mempool-conflict", height=102)
    (shown,) = refusals.shown()
    assert (shown["reason"], shown["count"]) == ("txn-mempool-conflict", 3)


def test_refusals_are_bounded() -> None:
    refusals = Refusals()
    for number in range(REFUSALS_MAX + 5):
        refusals.refused(str(number), TX, TOO_CHEAP, height=100)
    assert len(refusals) == REFUSALS_MAX
    assert refusals.shown()[0]["name"] == "5"


def test_who_reads_refusals_is_not_disturbed_by_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Metrics are read by a thread of their own."""
    refusals = Refusals()
    for name in ("funding", "payment"):
        refusals.refused(name, TX, TOO_CHEAP, height=100)
    shown = RefusedTx.shown

    def shown_while_the_node_refuses(refusal: RefusedTx) -> RefusedTransaction:
        refusals.refused(f"after {refusal.name}", TX, TOO_CHEAP, height=101)
        return shown(refusal)

    monkeypatch.setattr(RefusedTx, "shown", shown_while_the_node_refuses)
    assert [one["name"] for one in refusals.shown()] == ["funding", "payment"]
    assert len(refusals) == 4


def test_a_factorys_refusals_reach_from_its_funding_down_to_the_sweeps_of_its_channels() -> None:
    commitment = tx_spending(TX.outpoint(0))
    htlc = tx_spending(commitment.outpoint(0))
    sweep = tx_spending(htlc.outpoint(0))
    payment = tx_spending(MISSING)
    refusals = Refusals()
    for name, tx in (("funding", TX), ("commitment", commitment), ("sweep", sweep)):
        refusals.refused(name, tx, TOO_CHEAP, height=100)
    refusals.refused("payment", payment, TOO_CHEAP, height=100)
    spends = {TX.outpoint(0): commitment, commitment.outpoint(0): htlc}
    names = [shown["name"] for shown in refusals.shown_of({TX.txid}, spends)]
    assert names == ["funding", "commitment", "sweep"]
    assert [shown["name"] for shown in refusals.shown_of({payment.txid}, {})] == ["payment"]


@pytest.mark.parametrize("is_away", [False, True])
def test_what_is_given_up_while_the_node_is_asked_is_refused_to_nobody(
    is_away: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    async def scenario() -> None:
        daemon = Daemon(ScriptedChain(refusal=TOO_CHEAP, is_silent=is_away))
        effects = daemon.effects()
        effects.node_answers()
        effects.broadcast(FUNDING)
        effects.observe(SpendingAbandoned(txid=TX.txid, reason=""))
        await daemon.done()
        assert (daemon.events, len(effects.refusals)) == ([], 0)
        daemon.chain.is_silent = False
        effects.node_answers()
        await daemon.done()
        assert (daemon.events, daemon.chain.mempool) == ([], [])
        effects.broadcast(FUNDING)  # It is owed again.
        await daemon.done()
        assert len(effects.refusals) == 1

    asyncio.run(scenario())


def test_what_spends_an_output_is_told_once_the_node_answers() -> None:
    async def scenario() -> None:
        chain = ScriptedChain(mempool=[TX])
        daemon = Daemon(chain)
        effects = daemon.effects()
        asked = fx.LookUpSpenders(factories=(3, 1), outpoints=(FUNDED, MISSING))
        effects.look_up_spenders(replace(asked, outpoints=(MISSING,)))
        effects.look_up_spenders(asked)
        await daemon.done()
        assert daemon.events == [], "nobody is there to be asked yet"
        chain.is_silent = True
        effects.node_answers()
        await daemon.done()
        assert daemon.events == []
        chain.is_silent = False
        effects.node_answers()
        await daemon.done()
        effects.node_answers()
        await daemon.done()
        told = ev.SpendersLookedUp(asked=asked, spenders=((FUNDED, TX.txid),))
        assert daemon.events == [told], "the newest question, once"

    asyncio.run(scenario())


def test_a_funding_is_published_together_with_the_child_that_pays_for_it() -> None:
    async def scenario() -> None:
        chain = ScriptedChain()
        daemon = Daemon(chain)
        effects = daemon.effects()
        child = tx_spending(TX.outpoint(0), 100)
        asked = fx.PublishBumped(name="funding_child", funding=TX, child=child, stream="house")
        effects.publish_bumped(asked)
        await daemon.done()
        assert chain.mempool == [], "nobody is there to be told yet"
        chain.refusal = TOO_CHEAP
        effects.node_answers()
        await daemon.done()
        whose = fx.Broadcast(name="funding_child", tx=child, stream="house")
        assert daemon.events == [ev.BroadcastRefused(asked=whose, reason=TOO_CHEAP)]
        assert [one["txid"] for one in effects.refusals.shown()] == [str(child.txid)]
        chain.refusal, chain.is_silent = None, True
        effects.publish_bumped(asked)
        await daemon.done()
        chain.is_silent = False
        effects.node_answers()
        await daemon.done()
        assert chain.mempool == [TX, child]
        assert len(effects.refusals) == 0

    asyncio.run(scenario())


TOO_LITTLE = "insufficient fee, rejecting replacement"


@pytest.mark.parametrize("is_ours", [True, False])
def test_what_waits_behind_our_own_is_no_news_and_behind_a_rival_it_is_shown(
    is_ours: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    async def scenario() -> None:
        chain = ScriptedChain()
        daemon = Daemon(chain)
        effects = daemon.effects()
        effects.node_answers()
        if is_ours:
            effects.broadcast(fx.Broadcast(name="penalty", tx=TX, replaces=True))
            await daemon.done()
        else:
            chain.mempool.append(TX)
        chain.refusal = TOO_LITTLE
        for amount_sat in (880, 870):
            again = tx_spending(FUNDED, amount_sat)
            effects.broadcast(fx.Broadcast(name="penalty", tx=again, replaces=True))
            await daemon.done()
        shown = [(one["txid"], one["count"]) for one in effects.refusals.shown()]
        assert shown == ([] if is_ours else [(str(again.txid), 2)])
        assert len(daemon.events) == (0 if is_ours else 1)

    asyncio.run(scenario())


@pytest.mark.parametrize("is_confirmed", [False, True])
def test_what_was_refused_at_another_fee_is_over_once_its_coins_are_spent(
    is_confirmed: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    async def scenario() -> None:
        daemon = Daemon(ScriptedChain(refusal=TOO_CHEAP))
        effects = daemon.effects()
        effects.node_answers()
        effects.broadcast(fx.Broadcast(name="penalty", tx=TX, replaces=True))
        await daemon.done()
        assert len(effects.refusals) == 1
        dearer = tx_spending(FUNDED, 800)
        daemon.chain.refusal = None
        if is_confirmed:
            effects.observe(block(101, dearer))
        else:
            effects.broadcast(fx.Broadcast(name="penalty", tx=dearer, replaces=True))
            await daemon.done()
        assert len(effects.refusals) == 0

    asyncio.run(scenario())
