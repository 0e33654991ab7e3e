"""A policy file that changes while the sidecar runs takes effect; a bad one never does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from typing import TYPE_CHECKING

import structlog

from ratelimit import Policy, PolicyError
from ratelimit.request.privacy import mask
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
async def follow(path: Path, limiter: AsyncLimiter, last: Path | None = None) -> AsyncIterator[None]:
    """Reload the policy when its file changes, or at once on SIGHUP."""
    hangup = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Outside the main thread, as in a test, signals are somebody else's.
    with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
    async with running(_watch(path, limiter, hangup, last)):
        yield


def first(path: Path, last: Path | None) -> Policy:
    """Read the policy to start with: the file's, or the last that could be run.

    Raises:
        PolicyError: neither can be run.
    """
    try:
        policy = Policy.from_file(path)
    except PolicyError as error:
        if last is None or not last.exists():
            raise
        _refused(error)
        return Policy.from_file(last)
    if last is not None:
        keep(policy, last)
    return policy


def keep(policy: Policy, last: Path) -> None:
    """Put a policy that runs where workers that start later find it."""
    new = last.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(policy.as_dict()))
    new.replace(last)


async def _watch(path: Path, limiter: AsyncLimiter, hangup: asyncio.Event, last: Path | None) -> None:
    loaded: _Stamp = None
    before: _Stamp = None
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(hangup.wait(), EVERY)
        stamp = await asyncio.to_thread(_stamp, path)
        # A file that changed since the last look may still be being written.
        if hangup.is_set() or (stamp != loaded and stamp == before):
            hangup.clear()
            try:
                await reload(path, limiter, last)
            except Exception:  # or nobody would look at the file again
                log.exception("a bug in reading the policy, the running one stays")
            loaded = stamp
        before = stamp


async def reload(path: Path, limiter: AsyncLimiter, last: Path | None = None) -> bool:
    """Read the policy again; keep the running one, and say why, if the file cannot be run."""
    try:
        policy = await asyncio.to_thread(Policy.from_file, path)
    except PolicyError as error:
        _refused(error)
        return False
    if policy.version != limiter.policy.version:
        limiter.policy = policy
        if last is not None:
            await asyncio.to_thread(keep, policy, last)
        log.info("policy reloaded", policy=str(path), version=policy.version)
    return True


def _refused(error: PolicyError) -> None:
    for fault in error.faults:
        log.error(
            "policy refused, the running one stays",
            file=f"{error.source}:{fault.line or 1}",
            path=_masked(fault.path),
            fault=fault.message,
        )


def _masked(path: str) -> str:
    """Write a fault's path without the whole key that it may name."""
    head, dot, rest = path.partition(".")
    if head != "keys" or not dot:
        return path
    key, _, field = rest.rpartition(".")
    return f"keys.{mask(key or rest)}" + (f".{field}" if key else "")


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None  # editors replace files; the next look finds it again
    return status.st_mtime_ns, status.st_size, status.st_ino
