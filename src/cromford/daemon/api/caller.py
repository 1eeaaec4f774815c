"""Whose request is answered: the operator's own, or that of whoever has a token; per request.

Set by what lets a caller in, and read where many share something that ends.
"""

from contextvars import ContextVar
from typing import Final

OPERATOR: Final = ""  # No token has this name, or a bearing on the operator.
caller: Final = ContextVar("caller", default=OPERATOR)
