"""How a demo ends when it does not end well."""

from typing import Final

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


class DemoFailed(Exception):
    """The demo could not be finished. Every process it started has been stopped by then.

    `code` is in snake case and stays the same between versions.
    """

    def __init__(
        self, code: str, message: str, *, remediation: str = "", exit_code: int = EXIT_FAILED
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remediation = remediation
        self.exit_code = exit_code


def refused(option: str, complaint: str, *, remediation: str = "") -> DemoFailed:
    """Return the refusal of an option, before anything was started."""
    return DemoFailed(
        "usage", f"{option}: {complaint}", remediation=remediation, exit_code=EXIT_USAGE
    )
