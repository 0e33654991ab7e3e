"""What operators assign to keys through any sidecar is seen by this one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ratelimit import StoreUnavailable
from service.background import running

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from ratelimit import AsyncLimiter

EVERY = 0.5
"""Seconds between two looks at a counter in the store."""


def follow(limiter: AsyncLimiter) -> AbstractAsyncContextManager[None]:
    """Keep a limiter's assignments fresh."""
    return running(_follow(limiter))


async def _follow(limiter: AsyncLimiter) -> None:
    while True:
        with contextlib.suppress(StoreUnavailable):  # those known stay in force until the store is back
            await limiter.refresh()
        await asyncio.sleep(EVERY)
