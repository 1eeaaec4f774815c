"""What a stream folds to, as plain data that a person can read and another version can say too.

It tells amounts, statuses, heights and counts, by names that are on the wire or on the chain; of
how a state is made, nothing.
"""

from collections.abc import Mapping
from typing import Any

from cromford.protocol.channels.balances import balance_of
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.house import House
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mail import Post
from cromford.protocol.journal.scan import Scan
from cromford.wallet.coins import Wallet

Document = dict[str, Any]


def digest_of(value: Any) -> Document:
    """Return what the value of a stream says."""
    match value:
        case House():
            return _house(value)
        case Scan():
            return _scan(value)
        case Factory():
            return _factory(value)
        case ClientState():
            return _client(value)
        case _:
            raise AssertionError(f"{type(value).__name__} is no stream's value")


def _house(house: House) -> Document:
    return {
        "height": house.chain.height,
        "wallet": _wallet(house.wallet),
        "next_attempt": house.next_attempt,
        "entries": {
            str(entry.number): {
                "attempt_id": entry.attempt_id.hex(),
                "status": entry.status,
                "node_ids": [node_id.hex() for node_id in entry.node_ids],
                "capacity_sat": list(entry.capacity_sat),
                "expiry_height": entry.expiry_height,
                "funding_amount_sat": entry.funding_amount_sat,
                "funding_txid": str(entry.funding_txid),
                "is_given_up": entry.replacement is not None,
            }
            for entry in house.factories()
        },
        "seats": {key.hex(): list(of) for key, of in sorted(house.of_client.items())},
        "n_keys": len(house.keys),
        "payments": {
            payment_hash.hex(): {
                "number": one.number,
                "status": one.status,
                "payee": one.asked.payee.hex(),
                "amount_msat": one.asked.amount_msat,
                "to": one.to,
            }
            for payment_hash, one in sorted(house.payments.items())
        },
        "aborts": {key.hex(): list(of) for key, of in sorted(house.aborts.items())},
        "faults": {key.hex(): list(of) for key, of in sorted(house.faults.items())},
        "uptime_blocks": {
            key.hex(): house.uptime_blocks(key) for key in sorted({*house.uptime, *house.present})
        },
        "last_seen": {key.hex(): height for key, height in sorted(house.last_seen.items())},
        "mail": _mail(house.post),
    }


def _scan(scan: Scan) -> Document:
    return {
        "height": scan.height,
        "recorded_height": scan.recorded_height,
        "tip": scan.recent[-1].block_hash.hex(),
        "watched": {stream: len(of) for stream, of in sorted(scan.watched.items())},
        "told": {str(height): list(streams) for height, streams in sorted(scan.told.items())},
        "mail": _mail(scan.post),
    }


def _factory(factory: Factory) -> Document:
    attempt = factory.attempt
    return {
        "attempt_id": attempt.attempt_id.hex(),
        "stage": attempt.stage.label,
        "aborted": attempt.aborted,
        "expiry_height": attempt.terms.expiry_height,
        "funding_txid": str(attempt.funding_tx.txid),
        "coins_sat": [coin.txout.amount_sat for coin in factory.coins],
        "ready": []
        if attempt.funded is None
        else sorted(node_id.hex() for node_id in attempt.funded.ready_received),
        "is_dead": factory.is_dead,
        "exits": sorted(factory.exits),
        "n_intents": len(factory.intents),
        "chain": _chain(factory.chain),
        "n_watched": len(factory.watch),
        "is_watched": factory.is_watched,
        "book": _book(factory.book),
        "mail": _mail(factory.post),
    }


def _client(state: ClientState) -> Document:
    return {
        "height": state.chain.height,
        "tip": state.chain.recent[-1].block_hash.hex(),
        "chain": _chain(state.chain),
        "wallet": _wallet(state.wallet),
        "next_attempt": state.next_attempt,
        "attempts": {
            attempt_id.hex(): {
                "key_attempt": attempt.key_attempt,
                "stage": type(attempt.stage).__name__,
                "aborted": attempt.aborted,
                "is_ready": attempt.ready_sent and attempt.ready_received,
                "is_exiting": attempt.is_exiting,
                "is_given_up": attempt.given_up,
            }
            for attempt_id, attempt in sorted(state.attempts.items())
        },
        "n_intents": len(state.intents),
        "book": _book(state.book),
    }


def _book(book: Book) -> Document:
    return {
        "channels": {link.channel_id.hex(): _channel(link) for link in book.ordered_links},
        "payments": {
            payment_hash.hex(): {
                "status": one.status,
                "payee": one.payee.hex(),
                "amount_msat": one.amount_msat,
                "fee_msat": one.fee_msat,
                "preimage": _hex(one.preimage),
                "failure": _hex(one.failure),
                "asker": one.asker,
            }
            for payment_hash, one in sorted(book.payments.items())
        },
        "invoices": {
            payment_hash.hex(): {
                "status": one.status,
                "amount_msat": one.amount_msat,
                "paid_msat": one.paid_msat,
            }
            for payment_hash, one in sorted(book.invoices.items())
        },
        "arrived": _keys(book.arrived),
        "held": {f"{key[0].hex()}:{key[1]}": one.reason for key, one in sorted(book.held.items())},
        "released": _keys(book.released),
        "resolved": _keys(book.resolved),
        "owned": _keys(book.owners),
        "forwards": {
            f"{key[0].hex()}:{key[1]}": [one.status, one.to, one.amount_msat]
            for key, one in sorted(book.forwards.items())
        },
        "finished": [
            [one.payment_hash.hex(), one.status, one.to, one.amount_msat, one.fee_msat]
            for _, one in sorted(book.finished.items())
        ],
        "n_finished": book.n_finished,
        "earned_msat": book.earned_msat,
    }


def _channel(link: Link) -> Document:
    balance, state = balance_of(link), link.state
    return {
        "client": link.client,
        "attempt_id": link.attempt_id.hex(),
        "own_msat": balance.own_msat,
        "peer_msat": balance.peer_msat,
        "sending_msat": balance.sending_msat,
        "receiving_msat": balance.receiving_msat,
        "htlcs": [
            [live.htlc.htlc_id, live.stage.name, live.htlc.amount_msat, live.htlc.cltv_expiry]
            for live in state.htlcs
        ],
        "commitments": [state.own_signed, state.own_revoked, state.peer_signed, state.peer_revoked],
        "latest_txid": str(link.finished.tx.txid),
        "failure": link.failure,
        "failed_height": link.failed_height,
        "is_behind": link.is_behind,
    }


def _wallet(wallet: Wallet) -> Document:
    return {
        "confirmed_sat": wallet.confirmed_sat(),
        "coins": {
            f"{coin.outpoint.txid}:{coin.outpoint.vout}": [
                coin.txout.amount_sat,
                coin.height,
                coin.spent_height,
            ]
            for coin in sorted(wallet.coins.values(), key=lambda one: (one.height, one.outpoint))
        },
        "n_reserved": len(wallet.reserved),
        "payments": sorted(str(txid) for txid in wallet.payments),
        "ended_payments": {
            str(txid): height for txid, (height, _) in sorted(wallet.ended_payments.items())
        },
        "next": [wallet.next_receive, wallet.next_change],
    }


def _chain(chain: KnownChain) -> Document:
    return {
        "confirmed": {
            str(txid): height
            for txid, height in sorted(chain.confirmed.items(), key=lambda one: (one[1], one[0]))
        },
        "n_spends": len(chain.spends),
        "refused": {str(txid): list(kinds) for txid, kinds in sorted(chain.refused.items())},
    }


def _mail(post: Post) -> Document:
    return {"sent": dict(sorted(post.n_sent.items())), "taken": dict(sorted(post.taken.items()))}


def _keys(of: Mapping[tuple[bytes, int], object]) -> list[str]:
    return [f"{channel_id.hex()}:{htlc_id}" for channel_id, htlc_id in sorted(of)]


def _hex(data: bytes | None) -> str | None:
    return None if data is None else data.hex()
