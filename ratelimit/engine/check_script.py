"""What to ask the store about some checks, and what its reply means. No I/O happens here.

    question = asker.ask(check)            # which limits, at what cost: ask.py
    keys, args = encode(questions, ...)    # one call of lua/check.lua for many questions
    replies = replies_in(reply)            # what the script said about each
    decision = read(question, replies[0])  # and what that means

Every way to travel, sync, async or simulated, shares these.
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from ratelimit.decision.decision import deferred
from ratelimit.engine.layout import FIRST
from ratelimit.engine.limit_status import NONE, read_place, state_of, states_of
from ratelimit.engine.resolver import record_named
from ratelimit.policy.spec import BLOCKED
from ratelimit.rate import MICROSECONDS
from ratelimit.request.privacy import mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ratelimit.decision.decision import Decision, LimitState, Source
    from ratelimit.engine.layout import Layout
    from ratelimit.engine.resolver import Part, Question

MOST_LIMITS: Final = 96
"""Most limits in one call of the script: a third of a millisecond of the store's time.

More would not save much per check, and while the store is at one call we can write the next: with 256
tasks 96 gave 1.7 times the checks per second of 320."""

_HEAD: Final = Struct("<2d")
_YES, _AGAIN = b"1a"  # how a reply begins
_REMEMBER: Final = 2
_TIME: Final = Struct("<d")
_JUDGED: Final = 1 + _TIME.size  # bytes of verdict and time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def calls_of(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """Split questions into calls that hold the store for about a millisecond each, in order."""
    call: list[Question] = []
    weight = 0
    for question in questions:
        if call and weight + question.route.layout.weight > MOST_LIMITS:
            yield call
            call, weight = [], 0
        call.append(question)
        weight += question.route.layout.weight
    if call:
        yield call


Word = str | bytes | float
"""An argument of a script."""


def encode(
    questions: Sequence[Question], max_skew: int | None, remember: int
) -> tuple[list[str], list[Word]]:
    """Return KEYS and ARGV of lua/check.lua for these questions.

    Args:
        questions: what to decide, each all or nothing on its own, in order.
        max_skew: microseconds that a timestamp may lie ahead; None to trust it entirely.
        remember: milliseconds to remember reservations and the answers to request ids.
    """
    begins: dict[Layout, int] = {}
    keys: list[str] = []
    checks: list[Word] = []
    args: list[Word] = [b""]
    for question in questions:
        route = question.route
        layout = route.layout
        first = begins.get(layout)
        if first is None:
            first = begins[layout] = len(args) + 1
            args += layout.words
        if question.packed is not None and first == FIRST:
            checks.append(question.packed)
        elif question.take and (question.reservation or question.request_id):
            checks.append(layout.pack(first, _REMEMBER, question.timestamp, question.costs))
            checks += _to_remember(question, keys, remember)
        else:
            checks.append(layout.pack(first, question.take, question.timestamp, question.costs))
        keys += route.names
    args[0] = head_of(max_skew, len(args) + 1)
    args += checks
    return keys, args


def replies_in(reply: bytes | list[bytes]) -> list[bytes]:
    """Return what lua/check.lua said of each check: of one it says it without an array around."""
    return reply if isinstance(reply, list) else [reply]


def head_of(max_skew: int | None, begin: int = 0) -> bytes:
    """Return the first ARGV of a script: see lua/prelude.lua."""
    return _HEAD.pack(-1 if max_skew is None else max_skew, begin)


def _to_remember(question: Question, keys: list[str], remember: int) -> tuple[Word, ...]:
    """Return what the script needs to remember a question's answer, its reservation or both."""
    answer, reservation = question.remembered, question.reservation
    record = record_named(reservation) if reservation else None
    keys += filter(None, (answer, record))
    fields = _record(question) if record else []
    flags = (int(answer is not None), _mark(question), int(record is not None), reservation or NONE)
    return (*flags, max(remember, _longest(question)), len(fields), *fields)


def _mark(question: Question) -> str:
    """Return what tells one question's limits and costs from another's."""
    return f"{zlib.crc32(limits_text(question).encode()):08x}"


def _longest(question: Question) -> int:
    """Return the milliseconds that the longest-lived slot lasts: its record must not be gone before."""
    places = question.route.layout.places
    return int(max((place.shape.period for place in places if place.is_slots), default=0)) // 1000


def _record(question: Question) -> list[str]:
    """Return the fields of a reservation's record that are known before it is admitted."""
    fields = {
        "id": question.reservation or "",
        "key": question.route.key,
        "tenant": question.route.tenant,
        "plan": question.route.plan,
        "model": question.model or "",
        "limits": limits_text(question),
    }
    return [word for pair in fields.items() for word in pair]


def limits_text(question: Question) -> str:
    """Write down the limits of a question, for settling them later: the form is lua/settle.lua's."""
    return "".join(_limit_text(part) for part in question.parts)


def _limit_text(part: Part) -> str:
    place, shape = part.place, part.place.shape
    numbers = f"{shape.count!r} {shape.period!r} {shape.burst!r} {place.unit} {part.cost!r}"
    return f"{place.letter} {part.name} {place.limit.name} {numbers};"


def read(question: Question, reply: bytes, source: Source = "store") -> Decision:
    """Return the decision that the script's reply to one question stands for.

    Only whether it was admitted is read at once; the rest when somebody asks for it.
    """
    reservation = question.reservation
    if reply[0] == _AGAIN:
        _, first, mark, reply = reply.split(b" ", 3)
        reservation = None if first == b"-" else first.decode()
        if mark.decode() != _mark(question):
            # It was another question, or another policy: then the verdict stands, of limits unknown.
            reply = reply[:_JUDGED]
    allowed = reply[0] == _YES and not question.route.blocked
    return deferred(allowed, source, (members, question, reply, reservation, source))


def text_of(reply: bytes | str) -> str:
    """Return a reply as text; clients differ in whether they decode."""
    return reply.decode() if isinstance(reply, bytes) else reply


def judged_again(reply: bytes, t: int) -> bytes:
    """Return a reply as it would be at another time, had nothing happened to the limits meanwhile."""
    return reply[:1] + _TIME.pack(t) + reply[_JUDGED:]


def members(question: Question, reply: bytes, reservation: str | None, source: Source) -> dict[str, Any]:
    """Return the members of a decision from what the script said."""
    layout = question.route.layout
    allowed = reply[0] == _YES
    taken = allowed and question.take
    states: list[LimitState] = []
    violated: list[str] = []
    waits: list[int | None] = []
    t, found = states_of(layout, reply)
    for number in layout.ordered if found else ():
        place = layout.places[number]
        reading = read_place(place, question.costs[number], found[number], t, taken=taken)
        limit = place.limit
        states.append(state_of(limit.name, place.unit, place.kind, place.shape, limit.mode, reading))
        if not allowed and reading.wait != 0 and limit.mode == "enforce":
            violated.append(limit.name)
            waits.append(reading.wait)
    return answer(
        question,
        allowed=allowed,
        t=t,
        retry_after=_longest_wait(waits) if waits else 0.0,
        violated=tuple(violated),
        reservation=reservation if allowed else None,
        source=source,
        limits=tuple(states),
    )


def _longest_wait(waits: Sequence[int | None]) -> float | None:
    """Return, in seconds, when every limit that denies would admit; None if one of them never does."""
    known = [wait for wait in waits if wait is not None]
    return max(known) / MICROSECONDS if len(known) == len(waits) else None


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
) -> dict[str, Any]:
    """Return the members of the decision on a question judged at `t` (microseconds since the epoch)."""
    route = question.route
    if route.blocked:  # whatever is left of its limits
        allowed, retry_after, violated, reservation = False, None, (BLOCKED,), None
    return {
        "allowed": allowed,
        "key": mask(route.key),
        "plan": route.plan,
        "model_class": route.model_class,
        "timestamp": as_datetime(t),
        "clamped": question.timestamp is not None and question.timestamp != t,
        "retry_after": retry_after,
        "violated": violated,
        "reservation": reservation,
        "source": source,
        "limits": limits,
    }


def as_datetime(t: int) -> datetime:
    """Return microseconds since the epoch as an aware datetime, exactly."""
    seconds, microseconds = divmod(t, MICROSECONDS)
    return _EPOCH + timedelta(0, seconds, microseconds)
