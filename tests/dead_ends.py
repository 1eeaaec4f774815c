"""Names with several addresses, of which some lead nowhere: who dials them is never answered."""

import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

NAME = "two-ways.example"
DEAD_END = "127.0.0.2"  # All of 127.0.0.0/8 is this machine; others listen on 127.0.0.1.


@contextlib.contextmanager
def dead_end(port: int) -> Iterator[None]:
    """Let whoever dials `DEAD_END` wait: its queue is full, and the kernel drops what comes."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind((DEAD_END, port))
        listener.listen(0)
        first = held.enter_context(socket.socket())
        first.connect((DEAD_END, port))
        yield


def let_it_have(
    monkeypatch: pytest.MonkeyPatch, addresses: Sequence[str], *, name: str = NAME
) -> None:
    """Let a name have addresses, in their order; every other one has its own."""
    ask = socket.getaddrinfo

    def answer(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        if host != name:
            return ask(host, port, *args, **kwargs)
        return [ask(one, port, *args, **kwargs)[0] for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
