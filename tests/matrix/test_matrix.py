"""A sample of the matrix, other dice in every run; `make matrix` plays all of it."""

import pytest

from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.tx import Tx, TxIn, TxOut
from tests.matrix.market import HIGH, Market
from tests.matrix.node_chain import STRANGERS, STRANGERS_WITNESS, NodeChain
from tests.matrix.play import Case, play
from tests.matrix.table import detailed, summary
from tests.matrix.world import MatrixWorld
from tests.simulation.seeds import seeds
from tests.simulation.sim_chain import SimRefused

SAMPLE = (
    ("old commitment of the client, HTLCs, victim asleep", "low"),
    ("all against the LSP, HTLC", "high"),
    ("LSP sweeps too early", "low"),
    ("close finished late by the LSP, HTLCs", "low"),
    ("store restored of the client, the other cheats", "low"),
    ("state 0 after two sales with revoked commitment in a package, victim asleep", "low"),
    ("kickoff of the buyer at AdvanceDone, old state lands", "low"),
)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("scenario", "market"), SAMPLE)
def test_nobody_honest_loses_more_than_fees(scenario: str, market: str) -> None:
    (seed,) = seeds(1)
    case = Case(scenario=scenario, n_clients=2, market=market, seed=seed)
    outcome = play(case)
    assert not outcome.losses, "\n".join((case.command, *detailed(outcome)))
    assert not outcome.undecided


@pytest.mark.sampled(0)
def test_who_sleeps_longer_than_the_documents_allow_loses_and_the_table_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the matrix holds is no more than it can see: here a thief wins, and is seen to."""
    monkeypatch.setattr(MatrixWorld, "absence_blocks", lambda _world, _node: 200)
    case = Case(scenario="old commitment of the client, victim asleep", n_clients=2, market="low")
    outcome = play(case)
    (thief,) = outcome.cheaters
    won_sat = outcome.accounts[thief].gain_sat
    assert won_sat > 20_000
    assert outcome.losses == (
        f"lsp, honest, lost {won_sat} sat",
        f"{thief} won {won_sat} sat by cheating",
    )
    assert "LOST" in [*summary([outcome])][-1]


def _paying(chain: NodeChain, sat_per_vb: int) -> Tx:
    """Return a transaction that spends a coin of its own and pays this feerate."""
    chain.fund(STRANGERS, 100_000)
    coin = chain.blocks[-1][1][1].outpoint(0)
    tx_in = TxIn(outpoint=coin, nsequence=0xFFFF_FFFF, witness=STRANGERS_WITNESS)

    def paying(fee_sat: int) -> Tx:
        paid = TxOut(amount_sat=100_000 - fee_sat, script_pubkey=b"\x51\x20" + bytes(31) + b"\x01")
        return Tx(version=2, inputs=(tx_in,), outputs=(paid,))

    return paying(fee_sat_of(vsize=paying(0).vsize, feerate_sat_per_kw=250 * sat_per_vb))


def test_a_dear_market_relays_nothing_below_its_minimum_and_mines_what_outbids_strangers() -> None:
    chain = NodeChain()
    market: Market = HIGH
    below, between, above = (_paying(chain, rate) for rate in (2, 5, 11))
    chain.open_market(market)
    with pytest.raises(SimRefused, match="min fee not met"):
        chain.broadcast(below)
    chain.broadcast(between)
    chain.broadcast(above)
    for _ in range(5):
        chain.mine()
        assert between.txid in chain.mempool
    assert chain.confirmed[above.txid] == chain.height - 4
    assert chain.estimate_sat_per_kw(2) == 3_250
    assert chain.relay.mempool_min_sat_per_kw == 750
    chain.close()
