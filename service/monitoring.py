"""What the sidecar does every second beside the checks: gauges, and the end of a flood in the log."""

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
            update(sidecar)
            await _count_trimmed_unread(sidecar)
        except Exception:  # an error must not end the rounds
            log.exception("a bug in what the sidecar does every second; checks go on")


async def _count_trimmed_unread(sidecar: Sidecar) -> None:
    """Read how many usage records were trimmed unread. If the store does not answer, the gauge stays."""
    with contextlib.suppress(StoreUnavailable):
        sidecar.metrics.set_trimmed_unread_records(await sidecar.limiter.count_trimmed_unread())


def update(sidecar: Sidecar) -> None:
    """Do one round."""
    sidecar.metrics.set_leased_tokens(sidecar.limiter.count_leased_tokens())
    sidecar.denial_log.flush(time.monotonic_ns())
