"""What somebody may use up: a burst, then a pace."""

from cromford.allowance import Allowance, Allowances, Rate

RATE = Rate(burst=10, per_second=2)


def test_an_allowance_is_used_up_and_fills_again_with_time_and_not_above_its_burst() -> None:
    one = Allowance(RATE, now=0)
    assert one.spend(10, now=0)
    assert not one.spend(1, now=0)
    assert one.spend(1, now=0.5)
    assert one.left(1000) == RATE.burst


def test_a_debt_is_waited_out() -> None:
    one = Allowance(RATE, now=0)
    assert one.wait_seconds(0) == 0
    one.charge(16, now=0)
    assert one.wait_seconds(0) == 3
    assert one.wait_seconds(2) == 1
    assert one.wait_seconds(3) == 0


def test_what_is_given_back_fills_it_and_no_more() -> None:
    one = Allowance(RATE, now=0)
    one.charge(4, now=0)
    one.charge(-100, now=0)
    assert one.left(0) == RATE.burst


def test_of_too_many_users_those_seen_longest_ago_are_forgotten() -> None:
    all_of_them = Allowances(RATE, users_max=2)
    for user in ("a", "b"):
        all_of_them.of(user, now=0).charge(10, now=0)
    all_of_them.of("a", now=0)
    all_of_them.of("c", now=0)
    assert len(all_of_them) == 2
    assert all_of_them.of("a", now=0).left(0) == 0
    assert all_of_them.of("b", now=0).left(0) == RATE.burst
