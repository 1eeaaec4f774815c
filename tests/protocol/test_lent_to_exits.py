"""A client's coins for two exits at once: what hurries more has them, and goes out with them."""

from dataclasses import replace
from functools import cache
from typing import Final

from tests.protocol.paying_clients import pay
from tests.protocol.pump import Pump
from tests.protocol.test_leaving import QUICK
from tests.protocol.test_lending import PAID_MSAT, RUSH
from tests.protocol.test_what_a_client_leaves import block, skipped

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.changed import changed
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.turn import Decision
from cromford.wallet.account import RECEIVE
from cromford.wallet.coins import Purse

RUSHED: Final = replace(FRESH, fees=RUSH)
ENOUGH_SAT: Final = 7_000  # For a child at what is asked for the next blocks.
SMALL_SAT: Final = 5_000  # For one at a day's rate.
LESS_SAT: Final = 3_000


@cache
def scene() -> tuple[ClientState, ClientAttempt, ClientAttempt]:
    """Return a client without coins in two factories, and these: the older one has to be left."""
    pump = Pump(1, policy=QUICK)
    (alice,) = pump.clients
    for _ in range(2):
        pump.join(alice)
        pump.build()
        pump.run()
        pump.mine(QUICK.min_depth)
        assert pay(pump, pump.lsp, alice, PAID_MSAT).status == "paid"
        pump.mine(220)
    state: ClientState = alice.state
    older, newer = state.attempts.values()
    link = state.book.links[older.setting.channel_id]
    height = link.remaining(state.chain).exit_deadline_height
    assert height is not None
    return skipped(state, height - 30), older, newer


def leaving(state: ClientState, *leaves: ClientAttempt) -> ClientState:
    attempts = {one.attempt_id: changed(one, is_exiting=True) for one in leaves}
    return replace(state, attempts={**state.attempts, **attempts})


def paying(state: ClientState, amount_sat: int) -> Tx:
    """Return what pays a coin to a client's wallet."""
    source = OutPoint(txid=Txid(amount_sat.to_bytes(32, "big")), vout=0)
    script = state.wallet.next_script(RECEIVE)
    return Tx(
        version=2,
        inputs=(TxIn(outpoint=source, nsequence=0xFFFFFFFD),),
        outputs=(TxOut(amount_sat=amount_sat, script_pubkey=script),),
    )


def moves(decision: Decision[ClientState]) -> list[tuple[str, OutPoint]]:
    """Return for what coins were lent, and given back, in order."""
    kinds = {xr.CoinsLent: "lent", xr.CoinsReturned: "returned"}
    return [
        (kinds[type(one)], OutPoint.parse(one.outpoint))
        for one in decision.records
        if isinstance(one, xr.CoinsLent | xr.CoinsReturned)
    ]


def children(decision: Decision[ClientState]) -> dict[OutPoint, list[int]]:
    """Return what may pay for a child of each root that is published, in sat."""
    found = {}
    for one in decision.effects:
        if isinstance(one, fx.Broadcast) and one.bumping is not None:
            purse = one.bumping.purse
            coins = () if purse is None else purse.coins
            found[one.tx.inputs[0].outpoint] = [coin.txout.amount_sat for coin in coins]
    return found


def with_a_small_coin() -> ClientState:
    """Return a client whose newer factory is left, and has its only coin: enough for that."""
    state, _, newer = scene()
    state = leaving(state, newer)
    lent = block(state, paying(state, SMALL_SAT), facts=RUSHED)
    assert moves(lent) == [("lent", newer.funding_outpoint)]
    assert children(lent) == {newer.funding_outpoint: [SMALL_SAT]}
    return lent.state


def test_a_coin_that_comes_goes_to_what_hurries_most_and_out_with_it_at_once() -> None:
    state, older, newer = scene()
    both = leaving(state, older, newer)
    without = block(both, facts=RUSHED)
    assert moves(without) == []
    assert children(without) == {older.funding_outpoint: [], newer.funding_outpoint: []}
    lent = block(without.state, paying(state, ENOUGH_SAT), facts=RUSHED)
    assert moves(lent) == [("lent", older.funding_outpoint)]
    assert children(lent) == {older.funding_outpoint: [ENOUGH_SAT], newer.funding_outpoint: []}
    assert moves(block(lent.state, facts=RUSHED)) == []


def test_what_has_no_coin_takes_that_of_what_hurries_less_though_it_is_too_small() -> None:
    """Part of a child is more than none. A purse is none that was emptied, or whose coin is gone.

    A reorganisation took that one away: nobody knows whether it comes back.
    """
    state, older, newer = with_a_small_coin(), scene()[1], scene()[2]
    given = [("returned", newer.funding_outpoint), ("lent", older.funding_outpoint)]
    (held,) = state.purses[newer.funding_outpoint].coins
    gone = replace(held, outpoint=OutPoint(txid=Txid(bytes(32)), vout=0))
    script = b"\x51\x20" + bytes(32)
    purses_of_it = (
        state.purses,
        *(
            state.purses.set(older.funding_outpoint, Purse(coins=coins, change_script=script))
            for coins in ((), (gone,))
        ),
    )
    for purses in purses_of_it:
        moved = block(leaving(replace(state, purses=purses), older), facts=RUSHED)
        assert moves(moved) == given
        assert children(moved) == {
            older.funding_outpoint: [SMALL_SAT],
            newer.funding_outpoint: [],
        }


def test_what_has_a_coin_takes_no_other_that_is_too_small_for_it() -> None:
    state, older, newer = with_a_small_coin(), scene()[1], scene()[2]
    lent = block(leaving(state, older), paying(state, LESS_SAT), facts=RUSHED)
    assert moves(lent) == [("lent", older.funding_outpoint)]
    assert moves(block(lent.state, facts=RUSHED)) == []
    assert children(block(lent.state, facts=RUSHED)) == {
        older.funding_outpoint: [LESS_SAT],
        newer.funding_outpoint: [SMALL_SAT],
    }


def test_a_coin_is_free_again_with_the_block_that_has_what_it_was_for() -> None:
    state, newer = with_a_small_coin(), scene()[2]
    assert state.wallet.free(state.chain.height) == ()
    root = newer.signed_branch.txs[0]
    settled = block(state, root, facts=RUSHED)
    assert moves(settled)[0] == ("returned", newer.funding_outpoint)
