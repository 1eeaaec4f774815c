"""A house made of what was told it, without a ceremony: entries of factories, letters, blocks."""

from typing import Any, Final

from tests.protocol.frozen_state import LSP

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.changed import changed
from cromford.protocol.journal.entries import FUNDED, FactoryEntry, with_seats
from cromford.protocol.journal.house import House, new_house
from cromford.protocol.journal.house_fold import apply_to_house
from cromford.protocol.journal.mail import AnyMail, Found, Lost
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.streams import CHAIN, factory_stream
from cromford.wallet.account import RECEIVE

ALICE, BOB, CAROL = (b"\2" + bytes([n]) * 32 for n in (1, 2, 3))
EXPIRY: Final = 900


def txid_of(number: int) -> Txid:
    return Txid(number.to_bytes(32, "big"))


def entry(number: int, *node_ids: bytes, **changes: Any) -> FactoryEntry:
    """Return what a house knows of a factory, each of whose channels holds 1,000 sat more."""
    known: dict[str, Any] = {
        "attempt_id": b"attempt %d" % number,
        "number": number,
        "node_ids": node_ids,
        "factory_pubkeys": tuple(b"\3" + node_id[1:] for node_id in node_ids),
        "capacity_sat": tuple(range(10_000, 10_000 + 1_000 * len(node_ids), 1_000)),
        "dying_heights": tuple(range(700, 700 + 10 * len(node_ids), 10)),
        "expiry_height": EXPIRY,
        "funding_amount_sat": 50_000,
        "funding_txid": txid_of(number),
        "coins": (),
        "status": FUNDED,
    }
    return FactoryEntry(**(known | changes))


def house_of(*entries: FactoryEntry, height: int = 99) -> House:
    """Return a house that knows of factories, at a height."""
    house = new_house(LSP)
    for one in entries:
        is_funded = one.status == FUNDED
        tally, of_client = house.tally, house.of_client
        if is_funded:
            tally = tally.funded(
                lent_sat=one.lent_sat, expiry_height=one.expiry_height, height=height
            )
            of_client = with_seats(of_client, one)
        house = changed(
            house,
            entries=house.entries.set(one.attempt_id, one),
            order=house.order.set(one.number, one.attempt_id),
            tally=tally,
            of_client=of_client,
        )
    return with_block(house, height=height)


def told(house: House, content: AnyMail, *, by: str = factory_stream(1), at: int = 0) -> House:
    """Return a house after it took a letter."""
    number = house.post.taken.get(by, 0) + 1
    return apply_to_house(house, MailTaken(sender=by, number=number, mail=content), at)


def with_block(house: House, *txs: Tx, height: int | None = None) -> House:
    """Return a house after the next block, or one that follows a gap."""
    height = house.chain.height + 1 if height is None else height
    found = Found(
        height=height, block_hash=bytes(txid_of(height)), txs=tuple(tx.serialize() for tx in txs)
    )
    return told(house, found, by=CHAIN)


def without_block(house: House, height: int) -> House:
    """Return a house after the blocks from a height on left the chain."""
    return told(house, Lost(height=height), by=CHAIN)


def spend_of(*outpoints: OutPoint, pays: bytes = b"\x51", amount_sat: int = 1_000) -> Tx:
    """Return a transaction that spends outpoints and pays one script."""
    return Tx(
        version=2,
        inputs=tuple(TxIn(outpoint=one, nsequence=0) for one in outpoints),
        outputs=(TxOut(amount_sat=amount_sat, script_pubkey=pays),),
    )


def with_coins(house: House, *amounts_sat: int) -> tuple[House, tuple[OutPoint, ...]]:
    """Return a house whose next block pays its wallet, and the coins."""
    coins: list[OutPoint] = []
    txs = []
    for n, amount_sat in enumerate(amounts_sat):
        stranger = OutPoint(txid=txid_of(10_000 + house.chain.height), vout=n)
        script = house.wallet.next_script(RECEIVE)
        txs.append(spend_of(stranger, pays=script, amount_sat=amount_sat))
        coins.append(OutPoint(txid=txs[-1].txid, vout=0))
    return with_block(house, *txs), tuple(coins)
