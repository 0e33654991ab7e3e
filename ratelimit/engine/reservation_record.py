"""The record of a reservation in the store, whose form lua/settle.lua describes.

lua/check.lua writes it with the text of `encode_record`, and lua/settle.lua settles it. A settlement without
a reservation makes the same record and stores nothing.
"""

from __future__ import annotations

import functools
import itertools
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from ratelimit.engine.keyspace import make_owner_store_key
from ratelimit.engine.layout import KIND_CODES, LIMIT_MARKS
from ratelimit.policy.shape import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ratelimit.decision.limit_state import Mode
    from ratelimit.engine.keyspace import Owner
    from ratelimit.engine.layout import Layout, PlacedLimit
    from ratelimit.engine.limit_status import RawState
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.policy.limit import Kind

_KINDS_BY_CODE: Final = {code: kind for kind, code in KIND_CODES.items()}
_CODES_BY_OWNER: Final[dict[Owner, str]] = {"key": "k", "tenant": "t", "everyone": "*"}
_OWNERS_BY_CODE: Final = {code: owner for owner, code in _CODES_BY_OWNER.items()}
_HEADER_STRUCT: Final = Struct("<2d")
_TIME_STRUCT: Final = Struct("<d")
_STATES_START: Final = 1 + _HEADER_STRUCT.size
_MIN_ZEROS: Final = 3  # from here on an exponent is shorter than zeros


class RecordedLimit(NamedTuple):
    """One limit of a settled record.

    Attributes:
        name: the limit's name.
        kind: how its state is kept.
        mode: `enforce` or `shadow`.
        unit: what it counts.
        shape: its numbers.
        store_key: the store key that holds its state.
        admitted: whether it admitted the check; otherwise the settlement left it as it was.
        state: its state after the settlement; of failures only the time of the latest.
    """

    name: str
    kind: Kind
    mode: Mode
    unit: str
    shape: Shape
    store_key: str
    admitted: bool
    state: RawState


class SettledRecord(NamedTuple):
    """A record after its settlement.

    Attributes:
        t: the time of the charge, microseconds since the epoch.
        key: the API key's identifier.
        plan: the plan that was charged.
        model: the model that the check named.
        limits: the limits.
    """

    t: int
    key: str
    plan: str
    model: str | None
    limits: tuple[RecordedLimit, ...]


def encode_record(check: ResolvedCheck, taken: str = "") -> str:
    """Return the subject and the limits of a check as text.

    Args:
        check: the check.
        taken: 1 or 0 for each limit, if it is known which ones admit the check.
    """
    subject = check.subject
    key = "" if subject.key == subject.tenant else subject.key
    return f"{taken} {key} {subject.plan} {check.model or ''} {encode_limits(check)}"


def encode_limits(check: ResolvedCheck) -> str:
    """Return the limits of a check and its costs as text."""
    texts = zip(_encode_placed_limits(check.subject.layout), check.costs, strict=True)
    return "".join([f"{text} {_write_number(cost)};" for text, cost in texts])


@functools.lru_cache(maxsize=512)
def _encode_placed_limits(layout: Layout) -> tuple[str, ...]:
    return tuple(_encode_limit(owner, placed) for owner, _, group in layout.groups for placed in group)


def _encode_limit(owner: Owner, placed: PlacedLimit) -> str:
    name, shape = placed.limit.name, placed.shape
    model_class = placed.suffix
    if placed.kind in LIMIT_MARKS:
        model_class = model_class.removesuffix(f"{LIMIT_MARKS[placed.kind]}{name}")
    burst = "" if shape.burst == shape.count else _write_number(shape.burst)
    unit = "" if placed.unit == name else placed.unit
    where = f"{placed.kind_code}{_CODES_BY_OWNER[owner]}{model_class}"
    return f"{where} {name} {_write_number(shape.count)} {_write_number(shape.period)} {burst} {unit}"


def _write_number(number: float) -> str:
    """Write a number exactly and in few characters: 20, 6e7, 0.5."""
    if not float(number).is_integer():
        return repr(number)
    text = str(int(number))
    digits = text.rstrip("0")
    zeros = len(text) - len(digits)
    return f"{digits}e{zeros}" if digits and zeros >= _MIN_ZEROS else text


def read_record(record: bytes, tenant: str, prefix: str) -> SettledRecord:
    """Read a settled record.

    Args:
        record: the record.
        tenant: the tenant of the reservation. The record does not have it, because its store key does.
        prefix: the start of the tenant's store keys.
    """
    t, size = _HEADER_STRUCT.unpack_from(record, 1)
    text_start = _STATES_START + int(size)
    taken, key, plan, model, limits = record[text_start:].decode().split(" ", 4)
    key = key or tenant

    def make_store_key(owner: Owner) -> str:
        return make_owner_store_key(owner, prefix, key, tenant)

    numbers = Struct(f"<{2 * len(taken)}d").unpack_from(record, _STATES_START)
    times_start = _STATES_START + len(taken) * _HEADER_STRUCT.size
    times = (time for (time,) in _TIME_STRUCT.iter_unpack(record[times_start:text_start]))
    # Behind the last semicolon is an empty text, which has no state.
    states = zip(limits.split(";"), taken, numbers[::2], numbers[1::2], strict=False)
    return SettledRecord(
        int(t),
        key,
        plan,
        model or None,
        tuple(
            _read_limit(text, make_store_key, times, (flag, first, second))
            for text, flag, first, second in states
        ),
    )


def _read_limit(
    text: str,
    make_store_key: Callable[[Owner], str],
    times: Iterator[float],
    state: tuple[str, float, float],
) -> RecordedLimit:
    where, name, count, period, burst, unit, _ = text.split(" ")
    code, owner, model_class = where[0], _OWNERS_BY_CODE[where[1]], where[2:]
    kind = _KINDS_BY_CODE[code.lower()]
    suffix = f"{model_class}{LIMIT_MARKS[kind]}{name}" if kind in LIMIT_MARKS else model_class
    flag, first, second = state
    latest = tuple(itertools.islice(times, 1)) if kind == "failures" and second else ()
    return RecordedLimit(
        name=name,
        kind=kind,
        mode="enforce" if code.islower() else "shadow",
        unit=unit or name,
        shape=Shape(float(count), float(period), float(burst or count)),
        store_key=make_store_key(owner) + suffix,
        admitted=flag == "1",
        state=(first, second, latest),
    )
