"""Places, without a socket: whose connection ends when somebody new comes."""

import pytest

from cromford.adapters.places import (
    HANDSHAKES_BURST_PER_PLACE,
    KNOCKS,
    Limits,
    Place,
    Places,
    Relation,
    subscriber_of,
)


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


def test_a_handshake_ends_the_oldest_of_the_address_that_has_the_most() -> None:
    places = Scene(handshakes_max=3).places
    alone, first, second = (Place(of, end=lambda: None) for of in ("b", "a", "a"))
    for place in (alone, first, second):
        assert places.knock(place) is None
    assert places.knock(Place("c", end=lambda: None)) is first
    assert places.n_pending == 3


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
