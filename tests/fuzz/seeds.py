"""What the fuzzer begins with: real values of each kind, most of them as other tests have them."""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from cromford.adapters import key_file
from cromford.bitcoin.address import CHARSET, address_of_script
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.channel.content import CommitmentContent, Htlc
from cromford.channel.terms import Party
from cromford.cli.configuration.settings import dump, resolve
from cromford.codec.tlv import encode_bigsize, encode_tlv_stream
from cromford.crypto.keys import pubkey_of
from cromford.daemon.api.operations import OPERATIONS
from cromford.daemon.backup import mark_file
from cromford.daemon.backup.high_water import HighWaterMark, Memo
from cromford.daemon.seed_file import _encrypt
from cromford.factory.kinds import VertexKind
from cromford.invoice.bolt11 import sign_invoice
from cromford.protocol.client import new_client
from cromford.protocol.journal.revoked import encode_content, encode_htlc, encode_naming
from cromford.protocol.lsp import new_lsp
from cromford.wire.messages import HEADER_SIZE, MESSAGE_TYPES
from tests.adapters.test_bitcoind import MAINNET_GENESIS
from tests.factory import oracle
from tests.fuzz.asked_targets import CHILD, PARAMS, TX
from tests.fuzz.ground_targets import NONCE_SIZE
from tests.fuzz.peer_targets import CLASSES, _sealed
from tests.fuzz.stored_targets import (
    POSITION,
    SEALED,
    STREAMS,
    frame_seeds,
    sealed_seeds,
    snapshots,
)
from tests.invoice.orders import order, signer
from tests.protocol.frozen_journal import IN_ONE_PIECE, SHELVED, read
from tests.protocol.frozen_state import CONFIGS, LSP
from tests.watch.packages import encoded, package

TESTS: Final = Path(__file__).parent.parent
WORDS: Final = "abandon " * 11 + "about"
SEGWIT: Final = bytes.fromhex("0014") + bytes(20)
HASH: Final = "07" * 32


def _frozen(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((TESTS / path).read_text(encoding="utf-8"))
    return found


def _txs() -> Iterator[bytes]:
    for with_witness in (TX, CHILD, TX.with_witnesses((b"", b"\x01" * 64))):
        yield with_witness.serialize()
    for one in package(4, 1, is_leaving=True).txs:
        yield one.serialize()


def _blocks() -> Iterator[bytes]:
    txs = list(_txs())
    for some in ([], txs[:1], txs[:3]):
        yield bytes(80) + bytes([len(some)]) + b"".join(some)


def _addresses() -> Iterator[bytes]:
    for script in (SEGWIT, b"\x00\x20" + bytes(32), b"\x51\x20" + bytes(32), ANCHOR_SCRIPT):
        address = address_of_script(script, REGTEST)
        yield address.encode()
        yield address.upper().encode()
        yield b"1" + bytes(CHARSET.index(char) for char in address[5:-6])


def _invoices() -> Iterator[bytes]:
    for one in (order(), order(route_hint=None, description="")):
        text = sign_invoice(one, signer().sign_node)
        yield text.encode()
        prefix, _, data = text.rpartition("1")
        words = [CHARSET.index(char) for char in data]
        amount = bytes(byte - 33 for byte in prefix.removeprefix("lnbcrt").encode())
        yield b"1" + bytes([len(amount)]) + amount + bytes(words[: -104 - 6])
    for text in _frozen("vectors/bolt11.json").values():
        if isinstance(text, str):
            yield text.encode()


def _peers() -> Iterator[bytes]:
    for endpoint in ("host:9735", "[::1]:1", "127.0.0.1:00080"):
        yield f"{pubkey_of(bytes(31) + bytes([1])).hex()}@{endpoint}".encode()


def _bodies() -> Iterator[bytes]:
    frozen = _frozen("wire/frozen_messages.json")
    for place, cls in enumerate(CLASSES):
        yield bytes([place]) + bytes.fromhex(frozen[cls.__name__]["bytes"])[HEADER_SIZE:]


def _messages() -> Iterator[bytes]:
    for line in _frozen("wire/frozen_messages.json").values():
        if line["type"] in MESSAGE_TYPES.values():
            yield bytes.fromhex(line["bytes"])


def _inside() -> Iterator[bytes]:
    frozen = _frozen("wire/frozen_messages.json")
    for name in ("Delivery", "Pool"):
        yield bytes.fromhex(frozen[name]["bytes"])


def _terms() -> Iterator[bytes]:
    yield oracle.terms_of((100_000,), (0,)).encode()
    terms = oracle.terms_of((100_000, 50_000, 70_000), (0, 5000), inner_arities=(2,))
    yield terms.encode()
    yield oracle.with_field(terms, inner_kinds=(VertexKind.STATIC,)).encode()


def _stream() -> Iterator[bytes]:
    messages = b"".join(len(one).to_bytes(2, "big") + one for one in (b"", b"\x00\x12\x00\x00"))
    yield b"\x01" + messages
    yield b"\x00" + _sealed(messages)


def _records() -> Iterator[bytes]:
    for line in _frozen("protocol/frozen_records.json").values():
        yield bytes.fromhex(line["bytes"])
        for before in line.get("older", ()):
            yield bytes.fromhex(before)


def _plain_snapshots() -> Iterator[bytes]:
    lsp = new_lsp(LSP)
    client_config: Any = CONFIGS["client"][1]
    values = {
        "house": lsp.house,
        "chain": lsp.scan,
        "client": new_client(client_config),
    }
    for stream, value in values.items():
        data = snapshots(stream).encode(value, POSITION, written_by="1")
        yield bytes([STREAMS.index(stream)]) + zlib.decompress(data[32:])
    for name, checkpoint in read("lsp", IN_ONE_PIECE).checkpoints.items():
        kind = name.partition(":")[0]
        plain = msgspec.msgpack.decode(zlib.decompress(checkpoint.snapshot[32:]))
        plain[2:4] = POSITION.stream, POSITION.n
        body = msgspec.msgpack.encode(plain)
        if len(body) < 16 * 1024:
            yield bytes([STREAMS.index(kind)]) + body


def _rows() -> Iterator[bytes]:
    found = read("lsp", SHELVED).checkpoints["house"].rows
    shapes = {row.key: row.value for row in found if row.shelf == "shapes"}
    for row in found:
        if row.shelf != "shapes" and row.value is not None:
            shape = shapes[row.value[:8]]
            if shape is not None and len(shape) < 256:
                yield bytes([len(shape)]) + shape + row.value[8:]


def _revoked() -> Iterator[bytes]:
    htlc = Htlc(
        offered_by=Party.OPENER,
        htlc_id=1,
        amount_msat=2,
        payment_hash=bytes(32),
        cltv_expiry=3,
    )
    for htlcs in ((), (htlc, htlc)):
        content = CommitmentContent(
            holder=Party.ACCEPTER, number=7, opener_msat=1, accepter_msat=2, htlcs=htlcs
        )
        yield encode_content(content)
        yield encode_naming(content)


def _revoked_htlcs() -> Iterator[bytes]:
    yield encode_htlc(
        Htlc(
            offered_by=Party.OPENER,
            htlc_id=1,
            amount_msat=2,
            payment_hash=bytes(32),
            cltv_expiry=3,
        )
    )


def _labels() -> Iterator[bytes]:
    label = {
        "wake_height": 1,
        "status": "active",
        "earned_msat": 2,
        "n_finished": 3,
        "totals": {"a": 1},
        "taken": {"b": 2},
        "shown": {"funding_amount_sat": 5},
        "period": "active",
    }
    yield msgspec.json.encode(label)


def _memos() -> Iterator[bytes]:
    yield msgspec.msgpack.encode(Memo(number=1, digest=bytes(32), known=(b"12345678",)))


def _headers() -> Iterator[bytes]:
    for one in sealed_seeds():
        yield one[12 : 12 + int.from_bytes(one[8:12], "big")]


def _key_files() -> Iterator[bytes]:
    entry = key_file._entry(SEALED)
    yield key_file.MAGIC + entry + entry
    yield key_file.MAGIC + entry[:-9]
    yield b"\x01" + entry[:-8]


def _marks() -> Iterator[bytes]:
    slot = mark_file._slot(3, HighWaterMark(7, bytes(32)))
    yield slot + bytes(mark_file.SLOT_SIZE)
    yield b"\x01" + slot[: mark_file._BODY.size]


def _packages() -> Iterator[bytes]:
    yield encoded(package(1, 1, is_leaving=True))
    yield encoded(package(4, 1))


def _requests() -> Iterator[bytes]:
    for name, kind in PARAMS.items():
        operation = OPERATIONS[name]
        given = {field.name: _given(str(field.type)) for field in msgspec.structs.fields(kind)}
        target = operation.path
        for place in operation.places:
            target = target.replace(f"{{{place}}}", str(given.pop(place)))
        body = b""
        if operation.has_body:
            body = msgspec.json.encode(given)
        else:
            target += f"?{urlencode(given, doseq=True)}"
        yield (
            f"{operation.verb} {target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body


def _given(kind: str) -> object:
    if "list" in kind or "tuple" in kind:
        return ["text"]
    return "text" if "str" in kind else True if "bool" in kind else 7


def _responses() -> Iterator[bytes]:
    for status, body in (
        (200, b'{"a":[1,2.5,null,"x"]}'),
        (409, b'{"code":"c","message":"m","retryable":true,"remediation":"r","exit_code":2}'),
    ):
        head = f"HTTP/1.1 {status} OK\r\ncontent-length: {len(body)}\r\n\r\n"
        yield head.encode() + body


def _configs() -> Iterator[bytes]:
    whole = dump(resolve(flags={}, environment={}, in_file={}))
    lines = [line for line in whole.splitlines() if line and not line.startswith("#")]
    yield "\n".join(lines).encode()
    for line in lines:
        if line.startswith("["):
            section = line
        else:
            yield f"{section}\n{line}".encode()


def _environments() -> Iterator[bytes]:
    yield b"CROMFORD_LSP_LISTEN=[::1]:9735\nCROMFORD_CHAIN_NETWORK=regtest"
    yield b"CROMFORD_LSP_STEP_BLOCKS=0x10"


def _answers() -> Iterator[bytes]:
    fees = {"base": 0.00001, "descendant": 1, "ancestor": 0.5, "chunk": 2}
    wtxids = (str(TX.wtxid), str(CHILD.wtxid))
    told = {"fees": {"base": 0.1, "effective-feerate": 0.2}, "vsize": 100}
    answers: list[object] = [
        {"blocks": 1, "bestblockhash": HASH, "time": 2, "headers": 3, "pruneheight": 0},
        HASH,
        MAINNET_GENESIS.hex(),
        {"value": 0.5, "scriptPubKey": {"hex": "51"}, "confirmations": 1},
        {"fees": fees, "vsize": 1, "chunkweight": 4, "wtxid": HASH, "weight": 4, "depends": [],
         "spentby": [HASH]},
        [{"txid": str(TX.txid), "vout": 0, "spendingtxid": HASH}],
        {"mempoolminfee": 0.1, "minrelaytxfee": 0.1, "incrementalrelayfee": 1},
        {"feerate": 0.00001},
        {"package_msg": "success", "tx-results": dict.fromkeys(wtxids, told),
         "replaced-transactions": [HASH]},
    ]  # fmt: skip
    for place, answer in enumerate(answers):
        yield bytes([place]) + json.dumps(answer).encode()
    old = {name: fees[name] for name in ("base", "descendant", "ancestor")}
    entry = {"fees": old, "vsize": 1, "ancestorsize": 2, "descendantsize": 3, "wtxid": HASH}
    yield bytes([4]) + json.dumps({**entry, "weight": 4, "depends": [], "spentby": []}).encode()


SEEDS: Final[dict[str, Callable[[], Iterable[bytes]]]] = {
    "tlv": lambda: [encode_tlv_stream([(0, b"a"), (2, b""), (65_534, b"b")]), b"\x01\x00"],
    "bigsize": lambda: [encode_bigsize(number) for number in (0, 0xFD, 0x1_0000, 2**40)],
    "tx": _txs,
    "block": _blocks,
    "outpoint": lambda: [HASH.encode(), bytes(36)],
    "address": _addresses,
    "descriptor": lambda: [b"tr(musig(02ab,03cd),and_v(v:pk(ab),after(5)))"],
    "invoice": _invoices,
    "qr": lambda: [b"LNBCRT1", b"lightning:lnbc", b"123"],
    "peer_address": _peers,
    "points": lambda: [2 * pubkey_of(b"\x01" * 32), bytes(NONCE_SIZE)],
    "message": _messages,
    "message_body": _bodies,
    "inside": _inside,
    "ping": lambda: [b"\x00\x00\x00\x00", b"\xff\xff\x00\x01a"],
    "terms": _terms,
    "handshake": lambda: [b"\x00" + bytes(50), b"\x03" + pubkey_of(b"\x02" * 32)],
    "stream": _stream,
    "record": _records,
    "snapshot": _plain_snapshots,
    "damaged_snapshot": lambda: [zlib.compress(one[1:], 9) for one in _plain_snapshots()],
    "row": _rows,
    "shelf_key": lambda: [bytes([kind]) + bytes(36) for kind in range(5)],
    "revoked": _revoked,
    "revoked_htlc": _revoked_htlcs,
    "label": _labels,
    "memo": _memos,
    "sealed": sealed_seeds,
    "backup_header": _headers,
    "frames": frame_seeds,
    "backup": lambda: list(frame_seeds())[1:],
    "seed_file": lambda: [WORDS.encode(), _encrypt(WORDS, "passphrase")],
    "key_file": _key_files,
    "mark": _marks,
    "journal": lambda: [b"", b"\x00\x00\x3c\x03abcd", b"\x00\x1f\xf0\x00a"],
    "agent_rows": lambda: [b"\x04\x00\x00\x00\x07" + one for one in _packages()],
    "package": _packages,
    "request": _requests,
    "response": _responses,
    "config": _configs,
    "policies": _configs,
    "environment": _environments,
    "answer": _answers,
}
