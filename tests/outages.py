"""Processes that share a store which fails and comes back, on one clock that the test drives. Nothing is real
but `Outage`: the store is the simulator."""

from redis.exceptions import ConnectionError as LostConnection

from ratelimit import Policy
from ratelimit.engine.bucket import Bucket
from ratelimit.engine.check_script import read_decision
from ratelimit.engine.reservation_record import RecordedLimit
from ratelimit.engine.resolver import Resolver
from ratelimit.engine.simulation import SimulatedBuckets
from ratelimit.request.check import make_check
from ratelimit.stores.outage import Outage

SECOND = 1_000_000
BASE = 1_700_000_000 * SECOND
MAX_SKEW = 5 * SECOND


class Store:
    """Buckets that all processes share.

    Attributes:
        now: the clock of the store and of all processes, microseconds since the epoch.
        is_up: whether it answers checks.
        charge_error: what a call that charges raises; None if it charges.
        charges: what it was charged: the store key, the limit's name and the tokens.
    """

    def __init__(self):
        self.now = BASE
        self.is_up = True
        self.charge_error = None
        self.charges = []
        self._simulated = SimulatedBuckets()

    def decide(self, check):
        [reply] = self._simulated.decide([check], now=self.now, max_skew=MAX_SKEW)
        return reply

    def charge(self, check):
        """Charge a check as lua/settle.lua does, and return the limits with their states."""
        [limit_cost] = check.limit_costs
        placed, store_key, cost = limit_cost
        bucket_id = store_key, placed.limit.name
        self.charges.append((*bucket_id, cost))
        bucket = self._simulated.buckets.get(bucket_id, Bucket(0.0, self.now))
        state = self._simulated.buckets[bucket_id] = bucket.adjust(placed.shape, self.now, cost)
        limit = placed.limit
        return [
            RecordedLimit(
                limit.name, "bucket", limit.mode, limit.unit, placed.shape, store_key, True, (*state, ())
            )
        ]

    def read_missing(self, limit, key="k"):
        """Return how many tokens are missing now from the bucket of a key."""
        bucket = self._simulated.buckets.get((f"rl1:{{{key}}}:k", limit.name), Bucket(0.0, self.now))
        return bucket.compute_missing(limit.shape_of(None), self.now)

    def reset(self):
        self._simulated.buckets.clear()


class Process:
    """One process with a limiter, without its calls."""

    def __init__(self, store, *limits):
        self._store = store
        self.set_policy(*limits)
        self.outage = Outage(lambda: store.now / SECOND, lambda: store.now * 1000, self.charge)

    def set_policy(self, *limits):
        self._resolver = Resolver(Policy.of(*limits))

    def check(self, key="k", *, take=True, **fields):
        """Decide a check: the store if it is up, else the outage."""
        check = self._resolver.resolve(make_check({"key": key, **fields}), take=take)
        if not self._store.is_up:
            return self.outage.decide(check, MAX_SKEW)
        reply = self._store.decide(check)
        self.outage.note_answer()
        if check.subject.layout.local_groups:
            self.outage.remember_reply(check, reply)
        return read_decision(check, reply)

    def count_admitted(self, checks, **options):
        """Return how many of this many checks pass."""
        return sum(bool(self.check(**options)) for _ in range(checks))

    def charge(self, outage):
        """Charge the store, as a limiter does after its first answer."""
        with outage.charging() as bucket_ids:
            for bucket_id in bucket_ids:
                if (charge := outage.make_charge(bucket_id)) is None:
                    continue
                if isinstance(self._store.charge_error, LostConnection):
                    outage.note_failed_charge(charge, self._store.charge_error)
                    break
                outage.note_charge(charge, self._store.charge(charge.check))
