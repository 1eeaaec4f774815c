"""A node over real HTTP that answers each method with what a test says."""

import asyncio
import base64
import json
import threading
from collections.abc import Awaitable, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from cromford.adapters.bitcoind import BitcoindChain
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut

TX = Tx(
    version=2,
    inputs=(TxIn(outpoint=OutPoint(txid=Txid(b"\x07" * 32), vout=1), nsequence=0),),
    outputs=(TxOut(amount_sat=1000, script_pubkey=b"\x51"),),
)
CHILD = Tx(
    version=2,
    inputs=(TxIn(outpoint=TX.outpoint(0), nsequence=0),),
    outputs=(TxOut(amount_sat=900, script_pubkey=b"\x51"),),
)
HASH = "00" * 31 + "07"


class Refusal:
    """An error object, as the node sends it."""

    def __init__(self, code: int, message: str) -> None:
        self.error = {"code": code, "message": message}


class ScriptedNode:
    """Answers each method with what the test says, and remembers what it was asked."""

    def __init__(self, datadir: Path) -> None:
        self.answers: dict[str, object] = {}
        self.calls: list[tuple[str, list[object]]] = []
        self.forbidden: set[str] = set()  # methods that its `rpcwhitelist` leaves out
        self.http_status = 200
        self.raw_body: bytes | None = None
        self.cookie_path = datadir / ".cookie"
        self.set_cookie("first")
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout: ClassVar[float] = 5

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, body = node.answer(self.headers["Authorization"], request)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def set_cookie(self, secret: str) -> None:
        self._secret = f"__cookie__:{secret}"
        self.cookie_path.write_text(self._secret)

    def answer(self, authorization: str, request: dict[str, Any]) -> tuple[int, bytes]:
        expected = base64.b64encode(self._secret.encode()).decode()
        if authorization != f"Basic {expected}":
            return 401, b""
        if self.raw_body is not None or self.http_status != 200:
            return self.http_status, self.raw_body or b""
        self.calls.append((request["method"], request["params"]))
        if request["method"] in self.forbidden:
            return 403, b""
        answer = self.answers[request["method"]]
        reply = {"jsonrpc": "2.0", "id": request["id"]}
        if isinstance(answer, Refusal):
            return 200, json.dumps({**reply, "error": answer.error}).encode()
        if isinstance(answer, bytes):
            return 200, json.dumps({**reply, "result": "@"}).encode().replace(b'"@"', answer)
        return 200, json.dumps({**reply, "result": answer}).encode()

    def chain(self) -> BitcoindChain:
        return BitcoindChain(self.url, cookie_path=self.cookie_path, timeout_seconds=5)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def ask(node: ScriptedNode, question: Callable[[BitcoindChain], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with node.chain() as chain:
            return await question(chain)

    return asyncio.run(run())
