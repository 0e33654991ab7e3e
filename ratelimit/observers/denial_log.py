"""One log line for each denial, but never a flood of lines.

A key has at most one line a second. All keys together have a burst of lines and then one a second. A line
says how many denials of its key were left out since the key's last line.
"""

from __future__ import annotations

import logging
import math
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from ratelimit.observers.observer import Observer
from ratelimit.request.privacy import mask

if TYPE_CHECKING:
    from ratelimit.decision.decision import Decision
    from ratelimit.decision.limit_state import LimitState
    from ratelimit.engine.resolver import ResolvedCheck

logger = logging.getLogger("ratelimit")

SECOND: Final = 1_000_000_000
"""Nanoseconds."""

BURST: Final = 30
"""Lines that may follow each other at once. After that, one a second."""

_MAX_KEYS: Final = 10_000


class DenialLog(Observer):
    """Logs denials at level INFO, to the logger `ratelimit`.

    The fields are attributes of the log record: `key` (masked), `plan`, `model_class`, `limit` (the one that
    denies for the longest time), `violated` (all that denied), `retry_after`, `source`, `request_id` and
    `left_out`.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._last_lines: dict[str, int] = {}
        self._left_out: dict[str, int] = {}
        self._left_out_before = 0  # of keys that have been forgotten
        self._left_out_at = 0
        # The bucket of lines: how many are missing, and the time at which that was true.
        self._used, self._at = 0.0, 0

    def note_decision(self, check: ResolvedCheck, decision: Decision, started: int, call_size: int) -> None:  # noqa: ARG002 - the interface
        """Log a denial, or count it as left out; see `Observer.note_decision`."""
        if decision.allowed:
            return
        key = check.subject.key
        with self._lock:
            if started - self._last_lines.get(key, -SECOND) < SECOND or not self._take_line(started):
                self._left_out[key] = self._left_out.get(key, 0) + 1
                self._left_out_at = started
                if len(self._left_out) > _MAX_KEYS:
                    self._forget_keys()
                return
            if len(self._last_lines) >= _MAX_KEYS:
                self._last_lines.clear()
            self._last_lines[key] = started
            left_out = self._left_out.pop(key, 0)
        logger.info("denied", extra=_make_fields(check, decision, left_out))

    def flush(self, now: int) -> None:
        """Log how many denials were left out, once none has been for a second.

        Args:
            now: monotonic nanoseconds. Call this every second.
        """
        with self._lock:
            if now - self._left_out_at < SECOND:
                return
            count = self._left_out_before + sum(self._left_out.values())
            self._left_out_before = 0
            self._left_out.clear()
        if count:
            logger.info("denials left out of the log", extra={"left_out": count})

    def _take_line(self, now: int) -> bool:
        """Take one line from the bucket; return whether there was one."""
        used = max(0.0, self._used - max(0, now - self._at) / SECOND)
        if used + 1 > BURST:
            return False
        self._used, self._at = used + 1, max(self._at, now)
        return True

    def _forget_keys(self) -> None:
        self._left_out_before += sum(self._left_out.values())
        self._left_out.clear()


def _make_fields(check: ResolvedCheck, decision: Decision, left_out: int) -> dict[str, Any]:
    return {
        "key": mask(check.subject.key),
        "plan": decision.plan,
        "model_class": decision.model_class,
        "limit": _find_longest(decision),
        "violated": list(decision.violated),
        "retry_after": decision.retry_after,
        "source": decision.source,
        "request_id": check.request_id,
        "left_out": left_out,
    }


def _find_longest(decision: Decision) -> str | None:
    """Return the limit that denies for the longest time."""
    denying = [state for state in decision.limits if state.name in decision.violated]
    if not denying:
        return decision.violated[0] if decision.violated else None

    def find_wait(state: LimitState) -> float:
        return math.inf if state.retry_after is None else state.retry_after

    return max(denying, key=find_wait).name
