"""Amounts and numbers have their unit, and one of something is no several."""

import pytest

from cromford import told
from cromford.bitcoin.tx import Txid
from cromford.channel.errors import PeerViolation, UpdateRefused
from cromford.protocol.faults import Refusal
from cromford.protocol.refusing import check_range


@pytest.mark.parametrize(
    ("amount_msat", "words"),
    [(0, "0 sat"), (1, "1 msat"), (1_000, "1 sat"), (1_234_567, "1,234,567 msat")],
)
def test_an_amount_is_told_in_sat_where_it_is_whole(amount_msat: int, words: str) -> None:
    assert told.msat(amount_msat) == words


def test_one_is_told_as_one() -> None:
    assert [told.counted(n, "client") for n in (0, 1, 2_000)] == [
        "0 clients",
        "1 client",
        "2,000 clients",
    ]
    assert told.counted(1, "is", "are") == "1 is"


@pytest.mark.parametrize(
    ("sat_per_kw", "words"),
    [(0, "0 sat/vB"), (1, "0.004 sat/vB"), (250, "1 sat/vB"), (2_500, "10 sat/vB")],
)
def test_a_feerate_is_told_as_people_type_it(sat_per_kw: int, words: str) -> None:
    assert told.feerate(sat_per_kw) == words
    error = Refusal("tree_feerate_sat_per_kw", expected=250_001, received=sat_per_kw)
    assert str(error).endswith(f"expected 1,000.004 sat/vB, received {words}")


def test_both_ends_of_a_range_have_the_unit_of_what_is_outside() -> None:
    with pytest.raises(Refusal) as refused:
        check_range("max_in_flight_msat", (1_000, 5_000), 6_001)
    assert str(refused.value) == "max_in_flight_msat: expected 1 sat..5 sat, received 6,001 msat"


def test_a_range_has_both_of_its_ends() -> None:
    for within in (2, 3, 5):
        check_range("states", (2, 5), within)
    for outside in (1, 6):
        with pytest.raises(Refusal, match=f"^states: expected 2..5, received {outside}$"):
            check_range("states", (2, 5), outside)


@pytest.mark.parametrize("kind", [UpdateRefused, Refusal])
def test_an_error_about_an_amount_tells_its_unit(kind: type[UpdateRefused | Refusal]) -> None:
    error = kind("amount_msat", expected=2_000_000, received=1_999_999)
    assert str(error) == "amount_msat: expected 2,000 sat, received 1,999,999 msat"
    assert str(kind("id", expected=1_000, received=b"\x01")) == "id: expected 1000, received 01"


@pytest.mark.parametrize("kind", [PeerViolation, Refusal])
def test_a_transaction_id_is_told_as_people_read_it(
    kind: type[PeerViolation | Refusal],
) -> None:
    """It is in their node and in every explorer: the bytes on the wire are the other way round."""
    shown = "ab" + "00" * 31
    txid = Txid.from_hex(shown)
    assert str(kind("state_0 v1", expected=txid, received=None)).startswith(
        f"state_0 v1: expected {shown}"
    )
    error = kind("funding_txid", expected=txid, received=bytes(txid))
    assert str(error) == f"funding_txid: expected {shown}, received {shown}"
    of_networks = kind("network", expected=txid, received=bytes(txid))
    assert str(of_networks) == f"network: expected {shown}, received {shown}"
