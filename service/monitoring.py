"""What the sidecar does every second: gauges, the end of a flood in the log, news for `ratelimit top`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import structlog

from ratelimit import StoreUnavailable
from service.background import run_in_background

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from service.sidecar import Sidecar

log = structlog.get_logger("ratelimit")

INTERVAL = 1.0
"""Seconds between two rounds."""


@contextlib.asynccontextmanager
async def run_monitoring(sidecar: Sidecar) -> AsyncIterator[None]:
    """Do what is due every second, until the block ends."""
    async with run_in_background(_repeat(sidecar)):
        yield
    sidecar.denial_log.flush(time.monotonic_ns() + 1_000_000_000)


async def _repeat(sidecar: Sidecar) -> None:
    while True:
        await asyncio.sleep(INTERVAL)
        try:
            await update(sidecar)
        except Exception:  # an error must not end the rounds
            log.exception("a bug in what the sidecar does every second; checks go on")


async def update(sidecar: Sidecar) -> None:
    """Do one round. If the store does not answer, what needs it is done in the next round."""
    limiter = sidecar.limiter
    sidecar.metrics.set_leased_tokens(limiter.count_leased_tokens())
    sidecar.denial_log.flush(time.monotonic_ns())
    with contextlib.suppress(StoreUnavailable):
        await limiter.publish_activity(sidecar.activity)
        sidecar.metrics.set_trimmed_unread_records(await limiter.count_trimmed_unread())
