"""Whatever a quote or a purchase is refused with is in the guide to liquidity, by its code."""

import re
from pathlib import Path

from cromford.daemon.api import client_market


def test_every_code_of_a_refusal_has_what_to_do(repository: Path) -> None:
    page = (repository / "docs/liquidity.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    told = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    source = Path(client_market.__file__).read_text(encoding="utf-8")
    made = re.findall(r'"(quote_refused|not_bought)"|ApiFailure\(\s*"([a-z_]+)"', source)
    codes = {*client_market._KNOWN, *(one or other for one, other in made)}
    assert {"stale", "no_channel", "lsp_unreachable"} <= codes
    assert codes <= told
