"""A node stalls, lags, goes back or refuses: what was missed comes, and nothing is lost."""

from dataclasses import replace

import pytest

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.protocol import events as ev
from cromford.protocol.journal import records as r
from cromford.wallet.account import RECEIVE
from tests.simulation.fates import Hazard
from tests.simulation.laws import Laws
from tests.simulation.mixture import drawn
from tests.simulation.operators import Operators
from tests.simulation.sim_chain import SimChain, SimRefused
from tests.simulation.sim_eyes import Away, SimEyes, Trouble
from tests.simulation.world import World

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


def world_of(seed: int, n_clients: int, *hazards: Hazard) -> World:
    """Return a world with these hazards, and no others."""
    mixture = replace(
        drawn(seed),
        n_clients=n_clients,
        hazards=frozenset(hazards),
        acts=frozenset(),
        is_early=True,
        is_dying=False,
    )
    return World(mixture)


def nobody_restores() -> None:
    raise AssertionError("no store is put back here")


def well_again(world: World) -> None:
    world.calm()
    world.run()
    world.mine(6)
    Laws(world, set()).check_rest()


def n_ready(world: World) -> int:
    return sum(
        any(attempt.ready_sent for attempt in world.attempts_of(client)) for client in world.clients
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize("trouble", Trouble)
def test_a_client_whose_node_is_in_trouble_while_a_factory_is_built_loses_nothing(
    trouble: Trouble,
) -> None:
    world = world_of(11, 3)
    world.mine(3)
    world.blocks.eyes[world.clients[0].name].begin(trouble)
    world.build()
    world.mine(4)
    well_again(world)
    assert world.funded
    # A client whose node says nothing about the coins of a proposal signs nothing.
    assert n_ready(world) == (2 if trouble is Trouble.STALLS else 3)


@pytest.mark.parametrize("trouble", [Trouble.STALLS, Trouble.REFUSES])
def test_a_funding_that_was_not_taken_is_published_when_the_node_is_well_again(
    trouble: Trouble,
) -> None:
    world = world_of(12, 2)
    world.blocks.eyes["lsp"].begin(trouble)
    world.build()
    (funding_txid,) = world.funded
    world.mine(2)
    assert funding_txid not in world.chain.confirmed
    well_again(world)
    assert funding_txid in world.chain.confirmed
    assert n_ready(world) == 2


@pytest.mark.parametrize("trouble", [Trouble.STALLS, Trouble.LAGS, Trouble.GOES_BACK])
def test_blocks_that_a_node_did_not_show_are_read_once_it_does(trouble: Trouble) -> None:
    world = world_of(13, 1)
    (client,) = world.clients
    before, n_coins = client.state.chain.height, len(list(client.state.wallet.coins.values()))
    world.blocks.eyes[client.name].begin(trouble)
    script = client.state.wallet.next_script(RECEIVE)
    world.chain.fund(script, 50_000)
    world.mine(20)
    assert client.state.chain.height == before
    assert len(list(client.state.wallet.coins.values())) == n_coins
    well_again(world)
    assert client.state.chain.height == world.chain.height
    amounts_sat = [coin.txout.amount_sat for coin in client.state.wallet.coins.values()]
    assert amounts_sat.count(50_000) == 1


def test_an_attempt_whose_coins_nobody_told_of_ends_by_its_deadline_and_the_wish_stays() -> None:
    world = world_of(14, 1)
    (client,) = world.clients
    world.blocks.eyes[client.name].begin(Trouble.STALLS)
    world.build()
    assert client.state.attempts
    assert all(attempt.aborted is not None for attempt in client.state.attempts.values())
    assert client.state.wish is not None
    assert world.blocks.eyes[client.name].unanswered
    world.calm()
    world.run()
    assert not any(attempt.aborted is None for attempt in client.state.attempts.values())


@pytest.mark.sampled(1)
@pytest.mark.parametrize("trouble", [Trouble.STALLS, Trouble.LAGS])
@pytest.mark.parametrize("who", ["payee", "payer", "lsp"])
def test_nobody_takes_risk_while_its_node_is_in_trouble_and_what_waited_arrives(
    who: str, trouble: Trouble
) -> None:
    """That no risk is taken is asserted at every decision of every world."""
    world = world_of(18, 2)
    world.build()
    world.mine(4)
    operators = Operators(world, nobody_restores)
    operators.be_paid_first()
    payer, payee = world.clients
    asked = operators.invoice(payee, 5_000_000)
    assert asked is not None
    node = {"payee": payee, "payer": payer, "lsp": world.lsp}[who]
    world.blocks.eyes[node.name].begin(trouble)
    for _ in range(3):
        world.chain.mine()
    for one in world.everybody:
        world.blocks.sync(one)
    assert not node.facts.is_fresh
    world.handle(payer, asked)
    world.pass_time(3.0)
    statuses = [payment.status for payment in payer.state.book.payments.values()]
    assert statuses == ([] if who == "payer" else ["pending"])
    assert payee.state.book.invoices[asked.payment_hash].status == "open"
    world.blocks.eyes[node.name].trouble = None
    world.blocks.sync(node)
    if who == "payer":
        world.handle(payer, asked)
    world.pass_time(3.0)
    assert payer.state.book.payments[asked.payment_hash].status == "paid"


def test_the_troubles_of_a_world_are_of_every_kind() -> None:
    world = world_of(15, 4, Hazard.TROUBLES)
    seen = set()
    for _ in range(40):
        world.mine()
        seen |= {eyes.trouble for eyes in world.blocks.eyes.values()}
    assert seen == {None, *Trouble}


def test_a_refused_payment_is_told_to_the_role_and_owed_all_the_same() -> None:
    world = world_of(16, 1)
    world.blocks.eyes["lsp"].begin(Trouble.REFUSES)
    asked = ev.SpendingRequested(script_pubkey=SCRIPT, amount_sat=50_000, feerate_sat_per_kw=500)
    world.handle(world.lsp, asked)
    (tx,) = world.lsp.state.wallet.payments.values()
    assert tx.txid not in world.chain.mempool
    world.mine()
    refusals = [
        record
        for record in world.lsp.store.remembered
        if isinstance(record, r.BroadcastRefusalSeen)
    ]
    assert [Txid(record.txid) for record in refusals] == [tx.txid]
    well_again(world)
    assert tx.txid in world.chain.confirmed
    assert not world.lsp.state.wallet.payments
