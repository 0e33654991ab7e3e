"""What operators assign to keys through any sidecar is seen by this one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from ratelimit import StoreUnavailable
from service.background import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ratelimit import AsyncLimiter

log = structlog.get_logger("ratelimit")

EVERY = 0.5
"""Seconds between two looks at a counter in the store."""


@contextlib.asynccontextmanager
async def follow(limiter: AsyncLimiter) -> AsyncIterator[None]:
    """Keep a limiter's assignments fresh, from before the first request on."""
    await _refresh(limiter)
    async with running(_follow(limiter)):
        yield


async def _follow(limiter: AsyncLimiter) -> None:
    while True:
        await asyncio.sleep(EVERY)
        await _refresh(limiter)


async def _refresh(limiter: AsyncLimiter) -> None:
    """See what has been assigned; what is known stays in force until the store is back."""
    try:
        await limiter.refresh()
    except StoreUnavailable:
        pass
    except Exception:  # or nobody would look again
        log.exception("a bug in reading assignments, those known stay")
