"""What a handler knows, under the names that it had."""

from cromford.daemon.api.handlers import Handler, read_params, without_params
from cromford.daemon.api.server import SocketInUse

__all__ = ["Handler", "SocketInUse", "read_params", "without_params"]
