"""Encodes calls of lua/settle.lua, which settle or end reservations, and decodes its replies. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from ratelimit.decision.settlement import Settlement
from ratelimit.engine.check_script import ScriptArgument, encode_limits, pack_header
from ratelimit.engine.layout import KIND_CODES, USAGE
from ratelimit.engine.limit_status import evaluate_settled_limit, make_limit_state
from ratelimit.engine.reservation_id import find_record_store_key
from ratelimit.errors import UnknownReservation
from ratelimit.policy.shape import Shape
from ratelimit.request.check import invalid_field, make_check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit.decision.limit_state import LimitState, Mode
    from ratelimit.engine.resolver import ResolvedCheck, Resolver
    from ratelimit.policy.limit import Kind
    from ratelimit.request.usage import Usage

MAX_STREAM_RECORDS: Final = 100_000
"""About how many usage records the stream keeps."""

SettleAction = Literal["settle", "cancel", "release"]
"""What a call of lua/settle.lua does with a reservation."""

_KINDS_BY_CODE: Final = {code: kind for kind, code in KIND_CODES.items()}


def encode_settle(
    resolver: Resolver, usage: Usage, max_skew: int | None, remember: int
) -> tuple[list[str], list[ScriptArgument]]:
    """Return KEYS and ARGV of lua/settle.lua for a usage record.

    Args:
        resolver: the resolver of the current policy.
        usage: the usage record, with a reservation or a key.
        max_skew: microseconds that a timestamp may be ahead of the store's clock; None trusts every one.
        remember: milliseconds for which a repeated settlement gets the same answer.

    Raises:
        InvalidRequest: the record has neither a reservation nor a key, or a unit that no plan meters.
        UnknownReservation: its reservation cannot be the id of a reservation.
    """
    resolver.refuse_unmetered_units(usage.cost)
    known = usage.known()
    if usage.reservation is not None:
        # The script takes the tenant and the plan from the reservation's record.
        fields = {name: text for name, text in usage.fields().items() if name not in {"tenant", "plan"}}
        keys, limits = [USAGE, _require_record_store_key(usage.reservation)], ""
    else:
        keys, limits, fields = _resolve_usage(resolver, usage)
    units = [argument for unit, amount in known.items() for argument in (unit, amount)]
    stream = [argument for pair in fields.items() for argument in pair]
    header = _encode_header(max_skew, usage.timestamp, "settle", remember, failed=usage.failed)
    return keys, [*header, limits, MAX_STREAM_RECORDS, len(known), usage.key or "", *units, *stream]


def encode_reservation_end(
    action: SettleAction, reservation: str, max_skew: int | None, remember: int
) -> tuple[list[str], list[ScriptArgument]]:
    """Return KEYS and ARGV of lua/settle.lua to cancel a reservation, or to release its slots.

    Args:
        action: `cancel` or `release`.
        reservation: its id.
        max_skew: microseconds that a timestamp may be ahead of the store's clock; None trusts every one.
        remember: milliseconds for which a repeated call gets the same answer.

    Raises:
        UnknownReservation: this cannot be the id of a reservation.
    """
    header = _encode_header(max_skew, None, action, remember, failed=False)
    return [USAGE, _require_record_store_key(reservation)], [*header, "", MAX_STREAM_RECORDS, 0, ""]


def encode_lease_return(
    check: ResolvedCheck, max_skew: int | None, remember: int
) -> tuple[list[str], list[ScriptArgument]]:
    """Return KEYS and ARGV of lua/settle.lua to return what is left of a lease: the costs of `check`."""
    header = _encode_header(max_skew, None, "cancel", remember, failed=False)
    return [USAGE], [*header, encode_limits(check), MAX_STREAM_RECORDS, 0, ""]


def _encode_header(
    max_skew: int | None, timestamp: int | None, action: SettleAction, remember: int, *, failed: bool
) -> list[ScriptArgument]:
    return [pack_header(max_skew), "" if timestamp is None else timestamp, action, remember, int(failed)]


def _require_record_store_key(reservation: str) -> str:
    store_key = find_record_store_key(reservation)
    if store_key is None:
        raise UnknownReservation
    return store_key


def _resolve_usage(resolver: Resolver, usage: Usage) -> tuple[list[str], str, dict[str, str]]:
    """Return the store keys, limits and stream fields of a usage record without a reservation.

    The limits are those of a check with the same key, plan, model and tenant.
    """
    if usage.key is None:
        raise invalid_field("key", "required without a reservation")
    usage_check = make_check(
        {
            "key": usage.key,
            "plan": usage.plan,
            "model": usage.model,
            "tenant": usage.tenant,
            "cost": {"requests": 0},
        }
    )
    check = resolver.resolve(usage_check, take=True)
    entry = {**usage.fields(), "plan": check.subject.plan, "tenant": check.subject.tenant}
    return [USAGE], encode_limits(check), entry


def find_store_keys(reply: Sequence[str]) -> list[str]:
    """Return the store keys of the limits in a reply of lua/settle.lua."""
    return [entry.split(" ", 2)[1] for entry in reply[3].split(";") if entry]


def read_settlement(reply: Sequence[Any]) -> Settlement:
    """Return the settlement in the script's reply.

    Raises:
        UnknownReservation: the store has no such reservation, or no longer remembers it.
        InvalidRequest: the reservation belongs to another key.
    """
    outcome, replayed, t, limits, taken, state_texts = reply
    if outcome == "unknown":
        raise UnknownReservation
    if outcome == "mismatch":
        raise invalid_field("key", "is not the key of this reservation")
    values = state_texts.split(" ")
    states = tuple(
        _read_limit_state(entry, values[number * 2], values[number * 2 + 1], int(t))
        for number, entry in enumerate(filter(None, limits.split(";")))
        if taken[number] == "1"
    )
    return Settlement(outcome == "settled", replayed == "1", states)


def _read_limit_state(entry: str, first: str, second: str, t: int) -> LimitState:
    code, _, name, count, period, burst, unit, _ = entry.split(" ")
    kind: Kind = _KINDS_BY_CODE[code.lower()]
    mode: Mode = "enforce" if code.islower() else "shadow"
    shape = Shape(float(count), float(period), float(burst))
    status = evaluate_settled_limit(kind, shape, first, second, t)
    return make_limit_state(name, unit, kind, shape, mode, status)
