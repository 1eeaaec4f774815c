"""End listening without losing who has just knocked."""

import asyncio
from typing import Final

# Of the event loop, for what the kernel handed over last: it becomes a connection, is made known,
# is met by whoever serves it, is closed by them, and is gone.
TURNS: Final = 5


async def stop_listening(server: asyncio.Server) -> None:
    """Close a server's listening sockets.

    Whoever serves must turn newcomers away from before this is called. asyncio drops the socket
    of one that meets a closed server, or an ended loop, without closing it: so those that have
    been accepted already are let through first.
    """
    loop = asyncio.get_running_loop()
    for listener in server.sockets:
        loop.remove_reader(listener)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    server.close()
