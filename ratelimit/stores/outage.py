"""What to answer when the store cannot.

Each limit names its own answer. One enforced limit that says `deny` denies; the
limits that say `local` are decided on buckets of this process; the rest allow.
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
"""Seconds that a client is told to wait when an outage denies: nobody knows how long it lasts."""

_LOCAL_BUCKETS: Final = 65_536


class Outage:
    """Answers in the store's place, and says in the log when an outage begins and ends."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._local = SimulatedBuckets(max_buckets=_LOCAL_BUCKETS)
        self._lock = threading.Lock()
        self._failing = False

    def note_failure(self, reason: object) -> None:
        """Note that the store did not answer."""
        if not self._failing:
            logger.warning(
                "store %s does not answer, each limit's on_outage applies: %s", self._store, reason
            )
        self._failing = True

    def note_success(self) -> None:
        """Note that the store answered."""
        if self._failing:
            logger.warning("store %s answers again", self._store)
        self._failing = False

    def decide(self, check: ResolvedCheck, max_skew: int | None) -> Decision:
        """Decide without the store."""
        now = time.time_ns() // 1000
        limit_costs = sorted(check.limit_costs, key=lambda limit_cost: limit_cost.placed.position)
        refusing = tuple(
            limit_cost.placed.limit.name
            for limit_cost in limit_costs
            if limit_cost.placed.limit.on_outage == "deny" and limit_cost.placed.limit.mode == "enforce"
        )
        if refusing:
            t = find_check_time(check, now, max_skew)
            members = build_members(
                check, allowed=False, t=t, retry_after=RETRY_AFTER, violated=refusing, source="outage"
            )
            return Decision(**members)
        local = check.with_limits(lambda placed: placed.limit.on_outage == "local")
        with self._lock:
            [reply] = self._local.decide([local], now=now, max_skew=max_skew)
        return read_decision(local, reply, source="outage")
