"""The proof that a client moves from a dying factory: priority in the lobby, nothing more."""

from typing import Final

from cromford.crypto.keys import TaggedHash

_hash_move: Final = TaggedHash("cromford/move")


def move_digest(*, client_node_id: bytes, lsp_node_id: bytes, old_attempt_id: bytes) -> bytes:
    """Return what a moving client signs with its old factory key.

    The tag names the purpose and the message both nodes, so that the signature proves nothing
    to anybody else and can be mistaken for nothing else.
    """
    return _hash_move(client_node_id + lsp_node_id + old_attempt_id)
