"""Keeps up with what operators assign to keys and tenants, while requests come.

So a plan or a block holds in an application as it does in a sidecar, and nobody has to remember a task for
it. The first request waits until assignments have been read; later reads run beside the requests.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from ratelimit.errors import LimiterClosed, StoreUnavailable

if TYPE_CHECKING:
    from ratelimit.limiters.aio import AsyncLimiter
    from ratelimit.limiters.limiter import Limiter

_log: Final = logging.getLogger("ratelimit")


class Refresher:
    """Reads assignments again when that is due, for threads.

    Args:
        seconds: how often; None for never.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._limiter: Limiter | None = None
        self._due = 0.0  # seconds, monotonic
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def refresh_if_due(self, limiter: Limiter) -> None:
        """Read assignments in another thread if that is due; the first time, return when they are read."""
        if self._seconds is None or (limiter is self._limiter and time.monotonic() < self._due):
            return
        with self._lock:
            now = time.monotonic()
            if limiter is self._limiter and now < self._due:
                return
            if not limiter.has_read_assignments:
                _refresh(limiter)
            elif self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=_refresh, args=(limiter,), daemon=True)
                self._thread.start()
            self._limiter, self._due = limiter, now + self._seconds


class AsyncRefresher:
    """Reads assignments again when that is due, for asyncio.

    Args:
        seconds: how often; None for never.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._limiter: AsyncLimiter | None = None  # whose assignments have been read
        self._due = 0.0  # seconds, monotonic
        self._task: asyncio.Task[None] | None = None

    def refresh_if_due(self, limiter: AsyncLimiter) -> asyncio.Task[None] | None:
        """Begin to read assignments if that is due.

        Returns:
            The task to wait for if assignments have never been read; it raises nothing. Else None.
        """
        if limiter is self._limiter and time.monotonic() < self._due:
            return None
        return None if self._seconds is None else self._begin(limiter, self._seconds)

    def _begin(self, limiter: AsyncLimiter, seconds: float) -> asyncio.Task[None] | None:
        loop, now = asyncio.get_running_loop(), time.monotonic()
        is_reading = self._task is not None and not self._task.done() and self._task.get_loop() is loop
        if not is_reading and (now >= self._due or self._limiter not in {None, limiter}):
            self._due = now + seconds
            self._task = loop.create_task(_refresh_async(limiter))
            is_reading = True
        if limiter.has_read_assignments:
            self._limiter = limiter
            return None
        self._limiter = None
        return self._task if is_reading else None


def _refresh(limiter: Limiter) -> None:
    try:
        limiter.refresh()
    except (StoreUnavailable, LimiterClosed):
        pass  # Those of the last read stay in force.
    except Exception:  # noqa: BLE001 - it is logged, and the requests go on
        _log.exception("assignments could not be read; the last ones stay in force")


async def _refresh_async(limiter: AsyncLimiter) -> None:
    try:
        await limiter.refresh()
    except (StoreUnavailable, LimiterClosed):
        pass  # Those of the last read stay in force.
    except Exception:  # noqa: BLE001 - it is logged, and the requests go on
        _log.exception("assignments could not be read; the last ones stay in force")
