"""What fails is made small: only what the failure needs is left of its mixture."""

from dataclasses import replace

from tests.simulation.fates import Act, Fates, Fault, Hazard
from tests.simulation.mixture import Mixture, drawn, faults_of
from tests.simulation.running import Played
from tests.simulation.shrinking import Shrinking

NEEDED = {Fault("crashes", 3), Fault("payments", 1)}
MIXTURE = replace(
    drawn(0),
    n_clients=4,
    n_rounds=9,
    hazards=frozenset({Hazard.CRASHES, Hazard.CUTS, Hazard.MUTES}),
    acts=frozenset({Act.PAYMENTS, Act.SALES}),
)


def pretended(mixture: Mixture) -> Played:
    """Play a world that fails where two faults happen in its first five rounds."""
    struck = [
        Fault(kind, number)
        for kind in mixture.features
        for number in range(mixture.rounds)
        if Fault(kind, number) not in mixture.spared
    ]
    is_good = not (set(struck) >= NEEDED and mixture.rounds >= 5 and mixture.n_clients >= 2)
    return Played(
        mixture=mixture,
        told="",
        is_good=is_good,
        cause="two faults",
        struck=tuple(map(str, struck)),
    )


def test_a_failure_is_shrunk_to_the_faults_rounds_and_clients_that_it_needs() -> None:
    smallest = Shrinking(pretended(MIXTURE), play=pretended).shrink()
    assert not smallest.is_good
    assert set(faults_of(",".join(smallest.struck))) == NEEDED
    assert smallest.mixture.features == ["crashes", "payments"]
    assert (smallest.mixture.rounds, smallest.mixture.n_clients) == (5, 2)


def test_another_failure_is_not_taken_for_a_smaller_one() -> None:
    def other(mixture: Mixture) -> Played:
        found = pretended(mixture)
        return found if mixture == MIXTURE else replace(found, is_good=False, cause="something")

    assert Shrinking(pretended(MIXTURE), play=other).shrink().mixture == MIXTURE


def test_without_one_hazard_the_dice_of_the_others_fall_as_before() -> None:
    both = Fates(5, frozenset({Hazard.CRASHES, Hazard.CUTS}))
    alone = Fates(5, frozenset({Hazard.CUTS}))
    strikes = []
    for _ in range(500):
        both.strikes(Hazard.CRASHES)
        strikes.append(both.strikes(Hazard.CUTS))
    assert strikes == [alone.strikes(Hazard.CUTS) for _ in range(500)]
    assert any(strikes)


def test_a_spared_fault_does_not_happen_and_the_others_do() -> None:
    all_of_them = Fates(5, frozenset({Hazard.CUTS}))
    spared = Fates(5, frozenset({Hazard.CUTS}), spared=frozenset({Fault("cuts", 1)}))
    for fates in (all_of_them, spared):
        for _ in range(500):
            fates.strikes(Hazard.CUTS)
    assert set(all_of_them.struck) - set(spared.struck) == {Fault("cuts", 1)}


def test_the_line_that_replays_a_mixture_says_what_was_taken_away() -> None:
    mixture = replace(
        drawn(3), without=frozenset({"cuts"}), until=2, spared=frozenset({Fault("crashes", 4)})
    )
    assert mixture.replay == (
        "python -m tests.simulation --seed 3 --without cuts --until 2 --spare crashes:4"
    )
    assert set(faults_of("crashes:4,payments:7")) == {Fault("crashes", 4), Fault("payments", 7)}
