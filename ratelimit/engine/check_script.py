"""Encodes calls of lua/check.lua and decodes its replies. No I/O happens here.

    check = resolver.resolve(check, take=True)   # which limits apply, at what cost: resolver.py
    keys, args = encode_checks([check], ...)     # one call of lua/check.lua, for many checks
    replies = split_replies(reply, 1)            # the reply for each check
    decision = read_decision(check, replies[0])  # the decision for the user

The limiter, the async limiter and the simulator all use these functions.
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from ratelimit.decision.decision import defer_decision, find_deferred
from ratelimit.decision.limit_state import BLOCKED
from ratelimit.engine.layout import FIRST_GROUP_ARGUMENT
from ratelimit.engine.limit_status import ADMITTED, NONE, evaluate_limit, make_limit_state, unpack_states
from ratelimit.engine.raw_headers import write_raw_headers
from ratelimit.engine.reservation_record import encode_limits, encode_record
from ratelimit.request.privacy import mask
from ratelimit.request.timestamp import MICROSECONDS, as_datetime

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ratelimit.decision.decision import Decision, Source
    from ratelimit.decision.limit_state import LimitState
    from ratelimit.engine.layout import Layout
    from ratelimit.engine.resolver import ResolvedCheck

MAX_LIMITS_PER_CALL: Final = 96
"""The most limits in one call of the script: a third of a millisecond of the store's time.

A larger call saves little per check. With smaller calls the client encodes the next call while the store
runs one: with 256 tasks, 96 gave 1.7 times the checks per second of 320."""

_HEADER_STRUCT: Final = Struct("<3d")
REMEMBERED: Final = b"a"[0]  # the first byte of a reply that was given before
_TAKE_AND_REMEMBER: Final = 2
_TIME_STRUCT: Final = Struct("<d")
STATES_START: Final = 1 + _TIME_STRUCT.size  # the states follow the verdict and the time


def split_into_calls(checks: Sequence[ResolvedCheck]) -> Iterator[list[ResolvedCheck]]:
    """Split checks into calls of at most `MAX_LIMITS_PER_CALL` limits each, in order.

    A check with more limits than that gets a call of its own.
    """
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
"""One ARGV of a script."""


def encode_checks(
    checks: Sequence[ResolvedCheck], max_skew: int | None, remember: int
) -> tuple[list[str], list[ScriptArgument]]:
    """Return KEYS and ARGV of lua/check.lua for one call.

    Args:
        checks: the checks to decide, in order; each is all or nothing on its own.
        max_skew: microseconds that a timestamp may be ahead of the store's clock; None trusts every one.
        remember: milliseconds for which the store keeps reservations and the answers to request ids.
    """
    first_arguments: dict[Layout, int] = {}
    keys: list[str] = []
    packed_checks: list[ScriptArgument] = []
    args: list[ScriptArgument] = [b""]
    for check in checks:
        subject = check.subject
        layout = subject.layout
        first = first_arguments.get(layout)
        if first is None:
            first = first_arguments[layout] = len(args) + 1
            args += layout.script_arguments
        if check.packed is not None and first == FIRST_GROUP_ARGUMENT:
            packed_checks.append(check.packed)
        elif check.take and (check.reservation or check.request_id):
            packed_checks.append(layout.pack(first, _TAKE_AND_REMEMBER, check.timestamp, check.costs))
            packed_checks += _encode_memory(check, keys, remember)
        else:
            packed_checks.append(layout.pack(first, check.take, check.timestamp, check.costs))
        keys += subject.store_keys
    args[0] = pack_header(max_skew, len(args) + 1, has_repeats=len(set(keys)) < len(keys))
    args += packed_checks
    return keys, args


def split_replies(reply: bytes | list[bytes], count: int) -> list[bytes]:
    """Return the reply of lua/check.lua for each of `count` checks."""
    if isinstance(reply, list):
        return reply
    if count == 1:
        return [reply]
    size_text, _, replies = reply.partition(b"|")
    size = int(size_text)
    return [replies[start : start + size] for start in range(0, len(replies), size)]


def pack_header(max_skew: int | None, first_check: int = 0, *, has_repeats: bool = False) -> bytes:
    """Return the first ARGV of a script, as lua/prelude.lua describes it.

    Args:
        max_skew: microseconds that a timestamp may be ahead of the store's clock; None trusts every one.
        first_check: the ARGV at which the checks begin; only lua/check.lua uses it.
        has_repeats: whether a store key occurs more than once; only lua/check.lua uses it.
    """
    return _HEADER_STRUCT.pack(-1 if max_skew is None else max_skew, first_check, has_repeats)


def _encode_memory(check: ResolvedCheck, keys: list[str], remember: int) -> tuple[ScriptArgument, ...]:
    """Return the ARGV with which the script remembers a check's answer, its reservation or both.

    It appends their store keys to `keys`.
    """
    answer_store_key, record_store_key = check.answer_store_key, check.record_store_key
    keys += filter(None, (answer_store_key, record_store_key))
    return (
        int(answer_store_key is not None),
        compute_checksum(check),
        check.reservation or NONE,
        max(remember, _find_longest_slot_ttl(check)),
        encode_record(check) if record_store_key else "",
    )


def compute_checksum(check: ResolvedCheck) -> str:
    """Return a checksum of a check's limits and costs, which tells one check from another."""
    return f"{zlib.crc32(encode_limits(check).encode()):08x}"


def _find_longest_slot_ttl(check: ResolvedCheck) -> int:
    """Return the longest TTL of a slot in milliseconds: the record must live as long as its slots."""
    placed_limits = check.subject.layout.placed_limits
    return int(max((placed.shape.period for placed in placed_limits if placed.is_slots), default=0)) // 1000


def read_decision(check: ResolvedCheck, reply: bytes, source: Source = "store") -> Decision:
    """Return the decision in the script's reply for one check.

    Only the verdict is decoded at once. The other members are decoded at their first use.
    """
    reservation = check.reservation
    if reply[0] == REMEMBERED:
        reservation, _, reply = split_answer(check, reply)
    allowed = reply[0] == ADMITTED and not check.subject.blocked
    return defer_decision(
        allowed, source, (decode_members, write_raw_headers, check, reply, None, reservation, source)
    )


def split_answer(check: ResolvedCheck, reply: bytes) -> tuple[str | None, bool, bytes]:
    """Return what a reply for one check says.

    Returns:
        The id of the reservation; whether the states belong to the limits and costs of this check; and the
        reply without what only a remembered answer has.
    """
    if reply[0] != REMEMBERED:
        return check.reservation, True, reply
    _, reservation_id, checksum, reply = reply.split(b" ", 3)
    reservation = None if reservation_id == b"-" else reservation_id.decode()
    if checksum.decode() == compute_checksum(check):
        return reservation, True, reply
    # The first check had other limits or costs: its verdict stands, but the states do not match.
    return reservation, False, reply[:STATES_START]


def text_of(reply: bytes | str) -> str:
    """Return a reply as text. Some Redis clients decode replies and some do not."""
    return reply.decode() if isinstance(reply, bytes) else reply


RawDecision = tuple[object, object, "ResolvedCheck", bytes, int | None, str | None, "Source"]
"""What a decision is decoded from: `decode_members`, `write_raw_headers` and their arguments.

During an outage the check may have fewer limits than the caller's."""


def find_raw_decision(decision: Decision) -> RawDecision | None:
    """Return what a decision will be decoded from; None if it is decoded, or was made in another way."""
    deferred: RawDecision | None = find_deferred(decision)
    # Not a part of it: that would be another tuple for each check.
    return deferred if deferred is not None and deferred[0] is decode_members else None


def unpack_time(reply: bytes) -> float:
    """Return the time of a decision in the script's reply, microseconds since the epoch."""
    time: float = _TIME_STRUCT.unpack_from(reply, 1)[0]
    return time


def decode_members(
    check: ResolvedCheck, reply: bytes, t: int | None, reservation: str | None, source: Source
) -> dict[str, Any]:
    """Return the members of a decision from the script's reply.

    Args:
        check: the check.
        reply: the script's reply.
        t: the time of the decision, microseconds since the epoch; None for that of the reply.
        reservation: the id of the reservation.
        source: who decided.
    """
    layout = check.subject.layout
    allowed = reply[0] == ADMITTED
    taken = allowed and check.take
    states: list[LimitState] = []
    violated: list[str] = []
    waits: list[int | None] = []
    reply_time, raw_states = unpack_states(layout, reply)
    t = reply_time if t is None else t
    for number in layout.policy_order if raw_states else ():
        placed = layout.placed_limits[number]
        status = evaluate_limit(placed, check.costs[number], raw_states[number], t, taken=taken)
        limit = placed.limit
        states.append(
            make_limit_state(limit.name, placed.unit, placed.kind, placed.shape, limit.mode, status)
        )
        if not allowed and status.wait != 0 and limit.mode == "enforce":
            violated.append(limit.name)
            waits.append(status.wait)
    return build_members(
        check,
        allowed=allowed,
        t=t,
        retry_after=_find_longest_wait(waits) if waits else 0.0,
        violated=tuple(violated),
        reservation=reservation if allowed else None,
        source=source,
        limits=tuple(states),
    )


def _find_longest_wait(waits: Sequence[int | None]) -> float | None:
    """Return the longest of the waits (microseconds) in seconds; None if one of them is None (never)."""
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
    """Return the members of the decision on a check at time `t` (microseconds since the epoch)."""
    subject = check.subject
    if subject.blocked:  # a block goes before every limit
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
