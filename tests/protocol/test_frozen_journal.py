"""A journal that was written once folds for ever to what it said, from records and checkpoints.

The journals are data: `tests/vectors/journal-v2` and `journal-v2-shelved`. What they say stands
beside them, readable.
"""

import hashlib
from functools import cache
from typing import Any, Final

import pytest
from tests.protocol.exits import POLICY
from tests.protocol.frozen_journal import SHELVED, folded, parts_of, read
from tests.protocol.journal_digest import digest_of
from tests.simulation.sim_node import LENIENT, all_awake

from cromford import effects as fx
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import Txid
from cromford.channel.terms import Party
from cromford.daemon.clientd import CLIENT_ROLE
from cromford.daemon.driver import Driver, Role
from cromford.daemon.lspd import LSP_ROLE
from cromford.daemon.pairing import creation_of
from cromford.protocol import events as ev
from cromford.protocol.client import new_client
from cromford.protocol.journal.client_state import ClientConfig
from cromford.protocol.journal.lsp_state import LspConfig, LspState, new_lsp
from cromford.protocol.journal.revoked import NUMBER_SIZE, decode_content
from cromford.protocol.journal.streams import CLIENT, factory_number
from cromford.signing.keychain import Keychain, seed_fingerprint
from cromford.wallet.account import Account

NAMES: Final = {"lsp": "lsp", "client": "client 0"}  # Their seeds are made of these.
ROLES: Final[dict[str, Role[Any]]] = {"lsp": LSP_ROLE, "client": CLIENT_ROLE}
JOURNALS: Final = {
    **{role: read(role) for role in NAMES},
    **{f"{role} shelved": read(role, SHELVED) for role in NAMES},
}
each_role = pytest.mark.parametrize("role", JOURNALS)
each_stream = pytest.mark.parametrize(
    ("role", "stream"),
    [(role, stream) for role, frozen in JOURNALS.items() for stream in frozen.digest],
)
with_and_without = pytest.mark.parametrize("with_checkpoints", [False, True])


def role_of(journal: str) -> str:
    return journal.partition(" ")[0]


def seed_of(role: str) -> bytes:
    return hashlib.sha256(NAMES[role].encode()).digest()


def keychain_of(role: str) -> Keychain:
    return Keychain(seed_of(role), REGTEST, journal_number=0)


@cache
def beginning(role: str) -> Any:
    """Return a role's state before its first record."""
    keychain = keychain_of(role)
    account = Account(keychain.wallet_account)
    if role == "lsp":
        config = LspConfig(
            network=REGTEST, node_id=keychain.node_id, policy=POLICY, account=account
        )
        return new_lsp(config)
    return new_client(
        ClientConfig(
            network=REGTEST,
            node_id=keychain.node_id,
            lsp_node_id=keychain_of("lsp").node_id,
            policy=LENIENT,
            account=account,
        )
    )


def driver_of(
    journal: str, *, with_checkpoints: bool, asked: list[fx.Effect] | None = None
) -> Driver[Any]:
    """Return a driver that goes on from a frozen journal, and performs nothing."""

    def note(effect: fx.Performed) -> tuple[()]:
        if asked is not None:
            asked.append(effect)
        return ()

    store = JOURNALS[journal].store(with_checkpoints=with_checkpoints)
    role = role_of(journal)
    return Driver(ROLES[role], beginning(role), store, note)


def said(journal: str, state: Any) -> dict[str, Any]:
    """Return what every stream of a state says."""
    state = all_awake(state) if isinstance(state, LspState) else state
    parts = parts_of(role_of(journal))
    return {stream: digest_of(parts.value(state, stream)) for stream in JOURNALS[journal].digest}


@each_stream
def test_each_stream_alone_folds_to_what_it_said(role: str, stream: str) -> None:
    frozen = JOURNALS[role]
    name = role_of(role)
    value = folded(name, beginning(name), stream, frozen, goes_on=False)
    assert digest_of(value) == frozen.digest[stream]


@each_stream
def test_each_stream_goes_on_from_its_checkpoint_to_the_same(role: str, stream: str) -> None:
    frozen = JOURNALS[role]
    name = role_of(role)
    value = folded(name, beginning(name), stream, frozen, goes_on=True)
    assert digest_of(value) == frozen.digest[stream]


@with_and_without
@each_role
def test_a_driver_finds_all_of_it_again(role: str, with_checkpoints: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    driver = driver_of(role, with_checkpoints=with_checkpoints)
    assert said(role, driver.state) == JOURNALS[role].digest


def test_a_factory_that_slept_then_sleeps_now_and_says_of_itself_what_it_said() -> None:
    """Its label lies beside its checkpoint; no record followed."""
    frozen = JOURNALS["lsp"]
    state: LspState = driver_of("lsp", with_checkpoints=True).state
    assert set(state.asleep) == {2}
    asleep, book = state.asleep[2], frozen.digest["factory:2"]["book"]
    (channel,) = book["channels"].values()
    assert (asleep.status, asleep.wake_height) == ("live", 4924)
    assert (asleep.earned_msat, asleep.n_finished) == (book["earned_msat"], book["n_finished"])
    assert asleep.totals["own_msat"] == channel["own_msat"]
    assert dict(asleep.taken) == frozen.digest["factory:2"]["mail"]["taken"]


@with_and_without
@each_role
def test_a_role_goes_on_from_it(role: str, with_checkpoints: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """It starts, is visited, and sees a block: nothing of it was misread so that it cannot."""
    asked: list[fx.Effect] = []
    driver = driver_of(role, with_checkpoints=with_checkpoints, asked=asked)
    n_before = driver._store.newest
    driver.start()
    frozen = JOURNALS["lsp"].digest["house"]
    peers = [*frozen["seats"]] if role_of(role) == "lsp" else [keychain_of("lsp").node_id.hex()]
    for peer in peers:
        driver.handle(ev.ConnectionOpened(node_id=bytes.fromhex(peer)))
    height = frozen["height"] + 1
    driver.handle(ev.BlockAdded(height=height, block_hash=Txid(b"\x01" * 32), txs=()))
    assert driver.state.chain.height == height
    assert driver._store.newest > n_before
    for stream, digest in said(role, driver.state).items():
        if stream == CLIENT or factory_number(stream) is not None:
            assert digest["book"] == JOURNALS[role].digest[stream]["book"]
    if isinstance(driver.state, LspState):
        assert not driver.state.stopped
        assert any(isinstance(effect, fx.Send) for effect in asked), "the clients are greeted"
        assert any(isinstance(effect, fx.SetDeadline) for effect in asked), "of what is held"


@each_role
def test_what_is_written_beside_it_next_is_read_again(role: str) -> None:
    """What this version adds to a checkpoint of an older one is due to be written at once.

    The records that it stands for may be gone: nothing could take its place.
    """
    store = JOURNALS[role].store(with_checkpoints=True)
    for _ in range(2):
        driver: Driver[Any] = Driver(ROLES[role_of(role)], beginning(role_of(role)), store, nothing)
        assert said(role, driver.state) == JOURNALS[role].digest
        for name in driver.open_streams:
            driver.keep(driver.begin_checkpoint(name)())
        assert said(role, driver.state) == JOURNALS[role].digest


def nothing(_effect: fx.Performed) -> tuple[()]:
    return ()


@each_role
def test_what_was_archived_is_read(role: str) -> None:
    """One entry for each commitment of the peer's that was revoked, found by channel and number."""
    frozen = JOURNALS[role]
    channels: dict[str, Any] = {}
    for digest in frozen.digest.values():
        channels.update(digest.get("book", {}).get("channels", {}))
    holder = Party.ACCEPTER if role_of(role) == "lsp" else Party.OPENER
    seen: dict[str, set[int]] = {}
    for (_, key), value in frozen.archive.items():
        channel_id = key[:-NUMBER_SIZE].hex()
        number = int.from_bytes(key[-NUMBER_SIZE:], "big")
        content = decode_content(value, key[:-NUMBER_SIZE], number, lambda _key: None)
        htlcs_msat = sum(htlc.amount_msat for htlc in content.htlcs)
        assert content.holder is holder
        assert content.opener_msat + content.accepter_msat + htlcs_msat == 100_000_000
        seen.setdefault(channel_id, set()).add(number)
    assert seen == {
        channel_id: set(range(channel["commitments"][3]))
        for channel_id, channel in channels.items()
    }


@each_role
def test_a_journal_says_whose_it_is(role: str) -> None:
    store = JOURNALS[role].store(with_checkpoints=True)
    created = creation_of(store, role=role_of(role), network=REGTEST)
    assert created is not None
    assert created.seed_fingerprint == seed_fingerprint(seed_of(role_of(role)), REGTEST)


def test_the_life_has_all_that_it_is_frozen_for() -> None:
    digest = JOURNALS["lsp"].digest
    house, first, second = (digest[name] for name in ("house", "factory:1", "factory:2"))
    statuses = [entry["status"] for entry in house["entries"].values()]
    assert statuses == ["aborted", "funded", "funded"]
    assert {one["status"] for one in house["payments"].values()} == {"paid", "failed"}
    inside = [one for one in first["book"]["finished"] if one[2] == "factory:1"]
    between = [one for one in first["book"]["finished"] if one[2] == "factory:2"]
    assert {one[1] for one in inside} == {"paid", "failed"}
    assert {one[1] for one in between} == {"paid"}
    assert len(first["book"]["held"]) == 1
    assert len(house["wallet"]["ended_payments"]) == 1
    assert len(first["chain"]["confirmed"]) > len(second["chain"]["confirmed"]) == 1
    (left,) = JOURNALS["client"].digest["client"]["wallet"]["coins"].values()
    assert left[2] is None, "what the client left with"
