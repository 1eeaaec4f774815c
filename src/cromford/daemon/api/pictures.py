"""Pictures by the API: what another operation answers, drawn beside the loop, one at a time."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from cromford.codec.decoders import decoded
from cromford.daemon.api.beside import beside
from cromford.daemon.api.handlers import Handler

Document = Mapping[str, Any]
_Result = TypeVar("_Result")
_DECODER: Final = msgspec.json.Decoder(dict[str, Any])


class Pictures:
    """Draws. Who comes while something is being drawn waits: there is one thread for all."""

    def __init__(self) -> None:
        self._drawing = asyncio.Lock()

    def of(self, handler: Handler, draw: Callable[[Document], str]) -> Handler:
        """Return what answers with a picture of what a handler answers.

        Args:
            handler: It takes the parameters.
            draw: Makes the picture, of what a reader of JSON has.
        """

        async def picture(params: dict[str, Any]) -> str:
            document = msgspec.json.encode(await handler(params))
            return await self.beside(lambda: draw(decoded(_DECODER, document)))

        return picture

    async def beside(self, work: Callable[[], _Result]) -> _Result:
        """Return what some work gives, which knows no state of the daemon's, out of a thread.

        Raises:
            ApiFailure: If the system allows no thread now.
        """
        async with self._drawing:
            return await beside(work)
