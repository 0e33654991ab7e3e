"""An independent reading of the promises: a plain dictionary of buckets, and its own all-or-nothing."""

from dataclasses import dataclass, field
from fractions import Fraction
from math import ulp

from ratelimit.engine.bucket import Bucket

FRESH = Bucket(0.0, 0)


@dataclass(frozen=True)
class LimitCost:
    """One limit as one check meets it: which bucket, of what shape, at what cost."""

    name: str
    placed: tuple
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
    """Buckets by limit and owner, and all that was ever admitted to each."""

    policy: object
    buckets: dict = field(default_factory=dict)
    admitted: dict = field(default_factory=dict)

    def parts_of(self, check):
        plan = self.policy.plans[check.get("plan") or self.policy.default_plan]
        return [self._part(limit, check) for limit in plan.limits]

    def _part(self, limit, check):
        key, tenant = check["key"], check.get("tenant") or check["key"]
        model_class = self.policy.class_of(check.get("model"))
        owner = {"key": (key, tenant), "tenant": tenant, "model": model_class or "other"}
        placed = (limit.name, *((scope, owner[scope]) for scope in sorted(limit.per)))
        cost = {"requests": 1.0, **check.get("cost", {})}.get(limit.unit, 0.0)
        return LimitCost(
            limit.name, placed, limit.shape_of(model_class), float(cost), limit.mode == "enforce"
        )

    def decide(self, check, t, *, take=True):
        """Say what a check at `t` should be told, and take what it costs if it passes."""
        limit_costs = self.parts_of(check)
        states = [self.buckets.get(limit_cost.placed, Bucket(0.0, t)) for limit_cost in limit_costs]
        waits = [
            state.wait(limit_cost.shape, t, limit_cost.cost)
            for limit_cost, state in zip(limit_costs, states, strict=True)
        ]
        denying = [
            wait
            for limit_cost, wait in zip(limit_costs, waits, strict=True)
            if limit_cost.enforced and wait != 0
        ]
        allowed = not denying
        after = [
            state.take(limit_cost.shape, t, limit_cost.cost)
            if allowed and take and limit_cost.cost and wait == 0
            else state
            for limit_cost, state, wait in zip(limit_costs, states, waits, strict=True)
        ]
        for limit_cost, state, wait in zip(limit_costs, after, waits, strict=True):
            if allowed and take and limit_cost.cost and wait == 0:
                self.buckets[limit_cost.placed] = state
                self.admitted.setdefault(limit_cost.placed, (limit_cost.shape, []))[1].append(
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
                (limit_cost.name, *state.standing(limit_cost.shape, t), wait)
                for limit_cost, state, wait in zip(limit_costs, after, waits, strict=True)
            ),
        )


def micros(seconds):
    """Return seconds as the decision tells them in the microseconds they were."""
    return None if seconds is None else round(seconds * 1_000_000)


def told(decision):
    """Return a decision in the form of what the model expects."""
    return Expected(
        decision.allowed,
        decision.violated,
        micros(decision.retry_after),
        tuple(
            (state.name, state.remaining, micros(state.reset_after), micros(state.retry_after))
            for state in decision.limits
        ),
    )


def worst_window(shape, admitted):
    """Return by how many tokens the fullest window of request time goes over B + r·(b - a), exactly.

    Also the float error that so many additions of such numbers may have made.
    """
    rate = Fraction(int(shape.count), int(shape.period))
    events = sorted(admitted)
    # Sum over a window [a, b] minus r·(b - a) is a difference of two points of one walk, so the
    # worst window is found in one pass, as in the maximum subarray problem.
    worst, lowest, total = Fraction(-(10**18)), None, Fraction(0)
    for t, cost in events:
        before = total - rate * t
        lowest = before if lowest is None else min(lowest, before)
        total += Fraction(cost)
        worst = max(worst, total - rate * t - lowest)
    span = float(rate) * (events[-1][0] - events[0][0])
    slack = Fraction(ulp(shape.burst + span + float(total))) * 4 * len(events)
    return worst - Fraction(shape.burst), Fraction(shape.tolerance) + slack
