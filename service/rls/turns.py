"""Let calls wait for each other for a moment, so that their checks share one call to the store.

The server of grpcio accepts one call in each turn of the event loop. So calls that arrive together reach the
limiter in different turns, and each of their checks would be sent alone.
"""

from __future__ import annotations

import asyncio
from typing import Final

TURNS: Final = 128
"""How many turns the first call waits for others, at most.

With 64 calls under way, this made 1.6 times as many decisions a second as sending each check in its own turn.
A turn in which nothing happens takes about a microsecond.
"""

QUIET_TURNS: Final = 32
"""After so many turns without another call, the waiting ends: a call that is alone waits no longer."""


class Turns:
    """Ends the waiting of several calls in one turn of the event loop."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._turn = 0
        self._last = 0  # the turn in which the last call came

    async def wait(self) -> None:
        """Wait for other calls; all that wait now go on in the same turn."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._turn = 0
            loop.call_soon(self._take_turn, loop)
        self._last = self._turn
        # Each call has a future of its own: a call that is cancelled must not cancel the others.
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        await future

    def _take_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turn += 1
        if self._turn < TURNS and self._turn - self._last < QUIET_TURNS:
            loop.call_soon(self._take_turn, loop)
            return
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
