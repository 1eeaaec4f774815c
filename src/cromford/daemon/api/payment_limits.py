"""What both the local API and its callers know about payments: defaults and limits."""

from typing import Final

from cromford.daemon.api.calling import CALL_TIMEOUT_SECONDS

INVOICE_EXPIRY_SECONDS: Final = 3600
ANNOUNCED_HOLD_SECONDS_MAX: Final = 43_200  # Half a day; it ties its payer's money up.
ANNOUNCEMENT_SECONDS: Final = 3.0  # For the LSP's word on a hold; it may also come later.
WAIT_SECONDS: Final = 60.0
WAIT_SECONDS_MAX: Final = CALL_TIMEOUT_SECONDS - 20  # The answer must come before its caller goes.
LIMIT: Final = 100  # Payments in a list.
LIMIT_MAX: Final = 1000
LABEL_SIZE_MAX: Final = 256  # Bytes of UTF-8.
EXTERNAL_ID_SIZE_MAX: Final = 128
