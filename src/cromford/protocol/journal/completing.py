"""What older versions did not write of a state, made of what they wrote."""

from dataclasses import replace

from cromford.bitcoin.tx import Txid
from cromford.changed import changed
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.entries import DEAD, FUNDED
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.house import House
from cromford.protocol.journal.tally import Tally
from cromford.shelf import Shelf


def completed_client(client: ClientState) -> ClientState:
    """Return a client whose wallet finds its coins by other keys, too, and whose book by number."""
    return replace(client, wallet=client.wallet.completed(), book=_completed_book(client.book))


def completed_factory(factory: Factory) -> Factory:
    """Return a factory whose payments are found by number."""
    return replace(factory, book=_completed_book(factory.book))


def _completed_book(book: Book) -> Book:
    """Return a book with the numbers of its entries; those that they had before are not known."""
    known = {one.number: one.payment_hash for one in book.payments.values()}
    known |= {one.number: one.payment_hash for one in book.invoices.values()}
    return changed(book, numbers=changed(book.numbers, hashes=book.numbers.hashes.update(known)))


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
        sales=_completed_sales(house),
        entries=entries,
        tally=tally,
        wallet=house.wallet.completed(),
        chain=replace(house.chain, spends={}),
        numbers=changed(
            house.numbers,
            hashes=house.numbers.hashes.update(
                {one.number: name for name, one in house.payments.items()}
            ),
        ),
        news=Shelf(news),
    )


def _completed_sales(house: House) -> Shelf[int, tuple[bytes, int]]:
    """Return a house's sales by number: as it has them, or by height where it has no numbers."""
    sold = sorted(
        (sale.height, entry.number, place, entry.attempt_id)
        for entry in house.factories()
        for place, sale in enumerate(entry.sold)
    )
    if len(house.sales) == len(sold):
        return house.sales
    return Shelf(
        {n: (attempt_id, place) for n, (_, _, place, attempt_id) in enumerate(sold, start=1)}
    )
