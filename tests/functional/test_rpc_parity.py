"""What the read methods show, how errors sound, and what HTTP carries: the same from both nodes."""

import base64
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.functional.node_world import (
    KEY_SCRIPT,
    NODES,
    OPEN_ADDRESS,
    OPEN_SCRIPT,
    World,
    coin_of,
    hex_of,
    pay,
)

from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.crypto.keys import pubkey_of

GENESIS = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
GENESIS_COINBASE = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
NOWHERE = "00" * 32
NOWHERE_0 = {"txid": NOWHERE, "vout": 0}

HEADER = (
    "hash confirmations height version versionHex merkleroot time mediantime nonce bits target "
    "difficulty chainwork nTx previousblockhash nextblockhash"
)
COINBASE = "version locktime sequence coinbase witness"
SCRIPT = "asm desc hex address type"
TX = (
    f"txid hash version size vsize weight locktime hex vin[]:txid,vout,scriptSig:asm,scriptSig:hex,"
    f"sequence vout[]:value,n,{','.join(f'scriptPubKey:{name}' for name in SCRIPT.split())}"
)
CONFIRMED = "blockhash confirmations time blocktime"
NETWORK_INFO = (
    "version subversion protocolversion localservices localservicesnames[] localrelay timeoffset "
    "networkactive connections connections_in connections_out "
    "networks[]:name,limited,reachable,proxy,proxy_randomize_credentials relayfee incrementalfee "
    "warnings[]"
)
CHAIN_INFO = (
    "chain blocks headers bestblockhash bits target difficulty time mediantime "
    "verificationprogress initialblockdownload chainwork size_on_disk pruned warnings[]"
)
MEMPOOL_INFO = (
    "loaded size bytes usage total_fee maxmempool mempoolminfee minrelaytxfee "
    "incrementalrelayfee unbroadcastcount permitbaremultisig maxdatacarriersize "
    "limitclustercount limitclustersize optimal"
)
ENTRY = (
    "vsize weight time height descendantcount descendantsize ancestorcount ancestorsize wtxid "
    "chunkweight fees:base,modified,ancestor,descendant,chunk spentby[] unbroadcast"
)

PUBKEY = pubkey_of(bytes(31) + b"\x09").hex()
ZEROS = "00" * 20
# Output scripts with the words, descriptor, address and type that Core shows.
SCRIPTS = (
    (
        KEY_SCRIPT.hex(),
        f"1 {KEY_SCRIPT[2:].hex()}",
        f"rawtr({KEY_SCRIPT[2:].hex()})#3dp90u0g",
        "bcrt1ptj7lqerwtk6w4guc7djl96n6pc75rxm7qvcw888f90w7mjkylx7qzlj7hd",
        "witness_v1_taproot",
    ),
    (
        OPEN_SCRIPT.hex(),
        f"0 {OPEN_SCRIPT[2:].hex()}",
        f"addr({OPEN_ADDRESS})#vch92e55",
        OPEN_ADDRESS,
        "witness_v0_scripthash",
    ),
    (
        ANCHOR_SCRIPT.hex(),
        "1 29518",
        "addr(bcrt1pfeesnyr2tx)#swxgse0y",
        "bcrt1pfeesnyr2tx",
        "anchor",
    ),
    (
        f"0014{ZEROS}",
        f"0 {ZEROS}",
        "addr(bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202)#v0fp9yyh",
        "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202",
        "witness_v0_keyhash",
    ),
    (
        "60026162",
        "16 25185",
        "addr(bcrt1sv93q9wr2j7)#rm7r8hdh",
        "bcrt1sv93q9wr2j7",
        "witness_unknown",
    ),
    (
        f"76a914{ZEROS}88ac",
        f"OP_DUP OP_HASH160 {ZEROS} OP_EQUALVERIFY OP_CHECKSIG",
        "addr(mfWxJ45yp2SFn7UciZyNpvDKrzbhyfKrY8)#ydtjlapp",
        "mfWxJ45yp2SFn7UciZyNpvDKrzbhyfKrY8",
        "pubkeyhash",
    ),
    (
        f"a914{ZEROS}87",
        f"OP_HASH160 {ZEROS} OP_EQUAL",
        "addr(2MsFDzHRUAMpjHxKyoEHU3aMCMsVtMqs1PV)#hv4rt67v",
        "2MsFDzHRUAMpjHxKyoEHU3aMCMsVtMqs1PV",
        "scripthash",
    ),
    (f"21{PUBKEY}ac", f"{PUBKEY} OP_CHECKSIG", f"pk({PUBKEY})#xhe9udqz", None, "pubkey"),
    (
        f"5121{PUBKEY}51ae",
        f"1 {PUBKEY} 1 OP_CHECKMULTISIG",
        f"multi(1,{PUBKEY})#vczgpqfc",
        None,
        "multisig",
    ),
    (
        "6a046162636401804f60",
        "OP_RETURN 1684234849 0 -1 16",
        "raw(6a046162636401804f60)#js9r35gp",
        None,
        "nulldata",
    ),
)

WRONG_TYPE = (
    'Wrong type passed:\n{{\n    "Position {} ({})": '
    '"JSON value of type {} is not of expected type {}"\n}}'
)
UNORDINARY = "The genesis block coinbase is not considered an ordinary transaction"
HINT = "Use gettransaction for wallet transactions."
DECODE_FAILED = "Make sure the tx has at least one input."
ERRORS: tuple[tuple[str, tuple[Any, ...], int, str], ...] = (
    ("nosuch", (), -32601, "Method not found"),
    ("getnewfactory", (), -32601, "Method not found"),
    ("getblockhash", (-1,), -8, "Block height out of range"),
    ("getblockhash", (9_999,), -8, "Block height out of range"),
    ("getblockhash", (1.5,), -1, "JSON integer out of range"),
    ("getblockhash", ("1",), -3, WRONG_TYPE.format(1, "height", "string", "number")),
    ("getblockhash", (None,), -3, WRONG_TYPE.format(1, "height", "null", "number")),
    ("getblock", ("ab",), -8, "blockhash must be of length 64 (not 2, for 'ab')"),
    ("getblock", ("zz" * 32,), -8, f"blockhash must be hexadecimal string (not '{'zz' * 32}')"),
    ("getblock", (NOWHERE,), -5, "Block not found"),
    ("getblock", (5,), -3, WRONG_TYPE.format(1, "blockhash", "number", "string")),
    (
        "getblock",
        (GENESIS, "1"),
        -3,
        "JSON value of type string is not of expected type number",
    ),
    ("getblockheader", (NOWHERE,), -5, "Block not found"),
    ("getblockheader", (GENESIS, 1), -3, WRONG_TYPE.format(2, "verbose", "number", "bool")),
    ("gettxout", (NOWHERE, -1), -1, "JSON integer out of range"),
    ("gettxout", ("a", 0), -8, "txid must be of length 64 (not 1, for 'a')"),
    (
        "getrawtransaction",
        (GENESIS_COINBASE,),
        -5,
        f"{UNORDINARY} and cannot be retrieved",
    ),
    (
        "getrawtransaction",
        (NOWHERE,),
        -5,
        f"No such mempool or blockchain transaction. {HINT}",
    ),
    (
        "getrawtransaction",
        (NOWHERE, 0, GENESIS),
        -5,
        f"No such transaction found in the provided block. {HINT}",
    ),
    ("getrawtransaction", (NOWHERE, 0, NOWHERE), -5, "Block hash not found"),
    ("sendrawtransaction", ("00",), -22, f"TX decode failed. {DECODE_FAILED}"),
    ("sendrawtransaction", ("zz",), -22, f"TX decode failed. {DECODE_FAILED}"),
    ("testmempoolaccept", ([],), -8, "Array must contain between 1 and 25 transactions."),
    ("testmempoolaccept", (["00"],), -22, f"TX decode failed: 00 {DECODE_FAILED}"),
    ("testmempoolaccept", ([5],), -3, "JSON value of type number is not of expected type string"),
    ("testmempoolaccept", ("00",), -3, WRONG_TYPE.format(1, "rawtxs", "string", "array")),
    (
        "testmempoolaccept",
        (["00"], 1),
        -8,
        "Fee rates larger than or equal to 1BTC/kvB are not accepted",
    ),
    ("testmempoolaccept", (["00"], -1), -3, "Amount out of range"),
    ("testmempoolaccept", (["00"], "x"), -3, "Invalid amount"),
    ("testmempoolaccept", (["00"], True), -3, "Amount is not a number or string"),
    ("submitpackage", ([],), -8, "Array must contain between 1 and 25 transactions."),
    ("getmempoolentry", (NOWHERE,), -5, "Transaction not in mempool"),
    ("generatetoaddress", (1, "x"), -5, "Error: Invalid address"),
    ("generateblock", ("x", []), -5, "Error: Invalid address or descriptor"),
    ("generateblock", (OPEN_ADDRESS, [NOWHERE]), -5, f"Transaction {NOWHERE} not in mempool."),
    ("invalidateblock", (NOWHERE,), -5, "Block not found"),
    ("reconsiderblock", (NOWHERE,), -5, "Block not found"),
    ("estimatesmartfee", (0,), -8, "Invalid conf_target, must be between 1 and 1008"),
    ("estimatesmartfee", (1009,), -8, "Invalid conf_target, must be between 1 and 1008"),
    ("estimatesmartfee", (2.5,), -1, "JSON integer out of range"),
    (
        "estimatesmartfee",
        (6, "x"),
        -8,
        'Invalid estimate_mode parameter, must be one of: "unset", "economical", "conservative"',
    ),
    ("gettxspendingprevout", ([],), -8, "Invalid parameter, outputs are missing"),
    ("gettxspendingprevout", ("x",), -3, WRONG_TYPE.format(1, "outputs", "string", "array")),
    (
        "gettxspendingprevout",
        ([5],),
        -3,
        "JSON value of type number is not of expected type object",
    ),
    ("gettxspendingprevout", ([{}],), -3, "Missing txid"),
    ("gettxspendingprevout", ([{"txid": NOWHERE}],), -3, "Missing vout"),
    (
        "gettxspendingprevout",
        ([{"txid": NOWHERE, "vout": "1"}],),
        -3,
        "JSON value of type string for field vout is not of expected type number",
    ),
    (
        "gettxspendingprevout",
        ([{"txid": NOWHERE, "vout": -1}],),
        -8,
        "Invalid parameter, vout cannot be negative",
    ),
    (
        "gettxspendingprevout",
        ([{"txid": "1", "vout": 0}],),
        -8,
        "txid must be of length 64 (not 1, for '1')",
    ),
    (
        "gettxspendingprevout",
        ([{"txid": NOWHERE, "vout": 1, "x": 2}],),
        -3,
        "Unexpected key x",
    ),
    ("gettxspendingprevout", ([NOWHERE_0], {"foo": True}), -3, "Unexpected key foo"),
    (
        "gettxspendingprevout",
        ([NOWHERE_0], {"mempool_only": False}),
        -1,
        "Mempool lacks a relevant spend, and txospenderindex is unavailable.",
    ),
    (
        "getrawmempool",
        (True, True),
        -8,
        "Verbose results cannot contain mempool sequence values.",
    ),
)

V1, V2 = {"jsonrpc": "1.0", "id": "x"}, {"jsonrpc": "2.0", "id": "x"}
COUNT, UNKNOWN = {"method": "getblockcount"}, {"method": "nosuch"}
FAR = {"method": "getblockhash", "params": [9_999]}
NO_METHOD = {"code": -32601, "message": "Method not found"}
OUT_OF_RANGE = {"code": -8, "message": "Block height out of range"}
# What is posted, the HTTP status, and the reply; N stands for the block count.
N = "the block count"
POSTS: tuple[tuple[Any, int, Any], ...] = (
    (V1 | COUNT, 200, {"result": N, "error": None, "id": "x"}),
    (V2 | COUNT, 200, {"jsonrpc": "2.0", "result": N, "id": "x"}),
    (COUNT, 200, {"result": N, "error": None}),
    ({"jsonrpc": "2.0"} | COUNT, 204, None),
    (V1 | UNKNOWN, 404, {"result": None, "error": NO_METHOD, "id": "x"}),
    (V2 | UNKNOWN, 200, {"jsonrpc": "2.0", "error": NO_METHOD, "id": "x"}),
    (V1 | FAR, 500, {"result": None, "error": OUT_OF_RANGE, "id": "x"}),
    (V2 | FAR, 200, {"jsonrpc": "2.0", "error": OUT_OF_RANGE, "id": "x"}),
    (
        V1 | {"method": "getblockhash", "params": {"height": 0}},
        200,
        {"result": GENESIS, "error": None, "id": "x"},
    ),
    (
        V1 | {"method": "getblockhash", "params": {"heigth": 0}},
        500,
        {
            "result": None,
            "error": {"code": -8, "message": "Unknown named parameter heigth"},
            "id": "x",
        },
    ),
    (
        V1 | {"method": "getblockhash", "params": 5},
        400,
        {
            "result": None,
            "error": {"code": -32600, "message": "Params must be an array or object"},
            "id": "x",
        },
    ),
    (
        V1 | {"method": 5},
        400,
        {
            "result": None,
            "error": {"code": -32600, "message": "Method must be a string"},
            "id": "x",
        },
    ),
    (
        V1,
        400,
        {"result": None, "error": {"code": -32600, "message": "Missing method"}, "id": "x"},
    ),
    (
        {"jsonrpc": "3.0", "id": "x"} | COUNT,
        400,
        {
            "result": None,
            "error": {"code": -32600, "message": "JSON-RPC version not supported"},
            "id": "x",
        },
    ),
    (
        5,
        500,
        {
            "result": None,
            "error": {"code": -32700, "message": "Top-level object parse error"},
            "id": None,
        },
    ),
    ([], 200, []),
    ([{"jsonrpc": "2.0"} | COUNT], 204, None),
    (
        [V2 | COUNT, V1 | UNKNOWN, {"jsonrpc": "2.0"} | COUNT],
        200,
        [
            {"jsonrpc": "2.0", "result": N, "id": "x"},
            {"result": None, "error": NO_METHOD, "id": "x"},
        ],
    ),
)


@pytest.fixture(scope="module", params=NODES, ids=lambda kind: kind.__name__)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    yield from request.param(tmp_path_factory.mktemp("node"))


def fields(text: str) -> set[str]:
    """Return the paths a line of fields names: `a:b,c` are `a.b` and `a.c`."""
    named: set[str] = set()
    for word in text.split():
        parent, _, rest = word.partition(":")
        children = rest.split(",") if rest else []
        named |= {f"{parent}.{child.replace(':', '.')}" for child in children} or {parent}
    return named


def paths(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list):
        for item in value:
            yield from paths(item, f"{prefix}[]")
    else:
        yield prefix


def shown(world: World, method: str, *params: Any) -> set[str]:
    return set(paths(world.call(method, *params)))


def test_the_states_of_chain_network_and_mempool_have_cores_fields(world: World) -> None:
    assert shown(world, "getblockchaininfo") == fields(CHAIN_INFO)
    assert shown(world, "getnetworkinfo") == fields(NETWORK_INFO)
    assert shown(world, "getmempoolinfo") == fields(MEMPOOL_INFO)
    assert world.call("getnetworkinfo")["version"] == 319_900
    assert world.call("getblockchaininfo")["initialblockdownload"] is False
    assert world.call("estimatesmartfee", 6) == {
        "errors": ["Insufficient data or no feerate found"],
        "blocks": 0,
    }


def test_who_spends_an_output_is_told_in_the_order_of_the_question(world: World) -> None:
    tx = pay([world.coin()], (1_000, OPEN_SCRIPT))
    child = pay([coin_of(tx, 1)])
    assert world.send(tx) == world.send(child) == "accepted"
    asked = [{"txid": str(tx.txid), "vout": vout} for vout in (1, 0)] + [NOWHERE_0]
    spent = asked[0] | {"spendingtxid": str(child.txid)}
    assert world.call("gettxspendingprevout", asked) == [spent, *asked[1:]]
    options = {"return_spending_tx": True, "mempool_only": True}
    with_tx = spent | {"spendingtx": hex_of(child)}
    assert world.call("gettxspendingprevout", asked[:1], options) == [with_tx]
    world.mine()
    assert world.call("gettxspendingprevout", asked[:1]) == asked[:1]


def test_a_transaction_and_its_block_have_cores_fields(world: World) -> None:
    tx = pay([world.coin()])
    child = pay([coin_of(tx, 0)])
    assert world.send(tx) == world.send(child) == "accepted"
    unconfirmed = fields(TX) | {"vin[].txinwitness[]"}
    assert shown(world, "getrawtransaction", str(tx.txid), 1) == unconfirmed
    assert shown(world, "getmempoolentry", str(tx.txid)) == fields(ENTRY)
    assert set(world.call("getrawmempool", True)) >= {str(tx.txid), str(child.txid)}

    [block_hash] = world.mine()
    world.mine()
    coinbase = {f"coinbase_tx.{name}" for name in COINBASE.split()}
    block = fields(f"{HEADER} strippedsize size weight") | coinbase
    assert shown(world, "getblockheader", block_hash) == fields(HEADER)
    assert shown(world, "getblock", block_hash) == block | {"tx[]"}
    in_block = {f"tx[].{name}" for name in unconfirmed | {"fee", "vin[].coinbase"}}
    no_address = shown(world, "getblock", block_hash, 2)
    assert no_address == block | in_block
    prevout = {f"vin[].prevout.{name}" for name in ("generated", "height", "value")}
    prevout |= {f"vin[].prevout.scriptPubKey.{name}" for name in SCRIPT.split()}
    assert shown(world, "getblock", block_hash, 3) == block | in_block | {
        f"tx[].{name}" for name in prevout
    }
    confirmed = unconfirmed | fields(CONFIRMED)
    assert shown(world, "getrawtransaction", str(tx.txid), 1) == confirmed
    assert shown(world, "getrawtransaction", str(tx.txid), 2) == confirmed | prevout | {"fee"}
    assert shown(world, "getrawtransaction", str(tx.txid), 1, block_hash) == confirmed | {
        "in_active_chain"
    }


def test_a_coin_is_shown_as_the_mempool_and_the_chain_have_it(world: World) -> None:
    tx = pay([world.coin()])
    txid = str(tx.txid)
    assert world.call("gettxout", txid, 0) is None
    assert world.send(tx) == "accepted"
    fresh = world.call("gettxout", txid, 0)
    assert set(fresh) == {"bestblock", "confirmations", "value", "scriptPubKey", "coinbase"}
    assert fresh["confirmations"] == 0
    assert world.call("gettxout", txid, 0, False) is None
    world.mine(2)
    assert world.call("gettxout", txid, 0)["confirmations"] == 2
    assert world.send(pay([coin_of(tx, 0)])) == "accepted"
    assert world.call("gettxout", txid, 0) is None
    assert world.call("gettxout", txid, 0, False)["confirmations"] == 2
    world.mine()
    assert world.call("gettxout", txid, 0, False) is None


def test_scripts_are_shown_in_cores_words(world: World) -> None:
    outputs = [
        (0 if kind == "nulldata" else 10_000, bytes.fromhex(raw)) for raw, *_, kind in SCRIPTS
    ]
    tx = pay([world.coin()], *outputs)
    assert world.error("sendrawtransaction", hex_of(tx)) == (0, "")
    vouts = world.call("getrawtransaction", str(tx.txid), 1)["vout"]
    for vout, (raw, words, descriptor, address, kind) in zip(vouts, SCRIPTS, strict=False):
        expected = {"asm": words, "desc": descriptor, "hex": raw, "type": kind}
        expected |= {} if address is None else {"address": address}
        assert vout["scriptPubKey"] == expected


def test_the_genesis_block_is_the_one_every_node_has(world: World) -> None:
    assert world.call("getblockhash", 0) == GENESIS
    block = world.call("getblock", GENESIS, 2)
    assert (block["height"], block["tx"][0]["txid"]) == (0, GENESIS_COINBASE)
    assert "previousblockhash" not in block
    assert world.call("gettxout", GENESIS_COINBASE, 0) is None


@pytest.mark.parametrize(("method", "params", "code", "message"), ERRORS)
def test_an_error_has_cores_code_and_message(
    world: World, method: str, params: tuple[Any, ...], code: int, message: str
) -> None:
    assert world.error(method, *params) == (code, message)


@pytest.mark.parametrize(("method", "params"), [("getblockhash", ()), ("getblockcount", (1,))])
def test_a_wrong_number_of_parameters_is_answered_with_the_usage(
    world: World, method: str, params: tuple[Any, ...]
) -> None:
    code, message = world.error(method, *params)
    assert code == -1
    assert message.startswith(method)


def post(
    world: World, body: bytes, *, verb: str = "POST", path: str = "/", password: str | None = None
) -> tuple[int, dict[str, str], bytes]:
    credentials = world.cookie.read_text() if password is None else f"__cookie__:{password}"
    host = world.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=10)
    headers = {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()}
    try:
        connection.request(verb, path, body, {} if password == "" else headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(("request_body", "status", "reply"), POSTS)
def test_a_request_over_http_gets_cores_status_and_envelope(
    world: World, request_body: Any, status: int, reply: Any
) -> None:
    got_status, _, body = post(world, json.dumps(request_body).encode())
    expected = json.dumps(reply).replace(f'"{N}"', str(world.call("getblockcount")))
    assert got_status == status
    if reply is None:
        assert body == b""
    else:
        assert json.loads(body) == json.loads(expected)


def test_malformed_json_is_answered_as_core_does(world: World) -> None:
    status, headers, body = post(world, b"{bad")
    assert (status, headers["Content-Type"]) == (500, "application/json")
    assert json.loads(body)["error"] == {"code": -32700, "message": "Parse error"}


@pytest.mark.parametrize("password", ["wrong", ""])
def test_wrong_and_missing_credentials_are_unauthorised(world: World, password: str) -> None:
    status, headers, body = post(world, b"{}", password=password)
    assert (status, body) == (401, b"")
    assert headers["WWW-Authenticate"] == 'Basic realm="jsonrpc"'


def test_other_verbs_and_paths_are_refused(world: World) -> None:
    assert post(world, b"{}", verb="PUT")[0] == 405
    assert post(world, b"{}", path="/elsewhere")[0] == 404


def test_a_connection_serves_many_requests(world: World) -> None:
    connection = http.client.HTTPConnection(world.url.removeprefix("http://"), timeout=10)
    token = base64.b64encode(world.cookie.read_bytes()).decode()
    try:
        for _ in range(3):
            body = json.dumps(V1 | COUNT)
            connection.request("POST", "/", body, {"Authorization": f"Basic {token}"})
            assert connection.getresponse().read().startswith(b'{"result":')
    finally:
        connection.close()


def test_the_cookie_is_cores_and_only_its_owner_may_read_it(world: World) -> None:
    user, _, password = world.cookie.read_text().partition(":")
    assert (user, len(bytes.fromhex(password))) == ("__cookie__", 32)
    assert world.cookie.stat().st_mode & 0o777 == 0o600
