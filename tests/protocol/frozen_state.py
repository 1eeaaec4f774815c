"""What the states of the roles are made of. Running this writes it to `frozen_state.json`.

    python -m tests.protocol.frozen_state

Before the first release it may be written anew at any time. Once a version was released, only what
`test_frozen_state` still reads may be.
"""

import json
from pathlib import Path
from typing import Any, Final

from cromford.bitcoin.network import REGTEST
from cromford.protocol.journal.client_state import ClientConfig, ClientState
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.house import House
from cromford.protocol.journal.lsp_config import LspConfig
from cromford.protocol.journal.scan import Scan
from cromford.protocol.journal.snapshot import references_of
from cromford.protocol.journal.state_classes import Classes, classes_of
from cromford.protocol.policy import ClientPolicy, LspPolicy
from cromford.signing.keychain import Keychain
from cromford.wallet.account import Account

FROZEN_FILE: Final = Path(__file__).parent / "frozen_state.json"
ACCOUNT: Final = Account(Keychain(bytes(32), REGTEST, journal_number=0).wallet_account)
LSP: Final = LspConfig(network=REGTEST, node_id=b"", policy=LspPolicy(), account=ACCOUNT)
CONFIGS: Final = {
    "house": (House, LSP),
    "chain": (Scan, LSP),
    "factory": (Factory, LSP),
    "client": (
        ClientState,
        ClientConfig(
            network=REGTEST, node_id=b"", lsp_node_id=b"", policy=ClientPolicy(), account=ACCOUNT
        ),
    ),
}


def classes_in(stream: str) -> Classes:
    """Return the classes whose values a stream's snapshots hold."""
    root, config = CONFIGS[stream]
    return classes_of(root, frozenset(type(value) for value in references_of(config).values()))


def described() -> dict[str, Any]:
    """Return what the file should say today."""
    return {
        stream: {
            "classes": {
                name: known.fields for name, known in sorted(classes_in(stream)[0].items())
            },
            "enums": {
                name: list(enum.__members__) for name, enum in sorted(classes_in(stream)[1].items())
            },
        }
        for stream in CONFIGS
    }


if __name__ == "__main__":
    text = json.dumps(described(), indent=1, sort_keys=False)
    FROZEN_FILE.write_text(text + "\n", encoding="utf-8")
