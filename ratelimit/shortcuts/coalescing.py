"""Questions that wait in the same moment travel to the store together.

The first question of a quiet loop leaves on the loop's next turn, with whatever else was asked in
this one. While calls are under way, what arrives meanwhile waits for one of them to land and then
leaves as one call. So a call is small when there is little to ask and large when there is much, no
timer is involved, and waiting in our own line is never mistaken for a store that does not answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ratelimit.engine.check_script import MAX_LIMITS_PER_CALL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ratelimit.engine.resolver import ResolvedCheck

Reply = Any
Asked = tuple["ResolvedCheck", asyncio.Future[Reply]]

IN_FLIGHT: Final = 4
"""Most calls under way at once: one being decided, others being written and read."""


class Coalescer:
    """Carries questions to the store, many to a call.

    A call holds `MOST_LIMITS` limits at the most, so that the store is not held longer than about a
    millisecond.

    Args:
        run: makes one call for these questions and returns their replies in order.
    """

    def __init__(self, run: Callable[[list[ResolvedCheck]], Awaitable[Sequence[Reply]]]) -> None:
        self._run = run
        self._waiting: deque[Asked] = deque()
        self._flights: set[asyncio.Task[None]] = set()
        self._departing = False

    def submit(self, check: ResolvedCheck) -> asyncio.Future[Reply]:
        """Return what will be the reply to a question, or the error of the call that carried it.

        Cancelled before it leaves, it is not asked at all.
        """
        loop = asyncio.get_running_loop()
        landed: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append((check, landed))
        if not self._departing and len(self._flights) < IN_FLIGHT:
            self._departing = True
            loop.call_soon(self._depart)
        return landed

    async def drain(self) -> None:
        """Wait until everything asked so far is answered."""
        while self._waiting or self._flights:
            await asyncio.gather(*self._flights, return_exceptions=True)
            await asyncio.sleep(0)

    def _depart(self) -> None:
        self._departing = False
        waiting, asked = self._waiting, list[Asked]()
        room = MAX_LIMITS_PER_CALL
        while waiting:
            check, landed = waiting[0]
            weight = check.subject.layout.weight
            if asked and weight > room:
                break
            waiting.popleft()
            if not landed.done():  # nobody asks any more, so nobody is charged
                room -= weight
                asked.append((check, landed))
        if asked:
            flight = asyncio.get_running_loop().create_task(self._fly(asked))
            self._flights.add(flight)
            flight.add_done_callback(self._land)
        self._call_for_departure()

    def _land(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._call_for_departure()

    def _call_for_departure(self) -> None:
        if not self._departing and self._waiting and len(self._flights) < IN_FLIGHT:
            self._departing = True
            asyncio.get_running_loop().call_soon(self._depart)

    async def _fly(self, asked: list[Asked]) -> None:
        try:
            replies = await self._run([check for check, _ in asked])
            for (_, landed), reply in zip(asked, replies, strict=True):
                if not landed.done():  # else its asker was cancelled
                    landed.set_result(reply)
        except asyncio.CancelledError:
            for _, landed in asked:
                landed.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it is raised again where the question was asked
            for _, landed in asked:
                if not landed.done():
                    landed.set_exception(error)
