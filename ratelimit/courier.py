"""Questions that wait in the same moment travel to the store together.

The first question of a quiet loop leaves on the loop's next turn, with whatever else was asked in
this one. While calls are under way, what arrives meanwhile waits for one of them to land and then
leaves as one call. So a call is small when there is little to ask and large when there is much, no
timer is involved, and waiting in our own line is never mistaken for a store that does not answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from ratelimit.call import MOST_LIMITS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ratelimit.ask import Question

T = TypeVar("T")
Replies = Any


class _Group(NamedTuple):
    questions: list[Question]
    landed: asyncio.Future[Replies]
    weight: int


IN_FLIGHT: Final = 4
"""Most calls under way at once: one being decided, others being written and read."""


_TURNS: Final = 4
"""From a readable socket to a finished call it takes the loop three turns, and one to spare."""


async def within(deadline: float, call: Awaitable[T]) -> T:
    """Await a call of the store for `deadline` seconds at the most.

    When this process itself was held up, the reply may have come in time and still lie unread
    when the timer goes off. It gets a few turns of the loop to be read: our own delay is no outage.

    Raises:
        TimeoutError: there is no answer.
    """
    task = asyncio.ensure_future(call)
    # If we leave before it ends, its end is nobody's business, and not for asyncio to complain about.
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        await asyncio.wait({task}, timeout=deadline)
        for _ in range(_TURNS):
            if task.done():
                break
            await asyncio.sleep(0)
        if not task.done():
            raise TimeoutError
    finally:
        task.cancel()
    return await task


class Courier:
    """Carries groups of questions to the store, many groups to a call.

    A group is never split, and a call holds `MOST_LIMITS` limits at the most, so that the store is
    not held longer than about a millisecond.

    Args:
        run: makes one call for these questions and returns their replies in order.
    """

    def __init__(self, run: Callable[[list[Question]], Awaitable[Sequence[Replies]]]) -> None:
        self._run = run
        self._waiting: deque[_Group] = deque()
        self._flights: set[asyncio.Task[None]] = set()
        self._departing = False

    async def ask(self, questions: list[Question]) -> Sequence[Replies]:
        """Return the replies to these questions; raises whatever the call that carried them raised."""
        landed: asyncio.Future[Replies] = asyncio.get_running_loop().create_future()
        weight = sum(question.weight for question in questions)
        self._waiting.append(_Group(questions, landed, weight))
        self._call_for_departure()
        replies: Sequence[Replies] = await landed
        return replies

    async def rest(self) -> None:
        """Wait until everything asked so far is answered."""
        while self._waiting or self._flights:
            await asyncio.gather(*self._flights, return_exceptions=True)
            await asyncio.sleep(0)

    def _call_for_departure(self) -> None:
        if not self._departing and self._waiting and len(self._flights) < IN_FLIGHT:
            self._departing = True
            asyncio.get_running_loop().call_soon(self._depart)

    def _depart(self) -> None:
        self._departing = False
        groups: list[_Group] = []
        room = MOST_LIMITS
        while self._waiting and (not groups or self._waiting[0].weight <= room):
            group = self._waiting.popleft()
            if not group.landed.cancelled():  # nobody asks any more, so nobody is charged
                room -= group.weight
                groups.append(group)
        if not groups:
            return
        flight = asyncio.get_running_loop().create_task(self._fly(groups))
        self._flights.add(flight)
        flight.add_done_callback(self._land)
        self._call_for_departure()

    def _land(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._call_for_departure()

    async def _fly(self, groups: list[_Group]) -> None:
        try:
            replies = await self._run([question for group in groups for question in group.questions])
        except asyncio.CancelledError:
            for _, landed, _ in groups:
                landed.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it is raised again where the question was asked
            for _, landed, _ in groups:
                if not landed.done():  # else its asker was cancelled
                    landed.set_exception(error)
            return
        start = 0
        for questions, landed, _ in groups:
            if not landed.done():
                landed.set_result(replies[start : start + len(questions)])
            start += len(questions)
