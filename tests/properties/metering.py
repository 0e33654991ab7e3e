"""An independent reading of what reservations and settlements do, for a replay: plain dictionaries."""

from dataclasses import dataclass, field

from ratelimit.engine.bucket import Bucket

TTL_DEFAULT = 600_000_000


@dataclass
class Taken:
    """What one limit was to a check: enough to settle it after any edit of the policy."""

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
    taken: list
    state: str = "open"
    limits: list = field(default_factory=list)


@dataclass
class Failures:
    """The failures that still count, and until when the key is shut."""

    times: list = field(default_factory=list)
    shut: int = 0


class Metering:
    """Everything that the store should know."""

    def __init__(self):
        self.buckets = {}
        self.failures = {}
        self.slots = {}
        self.records = {}
        self.answers = {}

    def check(self, policy, key, t, cost, *, reserve):
        """Return whether it is admitted, what denies it, and what each limit was to it."""
        taken = [
            self._weigh(limit, key, t, cost, reserve=reserve) for limit in policy.plans["default"].limits
        ]
        enforced = {limit.name for limit in policy.plans["default"].limits if limit.mode == "enforce"}
        violated = [
            limit_cost.name for limit_cost in taken if not limit_cost.admitted and limit_cost.name in enforced
        ]
        return not violated, violated, taken

    def _weigh(self, limit, key, t, cost, *, reserve):
        shape = limit.shape_of(None)
        wanted = {"requests": 1.0, **cost}.get(limit.unit, 0.0) if limit.kind == "bucket" else 0.0
        if limit.kind == "bucket":
            admitted = self.bucket(key, limit.name, t).admits(shape, t, wanted)
        elif limit.kind == "post-paid":
            admitted = self.bucket(key, limit.name, t).has_left(shape, t)
        elif limit.kind == "failures":
            admitted = t >= self.failures.get((key, limit.name), Failures()).shut
        else:
            wanted = float(reserve)
            admitted = self.open_slots(key, limit.name, t) < shape.burst or not reserve
        return Taken(limit.name, limit.kind, limit.unit, shape, wanted, admitted)

    def take(self, key, t, taken, reservation):
        """Do what an admitted check does."""
        for limit_cost in taken:
            if limit_cost.admitted and limit_cost.kind == "bucket" and limit_cost.cost:
                bucket = self.bucket(key, limit_cost.name, t)
                self.buckets[key, limit_cost.name] = bucket.take(limit_cost.shape, t, limit_cost.cost)
            if limit_cost.admitted and limit_cost.kind == "slots" and limit_cost.cost:
                # Whoever takes a slot clears away those that are over by then, for late-comers too.
                self.slots = {
                    placed: ends
                    for placed, ends in self.slots.items()
                    if ends > t or placed[:2] != (key, limit_cost.name)
                }
                self.slots[key, limit_cost.name, reservation] = t + int(limit_cost.shape.period)
        if reservation is not None:
            self.records[reservation] = Record(key, t, taken)

    def settle(self, reservation, t, known, *, failed):
        """Charge a reservation, once; return its record, or None if there is no such thing."""
        record = self.records.get(reservation)
        if record is None or record.state != "open":
            return record
        at = max(record.at, t)
        for limit_cost in record.taken:
            if not limit_cost.admitted:
                continue
            if limit_cost.kind in {"bucket", "post-paid"}:
                self._adjust(
                    record.key, limit_cost, at, known.get(limit_cost.unit, limit_cost.cost) - limit_cost.cost
                )
            elif limit_cost.kind == "slots":
                self.slots.pop((record.key, limit_cost.name, reservation), None)
            elif failed:
                self._fail(record.key, limit_cost, at)
        record.state, record.at = "settled", at
        return record

    def cancel(self, reservation):
        """Give everything back, once."""
        record = self.records.get(reservation)
        if record is not None and record.state == "open":
            for limit_cost in record.taken:
                if limit_cost.admitted and limit_cost.kind == "bucket":
                    self._adjust(record.key, limit_cost, record.at, -limit_cost.cost)
                self.slots.pop((record.key, limit_cost.name, reservation), None)
            record.state = "cancelled"
        return record

    def _adjust(self, key, limit_cost, t, amount):
        if amount:
            self.buckets[key, limit_cost.name] = self.bucket(key, limit_cost.name, t).adjust(
                limit_cost.shape, t, amount
            )

    def _fail(self, key, limit_cost, t):
        failures = self.failures.setdefault((key, limit_cost.name), Failures())
        if t < failures.shut:
            return
        failures.times = [*(time for time in failures.times if time > t - limit_cost.shape.period), t]
        if len(failures.times) > limit_cost.shape.count:
            failures.times, failures.shut = [], t + int(limit_cost.shape.burst)

    def bucket(self, key, name, t):
        """Return a bucket as it is known, or a full one."""
        return self.buckets.get((key, name), Bucket(0.0, t))

    def open_slots(self, key, name, t):
        """Count the slots that have not freed themselves by `t`."""
        return sum(1 for (k, n, _), ends in self.slots.items() if (k, n) == (key, name) and ends > t)
