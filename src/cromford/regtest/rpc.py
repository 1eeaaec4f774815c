"""The table of methods, and the JSON-RPC envelope around a call (versions 1 and 2, batches)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import msgspec

from cromford.codec.decoders import decoded
from cromford.codec.reader import MalformedBytes
from cromford.regtest import params, render, rpc_chain, rpc_fees, rpc_mempool
from cromford.regtest.ledger import Ledger
from cromford.regtest.params import (
    AMOUNT,
    ANY,
    ARRAY,
    BOOL,
    NUMBER,
    OBJECT,
    STRING,
    Param,
    RpcError,
    Signature,
    optional,
    required,
)

BATCH_MAX: Final = 10_000
HTTP_OK: Final = 200
HTTP_NO_CONTENT: Final = 204
HTTP_BAD_REQUEST: Final = 400
HTTP_NOT_FOUND: Final = 404
HTTP_ERROR: Final = 500

Run = Callable[..., object]
_DECODER: Final = msgspec.json.Decoder(float_hook=Decimal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method: how it is called, and the function that answers."""

    signature: Signature
    run: Run


def _method(run: Run, *parameters: Param) -> tuple[str, Method]:
    name = run.__name__
    summary = (run.__doc__ or "").strip().splitlines()[0]
    signature = Signature(name=name, summary=summary, params=parameters)
    return name, Method(signature=signature, run=run)


METHODS: Final[Mapping[str, Method]] = dict(
    (
        _method(rpc_chain.getblockchaininfo),
        _method(rpc_chain.getnetworkinfo),
        _method(rpc_chain.getblockcount),
        _method(rpc_chain.getbestblockhash),
        _method(rpc_chain.getblockhash, required("height", NUMBER)),
        _method(rpc_chain.getblock, required("blockhash", STRING), optional("verbosity", ANY)),
        _method(rpc_chain.getblockheader, required("blockhash", STRING), optional("verbose", BOOL)),
        _method(
            rpc_chain.gettxout,
            required("txid", STRING),
            required("n", NUMBER),
            optional("include_mempool", BOOL),
        ),
        _method(
            rpc_chain.getrawtransaction,
            required("txid", STRING),
            optional("verbosity", ANY),
            optional("blockhash", STRING),
        ),
        _method(
            rpc_chain.generatetoaddress,
            required("nblocks", NUMBER),
            required("address", STRING),
            optional("maxtries", NUMBER),
        ),
        _method(
            rpc_chain.generateblock,
            required("output", STRING),
            required("transactions", ARRAY),
            optional("submit", BOOL),
        ),
        _method(rpc_chain.invalidateblock, required("blockhash", STRING)),
        _method(rpc_chain.reconsiderblock, required("blockhash", STRING)),
        _method(
            rpc_mempool.sendrawtransaction,
            required("hexstring", STRING),
            optional("maxfeerate", AMOUNT),
            optional("maxburnamount", AMOUNT),
        ),
        _method(
            rpc_mempool.testmempoolaccept,
            required("rawtxs", ARRAY),
            optional("maxfeerate", AMOUNT),
        ),
        _method(
            rpc_mempool.submitpackage,
            required("package", ARRAY),
            optional("maxfeerate", AMOUNT),
            optional("maxburnamount", AMOUNT),
        ),
        _method(
            rpc_mempool.getrawmempool,
            optional("verbose", BOOL),
            optional("mempool_sequence", BOOL),
        ),
        _method(rpc_mempool.getmempoolentry, required("txid", STRING)),
        _method(
            rpc_mempool.gettxspendingprevout,
            required("outputs", ARRAY),
            optional("options", OBJECT),
        ),
        _method(rpc_fees.getmempoolinfo),
        _method(
            rpc_fees.estimatesmartfee,
            required("conf_target", NUMBER),
            optional("estimate_mode", STRING),
        ),
        _method(rpc_fees.setestimates, required("estimates", OBJECT)),
        _method(rpc_fees.setmempoolminimum, required("feerate", AMOUNT)),
    )
)


class Dispatcher:
    """Answers calls out of one ledger. Not safe for threads: the caller takes turns.

    Args:
        ledger: What is asked.
        uptime: Gives the seconds since the start.
        stop: Called when a client says `stop`.
    """

    def __init__(
        self, ledger: Ledger, *, uptime: Callable[[], int], stop: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._uptime = uptime
        self._stop = stop
        own: tuple[tuple[Run, tuple[Param, ...]], ...] = (
            (self._uptime_rpc, ()),
            (self._stop_rpc, (optional("wait", NUMBER),)),
            (self._help_rpc, (optional("command", STRING),)),
        )
        self._own = {}
        for run, parameters in own:
            name = run.__name__.strip("_").removesuffix("_rpc")
            signature = Signature(name=name, summary=(run.__doc__ or "").strip(), params=parameters)
            self._own[name] = Method(signature=signature, run=run)

    def call(self, name: str, given: Sequence[Any] | Mapping[str, Any]) -> object:
        """Return the result of one call, in which `render.BtcAmount` may stand.

        Raises:
            RpcError: As Core would answer.
        """
        method = METHODS.get(name) or self._own.get(name)
        if method is None:
            raise RpcError(params.METHOD_NOT_FOUND, "Method not found")
        values = method.signature.bind(given)
        return method.run(*(() if name in self._own else (self._ledger,)), *values)

    def answer(self, body: bytes) -> tuple[int, bytes]:
        """Return the HTTP status and the body that answer a request's body."""
        try:
            request = decoded(_DECODER, body)
        except MalformedBytes:
            error = RpcError(params.PARSE_ERROR, "Parse error")
            return HTTP_ERROR, _line(_reply({"id": None}, error=error))
        if isinstance(request, list):
            return self._answer_batch(request)
        if not isinstance(request, dict):
            error = RpcError(params.PARSE_ERROR, "Top-level object parse error")
            return HTTP_ERROR, _line(_reply({"id": None}, error=error))
        status, reply = self._answer_one(request)
        return status, b"" if reply is None else _line(reply)

    def _answer_batch(self, requests: list[Any]) -> tuple[int, bytes]:
        if len(requests) > BATCH_MAX:
            error = RpcError(params.INVALID_REQUEST, f"A batch of at most {BATCH_MAX} requests")
            return HTTP_BAD_REQUEST, _line(_reply({"id": None}, error=error))
        replies: list[dict[str, Any]] = []
        for request in requests:
            if isinstance(request, dict):
                _, reply = self._answer_one(request)
            else:
                error = RpcError(params.INVALID_REQUEST, "Invalid Request object")
                reply = _reply({"id": None}, error=error)
            if reply is not None:
                replies.append(reply)
        if requests and not replies:
            return HTTP_NO_CONTENT, b""
        return HTTP_OK, _line(replies)

    def _answer_one(self, request: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        is_v2 = request.get("jsonrpc") == "2.0"
        try:
            name, given = _checked(request)
            reply = _reply(request, result=self.call(name, given))
        except RpcError as error:
            reply = _reply(request, error=error)
            codes = {
                params.INVALID_REQUEST: HTTP_BAD_REQUEST,
                params.METHOD_NOT_FOUND: HTTP_NOT_FOUND,
            }
            status = HTTP_OK if is_v2 else codes.get(error.code, HTTP_ERROR)
        else:
            status = HTTP_OK
        if is_v2 and "id" not in request:
            return HTTP_NO_CONTENT, None
        return status, reply

    def _uptime_rpc(self) -> int:
        """Return the seconds since the start."""
        return self._uptime()

    def _stop_rpc(self, _wait: object) -> str:
        """Stop the node."""
        self._stop()
        return "Cromford regtest node stopping"

    def _help_rpc(self, name: str | None) -> str:
        """List the methods, or describe one."""
        methods = {**METHODS, **self._own}
        if name is None:
            return "\n".join(methods[key].signature.usage.split("\n")[0] for key in sorted(methods))
        if name not in methods:
            return f"help: unknown command: {name}"
        return methods[name].signature.usage.rstrip()


def _checked(request: dict[str, Any]) -> tuple[str, Sequence[Any] | Mapping[str, Any]]:
    version = request.get("jsonrpc")
    if version is not None and not isinstance(version, str):
        raise RpcError(params.INVALID_REQUEST, "jsonrpc field must be a string")
    if version not in {None, "1.0", "1.1", "2.0"}:
        raise RpcError(params.INVALID_REQUEST, "JSON-RPC version not supported")
    name = request.get("method")
    if name is None:
        raise RpcError(params.INVALID_REQUEST, "Missing method")
    if not isinstance(name, str):
        raise RpcError(params.INVALID_REQUEST, "Method must be a string")
    given = request.get("params")
    if given is None:
        return name, []
    if not isinstance(given, list | dict):
        raise RpcError(params.INVALID_REQUEST, "Params must be an array or object")
    return name, given


def _reply(
    request: dict[str, Any], *, result: object = None, error: RpcError | None = None
) -> dict[str, Any]:
    shown = None if error is None else {"code": error.code, "message": error.message}
    reply: dict[str, Any]
    if request.get("jsonrpc") == "2.0":
        reply = {"jsonrpc": "2.0"}
        reply |= {"result": result} if shown is None else {"error": shown}
    else:
        reply = {"result": result, "error": shown}
    return reply | ({"id": request["id"]} if "id" in request else {})


def _line(reply: object) -> bytes:
    return render.encode(reply) + b"\n"


def as_client_sees(result: object) -> Any:  # noqa: ANN401 - any JSON value
    """Return a result as a client would read it: amounts as decimals, tuples as lists."""
    return decoded(_DECODER, render.encode(result))
