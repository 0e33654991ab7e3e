"""What to ask the store about some packed_checks, and what its reply means. No I/O happens here.

    question = asker.resolve(check)            # which limits, at what cost: ask.py
    keys, args = encode_checks(questions, ...)    # one call of lua/check.lua for many questions
    replies = replies_in(reply)            # what the script said about each
    decision = read_decision(question, replies[0])  # and what that means

Every way to travel, sync, async or simulated, shares these.
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from ratelimit.decision.decision import defer_decision
from ratelimit.decision.limit_state import BLOCKED
from ratelimit.engine.layout import FIRST_GROUP_ARGUMENT
from ratelimit.engine.limit_status import NONE, evaluate_limit, make_limit_state, unpack_states
from ratelimit.engine.resolver import find_record_key
from ratelimit.request.privacy import mask
from ratelimit.request.timestamp import MICROSECONDS, as_datetime

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ratelimit.decision.decision import Decision, Source
    from ratelimit.decision.limit_state import LimitState
    from ratelimit.engine.layout import Layout
    from ratelimit.engine.resolver import LimitCost, ResolvedCheck

MAX_LIMITS_PER_CALL: Final = 96
"""Most limits in one call of the script: a third of a millisecond of the store's time.

More would not save much per check, and while the store is at one call we can write the next: with 256
tasks 96 gave 1.7 times the packed_checks per second of 320."""

_HEAD: Final = Struct("<2d")
_YES, _AGAIN = b"1a"  # how a reply begins
_REMEMBER: Final = 2
_TIME: Final = Struct("<d")
_JUDGED: Final = 1 + _TIME.size  # bytes of verdict and time


def split_into_calls(checks: Sequence[ResolvedCheck]) -> Iterator[list[ResolvedCheck]]:
    """Split questions into calls that hold the store for about a millisecond each, in order."""
    call: list[ResolvedCheck] = []
    weight = 0
    for check in checks:
        if call and weight + check.subject.layout.weight > MAX_LIMITS_PER_CALL:
            yield call
            call, weight = [], 0
        call.append(check)
        weight += check.subject.layout.weight
    if call:
        yield call


ScriptArgument = str | bytes | float
"""An argument of a script."""


def encode_checks(
    checks: Sequence[ResolvedCheck], max_skew: int | None, remember: int
) -> tuple[list[str], list[ScriptArgument]]:
    """Return KEYS and ARGV of lua/check.lua for these questions.

    Args:
        checks: what to decide, each all or nothing on its own, in order.
        max_skew: microseconds that a timestamp may lie ahead; None to trust it entirely.
        remember: milliseconds to remember reservations and the answers to request ids.
    """
    begins: dict[Layout, int] = {}
    keys: list[str] = []
    packed_checks: list[ScriptArgument] = []
    args: list[ScriptArgument] = [b""]
    for check in checks:
        subject = check.subject
        layout = subject.layout
        first = begins.get(layout)
        if first is None:
            first = begins[layout] = len(args) + 1
            args += layout.script_arguments
        if check.packed is not None and first == FIRST_GROUP_ARGUMENT:
            packed_checks.append(check.packed)
        elif check.take and (check.reservation or check.request_id):
            packed_checks.append(layout.pack(first, _REMEMBER, check.timestamp, check.costs))
            packed_checks += _to_remember(check, keys, remember)
        else:
            packed_checks.append(layout.pack(first, check.take, check.timestamp, check.costs))
        keys += subject.store_keys
    args[0] = pack_header(max_skew, len(args) + 1)
    args += packed_checks
    return keys, args


def split_replies(reply: bytes | list[bytes]) -> list[bytes]:
    """Return what lua/check.lua said of each check: of one it says it without an array around."""
    return reply if isinstance(reply, list) else [reply]


def pack_header(max_skew: int | None, begin: int = 0) -> bytes:
    """Return the first ARGV of a script: see lua/prelude.lua."""
    return _HEAD.pack(-1 if max_skew is None else max_skew, begin)


def _to_remember(check: ResolvedCheck, keys: list[str], remember: int) -> tuple[ScriptArgument, ...]:
    """Return what the script needs to remember a question's answer, its reservation or both."""
    answer, reservation = check.answer_store_key, check.reservation
    record = find_record_key(reservation) if reservation else None
    keys += filter(None, (answer, record))
    fields = _record(check) if record else []
    flags = (int(answer is not None), _mark(check), int(record is not None), reservation or NONE)
    return (*flags, max(remember, _longest(check)), len(fields), *fields)


def _mark(check: ResolvedCheck) -> str:
    """Return what tells one question's limits and costs from another's."""
    return f"{zlib.crc32(write_limits(check).encode()):08x}"


def _longest(check: ResolvedCheck) -> int:
    """Return the milliseconds that the longest-lived slot lasts: its record must not be gone before."""
    placed_limits = check.subject.layout.placed_limits
    return int(max((placed.shape.period for placed in placed_limits if placed.is_slots), default=0)) // 1000


def _record(check: ResolvedCheck) -> list[str]:
    """Return the fields of a reservation's record that are known before it is admitted."""
    fields = {
        "id": check.reservation or "",
        "key": check.subject.key,
        "tenant": check.subject.tenant,
        "plan": check.subject.plan,
        "model": check.model or "",
        "limits": write_limits(check),
    }
    return [word for pair in fields.items() for word in pair]


def write_limits(check: ResolvedCheck) -> str:
    """Write down the limits of a question, for settling them later: the form is lua/settle.lua's."""
    return "".join(_limit_text(limit_cost) for limit_cost in check.limit_costs)


def _limit_text(limit_cost: LimitCost) -> str:
    placed, shape = limit_cost.placed, limit_cost.placed.shape
    numbers = f"{shape.count!r} {shape.period!r} {shape.burst!r} {placed.unit} {limit_cost.cost!r}"
    return f"{placed.letter} {limit_cost.store_key} {placed.limit.name} {numbers};"


def read_decision(check: ResolvedCheck, reply: bytes, source: Source = "store") -> Decision:
    """Return the decision that the script's reply to one question stands for.

    Only whether it was admitted is read at once; the rest when somebody asks for it.
    """
    reservation = check.reservation
    if reply[0] == _AGAIN:
        _, first, mark, reply = reply.split(b" ", 3)
        reservation = None if first == b"-" else first.decode()
        if mark.decode() != _mark(check):
            # It was another question, or another policy: then the verdict stands, of limits unknown.
            reply = reply[:_JUDGED]
    allowed = reply[0] == _YES and not check.subject.blocked
    return defer_decision(allowed, source, (decode_members, check, reply, reservation, source))


def text_of(reply: bytes | str) -> str:
    """Return a reply as text; clients differ in whether they decode."""
    return reply.decode() if isinstance(reply, bytes) else reply


def move_reply_time(reply: bytes, t: int) -> bytes:
    """Return a reply as it would be at another time, had nothing happened to the limits meanwhile."""
    return reply[:1] + _TIME.pack(t) + reply[_JUDGED:]


def decode_members(
    check: ResolvedCheck, reply: bytes, reservation: str | None, source: Source
) -> dict[str, Any]:
    """Return the members of a decision from what the script said."""
    layout = check.subject.layout
    allowed = reply[0] == _YES
    taken = allowed and check.take
    states: list[LimitState] = []
    violated: list[str] = []
    waits: list[int | None] = []
    t, found = unpack_states(layout, reply)
    for number in layout.policy_order if found else ():
        placed = layout.placed_limits[number]
        reading = evaluate_limit(placed, check.costs[number], found[number], t, taken=taken)
        limit = placed.limit
        states.append(
            make_limit_state(limit.name, placed.unit, placed.kind, placed.shape, limit.mode, reading)
        )
        if not allowed and reading.wait != 0 and limit.mode == "enforce":
            violated.append(limit.name)
            waits.append(reading.wait)
    return build_members(
        check,
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


def build_members(
    check: ResolvedCheck,
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
    subject = check.subject
    if subject.blocked:  # whatever is left of its limits
        allowed, retry_after, violated, reservation = False, None, (BLOCKED,), None
    return {
        "allowed": allowed,
        "key": mask(subject.key),
        "plan": subject.plan,
        "model_class": subject.model_class,
        "timestamp": as_datetime(t),
        "clamped": check.timestamp is not None and check.timestamp != t,
        "retry_after": retry_after,
        "violated": violated,
        "reservation": reservation,
        "source": source,
        "limits": limits,
    }
