"""Nodes of a pump that stall, or lag behind their headers, and are well again."""

from typing import Final

from tests.protocol.pump import Pump, PumpNode

from cromford.daemon.freshness import LAG_BLOCKS_MAX
from cromford.protocol import events as ev
from cromford.protocol.facts import FRESH, Facts

WHY: Final = "the node has not answered since noon"


def stall(pump: Pump, node: PumpNode) -> None:
    """Let a participant's node say nothing any more."""
    pump.blind.add(node.name)
    last_height = node.state.chain.height
    node.facts_at = lambda _own_height: Facts(stale=WHY, header_height=last_height)


def lag(pump: Pump, node: PumpNode) -> None:
    """Let a participant's node show headers, and no block."""
    pump.blind.add(node.name)
    node.facts_at = lambda _own_height: Facts(stale=WHY, header_height=pump.chain.height)


def recover(pump: Pump, node: PumpNode) -> None:
    """Let a participant's node be well again, and its role read what it missed."""

    def facts_at(own_height: int) -> Facts:
        is_stale = pump.chain.height - own_height > LAG_BLOCKS_MAX
        return Facts(stale=WHY if is_stale else None, header_height=pump.chain.height)

    node.facts_at = facts_at
    pump.blind.discard(node.name)
    pump.sync()
    tell(pump, node)


def be_fresh_untold(pump: Pump, node: PumpNode) -> None:
    """Let a node be well again before its role hears of it."""
    pump.blind.discard(node.name)
    node.facts_at = lambda _own_height: FRESH


def tell(pump: Pump, node: PumpNode) -> None:
    """Let a role know that the facts changed, and everybody hear what it says."""
    pump.handle(node, ev.FactsChanged())
    pump.run()
