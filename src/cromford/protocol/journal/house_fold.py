"""What records, and letters of others, make of an LSP's house."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Final, TypeVar, assert_never

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.changed import changed
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import mail
from cromford.protocol.journal import records as r
from cromford.protocol.journal import spending_records as sr
from cromford.protocol.journal import sweep_records as sw
from cromford.protocol.journal.bumps import unsettled, with_bump, without_bump
from cromford.protocol.journal.dead_coins import with_dead_coins
from cromford.protocol.journal.encoding import decoded
from cromford.protocol.journal.entries import (
    ABORTED,
    DEAD,
    FUNDED,
    FactoryEntry,
    HousePayment,
    ordered_entry,
    with_seats,
    without_seats,
)
from cromford.protocol.journal.gathered import Member, build_of, called_build
from cromford.protocol.journal.house import House
from cromford.protocol.journal.joint_sweeps import with_joint_sweep
from cromford.protocol.journal.mail import Letter
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.market_records import PriceSet
from cromford.protocol.journal.marking import after_restore
from cromford.protocol.journal.pause import (
    BAN_BLOCKS,
    FAULTS_TO_BAN,
    FORGET_EVERY_BLOCKS,
    JOINS_TO_PAUSE,
    PAUSE_BLOCKS,
    still_banned,
    still_counting,
    with_aborts,
    with_ban,
)
from cromford.protocol.journal.purses import CoinsWanted, with_lent, without
from cromford.protocol.journal.record import Kinds
from cromford.protocol.journal.spent import with_spending_record
from cromford.shelf import Shelf, key_bytes
from cromford.wallet.account import CHANGE
from cromford.wire import messages as m

V = TypeVar("V")

HouseRecord = (
    r.Created
    | r.Started
    | r.StoreRecord
    | r.PeerConnected
    | r.PeerDisconnected
    | r.BroadcastRefusalSeen
    | sr.SpendingRecord
    | lr.HouseRecord
    | PriceSet
    | xr.PurseRecord
    | MailTaken
    | sw.JointSweepRecord
)
_HOUSE_RECORDS: Final[Kinds[HouseRecord]] = Kinds(HouseRecord)


def apply_to_house(house: House, record: r.AnyRecord, at: int = 0) -> House:
    """Return the house after remembering one thing, at a time in unix seconds; 0 if unknown."""
    if not _HOUSE_RECORDS.have(record):
        raise AssertionError(f"{type(record).__name__} is no record of the house")
    after = _applied(house, record, at)
    return after if _has_same_here(house, after) else changed(after, is_stirred=True)


def _has_same_here(before: House, after: House) -> bool:
    """Say whether nothing changed by which it is told who is here, of those for whom it matters."""
    return (
        after.connected is before.connected
        and after.members is before.members
        and after.of_client is before.of_client
        and after.under_way == before.under_way
    )


def _applied(house: House, record: HouseRecord, at: int) -> House:
    if isinstance(record, sr.SpendingRecord):
        return replace(house, wallet=with_spending_record(house.wallet, record))
    match record:
        case r.Created():
            return house
        case r.StoreRestored() | r.MarkLifted() | r.KeysSkipped():
            return after_restore(house, record, at)
        case r.Started():
            return replace(
                house.durable.with_seen(house.present),
                build=None,
                present=frozenset(),
                last_seen=_seen_now(house, house.present),
            )
        case r.PeerConnected(node_id=node_id):
            return _with_connection(house, node_id, house.connected | {node_id})
        case r.PeerDisconnected(node_id=node_id):
            return _with_connection(house, node_id, house.connected - {node_id})
        case r.BroadcastRefusalSeen(txid=txid, reason=reason):
            return replace(house, chain=house.chain.with_refusal(Txid(txid), reason))
        case lr.ClientJoined():
            return _with_member(house, record)
        case lr.ClientLeft(node_id=node_id):
            return replace(house, members=_without(house.members, node_id))
        case lr.BuildStarted() | lr.RebuildAwaited() | lr.BuildDropped():
            return _with_build(house, record)
        case lr.RejoinMissed(node_ids=node_ids):
            return _with_spoilt(house, node_ids)
        case lr.FactoryOrdered():
            return _with_order(house, record)
        case lr.Attendance():
            return _with_attendance(house, record)
        case lr.BanSet():
            return replace(house, bans=with_ban(house.bans, record, house.chain.height))
        case lr.BanLifted(node_id=node_id):
            return _forgiven(house, node_id)
        case lr.PaymentExpected():
            return replace(house, expected=house.expected.with_payment(record))
        case lr.PaymentOrdered():
            return _with_payment(house, record, at)
        case lr.PaymentWithdrawn(payment_hash=payment_hash, reason=reason):
            withdrawn = replace(house, post=house.post.without_payment(payment_hash))
            refused = mail.PayAnswered(payment_hash=payment_hash, refused=reason)
            return _with_answer(withdrawn, refused, at)
        case lr.FundingAbandoned() | lr.FundingReplaced() | lr.FundingBumped():
            return _with_other_funding(house, record)
        case lr.LadderWanted(candidates=candidates):
            return replace(house, ladder_wanted=candidates)
        case PriceSet():
            return replace(house, market=house.market.with_price(record))
        case sw.JointSweepWasSigned() | sw.JointSweepParted():
            return replace(house, joint_sweeps=with_joint_sweep(house.joint_sweeps, record))
        case MailTaken(sender=sender, number=number, mail=content):
            taken = changed(house, post=house.post.with_taken(sender, number))
            return _with_mail(taken, sender, content, at)
        case xr.CoinsLent():
            return _with_lent(house, record)
        case _:
            assert_never(record)


def _with_payment(house: House, record: lr.PaymentOrdered, at: int) -> House:
    asked, number = record.asked, house.n_payments + 1
    payment = HousePayment(
        asked=asked, to=record.to, number=number, created_at=at, label=record.label
    )
    known = house.payments.get(asked.payment_hash)
    before = None if known is None else known.number
    ordered = replace(
        house,
        payments=house.payments.set(asked.payment_hash, payment),
        n_payments=number,
        numbers=house.numbers.with_one(number, asked.payment_hash, before=before),
    )
    return _telling(ordered, record.to, asked)


def _with_answer(house: House, answered: mail.PayAnswered, at: int) -> House:
    payment = replace(
        house.payments[answered.payment_hash],
        preimage=answered.preimage,
        failure=answered.failure,
        refused=answered.refused,
        settled_at=at,
    )
    expected = house.expected
    if payment.preimage is not None:
        expected = expected.without_payment(payment.asked.payee, answered.payment_hash)
    payments = house.payments.set(answered.payment_hash, payment)
    return replace(house, payments=payments, expected=expected)


def _with_mail(house: House, sender: str, content: mail.AnyMail, at: int) -> House:
    match content:
        case mail.Found():
            return _with_block(house, content)
        case mail.Lost(height=height):
            gone = dict(house.news.walk(key_bytes(height)))
            chain = house.chain.without(height, [txid for txids in gone.values() for txid in txids])
            return replace(
                house,
                chain=chain,
                news=reduce(Shelf.delete, gone, house.news),
                wallet=with_dead_coins(house.wallet.without_block(height), house.dead_entries()),
                tally=house.tally.at(height=chain.height, before=house.chain.height),
            )
        case mail.CeremonyEnded(aborted=None):
            return _with_funded(house, content)
        case mail.CeremonyEnded():
            return _with_aborted(house, content)
        case mail.FactoryDied(attempt_id=attempt_id):
            entry = house.entries[attempt_id]
            died = house.tally.died(
                attempt_id,
                lent_sat=entry.lent_sat if entry.status == FUNDED else 0,
                expiry_height=entry.expiry_height,
                height=house.chain.height,
            )
            bumps, wallet = without_bump(house.bumps, house.wallet, attempt_id)
            known = replace(entry, displaced_by=house.confirmed_funding(entry))
            named = replace(house, entries=house.entries.set(attempt_id, known))
            return replace(
                _with_status(named, attempt_id, DEAD),
                tally=died,
                bumps=bumps,
                wallet=wallet.released(attempt_id),
                given_up=house.given_up - {attempt_id},
            )
        case mail.PayAnswered():
            return _with_answer(house, content, at)
        case mail.AnnouncedPaid(node_id=node_id, payment_hash=payment_hash):
            return replace(house, expected=house.expected.without_payment(node_id, payment_hash))
        case mail.SeatLeft(attempt_id=attempt_id, client=client):
            entry = house.entries[attempt_id]
            known = replace(entry, moved_out=entry.moved_out | {client})
            return replace(house, entries=house.entries.set(attempt_id, known))
        case mail.ChannelsClosed():
            return _with_closed(house, content)
        case mail.ChannelSettled(attempt_id=attempt_id):
            return _with_freed(house, house.entries[attempt_id].with_settled(content))
        case mail.SaleBooked():
            return _with_sale(house, content, at)
        case mail.CoinsRequested(outpoint=outpoint):
            wanted = CoinsWanted(
                stream=sender,
                needed_sat=content.needed_sat,
                feerate_sat_per_kw=content.feerate_sat_per_kw,
            )
            asked = house.coins_wanted.set(OutPoint.parse(outpoint), wanted)
            return replace(house, coins_wanted=asked)
        case mail.CoinsGivenBack(outpoint=outpoint):
            settled = OutPoint.parse(outpoint)
            return replace(
                house,
                wallet=house.wallet.released(outpoint),
                purses=without(house.purses, settled),
                coins_wanted=without(house.coins_wanted, settled),
            )
        case _:
            raise AssertionError(f"{type(content).__name__} is no mail for the house")


def _with_lent(house: House, record: xr.CoinsLent) -> House:
    outpoint = OutPoint.parse(record.outpoint)
    wallet, purses = with_lent(house.wallet, house.purses, record)
    coins = purses[outpoint].coins[-len(record.coins) :]
    wanted = house.coins_wanted.get(outpoint)
    asked = house.coins_wanted
    if wanted is not None and purses[outpoint].amount_sat >= wanted.needed_sat:
        asked = asked.delete(outpoint)
    lent = mail.CoinsSent(
        outpoint=record.outpoint,
        outpoints=record.coins,
        coins=tuple(mail.coin_of(coin) for coin in coins),
        change_script=record.change_script,
    )
    return _telling(
        replace(house, wallet=wallet, purses=purses, coins_wanted=asked), record.to, lent
    )


def _telling(house: House, receiver: str, content: mail.AnyMail) -> House:
    return replace(house, post=house.post.with_sent((Letter(receiver, content),)))


def _with_connection(house: House, node_id: bytes, connected_now: frozenset[bytes]) -> House:
    return replace(
        house,
        connected=connected_now,
        members=_without(house.members, node_id),
    )


def _seen_now(house: House, node_ids: Iterable[bytes]) -> Shelf[bytes, int]:
    # Of those who have a channel: strangers may come and go without a trace.
    seen = {node_id: house.chain.height for node_id in node_ids if node_id in house.of_client}
    return house.last_seen.update(seen)


def _with_member(house: House, record: lr.ClientJoined) -> House:
    node_id = record.node_id
    member = Member(
        node_id=node_id, join=decoded(record.message, m.Join), is_moving=record.is_moving
    )
    heights = (*house.joins.get(node_id, ()), house.chain.height)[-JOINS_TO_PAUSE:]
    return replace(
        house,
        members={**house.members, node_id: member},
        joins={**house.joins, node_id: heights},
        n_new_joins=house.n_new_joins + (node_id not in house.of_client),
    )


def _with_block(house: House, found: mail.Found) -> House:
    wallet, txs = house.wallet, [Tx.parse(data) for data in found.txs]
    for tx in txs:
        wallet = wallet.with_tx(tx, found.height)
    block = BlockRef(height=found.height, block_hash=Txid(found.block_hash))
    height = found.height
    chain = house.chain.with_block(block, txs)
    after = changed(
        house,
        n_blocks=house.n_blocks + 1,
        is_stirred=False,  # Who is here was noted just before.
        tally=house.tally.at(height=height, before=house.chain.height),
        chain=changed(chain, spends={}),
        bumps=unsettled(house.bumps, chain),
        news=house.news.set(height, tuple(tx.txid for tx in txs)) if txs else house.news,
        wallet=with_dead_coins(wallet, house.dead_entries()) if txs else wallet,
        n_new_joins=0,
        faults=still_counting(house.faults, height - BAN_BLOCKS),
        aborts=still_counting(house.aborts, height - PAUSE_BLOCKS),
        called_back=still_counting(house.called_back, height - PAUSE_BLOCKS),
        joins=still_counting(house.joins, height - PAUSE_BLOCKS),
        expected=house.expected.at_height(height),
        bans=still_banned(house.bans, height),
    )
    if after.n_blocks % FORGET_EVERY_BLOCKS == 0:
        after = after.without_long_away()
    return _without_overtaken(after) if txs and after.bumps else after


def _forgiven(house: House, node_id: bytes) -> House:
    """Return the house without anything that closes the lobby to a node."""
    return replace(
        house,
        bans=_without(house.bans, node_id),
        faults=_without(house.faults, node_id),
        aborts=_without(house.aborts, node_id),
        joins=_without(house.joins, node_id),
    )


def _with_attendance(house: House, record: lr.Attendance) -> House:
    present = (house.present | set(record.came)) - set(record.went)
    house = house.with_seen((*record.came, *record.went))
    return replace(house, present=present, last_seen=_seen_now(house, record.went))


def _with_build(
    house: House, record: lr.BuildStarted | lr.RebuildAwaited | lr.BuildDropped
) -> House:
    if isinstance(record, lr.BuildDropped):
        return replace(house, build=None, build_dropped=record.reason, hindered_by=record.code)
    build = build_of(record)
    if isinstance(record, lr.RebuildAwaited):
        return replace(house, build=build)
    return replace(
        house,
        build=build,
        build_dropped=None,
        hindered_by="",
        next_attempt=record.attempt + 1,
    )


def _with_order(house: House, record: lr.FactoryOrdered) -> House:
    entry = ordered_entry(record)
    keys = (entry.own_pubkey, *entry.factory_pubkeys)
    wallet = house.wallet.with_address_used(CHANGE).with_reserved(entry.coins, entry.attempt_id)
    build, called = house.build, house.called
    if build is not None and build.external_id:
        called = called.set(build.external_id, called_build(build, entry.attempt_id))
    ordered = replace(
        house,
        called=called,
        entries=house.entries.set(entry.attempt_id, entry),
        order=house.order.set(entry.number, entry.attempt_id),
        keys=house.keys.update(dict.fromkeys(keys, entry.number)),
        under_way=entry.attempt_id,
        wallet=wallet,
        members={k: v for k, v in house.members.items() if k not in entry.node_ids},
    )
    return _telling(ordered, entry.stream, record.order)


def _with_status(house: House, attempt_id: bytes, status: str) -> House:
    entry = replace(house.entries[attempt_id], status=status)
    under_way = None if house.under_way == attempt_id else house.under_way
    return replace(house, entries=house.entries.set(attempt_id, entry), under_way=under_way)


def _with_funded(house: House, ended: mail.CeremonyEnded) -> House:
    entry = house.entries[ended.attempt_id]
    funded = _with_status(house, entry.attempt_id, FUNDED)
    tally = house.tally.funded(
        lent_sat=entry.lent_sat,
        expiry_height=entry.expiry_height,
        height=house.chain.height,
    )
    of_client = with_seats(house.of_client, entry)
    return replace(funded, build=None, of_client=of_client, tally=tally)


def _with_closed(house: House, closed: mail.ChannelsClosed) -> House:
    """Return the house without what was lent in these channels, nor a seat in them."""
    entry = house.entries[closed.attempt_id].with_closed(closed)
    of_client = without_seats(house.of_client, entry, closed.clients)
    return _with_freed(replace(house, of_client=of_client), entry)


def _with_freed(house: House, entry: FactoryEntry) -> House:
    """Return the house with an entry in which less is lent than before."""
    before = house.entries[entry.attempt_id]
    freed_sat = before.lent_sat - entry.lent_sat if entry.status == FUNDED else 0
    tally = house.tally.freed(
        lent_sat=freed_sat, expiry_height=entry.expiry_height, height=house.chain.height
    )
    return replace(house, entries=house.entries.set(entry.attempt_id, entry), tally=tally)


def _with_sale(house: House, sold: mail.SaleBooked, at: int) -> House:
    """Return the house after a client's channel grew: we lend more in the same factory."""
    before, height = house.entries[sold.attempt_id], house.chain.height
    entry = before.with_sale(sold, at)
    grown_sat = entry.lent_sat - before.lent_sat if entry.status == FUNDED else 0
    market = house.market.with_sale(sold)
    return replace(
        house,
        sales=house.sales.set(market.n_sold, (entry.attempt_id, len(before.sold))),
        entries=house.entries.set(entry.attempt_id, entry),
        tally=house.tally.grown(grown_sat, expiry_height=entry.expiry_height, height=height),
        market=market,
    )


def _with_aborted(house: House, ended: mail.CeremonyEnded) -> House:
    faults, joins, n_new_joins = dict(house.faults), dict(house.joins), house.n_new_joins
    node_ids = house.entries[ended.attempt_id].node_ids
    innocent = [node_id for node_id in node_ids if node_id not in ended.culprits]
    for node_id in innocent:
        # The others have to join again for no fault of theirs, so that join does not count.
        if joins.get(node_id):
            joins[node_id] = joins[node_id][:-1]
            n_new_joins -= node_id not in house.of_client
    for culprit in ended.culprits if ended.is_fault else ():
        faults[culprit] = (*faults.get(culprit, ()), house.chain.height)[-FAULTS_TO_BAN:]
    return replace(
        _with_status(_with_spoilt(house, ended.culprits), ended.attempt_id, ABORTED),
        wallet=house.wallet.released(ended.attempt_id),
        faults=faults,
        joins=joins,
        n_new_joins=n_new_joins,
        called_back=with_aborts(house.called_back, innocent, house.chain.height),
    )


def _with_spoilt(house: House, node_ids: Sequence[bytes]) -> House:
    """Return the house after somebody kept a ceremony from going on: the next ranks it last."""
    aborts = with_aborts(house.aborts, node_ids, house.chain.height)
    return replace(
        house,
        aborts=aborts,
        uptime={**house.uptime, **dict.fromkeys(node_ids, 0)},
        uptime_at={**house.uptime_at, **dict.fromkeys(node_ids, house.n_blocks)},
    )


def _with_other_funding(
    house: House, record: lr.FundingAbandoned | lr.FundingReplaced | lr.FundingBumped
) -> House:
    match record:
        case lr.FundingAbandoned():
            return _with_replacement(house, record)
        case lr.FundingReplaced():
            return _with_raised(house, record)
        case lr.FundingBumped():
            bumps, wallet = with_bump(house.bumps, house.wallet, record)
            return replace(house, bumps=bumps, wallet=wallet)
        case _:
            assert_never(record)


def _with_replacement(house: House, record: lr.FundingAbandoned) -> House:
    """Return the house with what is to spend a coin of a funding, in the place of any before it."""
    entry, tx = house.entries[record.attempt_id], Tx.parse(record.tx)
    bumps, wallet = without_bump(house.bumps, house.wallet, entry.attempt_id)
    if entry.replacement is not None:
        wallet = wallet.without_payment(entry.replacement.txid)
    # Reserved without a gap: a crash may come before the payment is signed.
    wallet = wallet.with_reserved([tx_in.outpoint for tx_in in tx.inputs], entry.attempt_id)
    given_up = replace(
        house,
        entries=house.entries.set(entry.attempt_id, replace(entry, replacement=tx)),
        given_up=house.given_up | {entry.attempt_id},
        bumps=bumps,
        wallet=wallet.with_address_used(CHANGE),
    )
    told = mail.FundingGivenUp(attempt_id=entry.attempt_id, tx=record.tx)
    return _telling(given_up, entry.stream, told)


def _with_raised(house: House, record: lr.FundingReplaced) -> House:
    """Return the house with another candidate published: a child of the one before ends."""
    bumps, wallet = without_bump(house.bumps, house.wallet, record.attempt_id)
    entry = replace(house.entries[record.attempt_id], published=record.rung)
    raised = replace(
        house, entries=house.entries.set(entry.attempt_id, entry), bumps=bumps, wallet=wallet
    )
    told = mail.FundingRaised(attempt_id=entry.attempt_id, rung=record.rung)
    return _telling(raised, entry.stream, told)


def _without_overtaken(house: House) -> House:
    """Return the house without children of candidates beside which another is in a block."""
    for attempt_id, bump in house.bumps.items():
        entry, txid = house.entries[attempt_id], bump.funding.txid
        if not house.chain.depth(txid) and house.is_confirmed(entry):
            bumps, wallet = without_bump(house.bumps, house.wallet, attempt_id)
            house = replace(house, bumps=bumps, wallet=wallet)
    return house


def _without(of: Mapping[bytes, V], node_id: bytes) -> Mapping[bytes, V]:
    return {key: value for key, value in of.items() if key != node_id}
