"""SuperScalar channel factories for Bitcoin: many users safely share one UTXO.

`Client` asks a client's daemon that runs, and `ApiFailure` is how it refuses.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cromford.daemon.api.failures import ApiFailure
    from cromford.library import Client

__all__ = ["ApiFailure", "Client", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Most of what imports this package has no use for them, and a command line is quick.
    if name == "Client":
        from cromford.library import Client  # noqa: PLC0415 - see above

        return Client
    if name == "ApiFailure":
        from cromford.daemon.api.failures import ApiFailure  # noqa: PLC0415 - see above

        return ApiFailure
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
