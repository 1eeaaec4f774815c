"""How `make docs` makes a site of the documents: Sphinx, with MyST to read Markdown, and Furo.

The documents stay what a forge shows. The first page is the README, and what the site shows beside
each page is said here alone.
"""

from pathlib import Path
from typing import Final

from sphinx.application import Sphinx

project = "Cromford"
author = "The Cromford developers"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "Cromford"
html_copy_source = False
html_show_sphinx = False
root_doc = "README"
source_suffix = {".md": "markdown"}
include_patterns = ["*.md", "docs/**.md", "contrib/*.md", "bench/*.md"]
exclude_patterns = [".*", "bench/results", "build", "src", "site", "tests", "wheels"]
nitpicky = True
myst_heading_anchors = 4
myst_links_external_new_tab = False
suppress_warnings = [
    "myst.header",  # docs/cli.md goes from a group to what is two levels below it
]
SHOWN: Final = {
    "Begin": ["docs/five-minutes", "docs/example", "docs/operating", "contrib/README"],
    "Use": [
        "docs/leaving",
        "docs/page",
        "docs/using-the-api",
        "docs/liquidity",
        "docs/dying",
        "docs/backup",
        "docs/node",
        "docs/troubles",
        "docs/metrics",
        "docs/trust",
    ],
    "Look up": ["docs/cli", "docs/export", "docs/exit-package", "docs/economics"],
    "Inside": [
        "docs/protocol/README",
        "ARCHITECTURE",
        "docs/adr/README",
        "docs/performance",
        "bench/README",
        "SECURITY",
        "CONTRIBUTING",
        "GLOSSARY",
        "CHANGELOG",
    ],
}
ROOT: Final = Path(__file__).parent.parent
# A page that is listed nowhere is one to look something up in.
SHOWN["Look up"] += sorted(
    {f"docs/{path.stem}" for path in ROOT.glob("docs/*.md")}.difference(*SHOWN.values())
)
BELOW: Final = {"docs/protocol/README": "[0-9]*", "docs/adr/README": "[0-9]*"}


def contents(pages: list[str], option: str) -> str:
    """Return a table of contents that is shown beside every page, and not in this one."""
    entries = "\n".join(f"/{page}" for page in pages)
    return f"\n```{{toctree}}\n:hidden:\n:{option}\n\n{entries}\n```\n"


def add_contents(_app: Sphinx, name: str, source: list[str]) -> None:
    """Add to a page what is below it."""
    if name == root_doc:
        source[0] += "".join(
            contents(pages, f"caption: {caption}") for caption, pages in SHOWN.items()
        )
    if name in BELOW:
        place = name.rsplit("/", 1)[0]
        source[0] += contents([f"{place}/{BELOW[name]}"], "glob:")


def setup(app: Sphinx) -> None:
    """Take part in a build."""
    app.connect("source-read", add_contents)
