"""A node stalls, lags, goes back or refuses: what was missed comes, and nothing is lost."""

import random
from dataclasses import replace

import pytest

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.protocol import events as ev
from cromford.wallet.account import RECEIVE
from tests.simulation.opening import check_rest
from tests.simulation.payments import Market, pass_time
from tests.simulation.sim_chain import SimChain, SimRefused
from tests.simulation.sim_eyes import Away, SimEyes, Trouble
from tests.simulation.world import Weather, World

SCRIPT = b"\x51\x20" + bytes(32)
N_STALLED = 300


def chain_of(n_blocks: int) -> SimChain:
    chain = SimChain()
    chain.fund(SCRIPT, 1_000)
    for _ in range(n_blocks):
        chain.mine()
    return chain


def some_tx(chain: SimChain) -> Tx:
    outpoint = next(iter(chain.coins))
    return Tx(
        version=2,
        inputs=(TxIn(outpoint=outpoint, nsequence=0xFFFFFFFF),),
        outputs=(TxOut(amount_sat=900, script_pubkey=SCRIPT),),
    )


def test_a_node_that_stalls_answers_nothing_and_is_stale() -> None:
    seconds = [0.0]
    eyes = SimEyes(chain_of(5), clock=lambda: seconds[0])
    eyes.begin(Trouble.STALLS)
    assert eyes.facts(5).stale is None
    seconds[0] = 121.0
    assert eyes.facts(5).stale is not None
    for _ in range(N_STALLED):
        eyes.chain.mine()
    assert eyes.look() == 5
    facts = eyes.facts(5)
    assert (facts.stale, facts.header_height) == ("the node does not answer", 5)
    with pytest.raises(Away):
        eyes.coin(OutPoint(txid=Txid(bytes(32)), vout=0))
    with pytest.raises(Away):
        eyes.broadcast(some_tx(eyes.chain))


def test_a_node_that_lags_has_the_headers_and_not_the_blocks() -> None:
    eyes = SimEyes(chain_of(5))
    eyes.begin(Trouble.LAGS)
    for n_missing in range(1, 5):
        eyes.chain.mine()
        facts = eyes.facts(5)
        assert (eyes.look(), facts.header_height) == (5, 5 + n_missing)
        assert (facts.stale is None) == (n_missing <= 2)


def test_a_node_that_goes_back_shows_less_than_was_seen() -> None:
    eyes = SimEyes(chain_of(5))
    eyes.begin(Trouble.GOES_BACK)
    assert eyes.look() == 3
    eyes.chain.mine()
    assert eyes.facts(6).stale == "blocks are missing"
    eyes.trouble = None
    assert (eyes.look(), eyes.facts(6).stale) == (6, None)


def test_a_node_that_refuses_shows_every_block_and_takes_nothing() -> None:
    eyes = SimEyes(chain_of(5))
    eyes.begin(Trouble.REFUSES)
    eyes.chain.mine()
    assert (eyes.look(), eyes.facts(6).stale) == (6, None)
    with pytest.raises(SimRefused, match="mempool min fee"):
        eyes.broadcast(some_tx(eyes.chain))


def well_again(world: World) -> None:
    world.calm()
    world.run()
    world.mine(6)
    check_rest(world)


@pytest.mark.parametrize("trouble", Trouble)
def test_a_client_whose_node_is_in_trouble_while_a_factory_is_built_loses_nothing(
    trouble: Trouble,
) -> None:
    world = World(11, n_clients=3, weather=Weather())
    world.mine(3)
    world.eyes[world.clients[0].name].begin(trouble)
    world.build()
    world.mine(4)
    well_again(world)
    assert world.funded
    n_left = world.exit_everybody()
    # A client whose node says nothing about the coins of a proposal signs nothing.
    assert n_left == (2 if trouble is Trouble.STALLS else 3)


@pytest.mark.parametrize("trouble", [Trouble.STALLS, Trouble.REFUSES])
def test_a_funding_that_was_not_taken_is_published_when_the_node_is_well_again(
    trouble: Trouble,
) -> None:
    world = World(12, n_clients=2, weather=Weather())
    world.eyes["lsp"].begin(trouble)
    world.build()
    (funding_txid,) = world.funded
    world.mine(2)
    assert funding_txid not in world.chain.confirmed
    well_again(world)
    assert funding_txid in world.chain.confirmed
    assert world.exit_everybody() == 2


@pytest.mark.parametrize("trouble", [Trouble.STALLS, Trouble.LAGS, Trouble.GOES_BACK])
def test_blocks_that_a_node_did_not_show_are_read_once_it_does(trouble: Trouble) -> None:
    world = World(13, n_clients=1, weather=Weather())
    (client,) = world.clients
    before = client.state.chain.height
    world.eyes[client.name].begin(trouble)
    script = client.state.wallet.next_script(RECEIVE)
    world.chain.fund(script, 50_000)
    world.mine(20)
    assert client.state.chain.height == before
    assert not client.state.wallet.coins
    well_again(world)
    assert client.state.chain.height == world.chain.height
    (coin,) = client.state.wallet.coins.values()
    assert coin.txout.amount_sat == 50_000


def test_an_attempt_whose_coins_nobody_told_of_ends_by_its_deadline_and_the_wish_stays() -> None:
    world = World(14, n_clients=1, weather=Weather())
    (client,) = world.clients
    world.eyes[client.name].begin(Trouble.STALLS)
    world.build()
    assert client.state.attempts
    assert all(attempt.aborted is not None for attempt in client.state.attempts.values())
    assert client.state.wish is not None
    assert world.eyes[client.name].unanswered
    world.calm()
    world.run()
    assert not any(attempt.aborted is None for attempt in client.state.attempts.values())


@pytest.mark.parametrize("trouble", [Trouble.STALLS, Trouble.LAGS])
@pytest.mark.parametrize("who", ["payee", "payer", "lsp"])
def test_nobody_takes_risk_while_its_node_is_in_trouble_and_what_waited_arrives(
    who: str, trouble: Trouble
) -> None:
    """That no risk is taken is asserted at every decision of every world."""
    world = World(18, n_clients=2, weather=Weather())
    world.build()
    world.mine(4)
    market = Market(world, random.Random(18))
    market.be_paid_first()
    payer, payee = world.clients
    asked = market._invoice(payee, 5_000_000)
    assert asked is not None
    node = {"payee": payee, "payer": payer, "lsp": world.lsp}[who]
    world.eyes[node.name].begin(trouble)
    for _ in range(3):
        world.chain.mine()
    world._sync_all()
    assert not node.facts.is_fresh
    world.request(payer, asked)
    pass_time(world, 3.0)
    statuses = [payment.status for payment in payer.state.book.payments.values()]
    assert statuses == ([] if who == "payer" else ["pending"])
    assert payee.state.book.invoices[asked.payment_hash].status == "open"
    world._end_trouble(node)
    if who == "payer":
        world.request(payer, asked)
    pass_time(world, 3.0)
    assert payer.state.book.payments[asked.payment_hash].status == "paid"


def test_the_troubles_of_a_world_are_of_every_kind() -> None:
    world = World(15, n_clients=4, weather=replace(Weather(), trouble_rate=0.9))
    world.mine(30)
    assert set(world.troubles) == set(Trouble)


def test_a_refused_payment_is_told_to_the_role_and_owed_all_the_same() -> None:
    world = World(16, n_clients=1, weather=Weather())
    world.eyes["lsp"].begin(Trouble.REFUSES)
    asked = ev.SpendingRequested(script_pubkey=SCRIPT, amount_sat=50_000, feerate_sat_per_kw=500)
    world.request(world.lsp, asked)
    (tx,) = world.lsp.state.wallet.payments.values()
    refused = list(world._broadcast(world.lsp, fx.Broadcast(name="payment", tx=tx)))
    assert [type(event) for event in refused] == [ev.BroadcastRefused]
    well_again(world)
    assert tx.txid in world.chain.confirmed
    assert not world.lsp.state.wallet.payments
