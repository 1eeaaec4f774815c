"""`cromford.Client`: what it asks the daemon, and that it waits no longer than it may."""

from pathlib import Path
from typing import Any

import pytest
from tests.cli.fake_daemon import FakeDaemon

from cromford import Client


def test_what_a_shop_calls_things_reaches_the_daemon(tmp_path: Path) -> None:
    answers: dict[str, Any] = {"invoice": {}, "pay": {}, "payments": {}}
    with FakeDaemon(tmp_path, answers, role="client") as daemon:
        client = Client(tmp_path)
        client.invoice(1_000, label="table 7", external_id="order-12")
        client.pay("lnbcrt1", label="rent")
        client.payments(limit=5, after="p7f-9-1")
    asked = dict(daemon.calls)
    assert (asked["invoice"]["label"], asked["invoice"]["external_id"]) == ("table 7", "order-12")
    assert asked["pay"]["label"] == "rent"
    assert asked["payments"] == {"limit": 5, "after": "p7f-9-1"}


def test_who_follows_asks_for_an_answer_before_it_gives_up(tmp_path: Path) -> None:
    event = {"event": "peer_connected", "cursor": "7f-1"}
    told = {"events": [event], "cursor": "7f-1"}
    with FakeDaemon(tmp_path, {"events": told}, role="client") as daemon:
        for timeout_seconds in (10.0, 120.0):
            events = Client(tmp_path, timeout_seconds=timeout_seconds).events()
            assert next(events) == event
    assert [asked["wait_seconds"] for _, asked in daemon.calls] == [5.0, 30.0]


def test_whoever_pays_is_answered_before_it_gives_up(tmp_path: Path) -> None:
    quote: Any = {"factory_id": "aa", "quote_id": "bb"}
    with FakeDaemon(tmp_path, {"pay": {}, "liquidity_buy": {}}, role="client") as daemon:
        short, usual = Client(tmp_path, timeout_seconds=30.0), Client(tmp_path)
        for client in (short, usual):
            client.pay("lnbcrt1")
            client.buy_liquidity(quote, price_max_msat=1)
        short.pay("lnbcrt1", wait_seconds=29.0)
        for wait_seconds in (30.0, 60.0):
            with pytest.raises(ValueError, match=r"^wait_seconds: expected less than") as caught:
                short.pay("lnbcrt1", wait_seconds=wait_seconds)
            assert str(caught.value).endswith(f"timeout_seconds, 30, received {wait_seconds:g}")
    assert [asked["wait_seconds"] for _, asked in daemon.calls] == [15.0, 15.0, 60.0, 60.0, 29.0]


def test_a_payment_out_of_the_wallet_is_asked_for_by_its_id_and_may_pay_more(
    tmp_path: Path,
) -> None:
    with FakeDaemon(tmp_path, {"wallet_send": {}, "wallet_bump": {}}, role="client") as daemon:
        Client(tmp_path).send("bcrt1q", amount_sat=70_000, external_id="payout-7")
        Client(tmp_path).bump("ab" * 32, feerate_sat_per_vb="20")
    (_, sent), (_, bumped) = daemon.calls
    assert sent["external_id"] == "payout-7"
    assert (bumped["txid"], bumped["feerate_sat_per_vb"]) == ("ab" * 32, "20")
    assert (bumped["from_amount"], bumped["dry_run"]) == (False, False)
