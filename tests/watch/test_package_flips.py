"""Flip anything in a package: it is refused by name, or means exactly the same."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.watch.packages import WHICH, encoded, package

from cromford.bitcoin.network import REGTEST
from cromford.watch.package import ExitPackage
from cromford.watch.package_reading import InvalidPackage, read_package

packages = st.builds(
    lambda which, is_leaving: package(*which, is_leaving=is_leaving),
    st.sampled_from(WHICH),
    st.booleans(),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(0, 3),
    st.floats(),
    st.text(max_size=70),
    st.text("0123456789abcdef", max_size=140),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)
)


def check(data: bytes, original: ExitPackage) -> None:
    """Neither another meaning nor another error."""
    refusal = None
    try:
        assert read_package(data, REGTEST) == original
    except InvalidPackage as error:
        refusal = error
    assert refusal is None or (refusal.field and str(refusal).isascii())


@settings(max_examples=400)
@given(original=packages, data=st.data())
def test_a_flipped_byte_is_refused_or_means_the_same(
    original: ExitPackage, data: st.DataObject
) -> None:
    text = bytearray(encoded(original))
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] ^= data.draw(st.integers(1, 255))
    check(bytes(text), original)


@given(original=packages, data=st.data())
def test_bytes_cut_out_or_put_in_are_refused_or_mean_the_same(
    original: ExitPackage, data: st.DataObject
) -> None:
    text = encoded(original)
    first = data.draw(st.integers(0, len(text)))
    last = data.draw(st.integers(first, len(text)))
    check(text[:first] + data.draw(st.binary(max_size=40)) + text[last:], original)


def places_of(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the way to every field of a document, and to every item of its lists."""
    inside: list[tuple[str | int, ...]] = []
    if isinstance(value, dict):
        inside = [place for name in value for place in places_of(value[name], (*path, name))]
    elif isinstance(value, list):
        inside = [place for n, item in enumerate(value) for place in places_of(item, (*path, n))]
    return [path, *inside] if path else inside


@pytest.mark.sampled(0)
@settings(max_examples=300)
@given(original=packages, data=st.data())
def test_a_field_with_another_value_is_refused_or_means_the_same(
    original: ExitPackage, data: st.DataObject
) -> None:
    document = json.loads(encoded(original))
    *above, last = data.draw(st.sampled_from(places_of(document)))
    inside = document
    for name in above:
        inside = inside[name]
    near = st.nothing()
    if isinstance(inside[last], int):
        near = st.integers(-3, 3).map(lambda by: inside[last] + by)
    inside[last] = data.draw(near | values)
    check(json.dumps(document).encode(), original)


@settings(max_examples=200)
@given(first=packages, second=packages, data=st.data())
def test_no_part_of_another_package_is_taken(
    first: ExitPackage, second: ExitPackage, data: st.DataObject
) -> None:
    """Of the same LSP and the same clients, and so with the same keys."""
    mixed, other = json.loads(encoded(first)), json.loads(encoded(second))
    name = data.draw(st.sampled_from(sorted(mixed.keys() & other.keys())))
    if isinstance(mixed[name], dict):
        field = data.draw(st.sampled_from(sorted(mixed[name])))
        mixed[name][field] = other[name][field]
    elif isinstance(mixed[name], list):
        n = data.draw(st.integers(0, min(len(mixed[name]), len(other[name])) - 1))
        mixed[name][n] = other[name][n]
    else:
        mixed[name] = other[name]
    try:
        read = read_package(json.dumps(mixed).encode(), REGTEST)
    except InvalidPackage:
        return
    assert read == first


def test_every_single_byte_of_a_package_counts() -> None:
    """Not by chance: each byte in turn, with its lowest bit flipped."""
    original = package(1, 1, is_leaving=True)
    text = encoded(original)
    for place in range(len(text)):
        flipped = bytearray(text)
        flipped[place] ^= 1
        check(bytes(flipped), original)
