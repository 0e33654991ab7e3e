"""An independent model of reservations and settlements in a replay: plain dictionaries."""

from dataclasses import dataclass, field

from ratelimit.engine.bucket import Bucket


@dataclass
class LimitCost:
    """What one check cost one limit: enough to settle it after any edit of the policy."""

    name: str
    kind: str
    unit: str
    shape: object
    cost: float
    admitted: bool


@dataclass
class Record:
    """A reservation."""

    key: str
    at: int
    limit_costs: list
    state: str = "open"


@dataclass
class Failures:
    """The times of the failures that still count, and the time until which the limit denies."""

    times: list = field(default_factory=list)
    shut_until: int = 0


class Metering:
    """Everything that the store should hold."""

    def __init__(self):
        self.buckets = {}
        self.failures = {}
        self.slots = {}
        self.records = {}

    def check(self, policy, key, t, cost, *, reserve):
        """Return whether a check is admitted, which limits deny it, and what it costs each limit."""
        limits = policy.plans["default"].limits
        limit_costs = [self._make_limit_cost(limit, key, t, cost, reserve=reserve) for limit in limits]
        enforced = {limit.name for limit in limits if limit.mode == "enforce"}
        violated = [
            limit_cost.name
            for limit_cost in limit_costs
            if not limit_cost.admitted and limit_cost.name in enforced
        ]
        return not violated, violated, limit_costs

    def _make_limit_cost(self, limit, key, t, cost, *, reserve):
        shape = limit.shape_of(None)
        wanted = {"requests": 1.0, **cost}.get(limit.unit, 0.0) if limit.kind == "bucket" else 0.0
        if limit.kind == "bucket":
            admitted = self._find_bucket(key, limit.name, t).admits(shape, t, wanted)
        elif limit.kind == "post-paid":
            admitted = self._find_bucket(key, limit.name, t).admits_post_paid(shape, t)
        elif limit.kind == "failures":
            admitted = t >= self.failures.get((key, limit.name), Failures()).shut_until
        else:
            wanted = float(reserve)
            admitted = self._count_slots(key, limit.name, t) < shape.burst or not reserve
        return LimitCost(limit.name, limit.kind, limit.unit, shape, wanted, admitted)

    def take(self, key, t, limit_costs, reservation):
        """Take the costs of an admitted check."""
        for limit_cost in limit_costs:
            if limit_cost.admitted and limit_cost.kind == "bucket" and limit_cost.cost:
                bucket = self._find_bucket(key, limit_cost.name, t)
                self.buckets[key, limit_cost.name] = bucket.take(limit_cost.shape, t, limit_cost.cost)
            if limit_cost.admitted and limit_cost.kind == "slots" and limit_cost.cost:
                # Taking a slot removes those that have ended by `t`, even for later checks with an
                # earlier timestamp.
                self.slots = {
                    slot: ends
                    for slot, ends in self.slots.items()
                    if ends > t or slot[:2] != (key, limit_cost.name)
                }
                self.slots[key, limit_cost.name, reservation] = t + int(limit_cost.shape.period)
        if reservation is not None:
            self.records[reservation] = Record(key, t, limit_costs)

    def settle(self, reservation, t, used_by_unit, *, failed):
        """Charge a reservation once, and return its record; None if there is no such reservation."""
        record = self.records.get(reservation)
        if record is None or record.state != "open":
            return record
        at = max(record.at, t)
        for limit_cost in record.limit_costs:
            if not limit_cost.admitted:
                continue
            if limit_cost.kind in {"bucket", "post-paid"}:
                used = used_by_unit.get(limit_cost.unit, limit_cost.cost)
                self._adjust(record.key, limit_cost, at, used - limit_cost.cost)
            elif limit_cost.kind == "slots":
                self.slots.pop((record.key, limit_cost.name, reservation), None)
            elif failed:
                self._charge_failure(record.key, limit_cost, at)
        record.state, record.at = "settled", at
        return record

    def cancel(self, reservation):
        """Refund everything, once."""
        record = self.records.get(reservation)
        if record is not None and record.state == "open":
            for limit_cost in record.limit_costs:
                if limit_cost.admitted and limit_cost.kind == "bucket":
                    self._adjust(record.key, limit_cost, record.at, -limit_cost.cost)
                self.slots.pop((record.key, limit_cost.name, reservation), None)
            record.state = "cancelled"
        return record

    def _adjust(self, key, limit_cost, t, amount):
        if amount:
            bucket = self._find_bucket(key, limit_cost.name, t)
            self.buckets[key, limit_cost.name] = bucket.adjust(limit_cost.shape, t, amount)

    def _charge_failure(self, key, limit_cost, t):
        failures = self.failures.setdefault((key, limit_cost.name), Failures())
        if t < failures.shut_until:
            return
        failures.times = [*(time for time in failures.times if time > t - limit_cost.shape.period), t]
        if len(failures.times) > limit_cost.shape.count:
            failures.times, failures.shut_until = [], t + int(limit_cost.shape.burst)

    def _find_bucket(self, key, name, t):
        """Return a bucket of the model, or a full one."""
        return self.buckets.get((key, name), Bucket(0.0, t))

    def _count_slots(self, key, name, t):
        """Count the slots that have not freed themselves by time `t`."""
        return sum(1 for (k, n, _), ends in self.slots.items() if (k, n) == (key, name) and ends > t)
