"""Blocks read again: what was missed is found, and a crash at any moment skips nothing."""

import asyncio
from collections.abc import Sequence

import pytest
from tests.protocol.pump import Pump
from tests.scripted_chain import ScriptedChain, ref

from cromford.adapters.memory import MemoryJournal
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.api.rescan import rescan_method
from cromford.daemon.chain_following import ChainFollowing
from cromford.daemon.driver import Driver
from cromford.daemon.lspd import LSP_ROLE
from cromford.daemon.pairing import open_journal
from cromford.ports import BlockRef
from cromford.protocol import events as ev
from cromford.protocol import lsp
from cromford.protocol.journal.known_chain import RECENT_BLOCKS
from cromford.protocol.journal.lsp_state import LspConfig, LspState
from cromford.protocol.policy import LspPolicy
from cromford.signing.keychain import Keychain
from cromford.wallet.account import CHANGE, RECEIVE, Account, WalletPath
from cromford.wallet.coins import Wallet

KEYCHAIN = Keychain(bytes(32), REGTEST, journal_number=1)
ELSEWHERE = b"\x51"


class PowerLost(Exception):
    """The process ends here."""


class Lsp:
    """An LSP's journal and role, and the eyes of its daemon."""

    def __init__(self, chain: ScriptedChain, store: MemoryJournal) -> None:
        self.chain = chain
        self.posts_left: int | None = None
        self.following = ChainFollowing(
            chain,
            self,
            check=self._check,
            has_real_time=False,
            poll_seconds=0,
            answered=lambda: None,
        )
        open_journal(
            store, role="lsp", network=REGTEST, fingerprint=bytes(8), draw_number=lambda: 1
        )
        config = LspConfig(
            network=REGTEST,
            node_id=KEYCHAIN.node_id,
            policy=LspPolicy(),
            account=Account(KEYCHAIN.wallet_account),
        )
        self.driver: Driver[LspState] = Driver(
            LSP_ROLE, lsp.new_lsp(config), store, lambda _effect: ()
        )

    async def _check(self) -> None:
        """Any node will do."""

    @property
    def recent_blocks(self) -> tuple[BlockRef, ...]:
        return self.driver.state.chain.recent

    @property
    def recorded_height(self) -> int:
        return self.driver.state.chain.recorded_height

    @property
    def height(self) -> int:
        return self.driver.state.chain.height

    @property
    def wallet(self) -> Wallet:
        return self.driver.state.wallet

    def relevant(self, txs: Sequence[Tx]) -> tuple[Tx, ...]:
        return self.driver.relevant(txs)

    def post(self, event: ev.Event) -> None:
        if self.posts_left is not None:
            if self.posts_left == 0:
                raise PowerLost
            self.posts_left -= 1
        self.driver.handle(event)

    async def follow(self, *, to_height: int, rescan_from: int | None = None) -> None:
        """Follow the chain to a height; then from another one again."""
        task = asyncio.create_task(self.following.run())
        try:
            async with asyncio.timeout(20):
                await self._reach(to_height)
                if rescan_from is not None:
                    await rescan_method(self)({"from_height": rescan_from})
                    assert self.height == rescan_from - 1
                    await self._reach(to_height)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _reach(self, height: int) -> None:
        while self.height != height:  # noqa: ASYNC110 - the loop is what is waited for
            await asyncio.sleep(0)


def paying(script_pubkey: bytes, amount_sat: int, spent: OutPoint | None = None) -> Tx:
    source = spent or OutPoint(txid=Txid(amount_sat.to_bytes(32, "big")), vout=0)
    return Tx(
        version=2,
        inputs=(TxIn(outpoint=source, nsequence=0),),
        outputs=(TxOut(amount_sat=amount_sat, script_pubkey=script_pubkey),),
    )


def with_a_past(n_blocks: int) -> tuple[ScriptedChain, MemoryJournal]:
    """Return a chain in which an LSP gained two coins and spent one, and the LSP's journal."""
    chain, store = ScriptedChain(), MemoryJournal()
    script = Lsp(chain, MemoryJournal()).wallet.next_script(RECEIVE)
    first, second = paying(script, 10_000), paying(script, 20_000)
    chain.mine(3, first)
    chain.mine(2, second)
    chain.mine(n_blocks, paying(ELSEWHERE, 9_000, first.outpoint(0)))
    genesis = ScriptedChain()
    asyncio.run(Lsp(genesis, store).follow(to_height=0))
    return chain, store


def seen_by(one: Lsp) -> tuple[object, object]:
    """Return what the blocks have told: coins, and where our own transactions confirmed."""
    return dict(one.wallet.coins), dict(one.driver.state.chain.confirmed)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("n_blocks", [4, RECENT_BLOCKS + 12])
@pytest.mark.parametrize("from_height", [1, 2, 5, 8])
def test_a_rescan_ends_where_it_began_also_below_the_blocks_that_are_remembered(
    n_blocks: int, from_height: int
) -> None:
    chain, store = with_a_past(n_blocks)
    one = Lsp(chain, store)
    asyncio.run(one.follow(to_height=chain.height))
    before = seen_by(one)
    for _ in range(2):
        asyncio.run(one.follow(to_height=chain.height, rescan_from=from_height))
        assert seen_by(one) == before
        assert one.recent_blocks[-1] == ref(chain.active[-1])
        assert Lsp(chain, store).driver.state.durable == one.driver.state.durable


# Three blocks hold something of the wallet's; below what is remembered, a base comes after them.
@pytest.mark.sampled(1)
@pytest.mark.parametrize(("n_blocks", "n_posts"), [(4, 3), (RECENT_BLOCKS + 12, 4)])
def test_a_crash_at_any_moment_of_a_rescan_skips_no_block(n_blocks: int, n_posts: int) -> None:
    chain, store = with_a_past(n_blocks)
    asyncio.run(Lsp(chain, store).follow(to_height=chain.height))
    before = seen_by(Lsp(chain, store))
    for posts_left in range(n_posts):
        crashed = MemoryJournal(list(store.entries))
        one = Lsp(chain, crashed)

        async def rescan_and_crash(one: Lsp = one, posts_left: int = posts_left) -> None:
            one.posts_left = posts_left
            with pytest.raises(PowerLost):
                await rescan_method(one)({"from_height": 1})

        asyncio.run(rescan_and_crash())
        again = Lsp(chain, crashed)
        asyncio.run(again.follow(to_height=chain.height, rescan_from=1))
        assert seen_by(again) == before
        plain = Lsp(chain, MemoryJournal(list(crashed.entries)))
        assert seen_by(plain) == before


def test_a_rescan_takes_back_all_that_a_factory_was_told_above_its_beginning() -> None:
    """An empty block is the first that is taken back; what a factory has of the chain is above."""
    pump = Pump(2, policy=LspPolicy(min_clients=1, min_depth=1))
    pump.join()
    pump.build()
    pump.run()
    pump.mine(3)
    pump.handle(pump.clients[0], ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    from_height = pump.chain.height
    pump.mine(2)
    before = pump.factory.chain
    assert max(before.confirmed.values()) > from_height, "its root is published"
    pump.handle(pump.lsp, ev.BlockRemoved(height=from_height))
    assert max(pump.factory.chain.confirmed.values()) < from_height
    assert max(pump.lsp.state.scan.told) < from_height
    pump.sync()
    assert pump.factory.chain == before


def test_a_rescan_finds_the_coins_that_were_skipped() -> None:
    chain, store = with_a_past(20)
    skipping = Lsp(chain, store)
    # A journal that was brought to the tip without reading what came between.
    skipping.post(ev.BlockRemoved(height=0))
    tip = chain.active[-1]
    skipping.post(ev.BlockAdded(height=tip.height, block_hash=tip.block_hash, txs=()))
    assert not skipping.wallet.coins
    asyncio.run(skipping.follow(to_height=chain.height, rescan_from=1))
    amounts = {coin.txout.amount_sat: coin.spent_height for coin in skipping.wallet.coins.values()}
    assert amounts == {10_000: 6, 20_000: None}


def test_a_rescan_finds_coins_at_scripts_that_a_journal_of_the_seed_alone_never_handed_out() -> (
    None
):
    """Each attempt used one up: an LSP's change lies behind all that came to nothing."""
    account = Account(KEYCHAIN.wallet_account)
    chain, store = ScriptedChain(), MemoryJournal()
    asyncio.run(Lsp(chain, store).follow(to_height=0))
    for i, change in enumerate((RECEIVE, CHANGE)):
        for index in (300, 1_250):  # The second one is in reach once the first one was found.
            script = account.script(WalletPath(change=change, index=index))
            chain.mine(1, paying(script, 10_000 * (2 * i + index)))
    one = Lsp(chain, store)
    asyncio.run(one.follow(to_height=4))
    assert not one.wallet.coins
    asyncio.run(one.follow(to_height=4, rescan_from=1))
    assert sorted(coin.path.index for coin in one.wallet.unspent.values()) == [300, 300]
    asyncio.run(one.follow(to_height=4, rescan_from=1))
    assert sorted(coin.path.index for coin in one.wallet.unspent.values()) == [
        300,
        300,
        1_250,
        1_250,
    ]


@pytest.mark.parametrize(
    ("from_height", "changes", "code"),
    [
        (0, {}, "invalid_param"),
        (26, {}, "invalid_param"),
        (9, {"kept_height": 10}, "blocks_pruned"),
        (9, {"shown_height": 7}, "chain_stale"),
        (9, {"is_silent": True}, "chain_unavailable"),
    ],
)
def test_a_rescan_that_cannot_be_is_refused_and_changes_nothing(
    from_height: int, changes: dict[str, int], code: str
) -> None:
    chain, store = with_a_past(20)
    one = Lsp(chain, store)
    asyncio.run(one.follow(to_height=25))
    n_before = len(store.entries)
    for name, value in changes.items():
        setattr(chain, name, value)

    async def ask() -> None:
        await rescan_method(one)({"from_height": from_height})

    with pytest.raises(ApiFailure) as refused:
        asyncio.run(ask())
    assert refused.value.code == code
    assert len(store.entries) == n_before
    if code == "blocks_pruned":
        assert "below height 10" in refused.value.message
        assert "-reindex" in refused.value.remediation


def test_a_rescan_at_the_first_kept_block_is_possible() -> None:
    chain, store = with_a_past(20)
    one = Lsp(chain, store)
    asyncio.run(one.follow(to_height=25))
    chain.kept_height = 9
    asyncio.run(one.follow(to_height=25, rescan_from=9))
