"""Let a factory of eight die, and print what each got: `python -m tests.dying`."""

import sys
import time

from tests.dying.accounts import MINERS, Accounts, rows
from tests.dying.world import DyingWorld


def main() -> int:
    """Play the story, and print every block in which something of it was spent, and the table."""
    began = time.monotonic()
    world = DyingWorld()
    world.play()
    accounts = Accounts(world)
    life = world.life
    heights = (life.dying_height, life.exit_deadline_height, life.expiry_height)
    lines = [
        "dying from height {}, exit deadline {}, expiry {}".format(*heights),
        *(
            f"block {fee.height}: {fee.what.removeprefix('fee of ')}, fee {fee.amount_sat} sat"
            for fee in accounts.of(MINERS)
        ),
        *rows(accounts, by_outpoint=True),
        f"{time.monotonic() - began:.1f} s",
    ]
    for line in lines:
        sys.stdout.write(f"{line}\n")
    return 0 if accounts.total_sat == accounts.funding_sat else 1


if __name__ == "__main__":
    sys.exit(main())
