"""What to ask the store about some checks, and what its reply means. No I/O happens here.

    question = asker.ask(check)            # which limits, at what cost: ask.py
    keys, args = encode(questions, ...)    # one call of lua/check.lua for many questions
    decision = read(question, reply)       # what the script said about one of them

Every way to travel, sync, async or simulated, shares these three.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ratelimit.ask import record_named
from ratelimit.decision import Decision
from ratelimit.privacy import mask
from ratelimit.rate import MICROSECONDS
from ratelimit.reading import NONE, read_part, state_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit.ask import Part, Question
    from ratelimit.decision import LimitState, Source

BLOCKED = "blocked"
"""What stands among the violated limits when an operator has shut the key."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encode(
    questions: Sequence[Question], max_skew: int | None, remember: int
) -> tuple[list[str], list[str | float]]:
    """Return KEYS and ARGV of lua/check.lua for these questions.

    Args:
        questions: what to decide, each all or nothing on its own, in order.
        max_skew: microseconds that a timestamp may lie ahead; None to trust it entirely.
        remember: milliseconds to remember reservations and the answers to request ids.
    """
    index: dict[str, int] = {}

    def at(name: str) -> int:
        return index.setdefault(name, len(index) + 1)

    args: list[str | float] = [-1 if max_skew is None else max_skew]
    for question in questions:
        timestamp = question.check.timestamp
        args.append("" if timestamp is None else timestamp)
        if question.take and (question.reservation or question.remembered):
            remembered = question.remembered
            record = record_named(question.reservation) if question.reservation else None
            fields = _record(question) if record else []
            args += (2, at(remembered) if remembered else 0, at(record) if record else 0)
            args += (question.reservation or NONE, max(remember, _longest(question)), len(fields), *fields)
        else:
            args.append(int(question.take))
        args.append(len(question.groups))
        for name, parts in question.groups:
            place = parts[0].place
            if place.is_slots:
                args += (at(name), 0, place.shape.burst, place.shape.period, int(parts[0].cost), place.letter)
                continue
            args += (at(name), len(parts))
            for part in parts:
                args += part.place.args
                args += (part.cost, part.place.letter)
    return list(index), args


def _longest(question: Question) -> int:
    """Return the milliseconds that the longest-lived slot lasts: its record must not be gone before."""
    slots = (part.place.shape.period for part in question.parts if part.place.is_slots)
    return int(max(slots, default=0)) // 1000


def _record(question: Question) -> list[str]:
    """Return the fields of a reservation's record that are known before it is admitted."""
    check = question.check
    return [
        *(
            "id",
            question.reservation or "",
            "key",
            check.key,
            "tenant",
            question.tenant,
            "plan",
            question.plan,
            "model",
            check.model or "",
        ),
        *("limits", limits_text(question)),
    ]


def limits_text(question: Question) -> str:
    """Write down the limits of a question, for settling them later: the form is lua/settle.lua's."""
    return "".join(_limit_text(name, part) for name, parts in question.groups for part in parts)


def _limit_text(name: str, part: Part) -> str:
    place, shape = part.place, part.place.shape
    numbers = f"{shape.count!r} {shape.period!r} {shape.burst!r} {place.limit.unit} {part.cost!r}"
    return f"{place.letter} {name} {place.field} {numbers};"


def read(question: Question, reply: str, source: Source = "store") -> Decision:
    """Return the decision that the script's reply to one question stands for."""
    words = reply.split(" ")
    reservation = question.reservation
    if words[0] == "again":
        reservation = None if words[1] == NONE else words[1]
        words = words[2:]
    allowed, t = words[0] == "1", int(words[1])
    parts = list(question.parts)
    # A remembered answer may be older than the policy: then its verdict stands, and its limits are unknown.
    fits = len(words) == 2 + 2 * len(parts)
    states: list[LimitState] = []
    violated: list[str] = []
    waits: list[int | None] = []
    order = sorted(range(len(parts)), key=lambda number: parts[number].place.position) if fits else []
    for number in order:
        part, limit = parts[number], parts[number].place.limit
        first, second = words[2 + number * 2 : 4 + number * 2]
        reading = read_part(part, first, second, t, taken=allowed and question.take)
        states.append(state_of(limit.name, limit.unit, limit.kind, part.place.shape, limit.mode, reading))
        if reading.wait != 0 and limit.mode == "enforce" and not allowed:
            violated.append(limit.name)
            waits.append(reading.wait)
    return answer(
        question,
        allowed=allowed,
        t=t,
        retry_after=None
        if None in waits
        else max((wait for wait in waits if wait), default=0) / MICROSECONDS,
        violated=tuple(violated),
        reservation=reservation if allowed else None,
        source=source,
        limits=tuple(states),
    )


def answer(
    question: Question,
    *,
    allowed: bool,
    t: int,
    retry_after: float | None,
    violated: tuple[str, ...],
    source: Source,
    reservation: str | None = None,
    limits: tuple[LimitState, ...] = (),
) -> Decision:
    """Make the decision for a question judged at time `t` (microseconds since the epoch)."""
    given = question.check.timestamp
    return Decision(
        allowed=allowed,
        key=mask(question.check.key),
        plan=question.plan,
        model_class=question.model_class,
        timestamp=as_datetime(t),
        clamped=given is not None and given != t,
        retry_after=retry_after,
        violated=violated,
        reservation=reservation,
        source=source,
        limits=limits,
    )


def as_datetime(t: int) -> datetime:
    """Return microseconds since the epoch as an aware datetime, exactly."""
    return _EPOCH + timedelta(microseconds=t)
