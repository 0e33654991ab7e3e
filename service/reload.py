"""A policy file that changes while the sidecar runs takes effect; a bad one never does."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import structlog

from ratelimit import Policy, PolicyError
from service.background import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ratelimit import AsyncLimiter

EVERY = 0.25
"""Seconds between two looks at the file."""

log = structlog.get_logger("ratelimit")

_Stamp = tuple[int, int, int] | None


@contextlib.asynccontextmanager
async def follow(path: Path, limiter: AsyncLimiter) -> AsyncIterator[None]:
    """Reload the policy when its file changes, or at once on SIGHUP."""
    hangup = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Outside the main thread, as in a test, signals are somebody else's.
    with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
    async with running(_watch(path, limiter, hangup)):
        yield


async def _watch(path: Path, limiter: AsyncLimiter, hangup: asyncio.Event) -> None:
    loaded: _Stamp = None
    before: _Stamp = None
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(hangup.wait(), EVERY)
        stamp = await asyncio.to_thread(_stamp, path)
        # A file that changed since the last look may still be being written.
        if hangup.is_set() or (stamp != loaded and stamp == before):
            hangup.clear()
            await reload(path, limiter)
            loaded = stamp
        before = stamp


async def reload(path: Path, limiter: AsyncLimiter) -> bool:
    """Read the policy again; keep the running one, and say why, if the file cannot be run."""
    try:
        policy = await asyncio.to_thread(Policy.from_file, path)
    except PolicyError as error:
        for line in str(error).splitlines():
            log.error("policy refused, the running one stays", fault=line)  # noqa: TRY400 - not a bug of ours
        return False
    if policy.version != limiter.policy.version:
        limiter.policy = policy
        log.info("policy reloaded", policy=str(path), version=policy.version)
    return True


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None  # editors replace files; the next look finds it again
    return status.st_mtime_ns, status.st_size, status.st_ino
