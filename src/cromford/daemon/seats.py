"""Who has a seat with an LSP, asked several times for each message of a peer.

What there is of a factory lies on a shelf, of which little is kept in memory: read anew for each
message of each client, the entries of a few large factories would cost more than all else.
"""

from collections.abc import Callable
from typing import Final

from cromford.protocol.journal.house import House
from cromford.protocol.journal.lsp_state import LspState
from cromford.recent import Recent

KEPT_MAX: Final = 16_384  # Names cost nothing: of more, those that came first are read anew.


class Seats:
    """Says whether a peer has a seat, as `LspState.has_seat` does, and reads it once a block.

    It is read anew as soon as something happens to a factory's entry, or a build begins or ends.

    Args:
        state: Returns the state now.
    """

    def __init__(self, state: Callable[[], LspState]) -> None:
        self._state = state
        self._house: House | None = None
        self._known: Recent[bytes, bool] = Recent(KEPT_MAX)

    def __call__(self, node_id: bytes) -> bool:
        """Say whether a peer has a channel with us, or may get one by what is being built."""
        state = self._state()
        if self._house is None or not _is_alike(self._house, state.house):
            self._known = Recent(KEPT_MAX)
        self._house = state.house
        known = self._known.get(node_id)
        if known is None:
            known = state.has_seat(node_id)
            self._known.note(node_id, known)
        return known


def _is_alike(before: House, house: House) -> bool:
    """Say whether nothing changed that seats depend on, but for what blocks show."""
    return before is house or (
        before.entries is house.entries
        and before.of_client is house.of_client
        and before.build is house.build
        and before.under_way == house.under_way
        and before.chain is house.chain
    )
