"""Every reader, by name."""

from typing import Final

from tests.fuzz import asked_targets, ground_targets, peer_targets, stored_targets
from tests.fuzz.target import Target

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for room in (ground_targets, peer_targets, stored_targets, asked_targets)
    for target in room.TARGETS
}
