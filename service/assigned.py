"""What operators assign to keys through any sidecar is seen by this one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ratelimit import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ratelimit import AsyncLimiter

EVERY = 0.5
"""Seconds between two looks at a counter in the store."""


@contextlib.asynccontextmanager
async def follow(limiter: AsyncLimiter) -> AsyncIterator[None]:
    """Keep a limiter's assignments fresh."""
    task = asyncio.get_running_loop().create_task(_follow(limiter))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _follow(limiter: AsyncLimiter) -> None:
    while True:
        with contextlib.suppress(StoreUnavailable):  # those known stay in force until the store is back
            await limiter.refresh()
        await asyncio.sleep(EVERY)
