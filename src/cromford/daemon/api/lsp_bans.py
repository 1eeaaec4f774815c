"""The LSP's API for bans: to whom the lobby is closed, and who decided so."""

from typing import Any, Final, Protocol

import msgspec

from cromford.answers.bans import BannedNode, BannedNodes
from cromford.crypto.keys import is_pubkey
from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.handlers import Handler, Params, read_params, without_params
from cromford.daemon.views.bans import show_ban, show_bans
from cromford.protocol import events as ev
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.lobby.banning import BAN_REASON_SIZE_MAX
from cromford.protocol.policy import BAN_BLOCKS_MAX

EXIT_NOT_FOUND = 4


class BanningLsp(Protocol):
    """What an LSP's daemon offers these methods."""

    @property
    def state(self) -> LspState:
        """The LSP's state now."""

    def request(self, event: ev.Event) -> None:
        """Handle an operator's request."""


class _BanParams(msgspec.Struct, forbid_unknown_fields=True):
    node_id: str
    blocks: int
    reason: str


class _PeerParams(msgspec.Struct, forbid_unknown_fields=True):
    node_id: str


PARAMS: Final[Params] = {"ban_add": _BanParams, "ban_remove": _PeerParams}


class LspBans:
    """The methods `bans`, `ban_add` and `ban_remove`."""

    def __init__(self, owner: BanningLsp) -> None:
        self._owner = owner

    def methods(self) -> dict[str, Handler]:
        """Return the methods by name."""
        return {
            "bans": without_params(self._bans),
            "ban_add": self._ban_add,
            "ban_remove": self._ban_remove,
        }

    async def _bans(self) -> BannedNodes:
        return {"bans": show_bans(self._owner.state.house)}

    async def _ban_add(self, params: dict[str, Any]) -> BannedNode:
        wanted = read_params(params, _BanParams)
        node_id = _node_id(wanted.node_id)
        if node_id == self._owner.state.house.config.node_id:
            raise InvalidParam("node_id", "expected a peer's, received this LSP's own")
        if not 1 <= wanted.blocks <= BAN_BLOCKS_MAX:
            raise InvalidParam("blocks", f"expected 1..{BAN_BLOCKS_MAX}, received {wanted.blocks}")
        size = len(wanted.reason.encode())
        if not 1 <= size <= BAN_REASON_SIZE_MAX:
            raise InvalidParam(
                "reason", f"expected 1..{BAN_REASON_SIZE_MAX} bytes, received {size}"
            )
        self._owner.request(
            ev.BanRequested(node_id=node_id, n_blocks=wanted.blocks, reason=wanted.reason)
        )
        house = self._owner.state.house
        pause = house.pause_of(node_id)
        if pause is None:
            raise AssertionError("a ban of at least one block is not over at once")
        return show_ban(house, node_id, pause)

    async def _ban_remove(self, params: dict[str, Any]) -> BannedNode:
        node_id = _node_id(read_params(params, _PeerParams).node_id)
        house = self._owner.state.house
        pause = house.pause_of(node_id)
        if pause is None:
            raise ApiFailure(
                "not_banned",
                f"{node_id.hex()} is not banned",
                remediation="`cromford lsp bans list` shows who is.",
                exit_code=EXIT_NOT_FOUND,
            )
        removed = show_ban(house, node_id, pause)
        self._owner.request(ev.BanEndRequested(node_id=node_id))
        return removed


def _node_id(text: str) -> bytes:
    try:
        node_id = bytes.fromhex(text)
    except ValueError:
        node_id = b""
    if not is_pubkey(node_id):
        raise InvalidParam("node_id", f"expected a public key of 66 hex digits, received {text!r}")
    return node_id
