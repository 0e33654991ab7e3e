"""Coalescing: the checks that wait at the same time go to the store in one call.

If no call is under way, the first check starts one on the next turn of the event loop. That call also
carries all other checks submitted in this turn. While the maximum number of calls is under way, new
checks wait. When one of these calls ends, the checks that wait go out in the next call. So calls are
small under low load and large under high load, and no timer is needed. The deadline of a call does not
include the time that its checks waited here, so this waiting is never taken for an outage.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ratelimit.engine.check_script import MAX_LIMITS_PER_CALL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ratelimit.engine.resolver import ResolvedCheck

Reply = tuple[Any, int]
"""What the check script returned for one check, and how many checks its call carried."""

WaitingCheck = tuple["ResolvedCheck", asyncio.Future[Reply]]
"""A check, and the future that gets its reply."""

MAX_CALLS: Final = 4
"""Calls under way at the same time: the store runs one while the others are written and read."""


class Coalescer:
    """Sends checks to the store, many in one call.

    A call carries a limited number of limits, so that it does not block the store for long.

    Args:
        run_call: runs one call for these checks and returns their replies in the same order. A reply may be
            an error, which is then raised for its check alone.
        max_calls: calls under way at the same time.
        max_limits: limits in one call, unless a single check has more.
    """

    def __init__(
        self,
        run_call: Callable[[list[ResolvedCheck]], Awaitable[Sequence[Any]]],
        max_calls: int = MAX_CALLS,
        max_limits: int = MAX_LIMITS_PER_CALL,
    ) -> None:
        self._run_call = run_call
        self._max_calls, self._max_limits = max_calls, max_limits
        self._begin(None)

    def _begin(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Begin in an event loop. What waited in the one before waits for nothing any more."""
        self._loop = loop
        self._waiting: deque[WaitingCheck] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._is_call_scheduled = False

    def submit(self, check: ResolvedCheck) -> asyncio.Future[Reply]:
        """Return a future for the reply to a check, or for the error of the call that carried it.

        If the future is cancelled before the call starts, the check is not sent.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._begin(loop)
        future: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append((check, future))
        if not self._is_call_scheduled and len(self._calls) < self._max_calls:
            self._is_call_scheduled = True
            loop.call_soon(self._start_call)
        return future

    @property
    def is_busy(self) -> bool:
        """Whether checks wait for a call or its reply."""
        return bool(self._waiting or self._calls)

    def fail_waiting(self, error: Exception) -> None:
        """Fail all checks that wait for a call: they have waited for a store that does not answer."""
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)

    async def drain(self) -> None:
        """Wait until every check submitted so far has its reply."""
        if self._loop is not asyncio.get_running_loop():
            return
        while self._waiting or self._calls:
            await asyncio.gather(*self._calls, return_exceptions=True)
            await asyncio.sleep(0)

    def _start_call(self) -> None:
        self._is_call_scheduled = False
        waiting, batch = self._waiting, list[WaitingCheck]()
        room = self._max_limits
        while waiting:
            check, future = waiting[0]
            weight = check.subject.layout.weight
            if batch and weight > room:
                break
            waiting.popleft()
            if not future.done():  # A cancelled check is not sent, so it is not charged.
                room -= weight
                batch.append((check, future))
        if batch:
            call = asyncio.get_running_loop().create_task(self._make_call(batch))
            self._calls.add(call)
            call.add_done_callback(self._end_call)
        self._schedule_call()

    def _end_call(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._schedule_call()

    def _schedule_call(self) -> None:
        if not self._is_call_scheduled and self._waiting and len(self._calls) < self._max_calls:
            self._is_call_scheduled = True
            asyncio.get_running_loop().call_soon(self._start_call)

    async def _make_call(self, batch: list[WaitingCheck]) -> None:
        try:
            replies = await self._run_call([check for check, _ in batch])
            size = len(batch)
            for (_, future), reply in zip(batch, replies, strict=True):
                if future.done():  # It is done if the task that waited for it was cancelled.
                    continue
                if isinstance(reply, Exception):
                    future.set_exception(reply)
                else:
                    future.set_result((reply, size))
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - raised again in each task that waits for a reply
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            if isinstance(error, TimeoutError):
                self.fail_waiting(error)
