"""What to ask the store about some checks, and what its reply means. No I/O happens here.

    question = ask(policy, check)          # which buckets, at what cost
    keys, args = encode(questions, ...)    # one call of lua/check.lua for many questions
    decision = read(question, reply)       # what the script said about one of them

Every way to travel, sync, async or simulated, shares these three.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ratelimit.bucket import Bucket
from ratelimit.decision import Decision, LimitState
from ratelimit.layout import hash_of, lay_out
from ratelimit.privacy import mask
from ratelimit.rate import MICROSECONDS
from ratelimit.request import fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ratelimit.decision import Source
    from ratelimit.layout import Layout, Slot
    from ratelimit.policy import Policy
    from ratelimit.request import Check

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Part:
    """One limit that a question looks at, and what it would take there."""

    slot: Slot
    cost: float


@dataclass(frozen=True, slots=True)
class Question:
    """A check with everything looked up that the policy says about it.

    Attributes:
        take: whether to take what is admitted, or only to look.
        hashes: the store's hashes it touches, each with its parts.
    """

    check: Check
    take: bool
    plan: str
    model_class: str | None
    hashes: tuple[tuple[str, tuple[Part, ...]], ...]

    @property
    def parts(self) -> Iterable[Part]:
        """Every part, in the order in which the script reports them."""
        return (part for _, parts in self.hashes for part in parts)


class Asker:
    """Turns checks into questions under one policy, remembering each plan's layout."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._units = policy.units
        self._layouts: dict[tuple[str, str | None], Layout] = {}

    def ask(self, check: Check, *, take: bool) -> Question:
        """Look up what the policy says about a check, to take what it costs or only to look.

        Raises:
            InvalidRequest: there is no such plan, or no plan meters a unit of its cost.
        """
        policy = self.policy
        assigned = policy.assignment(check.key)
        plan = check.plan or assigned.plan or policy.default_plan
        if plan not in policy.plans:
            raise fault("plan", f"there is no such plan; one of {', '.join(policy.plans)}")
        for unit in check.cost:
            if unit not in self._units and unit != "requests":
                raise fault(
                    f"cost.{unit}",
                    f"no plan meters this unit; any of {', '.join(sorted(self._units | {'requests'}))}",
                )
        model_class = policy.class_of(check.model)
        tenant = check.tenant or assigned.tenant or check.key
        cost = {"requests": 1.0, **check.cost}
        hashes = tuple(
            (
                hash_of(owner, check.key, tenant),
                tuple(Part(slot, cost.get(slot.limit.unit, 0.0)) for slot in slots),
            )
            for owner, slots in self._layout(plan, model_class).groups
        )
        return Question(check, take, plan, model_class, hashes)

    def _layout(self, plan: str, model_class: str | None) -> Layout:
        layout = self._layouts.get((plan, model_class))
        if layout is None:
            layout = self._layouts[plan, model_class] = lay_out(self.policy, plan, model_class)
        return layout


def encode(questions: Sequence[Question], max_skew: int | None) -> tuple[list[str], list[str | float]]:
    """Return KEYS and ARGV of lua/check.lua for these questions.

    Args:
        questions: what to decide, each all or nothing on its own, in order.
        max_skew: microseconds that a timestamp may lie ahead; None to trust it entirely.
    """
    index: dict[str, int] = {}
    args: list[str | float] = [-1 if max_skew is None else max_skew]
    for question in questions:
        timestamp = question.check.timestamp
        args += ("" if timestamp is None else timestamp, int(question.take), len(question.hashes))
        for name, parts in question.hashes:
            args += (index.setdefault(name, len(index) + 1), len(parts))
            for part in parts:
                args += part.slot.args
                args += (part.cost, int(part.slot.limit.mode == "shadow"))
    return list(index), args


def read(question: Question, reply: Sequence[Any], source: Source = "store") -> Decision:
    """Return the decision that the script's reply to one question stands for."""
    allowed, t = bool(reply[0]), int(reply[1])
    states: list[tuple[int, LimitState]] = []
    violated: list[tuple[int, str]] = []
    waits: list[int | None] = []
    for number, part in enumerate(question.parts):
        used, at = reply[2 + number * 2], reply[3 + number * 2]
        bucket = Bucket(float(used), int(at)) if used is not None else Bucket(0.0, t)
        wait = bucket.wait(part.slot.shape, t, part.cost)
        if wait != 0 and part.slot.limit.mode == "enforce":
            violated.append((part.slot.position, part.slot.limit.name))
            waits.append(wait)
        elif wait == 0 and allowed and question.take and part.cost:
            bucket = bucket.take(part.slot.shape, t, part.cost)
        states.append((part.slot.position, _state(part, bucket, t, wait)))
    given = question.check.timestamp
    return Decision(
        allowed=allowed,
        key=mask(question.check.key),
        plan=question.plan,
        model_class=question.model_class,
        timestamp=as_datetime(t),
        clamped=given is not None and given != t,
        retry_after=None if None in waits else seconds(max((wait for wait in waits if wait), default=0)),
        violated=tuple(name for _, name in sorted(violated)),
        reservation=None,
        source=source,
        limits=tuple(state for _, state in sorted(states, key=lambda entry: entry[0])),
    )


def _state(part: Part, bucket: Bucket, t: int, wait: int | None) -> LimitState:
    limit, shape = part.slot.limit, part.slot.shape
    return LimitState(
        name=limit.name,
        unit=limit.unit,
        limit=int(shape.count),
        period=shape.period / MICROSECONDS,
        burst=int(shape.burst),
        remaining=bucket.remaining(shape, t),
        reset_after=seconds(bucket.to_full(shape, t)),
        retry_after=None if wait is None else seconds(wait),
        mode=limit.mode,
    )


def seconds(microseconds: int) -> float:
    """Return microseconds as the seconds that people are told."""
    return microseconds / MICROSECONDS


def as_datetime(t: int) -> datetime:
    """Return microseconds since the epoch as an aware datetime, exactly."""
    return _EPOCH + timedelta(microseconds=t)
