"""What an LSP adds up as it goes is what a look at each factory would say."""

from cromford.daemon.views.lsp import capital, is_locking, locked_in
from cromford.protocol.journal.entries import DEAD, FUNDED, FactoryEntry
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.sleep import Resting
from cromford.wallet.coins import Wallet


def check_sums(state: LspState, *, before: LspState | None = None) -> None:
    """Fail if a sum is not that of its parts.

    Args:
        state: What is looked at.
        before: What was found good; a wallet that is still the same is as good as it was.
    """
    house, wallet = state.house, state.house.wallet
    entries = list(house.factories())
    standing = [entry for entry in entries if house.is_standing(entry)]
    assert house.lent_sat() == sum(lent_sat(entry) for entry in standing)
    for entry in entries:
        for client, node_id in enumerate(entry.node_ids, start=1):
            has_seat = entry.status in {FUNDED, DEAD} and client not in entry.closed
            assert (entry.number in house.of_client.get(node_id, ())) == has_seat
    assert house.tally.n_funded == sum(entry.status in {FUNDED, DEAD} for entry in entries)
    locking = [entry for entry in entries if is_locking(state, entry)]
    assert capital(state, locking)["locked_sat"] == locked_sat(state)
    resting = Resting()
    for number in state.asleep:
        resting = resting.with_one(state.asleep[number])
    assert state.resting == resting
    confirmed = {txid: height for height, txids in house.news.walk() for txid in txids}
    assert confirmed == house.chain.confirmed
    if before is None or wallet is not before.house.wallet:
        check_wallet(wallet)


def locked_sat(state: LspState) -> int:
    """Return how much of the LSP's coins factories hold, as its numbers add it up."""
    return state.resting.locked_sat + sum(map(locked_in, state.all_factories()))


def lent_sat(entry: FactoryEntry) -> int:
    """Return what is lent in a factory: in channels neither closed together nor settled."""
    channels, over = enumerate(entry.capacity_sat, start=1), entry.closed | entry.settled
    return sum(capacity_sat for client, capacity_sat in channels if client not in over)


def check_wallet(wallet: Wallet) -> None:
    """Fail if what a wallet finds quickly is not what a look at each coin would find."""
    coins = dict(wallet.coins.walk())
    unspent = {outpoint: coin for outpoint, coin in coins.items() if coin.spent_height is None}
    assert dict(wallet.unspent) == unspent
    heights = [(height, one) for height, of in wallet.touched.walk() for one in of]
    assert sorted(set(heights)) == sorted(
        {
            (height, outpoint)
            for outpoint, coin in coins.items()
            for height in (coin.height, coin.spent_height)
            if height is not None
        }
    )
    for outpoint, owner in wallet.reserved.walk():
        assert outpoint in wallet.reserved_for[owner]
