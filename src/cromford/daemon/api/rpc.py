"""What a caller of the API knows, under the names that it had."""

from cromford.daemon.api.calling import CALL_TIMEOUT_SECONDS, SOCKET_NAME, ApiClient
from cromford.daemon.api.failures import ApiFailure, DaemonNotRunning, InvalidParam

RpcClient = ApiClient
RpcFailure = ApiFailure

__all__ = [
    "CALL_TIMEOUT_SECONDS",
    "SOCKET_NAME",
    "DaemonNotRunning",
    "InvalidParam",
    "RpcClient",
    "RpcFailure",
]
