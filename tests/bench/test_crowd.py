"""A small crowd over sockets: its factory is built, every branch verified, one client leaves."""

import random
from dataclasses import replace

from bench import crowd

N_CLIENTS = 24


def test_a_crowd_is_signed_over_sockets_verified_and_one_of_it_leaves() -> None:
    seed = random.randrange(2**32)
    outcome = crowd.run(N_CLIENTS, seed, is_quick=True)
    assert [*outcome.broken()] == [], f"seed {seed}"
    assert outcome.n_verified == N_CLIENTS
    assert 1 <= outcome.leaver <= N_CLIENTS
    assert outcome.exit_blocks > crowd.QUICK_BLOCKS
    spoilt = (
        replace(outcome, n_verified=N_CLIENTS - 1),
        replace(outcome, lsp_end_mb=crowd.LSP_MEMORY_MAX_MB + 1),
        replace(outcome, exit_sat=0),
    )
    assert [len([*one.broken()]) for one in spoilt] == [1, 1, 1]
