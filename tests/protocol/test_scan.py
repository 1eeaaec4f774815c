"""What the chain's stream watches, though who asked for it has not heard of the newest blocks."""

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.protocol.journal import scan_records as sc
from cromford.protocol.journal.mail import Watch
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.scan import Scan, apply_to_scan

STREAM = "factory:0"
COIN = OutPoint(txid=Txid(b"c" * 32), vout=0)


def spend_of(outpoint: OutPoint, *, amount_sat: int) -> Tx:
    output = TxOut(amount_sat=amount_sat, script_pubkey=b"\x51")
    return Tx(
        version=2, inputs=(TxIn(outpoint=outpoint, nsequence=0),), outputs=(output,), nlocktime=0
    )


def with_block(scan: Scan, height: int, *txs: Tx) -> Scan:
    found = [
        sc.Finding(stream=stream, txs=tuple(tx.serialize() for tx in news))
        for stream, news in scan.findings(txs).items()
    ]
    return apply_to_scan(
        scan, sc.Scanned(height=height, block_hash=bytes([height] * 32), found=tuple(found))
    )


def with_watch(scan: Scan, number: int, height: int, *outpoints: OutPoint, heard: int) -> Scan:
    watch = Watch(height=height, outpoints=tuple(one.serialize() for one in outpoints), heard=heard)
    return apply_to_scan(scan, MailTaken(sender=STREAM, number=number, mail=watch))


def test_what_was_found_after_a_reorganisation_stays_watched_until_its_watcher_heard_of_it() -> (
    None
):
    """A factory answers the first of two spends while the second, lower one, is on its way."""
    scan = with_watch(with_block(Scan(), 103), 1, 103, COIN, heard=0)
    first, second = (spend_of(COIN, amount_sat=amount_sat) for amount_sat in (1_000, 2_000))
    scan = with_block(with_block(scan, 104), 105, first)
    for height in (105, 104):
        scan = apply_to_scan(scan, sc.ScanUndone(height=height))
    scan = with_block(scan, 104, second)
    # It has taken `Watched` and the first `Found`, and knows nothing of the second.
    scan = with_watch(scan, 2, 105, COIN, first.outpoint(0), heard=2)
    news = spend_of(second.outpoint(0), amount_sat=500)
    assert scan.findings([news]) == {STREAM: [news]}
    # Once it has heard of all, what it names is what is watched.
    scan = with_watch(scan, 3, 104, COIN, heard=scan.post.n_sent[STREAM])
    assert scan.findings([news]) == {}
    assert set(scan.watched[STREAM]) == set(scan.watchers) == {COIN}
