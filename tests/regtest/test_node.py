import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from bitcoin_core_rpc import BitcoinCoreRpcClient

from cromford.bitcoin.address import address_of_script
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto.keys import sha256
from cromford.regtest.journal import DatadirBusy
from cromford.regtest.node import NEVER_FOR_REAL_MONEY, RegtestNode, run
from cromford.regtest.params import RpcError
from cromford.regtest.server import ServerFailed

OPEN_SCRIPT = b"\x00\x20" + sha256(b"\x51")
ADDRESS = address_of_script(OPEN_SCRIPT, REGTEST)
TIME = 1_700_000_000
PROGRAM = """
import sys
from pathlib import Path
from cromford.regtest.node import run
run(Path(sys.argv[1]), port=0, on_started=lambda node: print(node.url, flush=True))
"""


def client_of(node: RegtestNode) -> BitcoinCoreRpcClient:
    return BitcoinCoreRpcClient(node.url, cookie_path=node.cookie_file)


def files_of(datadir: Path) -> set[str]:
    return {path.name for path in (datadir / "regtest").iterdir()}


def test_a_client_and_the_program_itself_get_the_same_answers(tmp_path: Path) -> None:
    with RegtestNode(tmp_path) as node:
        [block_hash] = node.call("generatetoaddress", 1, ADDRESS)
        assert client_of(node).call("getblock", [block_hash, 2]) == node.call(
            "getblock", block_hash, 2
        )
        with pytest.raises(RpcError, match="Method not found") as caught:
            node.call("getnewaddress")
        assert caught.value.code == -32601


def test_chain_and_mempool_are_there_after_a_restart(tmp_path: Path) -> None:
    with RegtestNode(tmp_path, clock=lambda: TIME) as node:
        hashes = node.call("generatetoaddress", 102, ADDRESS)
        txid = node.call("getblock", hashes[0])["tx"][0]
        tx = Tx(
            version=2,
            inputs=(
                TxIn(
                    outpoint=OutPoint(txid=Txid.from_hex(txid), vout=0),
                    nsequence=0xFFFF_FFFF,
                    witness=(b"\x51",),
                ),
            ),
            outputs=(TxOut(amount_sat=1_000_000, script_pubkey=OPEN_SCRIPT),),
        )
        node.call("sendrawtransaction", tx.serialize().hex(), 0)
        node.call("invalidateblock", hashes[-1])
    with RegtestNode(tmp_path, clock=lambda: TIME) as node:
        assert node.call("getbestblockhash") == hashes[-2]
        assert node.call("getrawmempool") == [str(tx.txid)]
        node.call("reconsiderblock", hashes[-1])
        assert node.call("getbestblockhash") == hashes[-1]
    with RegtestNode(tmp_path, clock=lambda: TIME) as node:
        assert node.call("getbestblockhash") == hashes[-1]


def test_a_node_that_keeps_nothing_begins_anew(tmp_path: Path) -> None:
    with RegtestNode(tmp_path, persist=False) as node:
        node.call("generatetoaddress", 2, ADDRESS)
    assert files_of(tmp_path) == set()
    with RegtestNode(tmp_path, persist=False) as node:
        assert node.call("getblockcount") == 0


def test_a_stopped_node_leaves_its_blocks_and_nothing_else(tmp_path: Path) -> None:
    with RegtestNode(tmp_path):
        assert ".cookie" in files_of(tmp_path)
    assert files_of(tmp_path) == {"blocks.dat", "mempool.dat"}


def test_a_data_directory_serves_one_node(tmp_path: Path) -> None:
    with RegtestNode(tmp_path), pytest.raises(DatadirBusy):
        RegtestNode(tmp_path).start()


def test_a_taken_port_is_an_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        node = RegtestNode(tmp_path, port=taken.getsockname()[1])
        with pytest.raises(ServerFailed):
            node.start()
    with node:
        assert node.call("getblockcount") == 0


def test_a_node_that_does_not_run_says_so(tmp_path: Path) -> None:
    node = RegtestNode(tmp_path)
    with pytest.raises(RuntimeError, match="not running"):
        node.call("getblockcount")
    with pytest.raises(RuntimeError, match="not running"):
        _ = node.url
    node.stop()


def test_the_stop_method_ends_the_run(tmp_path: Path) -> None:
    def stop(node: RegtestNode) -> None:
        assert "stopping" in client_of(node).call("stop")

    run(tmp_path, port=0, on_started=stop)
    assert ".cookie" not in files_of(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        cookie = tmp_path / "regtest" / ".cookie"
        client = BitcoinCoreRpcClient(url, cookie_path=cookie)
        assert len(client.call("generatetoaddress", [3, ADDRESS])) == 3
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
    assert files_of(tmp_path) == {"blocks.dat", "mempool.dat"}
    with RegtestNode(tmp_path) as node:
        assert node.call("getblockcount") == 3


def test_help_uptime_and_the_warning_are_there(tmp_path: Path) -> None:
    with RegtestNode(tmp_path, persist=False) as node:
        assert "getblockcount" in node.call("help").splitlines()
        assert node.call("help", "getblockhash").startswith("getblockhash height")
        assert node.call("uptime") >= 0
        assert "never for real money" in node.call("getnetworkinfo")["warnings"][0]
    assert "never for real money" in NEVER_FOR_REAL_MONEY


def test_block_times_of_a_constant_clock_repeat(tmp_path: Path) -> None:
    hashes = []
    for name in ("one", "two"):
        with RegtestNode(tmp_path / name, clock=lambda: TIME) as node:
            hashes.append(node.call("generatetoaddress", 5, ADDRESS))
    assert hashes[0] == hashes[1]
