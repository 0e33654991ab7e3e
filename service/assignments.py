"""Read what operators assigned to keys and tenants, through this sidecar or any other."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from ratelimit import StoreUnavailable
from service.background import run_in_background

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ratelimit import AsyncLimiter

log = structlog.get_logger("ratelimit")

POLL_INTERVAL = 0.5
"""Seconds between two reads of the store's counter of assignments."""


@contextlib.asynccontextmanager
async def watch_assignments(limiter: AsyncLimiter) -> AsyncIterator[None]:
    """Read assignments before the block starts, and again and again until it ends."""
    await _refresh_assignments(limiter)
    async with run_in_background(_poll_assignments(limiter)):
        yield


async def _poll_assignments(limiter: AsyncLimiter) -> None:
    while True:
        await asyncio.sleep(POLL_INTERVAL)
        await _refresh_assignments(limiter)


async def _refresh_assignments(limiter: AsyncLimiter) -> None:
    """Read assignments. If the store does not answer, those of the last read stay in force."""
    try:
        await limiter.refresh()
    except StoreUnavailable:
        pass
    except Exception:  # an error must not end the polling
        log.exception("a bug prevents reading assignments; the last ones stay in force")
