"""The house lends its coins to factories whose transactions pay too little by themselves."""

from cromford.bitcoin.fees import P2TR_INPUT_WEIGHT, fee_sat_of
from cromford.bitcoin.tx import vsize_of
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.house import House
from cromford.protocol.journal.purses import N_COINS_MAX, change_script_of, least_of_use_sat
from cromford.protocol.turn import Turn
from cromford.watch.feerates import SWEEP_BLOCKS


def lend(turn: Turn[House]) -> None:
    """Set free coins aside for whoever asked; what is too little is made up once there are more.

    What hurries most has the first choice of what coins there are.
    """
    asked = turn.state.coins_wanted
    if not asked:
        return
    feerate = turn.facts.fees.within(SWEEP_BLOCKS)
    input_sat = fee_sat_of(vsize=vsize_of(P2TR_INPUT_WEIGHT), feerate_sat_per_kw=feerate)
    least_sat = min(input_sat + 1, *(wanted.needed_sat for wanted in asked.values()))
    free = turn.state.wallet.free(turn.height)
    for outpoint in sorted(asked, key=lambda one: (-asked[one].feerate_sat_per_kw, one)):
        if not free or free[0].txout.amount_sat < least_sat:
            return  # The largest is of no use to anybody, as for hundreds when all leave at once.
        house = turn.state
        wanted, purse = house.coins_wanted[outpoint], house.purses.get(outpoint)
        if purse is not None and purse.amount_sat >= wanted.needed_sat:
            continue  # It was asked for less, since.
        coins = house.wallet.purse_coins(
            wanted.needed_sat,
            free=free,
            held_sat=0 if purse is None else purse.amount_sat,
            n_most=N_COINS_MAX,
            input_sat=input_sat,
            above_sat=0 if purse is None else least_of_use_sat(purse.coins),
        )
        if coins:
            turn.remember(
                xr.CoinsLent(
                    outpoint=outpoint.serialize(),
                    coins=tuple(coin.outpoint.serialize() for coin in coins),
                    change_script=change_script_of(house.wallet, house.purses, outpoint),
                    to=wanted.stream,
                )
            )
            free = turn.state.wallet.free(turn.height)
