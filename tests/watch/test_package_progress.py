"""What is published of a package, and when: from the unspent outputs of the path alone."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.watch.packages import WHICH, as_told, package
from tests.watch.signed_factory import signed_branches

from cromford.bitcoin.block import Coin
from cromford.bitcoin.tx import OutPoint, Tx, TxOut
from cromford.watch.exit import ChannelOnChain, Publish, WaitForHeight, next_exit_action
from cromford.watch.package import ExitPackage, ReplacedState
from cromford.watch.package_progress import (
    AwaitDeadline,
    AwaitDelay,
    NothingFound,
    PackageAction,
    PathOnChain,
    PathPlace,
    PublishNow,
    TakeApart,
    is_due,
    next_package_action,
    place_of,
    poisons_due,
    remaining_at,
)

TIP = 1_000


@dataclass
class Ledger:
    """A chain as a node without an index shows it: unspent outputs, each with its height."""

    package: ExitPackage
    tip_height: int = TIP
    unspent: dict[OutPoint, tuple[int, TxOut]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.unspent[self.package.funding_outpoint] = (self.tip_height, self.package.funding_txout)

    def mine(self, *txs: Tx) -> None:
        self.tip_height += 1
        for tx in txs:
            height, _ = self.unspent.pop(tx.inputs[0].outpoint)
            nsequence = tx.inputs[0].nsequence
            if not nsequence & 1 << 31:  # BIP 68
                assert self.tip_height - height >= nsequence
            for vout, output in enumerate(tx.outputs):
                self.unspent[tx.outpoint(vout)] = (self.tip_height, output)

    @property
    def place(self) -> PathPlace | None:
        coins = {
            outpoint: Coin(
                outpoint=outpoint, txout=output, confirmations=self.tip_height - height + 1
            )
            for outpoint, (height, output) in self.unspent.items()
        }
        return place_of(self.package, coins, tip_height=self.tip_height)

    def is_due(self, highest_height: int = 0) -> bool:
        return is_due(
            self.package, self.place, tip_height=self.tip_height, highest_height=highest_height
        )

    def action(self, *, is_begun: bool = True) -> PackageAction:
        return next_package_action(
            self.package, self.place, tip_height=self.tip_height, is_begun=is_begun
        )


@pytest.mark.parametrize("which", WHICH)
def test_once_begun_it_goes_out_as_the_clients_own_exit_does(which: tuple[int, int]) -> None:
    """Block by block, and in the end the same channel."""
    ledger = Ledger(package(*which))
    signed = signed_branches(which[0])[which[1] - 1]
    confirmed = {ledger.package.funding_outpoint.txid: TIP}
    while True:
        own = next_exit_action(signed, confirmed=confirmed, tip_height=ledger.tip_height)
        action = ledger.action()
        match own:
            case Publish():
                assert action == PublishNow(step=as_told(own.step))
                ledger.mine(own.step.tx)
                confirmed[own.step.tx.txid] = ledger.tip_height
            case WaitForHeight():
                assert action == AwaitDelay(step=as_told(own.step), height=own.height)
                ledger.mine()
            case ChannelOnChain():
                assert action == PathOnChain(height=own.height, is_channel_spent=False)
                assert own.outpoint == ledger.package.channel_outpoint
                return
            case _:
                raise AssertionError(own)


@pytest.mark.parametrize("which", WHICH)
def test_it_begins_at_the_exit_deadline_and_not_a_block_before(which: tuple[int, int]) -> None:
    made = package(*which)
    deadline = signed_branches(which[0])[which[1] - 1].branch.exit_deadline_height
    ledger = Ledger(made)
    ledger.tip_height = deadline - 1
    assert not ledger.is_due()
    assert ledger.action(is_begun=False) == AwaitDeadline(step=made.steps[0], height=deadline)
    assert ledger.action() == PublishNow(step=made.steps[0])
    assert ledger.is_due(deadline)  # The highest block that is known to exist tells the time.
    ledger.mine()
    assert ledger.is_due()
    ledger.unspent.clear()
    assert not ledger.is_due()


def test_who_leaves_by_a_part_of_the_path_takes_nobody_along() -> None:
    """A kickoff's state has to follow, whoever published the kickoff; the next kickoff has not."""
    made = package(5, 3)
    names = [step.name for step in made.steps]
    assert names[:3] == ["kickoff_root", "state_root", "kickoff_0"]
    ledger = Ledger(made)
    whole = remaining_at(made, ledger.place, tip_height=TIP)
    ledger.mine(made.txs[0])
    wait = ledger.action(is_begun=False)
    delay = made.steps[1].delay_blocks
    # In a block, and not yet six deep: it still has its six blocks, and the state all its delay.
    assert remaining_at(made, ledger.place, tip_height=TIP + 1) == whole
    assert remaining_at(made, None, tip_height=TIP) == whole, "whatever is on chain, or is not"
    assert wait == AwaitDelay(step=made.steps[1], height=TIP + 1 + delay)
    for _ in range(delay - 1):
        ledger.mine()
    assert ledger.action(is_begun=False) == PublishNow(step=made.steps[1])
    ledger.mine(made.txs[1])
    for _ in range(6):
        ledger.mine()
    # Less is left to do, so the deadline is later.
    left = remaining_at(made, ledger.place, tip_height=ledger.tip_height)
    assert left.exit_deadline_height is not None
    assert whole.exit_deadline_height is not None
    assert left.exit_deadline_height == whole.exit_deadline_height + 12 + delay
    assert not ledger.is_due()
    expected = AwaitDeadline(step=made.steps[2], height=left.exit_deadline_height)
    assert ledger.action(is_begun=False) == expected
    assert ledger.action(is_begun=True) == PublishNow(step=made.steps[2])


def test_an_exit_that_was_started_is_ended_with_the_commitment_at_once() -> None:
    made = package(2, 1, is_leaving=True)
    ledger = Ledger(made)
    assert made.commitment is not None
    for step in made.steps:
        assert ledger.is_due()
        while not isinstance(action := ledger.action(), PublishNow):
            assert isinstance(action, AwaitDelay)
            ledger.mine()
        assert action.step == step
        ledger.mine(step.tx)
    assert made.steps[-1].tx == made.commitment
    assert not ledger.is_due()
    end = PathPlace(n_confirmed=len(made.steps), height=ledger.tip_height, is_channel_spent=True)
    assert ledger.place == end
    assert ledger.action() == PathOnChain(height=ledger.tip_height, is_channel_spent=True)


@pytest.mark.parametrize("which", [(1, 1), (2, 1), (4, 3)])
def test_a_channel_that_was_spent_is_told_from_a_path_that_was_cut_off(
    which: tuple[int, int],
) -> None:
    ledger = Ledger(package(*which))
    for step in ledger.package.steps:
        for _ in range(step.delay_blocks):
            ledger.mine()
        ledger.mine(step.tx)
    height = ledger.tip_height
    assert ledger.action() == PathOnChain(height=height, is_channel_spent=False)
    del ledger.unspent[ledger.package.channel_outpoint]
    assert ledger.action() == PathOnChain(height=height, is_channel_spent=True)
    ledger.unspent.clear()
    assert ledger.action() == NothingFound()


@pytest.mark.parametrize("is_begun", [False, True])
def test_without_an_unspent_output_there_is_nothing_to_publish(*, is_begun: bool) -> None:
    ledger = Ledger(package(2, 1))
    ledger.unspent.clear()
    assert ledger.place is None
    assert ledger.action(is_begun=is_begun) == NothingFound()


@given(
    which=st.sampled_from(WHICH),
    n_confirmed=st.integers(0, 8),
    is_begun=st.booleans(),
    passed=st.integers(0, 20_000),
    is_leaving=st.booleans(),
)
def test_nothing_is_published_before_its_time_wherever_the_path_is(
    *, which: tuple[int, int], n_confirmed: int, is_begun: bool, passed: int, is_leaving: bool
) -> None:
    """And never something whose parent is not on chain."""
    made = package(*which, is_leaving=is_leaving)
    place = PathPlace(n_confirmed=min(n_confirmed, len(made.txs)), height=TIP)
    action = next_package_action(made, place, tip_height=TIP + passed, is_begun=is_begun)
    if not isinstance(action, PublishNow):
        return
    assert action.step == made.steps[place.n_confirmed]
    tx = action.step.tx
    assert tx.inputs[0].outpoint == made.path_outpoints[place.n_confirmed]
    nsequence = tx.inputs[0].nsequence
    delay = 0 if nsequence & 1 << 31 else nsequence
    assert TIP + passed + 1 >= TIP + max(delay, 1)


@given(which=st.sampled_from(WHICH), data=st.data())
def test_begun_at_the_deadline_it_ends_a_day_before_the_expiry(
    which: tuple[int, int], data: st.DataObject
) -> None:
    """If each transaction confirms within its six blocks, and one more for the commitment."""
    made = package(*which)
    ledger = Ledger(made)
    deadline = remaining_at(made, ledger.place, tip_height=TIP).exit_deadline_height
    assert deadline is not None
    height = deadline
    for step in made.steps:
        height += max(step.delay_blocks, 1) - 1 + data.draw(st.integers(1, 6))
    assert height + 6 <= made.expiry_height - 144


def coin_at(outpoint: OutPoint) -> Coin:
    return Coin(
        outpoint=outpoint, txout=TxOut(amount_sat=1_000, script_pubkey=b""), confirmations=1
    )


def test_a_replaced_state_is_taken_apart_until_everything_of_it_was_paid_out() -> None:
    path = package(5, 3)
    one, _, two = package(4, 1).txs
    made = replace(path, replaced=(ReplacedState(tx=path.txs[-1], poisons=(one, two)),))

    def due(*outpoints: OutPoint) -> TakeApart | None:
        return poisons_due(made, {outpoint: coin_at(outpoint) for outpoint in outpoints})

    spent = [tx.inputs[0].outpoint for tx in (one, two)]
    assert due() is None
    assert due(path.path_outpoints[1]) is None
    assert due(*spent) == TakeApart(due=(one, two))
    assert due(spent[1]) == TakeApart(due=(two,))
    assert due(spent[0], two.outpoint(0)) == TakeApart(due=(one,))
    # All of them are in blocks, and of one an output is still to be taken.
    assert due(two.outpoint(0)) == TakeApart(due=())
    assert due(one.outpoint(0)) == TakeApart(due=())


def test_nothing_is_due_of_a_channel_that_is_on_chain_for_good() -> None:
    """Six blocks deep it has no deadline; a commitment in the package is what was started."""
    path, leaving = package(2, 1), package(2, 1, is_leaving=True)
    place = PathPlace(n_confirmed=len(path.txs), height=TIP)
    assert remaining_at(path, place, tip_height=TIP + 6).exit_deadline_height is None
    assert not is_due(path, place, tip_height=TIP + 6, highest_height=path.expiry_height)
    assert is_due(leaving, place, tip_height=TIP + 6, highest_height=0)
    last = leaving.steps[-1]
    for is_begun in (False, True):
        action = next_package_action(leaving, place, tip_height=TIP + 6, is_begun=is_begun)
        assert action == PublishNow(step=last)
    # Whatever spent it instead: there is nothing left to publish.
    spent = replace(place, is_channel_spent=True)
    assert next_package_action(leaving, spent, tip_height=TIP + 6, is_begun=True) == PathOnChain(
        height=TIP, is_channel_spent=True
    )
