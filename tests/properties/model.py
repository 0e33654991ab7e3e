"""An independent model of the promises: a plain dictionary of buckets, with its own all-or-nothing."""

from dataclasses import dataclass, field
from fractions import Fraction
from math import ulp

from ratelimit.engine.bucket import Bucket


@dataclass(frozen=True)
class LimitCost:
    """What one check costs one limit, and in which bucket."""

    name: str
    bucket_id: tuple
    shape: object
    cost: float
    enforced: bool


@dataclass(frozen=True)
class Expected:
    """What the store should answer."""

    allowed: bool
    violated: tuple
    wait: int | None
    limits: tuple


@dataclass
class Model:
    """Buckets by limit and owner, and all costs that were ever admitted to each."""

    policy: object
    buckets: dict = field(default_factory=dict)
    admitted: dict = field(default_factory=dict)

    def list_limit_costs(self, check):
        plan = self.policy.plans[check.get("plan") or self.policy.default_plan]
        return [self._make_limit_cost(limit, check) for limit in plan.limits]

    def _make_limit_cost(self, limit, check):
        key, tenant = check["key"], check.get("tenant") or check["key"]
        model_class = self.policy.class_of(check.get("model"))
        owner = {"key": (key, tenant), "tenant": tenant, "model": model_class or "other"}
        bucket_id = (limit.name, *((scope, owner[scope]) for scope in sorted(limit.per)))
        cost = {"requests": 1.0, **check.get("cost", {})}.get(limit.unit, 0.0)
        return LimitCost(
            limit.name, bucket_id, limit.shape_of(model_class), float(cost), limit.mode == "enforce"
        )

    def decide(self, check, t, *, take=True):
        """Return what the store should answer a check at time `t`, and take its cost if admitted."""
        limit_costs = self.list_limit_costs(check)
        before = [self.buckets.get(limit_cost.bucket_id, Bucket(0.0, t)) for limit_cost in limit_costs]
        waits = [
            bucket.compute_wait(limit_cost.shape, t, limit_cost.cost)
            for limit_cost, bucket in zip(limit_costs, before, strict=True)
        ]
        denying = [
            wait
            for limit_cost, wait in zip(limit_costs, waits, strict=True)
            if limit_cost.enforced and wait != 0
        ]
        allowed = not denying
        after = [
            bucket.take(limit_cost.shape, t, limit_cost.cost)
            if allowed and take and limit_cost.cost and wait == 0
            else bucket
            for limit_cost, bucket, wait in zip(limit_costs, before, waits, strict=True)
        ]
        for limit_cost, bucket, wait in zip(limit_costs, after, waits, strict=True):
            if allowed and take and limit_cost.cost and wait == 0:
                self.buckets[limit_cost.bucket_id] = bucket
                self.admitted.setdefault(limit_cost.bucket_id, (limit_cost.shape, []))[1].append(
                    (t, limit_cost.cost)
                )
        return Expected(
            allowed,
            tuple(
                limit_cost.name
                for limit_cost, wait in zip(limit_costs, waits, strict=True)
                if limit_cost.enforced and wait != 0
            ),
            None if None in denying else max(denying, default=0),
            tuple(
                (limit_cost.name, *bucket.compute_remaining(limit_cost.shape, t), wait)
                for limit_cost, bucket, wait in zip(limit_costs, after, waits, strict=True)
            ),
        )


def to_micros(seconds):
    """Return seconds of a decision as the whole microseconds that they stand for."""
    return None if seconds is None else round(seconds * 1_000_000)


def to_expected(decision):
    """Return a decision in the form of the model's answers."""
    return Expected(
        decision.allowed,
        decision.violated,
        to_micros(decision.retry_after),
        tuple(
            (state.name, state.remaining, to_micros(state.reset_after), to_micros(state.retry_after))
            for state in decision.limits
        ),
    )


def find_worst_window(shape, admitted):
    """Return by how many tokens the fullest window of request time exceeds B + r·(b - a), exactly.

    Also return the float error that so many additions of such numbers can make.
    """
    rate = Fraction(int(shape.count), int(shape.period))
    events = sorted(admitted)
    # The sum over a window [a, b] minus r·(b - a) is the difference of two points of one walk. So one
    # pass finds the worst window, as in the maximum subarray problem.
    worst, lowest, total = Fraction(-(10**18)), None, Fraction(0)
    for t, cost in events:
        before = total - rate * t
        lowest = before if lowest is None else min(lowest, before)
        total += Fraction(cost)
        worst = max(worst, total - rate * t - lowest)
    span = float(rate) * (events[-1][0] - events[0][0])
    slack = Fraction(ulp(shape.burst + span + float(total))) * 4 * len(events)
    return worst - Fraction(shape.burst), Fraction(shape.tolerance) + slack
