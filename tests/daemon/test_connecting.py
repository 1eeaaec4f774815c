"""A daemon and the credentials of its node, which somebody may change while it runs."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.adapters.scripted_node import HASH, ScriptedNode

from cromford.adapters.bitcoind import BitcoindChain
from cromford.daemon.connecting import connect_chain
from cromford.daemon.options import ChainOptions
from cromford.ports import CredentialsRefused

USER = "__cookie__"  # Of the scripted node; here, with a password that somebody chose.


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    scripted = ScriptedNode(tmp_path)
    scripted.answers["getblockhash"] = HASH
    yield scripted
    scripted.close()


def connected(node: ScriptedNode, password_file: Path) -> BitcoindChain:
    return connect_chain(ChainOptions(url=node.url, user=USER, password_file=password_file))


def test_a_password_that_is_changed_at_the_node_and_in_its_file_is_taken_by_itself(
    node: ScriptedNode, tmp_path: Path
) -> None:
    path = tmp_path / "password"
    path.write_text("first\n", encoding="utf-8")

    async def ask() -> None:
        async with connected(node, path) as chain:
            assert await chain.block_hash(1)
            node.set_cookie("second")
            with pytest.raises(CredentialsRefused):
                await chain.block_hash(1)
            path.unlink()
            with pytest.raises(CredentialsRefused):
                await chain.block_hash(1)
            path.write_text("second\n", encoding="utf-8")
            assert await chain.block_hash(1)

    asyncio.run(ask())


@pytest.mark.parametrize("text", ["first \nof the node at home\n", "\ufefffirst\n"])
def test_a_password_is_the_first_line_of_its_file_without_an_editors_mark(
    node: ScriptedNode, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "password"
    path.write_text(text, encoding="utf-8")

    async def ask() -> object:
        async with connected(node, path) as chain:
            return await chain.block_hash(1)

    assert asyncio.run(ask())
