"""Which of several closes of a channel is remembered: for each outpoint the one that owes least."""

from cromford.bitcoin.tx import OutPoint, Txid
from cromford.protocol.journal.closes import SignedClose, is_frozen, limit_msat, with_close
from cromford.protocol.journal.known_chain import KnownChain

HERE, THERE = (OutPoint(txid=Txid(bytes((n,)) * 32), vout=0) for n in (1, 2))


def signed(name: int, balance_msat: int, *, at: OutPoint = HERE, done: bool = False) -> SignedClose:
    return SignedClose(
        close_id=bytes((name,)) * 32, outpoint=at, balance_msat=balance_msat, is_finished=done
    )


def all_of(*closes: SignedClose) -> tuple[SignedClose, ...]:
    kept: tuple[SignedClose, ...] = ()
    for close in closes:
        kept = with_close(kept, close)
    return kept


def test_however_often_an_lsp_begins_anew_there_is_one_for_each_outpoint() -> None:
    kept = all_of(*(signed(n, 1_000 - n) for n in range(100)), signed(200, 5, at=THERE))
    assert kept == (signed(99, 901), signed(200, 5, at=THERE))
    assert limit_msat(kept, KnownChain()) == 5


def test_an_equal_one_takes_the_place_and_a_lower_one_is_kept() -> None:
    assert all_of(signed(1, 7), signed(2, 7)) == (signed(2, 7),)
    both = all_of(signed(1, 7), signed(2, 8))
    assert both == (signed(1, 7), signed(2, 8))
    assert limit_msat(both, KnownChain()) == 7


def test_a_finished_one_is_never_forgotten() -> None:
    kept = all_of(signed(1, 7, done=True), signed(2, 7))
    assert signed(1, 7, done=True) in kept
    assert is_frozen(kept, KnownChain())
    assert all_of(signed(1, 7), signed(1, 7, done=True)) == (signed(1, 7, done=True),)
