"""Settling: what to ask the store about a request that has ended, and what its reply means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from ratelimit.decision.settlement import Settlement
from ratelimit.engine.check_script import ScriptArgument, pack_header, write_limits
from ratelimit.engine.layout import LETTERS, USAGE
from ratelimit.engine.limit_status import evaluate_settled_limit, make_limit_state
from ratelimit.engine.resolver import find_record_key
from ratelimit.errors import UnknownReservation
from ratelimit.policy.shape import Shape
from ratelimit.request.check import invalid_field, make_check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit.decision.limit_state import LimitState, Mode
    from ratelimit.engine.resolver import ResolvedCheck, Resolver
    from ratelimit.policy.limit import Kind
    from ratelimit.request.usage import Usage

MOST_RECORDS: Final = 100_000
"""About how many usage records the stream keeps."""

SettleAction = Literal["settle", "cancel", "release"]

_KINDS: Final = {letter: kind for kind, letter in LETTERS.items()}


def encode_settle(
    resolver: Resolver, usage: Usage, max_skew: int | None, remember: int
) -> tuple[list[str], list[ScriptArgument]]:
    """Return KEYS and ARGV of lua/settle.lua for a usage record.

    Args:
        resolver: knows the policy.
        usage: what was used, with a reservation or a key.
        max_skew: microseconds that a timestamp may lie ahead; None to trust it entirely.
        remember: milliseconds for which the same settlement gets the same answer.

    Raises:
        InvalidRequest: the record names neither reservation nor key, or a unit that no plan meters.
        UnknownReservation: what it names cannot be a reservation.
    """
    resolver.refuse_unmetered_units(usage.cost)
    known = usage.known()
    if usage.reservation is not None:
        # Whose it is, and on which plan, is what the record says.
        fields = {name: text for name, text in usage.fields().items() if name not in {"tenant", "plan"}}
        keys, limits = [USAGE, _record(usage.reservation)], ""
    else:
        keys, limits, fields = _without_reservation(resolver, usage)
    units = [word for unit, amount in known.items() for word in (unit, amount)]
    stream = [word for pair in fields.items() for word in pair]
    header = _header(max_skew, usage.timestamp, "settle", remember, failed=usage.failed)
    return keys, [*header, limits, MOST_RECORDS, len(known), usage.key or "", *units, *stream]


def encode_reservation_end(
    what: SettleAction, reservation: str, max_skew: int | None, remember: int
) -> tuple[list[str], list[ScriptArgument]]:
    """Return KEYS and ARGV of lua/settle.lua that cancel a reservation, or release what it holds.

    Raises:
        UnknownReservation: what it names cannot be a reservation.
    """
    header = _header(max_skew, None, what, remember, failed=False)
    return [USAGE, _record(reservation)], [*header, "", MOST_RECORDS, 0, ""]


def encode_lease_return(
    check: ResolvedCheck, max_skew: int | None, remember: int
) -> tuple[list[str], list[ScriptArgument]]:
    """Return KEYS and ARGV of lua/settle.lua that give back what a question says it took."""
    header = _header(max_skew, None, "cancel", remember, failed=False)
    return [USAGE], [*header, write_limits(check), MOST_RECORDS, 0, ""]


def _header(
    max_skew: int | None, timestamp: int | None, what: SettleAction, remember: int, *, failed: bool
) -> list[ScriptArgument]:
    return [pack_header(max_skew), "" if timestamp is None else timestamp, what, remember, int(failed)]


def _record(reservation: str) -> str:
    name = find_record_key(reservation)
    if name is None:
        raise UnknownReservation
    return name


def _without_reservation(resolver: Resolver, usage: Usage) -> tuple[list[str], str, dict[str, str]]:
    """Charge what was used to the limits that a check would look at."""
    if usage.key is None:
        raise invalid_field("key", "required without a reservation")
    charged = make_check(
        {
            "key": usage.key,
            "plan": usage.plan,
            "model": usage.model,
            "tenant": usage.tenant,
            "cost": {"requests": 0},
        }
    )
    check = resolver.resolve(charged, take=True)
    entry = {**usage.fields(), "plan": check.subject.plan, "tenant": check.subject.tenant}
    return [USAGE], write_limits(check), entry


def find_store_keys(reply: Sequence[str]) -> list[str]:
    """Return the store's keys whose limits a reply of the script speaks of."""
    return [entry.split(" ", 2)[1] for entry in reply[3].split(";") if entry]


def read_settlement(reply: Sequence[Any]) -> Settlement:
    """Return the settlement that the script's reply stands for.

    Raises:
        UnknownReservation: there is no such reservation, or it has been forgotten.
        InvalidRequest: the reservation belongs to another key.
    """
    state, replayed, t, limits, taken, answer = reply
    if state == "unknown":
        raise UnknownReservation
    if state == "mismatch":
        raise invalid_field("key", "is not the key of this reservation")
    words = answer.split(" ")
    states = tuple(
        _state(entry, words[number * 2], words[number * 2 + 1], int(t))
        for number, entry in enumerate(filter(None, limits.split(";")))
        if taken[number] == "1"
    )
    return Settlement(state == "settled", replayed == "1", states)


def _state(entry: str, first: str, second: str, t: int) -> LimitState:
    letter, _, name, count, period, burst, unit, _ = entry.split(" ")
    kind: Kind = _KINDS[letter.lower()]
    mode: Mode = "enforce" if letter.islower() else "shadow"
    shape = Shape(float(count), float(period), float(burst))
    reading = evaluate_settled_limit(kind, shape, first, second, t)
    return make_limit_state(name, unit, kind, shape, mode, reading)
