"""JSON and MessagePack give a value of the expected type, or the one error, whatever they hold."""

import re
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from cromford.codec.decoders import Decoder, RepeatedName, decoded, decoded_object
from cromford.codec.reader import MalformedBytes


class Known(msgspec.Struct, frozen=True):
    name: str


DEEP: Final = 5000  # Above any limit of recursion, and few bytes.
JSON: Final = msgspec.json.Decoder(Known)
OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
PACKED: Final = msgspec.msgpack.Decoder(Known)


def test_a_value_is_what_its_decoder_makes_of_it() -> None:
    assert decoded(JSON, b'{"name":"a"}') == Known("a")
    assert decoded(PACKED, msgspec.msgpack.encode(Known("a"))) == Known("a")


@pytest.mark.parametrize(
    ("decoder", "data", "complaint"),
    [
        (JSON, b"", "truncated"),
        (JSON, b'{"name":1}', "Expected `str`"),
        (JSON, b'{"name":"\xff"}', "codec can't decode"),
        (JSON, b'{"other":' + b"[" * DEEP, "nested too deeply"),
        (PACKED, b"\x81\xa4name\xa1\xff", "codec can't decode"),
        (PACKED, b"\x81\xa5other" + b"\x91" * DEEP, "nested too deeply"),
    ],
)
def test_whatever_else_it_may_be_is_one_error(
    decoder: Decoder[Known], data: bytes, complaint: str
) -> None:
    with pytest.raises(MalformedBytes, match=complaint):
        decoded(decoder, data)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        " { } ",
        '{"a":1}',
        '\n{ "a" : [1, {"a": "}"}] ,\t"b" : -2e3 , "":null}\r',
        '{"a":{"b":1,"b":2}}',  # Inside of a value, which has a type of its own.
        '{"a":' + "9" * 300 + ',"A":true}',
    ],
)
def test_an_object_that_says_each_name_once_is_what_its_decoder_makes_of_it(text: str) -> None:
    assert decoded_object(OBJECT, text.encode()) == decoded(OBJECT, text.encode())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"a":1,"a":1}', "a"),
        ('{"a":1,"b":{"c":[]},\n "\\u0061" : 2}', "a"),
        ('{"":1,"b":2,"":1}', ""),
    ],
)
def test_an_object_that_says_a_name_twice_is_refused_by_it(text: str, name: str) -> None:
    decoded(OBJECT, text.encode())  # It would be taken, and one value would be nobody's.
    with pytest.raises(RepeatedName) as refused:
        decoded_object(OBJECT, text.encode())
    assert refused.value.name == name


@pytest.mark.parametrize("data", [b"", b"[]", b'{"a"', b'{"a":' + b"[" * DEEP])
def test_what_is_no_object_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedBytes):
        decoded_object(OBJECT, data)


def test_no_other_module_decodes_by_itself(repository: Path) -> None:
    """Each would forget one of the errors."""
    direct = re.compile(r"msgspec\.(json|msgpack)\.decode\(|DECODER\.decode\(|msgspec\.DecodeErr")
    sources = (repository / "src").rglob("*.py")
    assert [path.name for path in sources if direct.search(path.read_text(encoding="utf-8"))] == []
