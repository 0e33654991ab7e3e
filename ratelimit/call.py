"""What to ask the store about some checks, and what its reply means. No I/O happens here.

    question = asker.ask(check)            # which limits, at what cost: ask.py
    keys, args = encode(questions, ...)    # one call of lua/check.lua for many questions
    decision = read(question, reply)       # what the script said about one of them

Every way to travel, sync, async or simulated, shares these three.
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ratelimit.ask import record_named
from ratelimit.decision import Decision
from ratelimit.privacy import mask
from ratelimit.rate import MICROSECONDS
from ratelimit.reading import NONE, read_part, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ratelimit.ask import Part, Question
    from ratelimit.decision import LimitState, Source

MOST_LIMITS: Final = 320
"""Most limits in one call of the script, which takes about 3 µs for each: what it may hold the store for."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def calls_of(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """Split questions into calls that hold the store for about a millisecond each, in order."""
    call: list[Question] = []
    weight = 0
    for question in questions:
        if call and weight + question.weight > MOST_LIMITS:
            yield call
            call, weight = [], 0
        call.append(question)
        weight += question.weight
    if call:
        yield call


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
            args += (2, at(remembered) if remembered else 0, _mark(question))
            args += (at(record) if record else 0, question.reservation or NONE)
            args += (max(remember, _longest(question)), len(fields), *fields)
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


def _mark(question: Question) -> str:
    """Return what tells one question's limits and costs from another's."""
    return f"{zlib.crc32(limits_text(question).encode()):08x}"


def _longest(question: Question) -> int:
    """Return the milliseconds that the longest-lived slot lasts: its record must not be gone before."""
    slots = (part.place.shape.period for part in question.parts if part.place.is_slots)
    return int(max(slots, default=0)) // 1000


def _record(question: Question) -> list[str]:
    """Return the fields of a reservation's record that are known before it is admitted."""
    check = question.check
    fields = {
        "id": question.reservation or "",
        "key": check.key,
        "tenant": question.tenant,
        "plan": question.plan,
        "model": check.model or "",
        "limits": limits_text(question),
    }
    return [word for pair in fields.items() for word in pair]


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
    fits = True
    if words[0] == "again":
        # The question may have been another one, or the policy: then the verdict stands, of limits unknown.
        fits = words[2] == _mark(question)
        reservation = None if words[1] == NONE else words[1]
        words = words[3:]
    allowed, t = words[0] == "1", int(words[1])
    parts = list(question.parts)
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
        retry_after=_longest_wait(waits),
        violated=tuple(violated),
        reservation=reservation if allowed else None,
        source=source,
        limits=tuple(states),
    )


def _longest_wait(waits: Sequence[int | None]) -> float | None:
    """Return, in seconds, when every limit that denies would admit; None if one of them never does."""
    known = [wait for wait in waits if wait is not None]
    return max(known, default=0) / MICROSECONDS if len(known) == len(waits) else None


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
