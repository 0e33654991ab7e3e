"""A circuit breaker: while the store keeps failing, no check waits for it.

It opens after a few failures in a row. While it is open, one probe at a time tries the store, a few times a
second. The first answer of the store closes it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Literal

from redis.exceptions import ConnectionError as LostConnection

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FAILURES: Final = 3
"""Failures in a row, each of a call that began after the last. Calls that fail together are one failure."""

PROBE_INTERVAL: Final = 250_000_000
"""Nanoseconds between two probes."""

QUIET_TIME: Final = 1_000_000_000
"""Nanoseconds without a probe after which the next call is made: nobody knows how the store is now."""


PAUSED: Final = "calls are paused, because the store keeps failing"


class PausedCalls(LostConnection):
    """A call was not made, because the store keeps failing. Nothing was charged."""


class Breaker:
    """Decides whether a call is made. Times are monotonic nanoseconds.

    Args:
        note_change: is told when the breaker opens (true) and closes (false).
    """

    def __init__(self, note_change: Callable[[bool], None] = lambda _: None) -> None:
        self._note_change = note_change
        self._lock = threading.Lock()
        self._failures = 0
        self._failed_at = 0
        self._probed_at = 0
        self.is_open = False

    def choose(self, now: int) -> Literal["call", "probe", "pause"]:
        """Return what to do instead of a call: make it; make it or another one as a probe; or not make it."""
        if not self.is_open:
            return "call"
        with self._lock:
            since = now - self._probed_at
            if since < PROBE_INTERVAL:
                return "pause"
            self._probed_at = now
            return "call" if since > QUIET_TIME else "probe"

    def note_success(self) -> None:
        """Note that the store answered. This closes the breaker."""
        if self._failures:
            with self._lock:
                self._failures = 0
                was_open, self.is_open = self.is_open, False
            if was_open:
                self._note_change(False)

    def note_failure(self, started: int, now: int) -> None:
        """Note that a call failed: no answer, or no connection.

        Args:
            started: when the call began.
            now: when it failed.
        """
        with self._lock:
            if started < self._failed_at:
                return
            self._failed_at = now
            self._failures += 1
            opens = self._failures >= MAX_FAILURES and not self.is_open
            if opens:
                self.is_open, self._probed_at = True, now
        if opens:
            self._note_change(True)
