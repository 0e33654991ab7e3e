"""Decisions during an outage.

Each limit says in `on_outage` what happens. If one enforced limit says `deny`, the check is denied. Limits
that say `local` are decided by buckets in this process. All other limits allow.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Final

from ratelimit.decision.decision import Decision
from ratelimit.engine.check_script import build_members, read_decision
from ratelimit.engine.simulation import SimulatedBuckets, find_check_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimit.engine.resolver import ResolvedCheck

logger = logging.getLogger("ratelimit")

RETRY_AFTER: Final = 1.0
"""Seconds to wait when an outage denies. How long the outage will last is not known."""

_MAX_LOCAL_BUCKETS: Final = 65_536

_LOG_INTERVAL: Final = 1.0
"""Seconds between two log lines."""


class OutageLog:
    """Logs when an outage begins and ends.

    A store that fails and answers in turn is logged once a second at most.

    Args:
        store: the store's URL without its password, for the log.
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


class Outage:
    """Decides while the store does not answer."""

    def __init__(self) -> None:
        self._local_buckets = SimulatedBuckets(max_buckets=_MAX_LOCAL_BUCKETS)
        self._lock = threading.Lock()

    def decide(self, check: ResolvedCheck, max_skew: int | None) -> Decision:
        """Decide a check without the store.

        Args:
            check: the check.
            max_skew: microseconds that its timestamp may lie ahead of the local clock; None for no bound.
        """
        now = time.time_ns() // 1000
        limit_costs = sorted(check.limit_costs, key=lambda limit_cost: limit_cost.placed.position)
        denying = tuple(
            limit_cost.placed.limit.name
            for limit_cost in limit_costs
            if limit_cost.placed.limit.on_outage == "deny" and limit_cost.placed.limit.mode == "enforce"
        )
        if denying:
            t = find_check_time(check, now, max_skew)
            members = build_members(
                check, allowed=False, t=t, retry_after=RETRY_AFTER, violated=denying, source="outage"
            )
            return Decision(**members)
        local = check.with_limits(lambda placed: placed.limit.on_outage == "local")
        with self._lock:
            [reply] = self._local_buckets.decide([local], now=now, max_skew=max_skew)
        return read_decision(local, reply, source="outage")
