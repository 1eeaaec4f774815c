"""The house lends its coins to factories whose transactions pay too little by themselves."""

from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.house import House
from cromford.protocol.journal.purses import N_COINS_MAX, change_script_of
from cromford.protocol.turn import Turn


def lend(turn: Turn[House]) -> None:
    """Set free coins aside for whoever asked; what is too little is made up once there are more."""
    for outpoint in sorted(turn.state.coins_wanted):
        house = turn.state
        wanted, purse = house.coins_wanted[outpoint], house.purses.get(outpoint)
        coins = house.wallet.purse_coins(
            wanted.needed_sat,
            held_sat=0 if purse is None else purse.amount_sat,
            n_most=N_COINS_MAX - (0 if purse is None else len(purse.coins)),
            tip_height=turn.height,
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
