"""Reload the policy when its file changes. A file with faults changes nothing."""

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
from service.background import run_in_background

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from service.sidecar import Sidecar

POLL_INTERVAL = 0.25
"""Seconds between two looks at the file."""

log = structlog.get_logger("ratelimit")

_FileVersion = tuple[int, int, int] | None
"""Modification time in nanoseconds, size and inode; None if there is no file."""


@contextlib.asynccontextmanager
async def watch_policy(sidecar: Sidecar) -> AsyncIterator[None]:
    """Reload the policy when its file changes, and at once on SIGHUP, until the block ends."""
    is_requested = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Signal handlers can be set only in the main thread, and tests run the sidecar in others.
    with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
        loop.add_signal_handler(signal.SIGHUP, is_requested.set)
    async with run_in_background(_poll_file(sidecar, is_requested)):
        yield


def load_initial_policy(path: Path, last_policy: Path | None) -> Policy:
    """Read the policy to start with: the file, or the last valid policy if the file has faults.

    Args:
        path: the policy file.
        last_policy: the file of the last valid policy, which is replaced if the policy file is valid.

    Raises:
        PolicyError: neither is valid.
    """
    try:
        policy = Policy.from_file(path)
    except PolicyError as error:
        if last_policy is None or not last_policy.exists():
            raise
        _log_faults(error)
        return Policy.from_file(last_policy)
    if last_policy is not None:
        save_policy(policy, last_policy)
    return policy


def save_policy(policy: Policy, last_policy: Path) -> None:
    """Save a valid policy for workers that start later. The file is replaced in one step."""
    new = last_policy.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(policy.as_dict()))
    new.replace(last_policy)


async def _poll_file(sidecar: Sidecar, is_requested: asyncio.Event) -> None:
    path = sidecar.settings.policy
    loaded: _FileVersion = None
    previous: _FileVersion = None
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(is_requested.wait(), POLL_INTERVAL)
        current = await asyncio.to_thread(_read_file_version, path)
        # A file that has changed since the previous look may not be written completely yet.
        if is_requested.is_set() or (current != loaded and current == previous):
            is_requested.clear()
            try:
                await _reload_policy(sidecar)
            except Exception:  # an error must not end the polling
                log.exception("a bug prevents reading the policy; the running policy stays in force")
            loaded = current
        previous = current


async def _reload_policy(sidecar: Sidecar) -> None:
    """Read the policy file. If it has faults, log them and leave the running policy in force."""
    path, last_policy = sidecar.settings.policy, sidecar.settings.last_policy
    limiter = sidecar.limiter
    try:
        policy = await asyncio.to_thread(Policy.from_file, path)
    except PolicyError as error:
        sidecar.metrics.count_reload("refused")
        _log_faults(error)
        return
    if policy.version != limiter.policy.version:
        limiter.policy = policy
        sidecar.metrics.count_reload("loaded")
        if last_policy is not None:
            await asyncio.to_thread(save_policy, policy, last_policy)
        log.info("policy reloaded", policy=str(path), version=policy.version)


def _log_faults(error: PolicyError) -> None:
    for fault in error.faults:
        log.error(
            "policy refused; the last valid policy stays in force",
            file=f"{error.source}:{fault.line or 1}",
            path=_mask_path(fault.path),
            fault=fault.message,
        )


def _mask_path(path: str) -> str:
    """Mask the key that the path of a fault may contain."""
    head, dot, rest = path.partition(".")
    if head != "keys" or not dot:
        return path
    key, _, field = rest.rpartition(".")
    return f"keys.{mask(key or rest)}" + (f".{field}" if key else "")


def _read_file_version(path: Path) -> _FileVersion:
    try:
        status = path.stat()
    except OSError:
        # Many editors replace a file, so it can be absent for a moment.
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
