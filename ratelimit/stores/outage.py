"""Decisions during an outage.

Each limit says in `on_outage` what happens. If one enforced limit says `deny`, the check is denied. Limits
that say `local` are decided by buckets in this process. All other limits allow.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from ratelimit.decision.decision import Decision
from ratelimit.engine.check_script import build_members, read_decision
from ratelimit.engine.simulation import SimulatedBuckets, find_check_time

if TYPE_CHECKING:
    from ratelimit.engine.resolver import ResolvedCheck

logger = logging.getLogger("ratelimit")

RETRY_AFTER: Final = 1.0
"""Seconds to wait when an outage denies. How long the outage will last is not known."""

_MAX_LOCAL_BUCKETS: Final = 65_536


class Outage:
    """Decides while the store does not answer, and logs when an outage begins and ends.

    Args:
        store: the store's URL without its password, for the log.
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._local_buckets = SimulatedBuckets(max_buckets=_MAX_LOCAL_BUCKETS)
        self._lock = threading.Lock()
        self._failing = False

    def note_failure(self, reason: object) -> None:
        """Note that the store did not answer."""
        if not self._failing:
            logger.warning(
                "store %s does not answer; each limit's on_outage applies: %s", self._store, reason
            )
        self._failing = True

    def note_success(self) -> None:
        """Note that the store answered."""
        if self._failing:
            logger.warning("store %s answers again", self._store)
        self._failing = False

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
