"""JSON and MessagePack give a value of the expected type, or the one error, whatever they hold."""

import re
from pathlib import Path
from typing import Final

import msgspec
import pytest

from cromford.codec.decoders import Decoder, decoded
from cromford.codec.reader import MalformedBytes


class Known(msgspec.Struct, frozen=True):
    name: str


DEEP: Final = 5000  # Above any limit of recursion, and few bytes.
JSON: Final = msgspec.json.Decoder(Known)
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


def test_no_other_module_decodes_by_itself(repository: Path) -> None:
    """Each would forget one of the errors."""
    direct = re.compile(r"msgspec\.(json|msgpack)\.decode\(|DECODER\.decode\(|msgspec\.DecodeErr")
    sources = (repository / "src").rglob("*.py")
    assert [path.name for path in sources if direct.search(path.read_text(encoding="utf-8"))] == []
