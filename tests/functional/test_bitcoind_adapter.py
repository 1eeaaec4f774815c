"""The Bitcoin Core adapter against a node, from the first block to a reorganisation.

It runs against the embedded regtest node always, and against a real Bitcoin Core when
CROMFORD_BITCOIND is the path of a `bitcoind`.
"""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from bitcoin_core_rpc import BitcoinCoreRpcClient, FetchError

from cromford.adapters.bitcoind import BitcoindChain
from cromford.adapters.chain_check import ChainMismatch, check_node
from cromford.adapters.follower import ChainEvent, ChainFollower, Connected, Disconnected
from cromford.bitcoin.address import address_of_script
from cromford.bitcoin.network import MAINNET, REGTEST, SIGNET
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import TRUC_VERSION, OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto.keys import sha256
from cromford.ports import BlockRef, BlocksPruned, Chain, ChainUnavailable, Taken, TxRefused
from cromford.regtest.node import RegtestNode

# Anyone may spend it: P2WSH of OP_TRUE. Standard, and the same for every node.
TRUE_SCRIPT = bytes([0x51])
OPEN_SCRIPT_PUBKEY = bytes([0x00, 0x20]) + sha256(TRUE_SCRIPT)
OPEN_ADDRESS = address_of_script(OPEN_SCRIPT_PUBKEY, REGTEST)
# Blocks of one height, time and address would be the same block.
OTHER_ADDRESS = address_of_script(bytes([0x00, 0x20]) + sha256(b"another branch"), REGTEST)
START_TIMEOUT_SECONDS = 30


class NodeUnderTest:
    """What the tests ask of a node besides what the adapter asks."""

    url: str
    cookie_path: Path

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def call(self, method: str, *params: object) -> object:
        client = BitcoinCoreRpcClient(self.url, cookie_path=self.cookie_path, timeout=30)
        answer: object = client.call(method, list(params))
        return answer

    def mine(self, n_blocks: int, address: str = OPEN_ADDRESS) -> list[str]:
        hashes = self.call("generatetoaddress", n_blocks, address)
        assert isinstance(hashes, list)
        return hashes

    def chain(self) -> BitcoindChain:
        return BitcoindChain(self.url, cookie_path=self.cookie_path, timeout_seconds=30)


class EmbeddedNode(NodeUnderTest):
    """The regtest node of this project."""

    def __init__(self, datadir: Path) -> None:
        self._node = RegtestNode(datadir)
        self._node.start()
        self._port = self._node.port
        self.url = self._node.url
        self.cookie_path = self._node.cookie_file
        self._datadir = datadir

    def start(self) -> None:
        self._node = RegtestNode(self._datadir, port=self._port)
        self._node.start()

    def stop(self) -> None:
        self._node.stop()


class CoreNode(NodeUnderTest):
    """A real bitcoind on regtest, without peers."""

    def __init__(self, datadir: Path, *arguments: str) -> None:
        self._binary = os.environ["CROMFORD_BITCOIND"]
        self._arguments = arguments
        self._datadir = datadir
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.cookie_path = datadir / "regtest" / ".cookie"
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                self._binary,
                "-regtest",
                f"-datadir={self._datadir}",
                f"-rpcport={self._port}",
                "-rpcbind=127.0.0.1",
                "-rpcallowip=127.0.0.1",
                "-listen=0",
                "-dnsseed=0",
                "-fixedseeds=0",
                "-disablewallet",
                "-printtoconsole=0",
                "-par=1",
                "-dbcache=16",
                *self._arguments,
            ]
        )
        try:
            self._await_answer()
        except BaseException:
            self._process.kill()
            self._process.wait(30)
            raise

    def rebuild(self) -> None:
        """Start it so that it connects all its blocks again, from the first one."""
        self._arguments = ("-reindex-chainstate",)
        self.start()

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                self.call("getblockcount")
            except FetchError:
                assert self._process.poll() is None, "bitcoind did not start"
                assert time.monotonic() < deadline, "bitcoind does not answer"
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)


@pytest.fixture(scope="module", params=[EmbeddedNode, CoreNode])
def node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeUnderTest]:
    if request.param is CoreNode and not os.environ.get("CROMFORD_BITCOIND"):
        pytest.skip("CROMFORD_BITCOIND does not name a bitcoind")
    under_test: NodeUnderTest = request.param(tmp_path_factory.mktemp("node"))
    try:
        under_test.mine(110)
        yield under_test
    finally:
        under_test.stop()


async def mature_coin(chain: Chain) -> tuple[OutPoint, int]:
    """Return the coinbase output of the oldest block that nobody has spent, and its amount."""
    tip = (await chain.status()).tip
    for height in range(1, tip.height - 98):
        block_hash = await chain.block_hash(height)
        assert block_hash is not None
        coinbase = (await chain.block(block_hash)).txs[0].outpoint(0)
        coin = await chain.coin(coinbase)
        if coin is not None and not await chain.spenders([coinbase]):
            assert coin.txout.script_pubkey == OPEN_SCRIPT_PUBKEY
            assert coin.confirmations == tip.height - height + 1
            return coinbase, coin.txout.amount_sat
    raise AssertionError("no coin is left")


def spend(outpoint: OutPoint, *amounts_sat: int, version: int = 2, anchor: bool = False) -> Tx:
    outputs = [
        TxOut(amount_sat=amount_sat, script_pubkey=OPEN_SCRIPT_PUBKEY) for amount_sat in amounts_sat
    ]
    if anchor:
        outputs.append(TxOut(amount_sat=0, script_pubkey=ANCHOR_SCRIPT))
    tx_in = TxIn(outpoint=outpoint, nsequence=0xFFFFFFFD, witness=(TRUE_SCRIPT,))
    return Tx(version=version, inputs=(tx_in,), outputs=tuple(outputs))


def parent_and_child(outpoint: OutPoint, amount_sat: int) -> tuple[Tx, Tx]:
    """A parent that pays no fee, with an anchor, and the child that pays for both."""
    parent = spend(outpoint, amount_sat, version=TRUC_VERSION, anchor=True)
    child = Tx(
        version=TRUC_VERSION,
        inputs=(
            TxIn(outpoint=parent.outpoint(0), nsequence=0xFFFFFFFD, witness=(TRUE_SCRIPT,)),
            TxIn(outpoint=parent.outpoint(1), nsequence=0xFFFFFFFD),
        ),
        outputs=(TxOut(amount_sat=amount_sat - 5000, script_pubkey=OPEN_SCRIPT_PUBKEY),),
    )
    return parent, child


def mempool_of(node: NodeUnderTest) -> set[str]:
    txids = node.call("getrawmempool")
    assert isinstance(txids, list)
    return set(txids)


def test_a_regtest_node_passes_the_check_and_fails_that_of_other_networks(
    node: NodeUnderTest,
) -> None:
    async def scenario() -> None:
        async with node.chain() as chain:
            await check_node(chain, REGTEST)
            for network in (MAINNET, SIGNET):
                with pytest.raises(ChainMismatch) as mismatch:
                    await check_node(chain, network)
                assert mismatch.value.field == "chain"
                assert mismatch.value.expected == network.core_name
                assert mismatch.value.received == "regtest"

    asyncio.run(scenario())


def test_tip_hashes_and_blocks_agree(node: NodeUnderTest) -> None:
    async def scenario() -> None:
        async with node.chain() as chain:
            tip = (await chain.status()).tip
            assert await chain.block_hash(tip.height) == tip.block_hash
            assert await chain.block_hash(tip.height + 1) is None
            assert await chain.block_hash(0) == REGTEST.genesis_hash
            block_hash = tip.block_hash
            for height in range(tip.height, tip.height - 5, -1):
                block = await chain.block(block_hash)
                assert (block.height, block.block_hash) == (height, block_hash)
                block_hash = block.previous_hash
            genesis = await chain.block(REGTEST.genesis_hash)
            assert (genesis.height, genesis.previous_hash) == (0, Txid(bytes(32)))

    asyncio.run(scenario())


def test_an_unknown_block_is_unavailable(node: NodeUnderTest) -> None:
    async def scenario() -> None:
        async with node.chain() as chain:
            with pytest.raises(ChainUnavailable, match="not found"):
                await chain.block(Txid(bytes(32)))

    asyncio.run(scenario())


def test_a_transaction_is_accepted_again_until_its_outputs_are_spent(node: NodeUnderTest) -> None:
    async def scenario() -> None:
        async with node.chain() as chain:
            coinbase, amount_sat = await mature_coin(chain)
            tx = spend(coinbase, amount_sat - 1000)
            await chain.broadcast(tx)
            await chain.broadcast(tx)
            assert await chain.coin(coinbase) is not None
            assert await chain.coin(tx.outpoint(0)) is None
            node.mine(1)
            await chain.broadcast(tx)
            assert await chain.coin(coinbase) is None
            coin = await chain.coin(tx.outpoint(0))
            assert coin is not None
            assert coin.txout == tx.outputs[0]
            assert coin.confirmations == 1
            tip = await chain.block((await chain.status()).tip.block_hash)
            assert tip.txs[1:] == (tx,)

    asyncio.run(scenario())


def test_refusals_carry_the_nodes_reason(node: NodeUnderTest) -> None:
    async def scenario() -> None:
        async with node.chain() as chain:
            coinbase, amount_sat = await mature_coin(chain)
            unknown = OutPoint(txid=Txid(bytes(32)), vout=0)
            refusals = {
                "bad-txns-inputs-missingorspent": spend(unknown, 1000),
                "bad-txns-in-belowout": spend(coinbase, amount_sat + 1),
                "min relay fee not met": spend(coinbase, amount_sat),
                "dust": spend(coinbase, 1, amount_sat - 1000),
            }
            for reason, tx in refusals.items():
                with pytest.raises(TxRefused) as refused:
                    await chain.broadcast(tx)
                assert refused.value.reason.startswith(reason)

    asyncio.run(scenario())


def test_a_package_pays_for_its_parent_and_is_accepted_again(node: NodeUnderTest) -> None:
    async def scenario() -> None:
        async with node.chain() as chain:
            parent, child = parent_and_child(*await mature_coin(chain))
            with pytest.raises(TxRefused, match="min relay fee not met"):
                await chain.broadcast(parent)
            await chain.broadcast_package([parent, child])
            await chain.broadcast_package([parent, child])
            assert {str(parent.txid), str(child.txid)} <= mempool_of(node)
            node.mine(1)
            assert await chain.coin(child.outpoint(0)) is not None

    asyncio.run(scenario())


def test_after_a_restart_a_node_has_lost_the_parent_that_only_its_child_paid_for(
    node: NodeUnderTest,
) -> None:
    async def scenario() -> None:
        async with node.chain() as chain:
            node.mine(2)
            package = parent_and_child(*await mature_coin(chain))
            await chain.broadcast_package(package)
            node.stop()
            node.start()
            await loaded(node)
            assert not {str(tx.txid) for tx in package} & mempool_of(node)
            answer = await chain.broadcast_package(package)
            assert [type(verdict) for verdict in answer.verdicts] == [Taken, Taken]
            node.mine(1)

    asyncio.run(scenario())


async def loaded(node: NodeUnderTest) -> None:
    """Return once the node has read the mempool that it wrote when it stopped."""
    for _ in range(200):
        info = node.call("getmempoolinfo")
        assert isinstance(info, dict)
        if info["loaded"]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the node does not load its mempool")


def test_a_child_is_accepted_after_its_parent_has_confirmed(node: NodeUnderTest) -> None:
    async def scenario() -> None:
        async with node.chain() as chain:
            coinbase, amount_sat = await mature_coin(chain)
            parent = spend(coinbase, amount_sat - 2000, 1000)
            child = spend(parent.outpoint(0), amount_sat - 4000)
            await chain.broadcast(parent)
            node.mine(1)
            await chain.broadcast_package([parent, child])
            assert str(child.txid) in mempool_of(node)
            node.mine(1)

    asyncio.run(scenario())


def test_a_refused_package_names_the_first_transaction_refused(node: NodeUnderTest) -> None:
    async def scenario() -> None:
        async with node.chain() as chain:
            coinbase, amount_sat = await mature_coin(chain)
            parent = spend(coinbase, amount_sat + 1)
            child = spend(parent.outpoint(0), amount_sat - 1000)
            with pytest.raises(TxRefused, match="bad-txns-in-belowout"):
                await chain.broadcast_package([parent, child])
            parent = spend(coinbase, amount_sat - 1000)
            greedy = spend(parent.outpoint(0), amount_sat)
            with pytest.raises(TxRefused, match="bad-txns-in-belowout"):
                await chain.broadcast_package([parent, greedy])
            with pytest.raises(TxRefused):
                await chain.broadcast_package([child, parent])

    asyncio.run(scenario())


async def follow_to(
    chain: Chain, batches: AsyncIterator[tuple[ChainEvent, ...]], known: list[BlockRef]
) -> list[ChainEvent]:
    """Fold batches until they reach the tip; return all events."""
    events: list[ChainEvent] = []
    async with asyncio.timeout(30):
        while known[-1] != (await chain.status()).tip:
            batch = await anext(batches)
            events.extend(batch)
            for event in batch:
                match event:
                    case Connected(block):
                        assert block.previous_hash == known[-1].block_hash
                        known.append(BlockRef(height=block.height, block_hash=block.block_hash))
                    case Disconnected(block_ref):
                        assert known.pop() == block_ref
    return events


def test_a_follower_crosses_a_reorganisation_and_back(node: NodeUnderTest) -> None:
    async def scenario() -> None:
        async with node.chain() as chain:
            known = [(await chain.status()).tip]
            batches = ChainFollower(chain, known, poll_seconds=0.01).batches()
            first_branch = node.mine(3)
            events = await follow_to(chain, batches, known)
            assert kinds(events) == [Connected] * 3
            node.call("invalidateblock", first_branch[1])
            second_branch = node.mine(4, OTHER_ADDRESS)
            events = await follow_to(chain, batches, known)
            assert kinds(events) == [Disconnected] * 2 + [Connected] * 4
            left = await chain.block(Txid.from_hex(first_branch[2]))
            assert str(left.previous_hash) == first_branch[1]
            node.call("invalidateblock", second_branch[0])
            node.call("reconsiderblock", first_branch[1])
            events = await follow_to(chain, batches, known)
            assert kinds(events) == [Disconnected] * 4 + [Connected] * 2
            assert str(known[-1].block_hash) == first_branch[2]
            # With one known block, below which everything has left.
            alone = [known[-1]]
            deep = ChainFollower(chain, alone, poll_seconds=0.01)
            node.call("invalidateblock", first_branch[0])
            node.mine(3, OTHER_ADDRESS)
            batch = await anext(deep.batches())
            assert kinds(batch) == [Disconnected] * 3 + [Connected] * 3


def test_a_node_that_goes_back_is_waited_for_until_it_shows_another_block(
    node: NodeUnderTest,
) -> None:
    async def scenario() -> None:
        async with node.chain() as chain:
            known = [(await chain.status()).tip]
            first_branch = node.mine(4)
            rounds = asyncio.Semaphore(0)
            follower = ChainFollower(
                chain, known, poll_seconds=0.01, heard=lambda _status: rounds.release()
            )
            batches = follower.batches()
            await follow_to(chain, batches, known)
            # As a node shows it while it rebuilds its chainstate: an ancestor of ours.
            node.call("invalidateblock", first_branch[1])
            waiting = asyncio.ensure_future(anext(batches))
            for _ in range(20):
                await rounds.acquire()
            assert not waiting.done()
            node.call("reconsiderblock", first_branch[1])
            [after] = node.mine(1)
            batch = await waiting
            assert kinds(batch) == [Connected]
            assert str(follower.known[-1].block_hash) == first_branch[3]
            # A real reorganisation shows another block at a height that we have.
            known.append((await chain.status()).tip)
            assert str(known[-1].block_hash) == after
            node.call("invalidateblock", first_branch[2])
            node.mine(1, OTHER_ADDRESS)
            assert kinds(await anext(batches))[:3] == [Disconnected] * 3

    asyncio.run(scenario())

    asyncio.run(scenario())


def kinds(events: Sequence[ChainEvent]) -> list[type]:
    return [type(event) for event in events]


@pytest.fixture
def pruning_node(tmp_path: Path) -> Iterator[NodeUnderTest]:
    if not os.environ.get("CROMFORD_BITCOIND"):
        pytest.skip("CROMFORD_BITCOIND does not name a bitcoind")
    # Small block files, so that a few hundred blocks are enough to delete some.
    node = CoreNode(tmp_path, "-prune=1", "-fastprune")
    try:
        yield node
    finally:
        node.stop()


def test_a_node_that_pruned_unread_blocks_is_refused_by_their_heights(
    pruning_node: NodeUnderTest,
) -> None:
    async def scenario() -> None:
        async with pruning_node.chain() as chain:
            [first, *_] = pruning_node.mine(700)
            assert (await chain.status()).kept_height == 0
            pruning_node.call("pruneblockchain", 300)
            kept_height = (await chain.status()).kept_height
            assert 1 < kept_height <= 301
            told: asyncio.Queue[ChainUnavailable] = asyncio.Queue()
            known = [BlockRef(height=1, block_hash=Txid.from_hex(first))]
            follower = ChainFollower(chain, known, missed=told.put_nowait)
            waiting = asyncio.ensure_future(anext(follower.batches()))
            pruned = await told.get()
            assert isinstance(pruned, BlocksPruned)
            assert (pruned.needed_height, pruned.kept_height) == (2, kept_height)
            assert not waiting.done()
            waiting.cancel()
            # The first block that it kept is there, as it says.
            kept_hash = await chain.block_hash(kept_height)
            assert kept_hash is not None
            assert (await chain.block(kept_hash)).height == kept_height

    asyncio.run(scenario())


def test_a_node_that_rebuilds_its_chainstate_is_waited_for(tmp_path: Path) -> None:
    if not os.environ.get("CROMFORD_BITCOIND"):
        pytest.skip("CROMFORD_BITCOIND does not name a bitcoind")
    node = CoreNode(tmp_path)
    try:
        node.mine(300)

        async def scenario() -> None:
            async with node.chain() as chain:
                known = [(await chain.status()).tip]
                heights: list[int] = []
                follower = ChainFollower(
                    chain,
                    known,
                    poll_seconds=0.01,
                    backoff_first_seconds=0.01,
                    backoff_max_seconds=0.01,
                    heard=lambda status: heights.append(status.tip.height),
                )
                await asyncio.to_thread(node.stop)
                waiting = asyncio.ensure_future(anext(follower.batches()))
                await asyncio.to_thread(node.rebuild)
                async with asyncio.timeout(START_TIMEOUT_SECONDS):
                    while 300 not in heights:  # noqa: ASYNC110 - another process's
                        await asyncio.sleep(0.01)
                assert not waiting.done()
                node.mine(1)
                assert kinds(await waiting) == [Connected]

        asyncio.run(scenario())
    finally:
        node.stop()


def test_a_restarted_node_is_simply_there_again(node: NodeUnderTest) -> None:
    async def scenario() -> None:
        async with node.chain() as chain:
            tip = (await chain.status()).tip
            cookie = node.cookie_path.read_bytes()
            await asyncio.to_thread(node.stop)
            with pytest.raises(ChainUnavailable):
                await chain.status()
            await asyncio.to_thread(node.start)
            assert node.cookie_path.read_bytes() != cookie
            assert (await chain.status()).tip == tip

    asyncio.run(scenario())


def test_wrong_credentials_are_reported_as_such(node: NodeUnderTest) -> None:
    async def scenario() -> None:
        async with BitcoindChain(node.url, user="nobody", password="wrong") as chain:
            with pytest.raises(ChainUnavailable, match="401"):
                await chain.status()

    asyncio.run(scenario())
