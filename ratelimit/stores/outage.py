"""Decisions during an outage.

Each limit says in `on_outage` what happens. If one enforced limit says `deny`, the check is denied. Limits
that say `local` are decided by buckets in this process. All other limits allow.
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from ratelimit.decision.decision import Decision
from ratelimit.engine.check_script import build_members
from ratelimit.engine.last_states import LastStates
from ratelimit.engine.local_buckets import RETRY_AFTER, LocalBuckets
from ratelimit.engine.simulation import find_check_time
from ratelimit.stores.breaker import PausedCalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ratelimit.engine.local_buckets import Charge
    from ratelimit.engine.reservation_record import RecordedLimit
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.engine.simulation import BucketId

MAX_OWNERS: Final = 65_536
"""For how many owners states are remembered, and how many local buckets there may be."""

_CHARGE_INTERVAL: Final = 1.0
"""Seconds before charges are tried again that could not be made."""


class Outage:
    """Decides while the store does not answer, and says what to charge it afterwards.

    Args:
        clock: returns monotonic seconds.
        read_time: returns nanoseconds since the epoch.
        start_charging: is called with this object when the store answers and there is something to charge.
            It must not wait for the store, and it or what it starts must enter `charging`.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        read_time: Callable[[], int] = time.time_ns,
        start_charging: Callable[[Outage], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._read_time = read_time
        self._start_charging = start_charging
        self._last_states = LastStates(MAX_OWNERS)
        self._local_buckets = LocalBuckets(self._last_states, MAX_OWNERS)
        self._lock = threading.Lock()
        self._is_charging = False
        self._charge_at = -math.inf

    def note_answer(self) -> None:
        """Note that the store answered: have charged what an outage admitted."""
        with self._lock:
            starts = self.has_buckets and not self._is_charging and self._clock() >= self._charge_at
            self._is_charging |= starts
        if starts:
            self._start_charging(self)

    def remember_reply(self, check: ResolvedCheck, reply: bytes) -> None:
        """Remember the store's reply to a check, which has `local_groups`, for the next outage."""
        with self._lock:
            self._last_states.remember_reply(check, reply)

    def remember_settled(self, limits: Sequence[RecordedLimit]) -> None:
        """Remember the states that a settlement told, for the next outage."""
        with self._lock:
            self._last_states.remember_settled(limits)

    def forget_store_keys(self, store_keys: Sequence[str]) -> None:
        """Forget buckets that have been reset."""
        with self._lock:
            self._last_states.forget_store_keys(store_keys)
            self._local_buckets.drop_store_keys({*store_keys})

    def decide(self, check: ResolvedCheck, max_skew: int | None) -> Decision:
        """Decide a check without the store.

        Args:
            check: the check.
            max_skew: microseconds that its timestamp may lie ahead of the local clock; None for no bound.
        """
        now = self._read_time() // 1000
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
        with self._lock:
            return self._local_buckets.decide(check, now=now, max_skew=max_skew)

    @property
    def has_buckets(self) -> bool:
        """Whether there are local buckets, for which the store may have to be charged."""
        return len(self._local_buckets) > 0

    @contextmanager
    def charging(self) -> Iterator[list[BucketId]]:
        """Enter this to charge the store. It gives the buckets, each for one `make_charge`."""
        try:
            with self._lock:
                bucket_ids = self._local_buckets.list_ids()
            yield bucket_ids
        finally:
            with self._lock:
                self._is_charging = False

    def make_charge(self, bucket_id: BucketId) -> Charge | None:
        """Return what the store is to be charged for a bucket; None if nothing is.

        After the call follows `note_charge` or `note_failed_charge`.
        """
        with self._lock:
            return self._local_buckets.make_charge(bucket_id, self._read_time() // 1000)

    def note_charge(self, charge: Charge, limits: Sequence[RecordedLimit]) -> None:
        """Note that the store has charged this, and the states that it told."""
        with self._lock:
            self._last_states.remember_charged(limits)
            self._local_buckets.end_charge(charge)

    def note_failed_charge(self, charge: Charge, error: Exception) -> None:
        """Note that the call failed. If it is not known whether the store charged, this is not repeated."""
        if isinstance(error, PausedCalls):
            with self._lock:
                self._local_buckets.undo_charge(charge)
                self._charge_at = self._clock() + _CHARGE_INTERVAL
