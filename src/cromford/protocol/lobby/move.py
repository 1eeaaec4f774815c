"""The proof that a client moves from a dying factory: priority in the lobby, nothing more."""

from cromford.signing.signer import hash_move


def move_statement(*, client_node_id: bytes, lsp_node_id: bytes, old_attempt_id: bytes) -> bytes:
    """Return what a moving client says: who it is, to whom, and from where."""
    return client_node_id + lsp_node_id + old_attempt_id


def move_digest(*, client_node_id: bytes, lsp_node_id: bytes, old_attempt_id: bytes) -> bytes:
    """Return what a moving client signs with its old factory key.

    The tag names the purpose and the statement both nodes, so that the signature proves nothing
    to anybody else and can be mistaken for nothing else.
    """
    return hash_move(
        move_statement(
            client_node_id=client_node_id, lsp_node_id=lsp_node_id, old_attempt_id=old_attempt_id
        )
    )
