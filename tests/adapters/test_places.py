"""Places, without a socket: whose connection ends when somebody new comes."""

import pytest

from cromford.adapters import places
from cromford.adapters.places import (
    CONNECTIONS_MAX,
    HANDSHAKES_BURST_PER_PLACE,
    IDLE_SECONDS,
    KNOCKS,
    STRANGERS_MAX,
    Limits,
    Place,
    Places,
    Relation,
    subscriber_of,
)
from cromford.factory.terms import N_CLIENTS_MAX
from cromford.open_files import OWN_FILES, TooFewFiles


class Scene:
    """Places, and what each peer is to us."""

    def __init__(self, **limits: int) -> None:
        self.relation: dict[bytes, Relation] = {}
        self.places = Places(
            Limits(**limits), lambda node_id: self.relation.get(node_id, Relation.STRANGER)
        )

    def enter(self, name: str, subscriber: str = "a") -> Place | None:
        place = Place(subscriber, end=lambda: None)
        self.places.knock(place)
        evicted, refusal = self.places.enter(place, name.encode(), now=0)
        assert not refusal
        return evicted


@pytest.mark.parametrize(
    ("host", "subscriber"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a socket file", "a socket file"),
    ],
)
def test_a_subscriber_is_one_ipv4_address_or_one_ipv6_network_of_64_bits(
    host: str, subscriber: str
) -> None:
    assert subscriber_of(host) == subscriber


def test_who_waits_in_the_lobby_is_evicted_after_who_wants_nothing() -> None:
    scene = Scene(strangers_max=2, per_address_max=2)
    scene.relation[b"waits"] = Relation.WAITING
    scene.enter("waits")
    scene.enter("idle")
    evicted = scene.enter("new")
    assert evicted is not None
    assert evicted.node_id == b"idle"


def test_lobby_places_taken_by_those_who_wait_go_to_newcomers_the_oldest_first() -> None:
    scene = Scene(strangers_max=2, per_address_max=2)
    for name in ("first", "second"):
        scene.relation[name.encode()] = Relation.WAITING
        scene.enter(name)
    evicted = scene.enter("new")
    assert evicted is not None
    assert evicted.node_id == b"first"


def test_a_stranger_that_got_a_channel_no_longer_takes_a_strangers_place() -> None:
    scene = Scene(strangers_max=1)
    scene.enter("alice")
    scene.relation[b"alice"] = Relation.OWNER
    assert scene.enter("new") is None
    assert scene.places.n_entered == 2


def test_places_of_those_whose_channels_are_over_go_to_who_has_one() -> None:
    """They stay connected for months; one that was in a build that failed had never a channel."""
    scene = Scene(connections_max=2, strangers_max=1)
    for name in ("left", "closed", "owner"):
        scene.relation[name.encode()] = Relation.OWNER
    scene.enter("left")
    scene.enter("closed")
    scene.relation[b"left"] = scene.relation[b"closed"] = Relation.STRANGER
    evicted = scene.enter("owner")
    assert evicted is not None
    assert evicted.node_id == b"left"
    assert scene.places.n_entered == 2


def test_strangers_that_had_a_channel_take_strangers_places() -> None:
    scene = Scene(strangers_max=2, per_address_max=2)
    for name in ("left", "closed"):
        scene.relation[name.encode()] = Relation.OWNER
        scene.enter(name)
        scene.relation[name.encode()] = Relation.STRANGER
    scene.places.idle(now=1)
    evicted = scene.enter("new")
    assert evicted is not None
    assert evicted.node_id == b"left"


def test_those_who_came_with_a_channel_are_asked_for_it_by_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places, "FORMER_OWNERS_AT_ONCE", 2)
    scene = Scene(strangers_max=5, per_address_max=1)
    names = [f"owner {n}" for n in range(5)]
    for name in names:
        scene.relation[name.encode()] = Relation.OWNER
        scene.enter(name)
    scene.relation[b"owner 4"] = Relation.STRANGER
    for n_passes in range(3):
        scene.places.idle(now=1 + n_passes)
    evicted = scene.enter("new")
    assert evicted is not None
    assert evicted.node_id == b"owner 4"


def test_who_had_a_channel_and_is_silent_makes_room_like_any_stranger() -> None:
    scene = Scene()
    for name in ("left", "owner"):
        scene.relation[name.encode()] = Relation.OWNER
        scene.enter(name)
    scene.relation[b"left"] = Relation.STRANGER
    assert scene.places.idle(now=1) == ()
    found = scene.places.idle(now=2 + IDLE_SECONDS)
    assert [place.node_id for place in found] == [b"left"]


def test_a_handshake_ends_the_oldest_of_the_address_that_has_the_most() -> None:
    places = Scene(handshakes_max=3).places
    alone, first, second = (Place(of, end=lambda: None) for of in ("b", "a", "a"))
    for place in (alone, first, second):
        assert places.knock(place) is None
    assert places.knock(Place("c", end=lambda: None)) is first
    assert places.n_pending == 3


def test_limits_follow_from_the_largest_factory() -> None:
    """All of its clients wait as strangers; as many who have channels come in beside them."""
    usual = Limits()
    assert usual.strangers_max == N_CLIENTS_MAX
    assert usual.connections_max - usual.strangers_max == N_CLIENTS_MAX
    assert usual.handshakes_max == N_CLIENTS_MAX
    assert KNOCKS.burst == usual.connections_max
    assert usual.n_files > usual.connections_max + usual.handshakes_max


def test_a_whole_factory_comes_in_though_strangers_have_taken_all_that_they_can() -> None:
    scene = Scene()
    for number in range(2 * STRANGERS_MAX):
        scene.enter(f"stranger {number}", f"address {number}")
    assert scene.places.n_entered == STRANGERS_MAX
    names = [f"client {number}" for number in range(N_CLIENTS_MAX)]
    scene.relation |= dict.fromkeys((name.encode() for name in names), Relation.OWNER)
    for name in names:
        assert scene.enter(name, "one address for all") is None
    assert scene.places.n_entered == CONNECTIONS_MAX
    scene.relation[b"one more"] = Relation.OWNER
    evicted = scene.enter("one more")
    assert evicted is not None
    assert evicted.node_id.startswith(b"stranger"), "an owner is let in as long as one is here"


def test_fewer_files_are_fewer_places_of_every_kind() -> None:
    usual = Limits()
    assert usual.within(usual.n_files) is usual
    fewer = usual.within(1_024)
    assert fewer.n_files <= 1_024
    assert fewer.connections_max == fewer.strangers_max * 2 == fewer.handshakes_max * 2 == 512
    assert fewer.per_address_max == usual.per_address_max
    least = usual.within(OWN_FILES + 3)
    assert (least.connections_max, least.strangers_max, least.handshakes_max) == (2, 1, 1)


def test_so_few_files_that_nobody_could_come_in_are_an_error_that_says_how_many() -> None:
    usual = Limits()
    with pytest.raises(TooFewFiles) as refused:
        usual.within(OWN_FILES)
    assert (refused.value.needed, refused.value.available) == (usual.n_files, OWN_FILES)
    assert str(refused.value) == f"open files: expected at least {usual.n_files}, received 256"


def test_each_address_has_handshakes_of_its_own() -> None:
    places = Scene(per_address_max=1).places
    for _ in range(HANDSHAKES_BURST_PER_PLACE):
        assert places.may_knock("a", now=0)
    assert not places.may_knock("a", now=0)
    assert places.may_knock("b", now=0)


def test_a_flood_from_many_addresses_does_not_close_the_door_to_an_owners_address() -> None:
    scene = Scene()
    scene.relation[b"alice"] = Relation.OWNER
    scene.enter("alice", "home")
    for number in range(int(KNOCKS.burst)):
        assert scene.places.may_knock(f"address {number}", now=0)
    assert not scene.places.may_knock("one more", now=0)
    assert scene.places.may_knock("home", now=0)
    assert scene.places.may_knock("one more", now=1)
