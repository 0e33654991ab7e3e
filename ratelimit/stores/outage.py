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
from ratelimit.engine.check_script import answer, read
from ratelimit.engine.simulation import Buckets, judged_at

if TYPE_CHECKING:
    from ratelimit.engine.resolver import Question

logger = logging.getLogger("ratelimit")

RETRY_AFTER: Final = 1.0
"""Seconds that a client is told to wait when an outage denies: nobody knows how long it lasts."""

_LOCAL_BUCKETS: Final = 65_536


class Outage:
    """Answers in the store's place, and says in the log when an outage begins and ends."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._local = Buckets(most=_LOCAL_BUCKETS)
        self._lock = threading.Lock()
        self._failing = False

    def began(self, reason: object) -> None:
        """Note that the store did not answer."""
        if not self._failing:
            logger.warning(
                "store %s does not answer, each limit's on_outage applies: %s", self._store, reason
            )
        self._failing = True

    def ended(self) -> None:
        """Note that the store answered."""
        if self._failing:
            logger.warning("store %s answers again", self._store)
        self._failing = False

    def answer(self, question: Question, max_skew: int | None) -> Decision:
        """Decide without the store."""
        now = time.time_ns() // 1000
        parts = sorted(question.parts, key=lambda part: part.place.position)
        refusing = tuple(
            part.place.limit.name
            for part in parts
            if part.place.limit.on_outage == "deny" and part.place.limit.mode == "enforce"
        )
        if refusing:
            t = judged_at(question, now, max_skew)
            members = answer(
                question, allowed=False, t=t, retry_after=RETRY_AFTER, violated=refusing, source="outage"
            )
            return Decision(**members)
        local = question.only(lambda place: place.limit.on_outage == "local")
        with self._lock:
            [reply] = self._local.answer([local], now=now, max_skew=max_skew)
        return read(local, reply, source="outage")
