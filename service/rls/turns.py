"""Let calls wait for each other for a moment, so that their checks share one call to the store.

The server of grpcio accepts one call in each turn of the event loop. So calls that arrive together reach the
limiter in different turns, and each of their checks would be sent alone.
"""

from __future__ import annotations

import asyncio
from typing import Final

TURNS: Final = 64
"""How many turns the first call waits for others.

A turn in which nothing happens takes about a microsecond. With 64 calls under way, this made 1.5 times as
many decisions a second as sending each check in its own turn, and a call that was alone took a tenth of a
millisecond longer.
"""


class Turns:
    """Ends the waiting of several calls in one turn of the event loop."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait until the first of the calls that wait now has waited for `TURNS` turns."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._take_turn, loop, TURNS)
        # Each call has a future of its own: a call that is cancelled must not cancel the others.
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        await future

    def _take_turn(self, loop: asyncio.AbstractEventLoop, left: int) -> None:
        if left:
            loop.call_soon(self._take_turn, loop, left - 1)
            return
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
