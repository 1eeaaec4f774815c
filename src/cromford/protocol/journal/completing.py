"""What older versions did not write of a state, made of what they wrote."""

from dataclasses import replace

from cromford.bitcoin.tx import Txid
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.entries import DEAD, FUNDED
from cromford.protocol.journal.house import House
from cromford.protocol.journal.tally import Tally
from cromford.shelf import Shelf


def completed_client(client: ClientState) -> ClientState:
    """Return a client whose wallet finds its coins by other keys, too."""
    return replace(client, wallet=client.wallet.completed())


def completed_house(house: House) -> House:
    """Return a house that an older version wrote with what it did not write beside its factories.

    It has all of them in memory.
    """
    tally, height, entries = Tally(), house.chain.height, house.entries
    own = {
        number: pubkey
        for pubkey, number in house.keys.walk()
        if pubkey not in house.entry_of(number).factory_pubkeys
    }
    for entry in house.factories():
        entries = entries.set(
            entry.attempt_id, replace(entry, own_pubkey=own.get(entry.number, b""))
        )
        lent_sat = entry.lent_sat
        if entry.status in {FUNDED, DEAD}:
            tally = tally.funded(
                lent_sat=lent_sat, expiry_height=entry.expiry_height, height=height
            )
        if entry.status == DEAD:
            tally = tally.died(
                entry.attempt_id,
                lent_sat=lent_sat,
                expiry_height=entry.expiry_height,
                height=height,
            )
    news: dict[int, tuple[Txid, ...]] = {}
    for txid, confirmed_height in house.chain.confirmed.walk():
        news[confirmed_height] = (*news.get(confirmed_height, ()), txid)
    return replace(
        house,
        entries=entries,
        tally=tally,
        wallet=house.wallet.completed(),
        chain=replace(house.chain, spends={}),
        news=Shelf(news),
    )
