"""Logs when outages begin and end."""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("ratelimit")

_LOG_INTERVAL: Final = 1.0
"""Seconds between two log lines."""


class OutageLog:
    """Logs when a store, or a server of a cluster, stops to answer, and when it answers again.

    One that fails and answers in turn is logged once a second at most.

    Args:
        store: its name in the log, without a password.
        clock: returns monotonic seconds.
    """

    def __init__(self, store: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._failing = False
        self._changes = 0  # how often that has changed since the last line
        self._logged_at = -math.inf

    def note_failure(self, reason: object) -> None:
        """Note that the store did not answer."""
        if not self._failing or self._changes:
            self._note_state(failing=True, reason=reason)

    def note_success(self) -> None:
        """Note that the store answered."""
        if self._failing or self._changes:
            self._note_state(failing=False)

    def _note_state(self, *, failing: bool, reason: object = "") -> None:
        """Log a change, unless the last line is less than a second old. Then a later call logs it."""
        with self._lock:
            self._changes += failing != self._failing
            self._failing = failing
            now = self._clock()
            if not self._changes or now - self._logged_at < _LOG_INTERVAL:
                return
            fields = {"store": self._store, "left_out": self._changes - 1}
            self._logged_at, self._changes = now, 0
        if failing:
            text = "store %s does not answer; each limit's on_outage applies: %s"
            logger.warning(text, self._store, reason, extra=fields)
        else:
            logger.warning("store %s answers again", self._store, extra=fields)
