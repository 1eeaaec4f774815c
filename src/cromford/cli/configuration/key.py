"""One key of the configuration, and what it is called in the environment."""

from dataclasses import dataclass
from typing import Any, Final

from cromford.cli.configuration.kinds import (
    KeyKind,
)

ENV_PREFIX: Final = "CROMFORD"


def variable_of(path: str) -> str:
    """Return the environment variable of a key, by its path."""
    return f"{ENV_PREFIX}_{path.replace('.', '_')}".upper()


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key. `flag` is None where only the file and the environment set it.

    A default of None means that the key may be left out; `help` says what happens then.
    """

    section: str
    name: str
    kind: KeyKind
    default: Any
    help: str
    flag: str | None = None
    shown_default: str | None = None

    @property
    def path(self) -> str:
        """The key with its section, as errors name it."""
        return f"{self.section}.{self.name}"

    @property
    def param(self) -> str:
        """The name of its option inside the program."""
        return f"{self.section}_{self.name}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return variable_of(self.path)

    @property
    def default_text(self) -> str:
        """The default as help shows it."""
        if self.shown_default is not None:
            return self.shown_default
        return "none" if self.default is None else self.kind.to_toml(self.default).strip('"')
