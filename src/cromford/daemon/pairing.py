"""Seed and journal belong together: each alone is worth little, and a wrong pair nothing.

A journal holds signatures that go with the keys of one seed. Its first record names that seed, and
here, before anything else is read, the two are compared. It is a stream of its own, which no
checkpoint ever takes the place of.

What a crash may leave: no seed and a journal without a record (the first start again); a seed and
a journal without a record (it is begun, as after a restore from words). Never a record without its
seed: the seed is durable first.
"""

import logging
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from cromford.adapters.sqlite import JOURNAL_NAME, Journal
from cromford.bitcoin.network import NETWORKS, Network
from cromford.bitcoin.tx import Txid
from cromford.daemon.seed_file import SEED_FILE, has_seed, leads_nowhere, load_or_create_seed
from cromford.ports import Entry, Store
from cromford.protocol.journal.records import Created, decode_record, encode_record
from cromford.protocol.journal.streams import CREATION
from cromford.signing.keychain import FactoryKey, Keychain, seed_fingerprint

JOURNAL_NUMBER_BITS: Final = 31

_log = logging.getLogger(__name__)


class ForeignJournal(Exception):
    """The journal belongs to another role, network or seed. Nothing was written."""


class ForeignSeed(ForeignJournal):
    """The journal belongs to another seed."""


class SeedMissing(ForeignJournal):
    """The journal's seed is not beside it. No other may take its place."""


class SeedUnnamed(ForeignJournal):
    """The journal was made before journals named their seed, so none can be told to be its own."""


def _network_of(created: Created) -> str:
    """Return the name of a journal's network, or its genesis block where that is none of ours."""
    named = {network.genesis_hash: name for name, network in NETWORKS.items()}
    return named.get(Txid(created.network), created.network.hex())


def creation_of(store: Store, *, role: str, network: Network) -> Created | None:
    """Return a journal's first record, or None while it has none.

    Raises:
        ForeignJournal: If the journal belongs to another role or network.
        SeedUnnamed: If it does not say to which seed it belongs.
        UnknownRecord: If the record cannot be read.
        StoreFailed: If the journal cannot.
    """
    for data in store.replay(CREATION):
        first = decode_record(data)
        if not isinstance(first, Created):
            raise ForeignJournal("the journal does not begin with its creation")
        if (first.role, first.network) != (role, network.genesis_hash):
            raise ForeignJournal(
                f"expected the journal of a {role} on {network.name}, found one of a {first.role} "
                f"on {_network_of(first)}"
            )
        if not first.seed_fingerprint:
            raise SeedUnnamed(
                "the journal was made by an earlier version and does not name its seed"
            )
        return first
    if store.newest:
        raise ForeignJournal("the journal does not begin with its creation")
    return None


def creation_in(home: Path, *, role: str, network: Network) -> Created | None:
    """Return the first record of the journal in a directory, or None if there is no record.

    No daemon may run there, and none starts meanwhile.

    Raises:
        ForeignJournal: As `creation_of`.
        UnknownRecord: As `creation_of`.
        StoreInUse: If a daemon runs there.
        StoreFailed: If the journal cannot be read.
    """
    if not (home / JOURNAL_NAME).exists():
        return None
    with Journal(home) as store:
        return creation_of(store, role=role, network=network)


def check_pair(created: Created | None, fingerprint: bytes) -> None:
    """Check that a journal belongs to the seed of this fingerprint; one without a record may.

    Raises:
        ForeignSeed: Naming both fingerprints.
    """
    if created is not None and created.seed_fingerprint != fingerprint:
        raise ForeignSeed(
            f"the journal belongs to the seed {created.seed_fingerprint.hex()}, and the seed "
            f"beside it is {fingerprint.hex()}"
        )


def open_journal(
    store: Store,
    *,
    role: str,
    network: Network,
    fingerprint: bytes,
    draw_number: Callable[[], int],
) -> int:
    """Return the journal's number; an empty journal is given one and says whose it is.

    Args:
        store: The journal.
        role: `lsp` or `client`.
        network: The network.
        fingerprint: Of the seed.
        draw_number: Draws a random number below 2^31.

    Raises:
        ForeignJournal: If the journal belongs to another role, network or seed.
        StoreFailed: If it cannot be read or written.
    """
    created = creation_of(store, role=role, network=network)
    if created is None:
        created = Created(
            role=role,
            network=network.genesis_hash,
            journal_number=draw_number(),
            seed_fingerprint=fingerprint,
        )
        store.append([Entry(CREATION, encode_record(created))])
    check_pair(created, fingerprint)
    return created.journal_number


def open_keychain(
    store: Store, home: Path, *, role: str, network: Network, passphrase: str | None
) -> Keychain:
    """Return the keys of a daemon; the first start makes a seed and begins the journal.

    Args:
        store: The journal in `home`, held.
        home: The daemon's directory.
        role: `lsp` or `client`.
        network: The network.
        passphrase: Of the seed file, or None.

    Raises:
        ForeignJournal: If journal and seed do not belong together, or to this role and network.
        BadSeed: If the seed file cannot be read.
        OSError: If it cannot be read or written.
        StoreFailed: If the journal cannot.
    """
    created = creation_of(store, role=role, network=network)
    had_seed = has_seed(home)
    if leads_nowhere(home):
        raise SeedMissing(f"{home / SEED_FILE} is a link that leads nowhere: is its disk mounted?")
    if created is not None and not had_seed:
        raise SeedMissing(
            f"the journal belongs to the seed {created.seed_fingerprint.hex()}, and "
            f"{home / SEED_FILE} is not there"
        )
    seed = load_or_create_seed(home, passphrase)
    fingerprint = seed_fingerprint(seed, network)
    number = open_journal(
        store,
        role=role,
        network=network,
        fingerprint=fingerprint,
        draw_number=lambda: secrets.randbits(JOURNAL_NUMBER_BITS),
    )
    if created is None and had_seed:
        # Wanted after a restore, and a loss to whoever mistyped a directory: so it is said.
        _log.warning(
            "journal_begun seed=%s reason=%s",
            fingerprint.hex(),
            "this seed had no journal here. Factories of another one cannot be left with this",
        )
    elif created is None:
        _log.info("seed_made seed=%s file=%s", fingerprint.hex(), home / SEED_FILE)
    return Keychain(seed, network, journal_number=number)


def check_factory_keys(keychain: Keychain, remembered: Iterable[tuple[int, bytes]]) -> None:
    """Check that the seed derives the factory keys that a journal remembers.

    Args:
        keychain: The seed's keys.
        remembered: For each attempt its number in the key's path, and the pubkey.

    Raises:
        ForeignSeed: Naming the first key that it does not derive.
    """
    for attempt, pubkey in remembered:
        derived = keychain.pubkey(FactoryKey(attempt=attempt))
        if derived != pubkey:
            raise ForeignSeed(
                f"factory key {attempt}: the journal has {pubkey.hex()}, the seed derives "
                f"{derived.hex()}"
            )
