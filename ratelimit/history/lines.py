"""The lines of a history: what one looks like, and how files of them are read.

A line is a decision, or a settlement if it has `settled`. Its members are those of a check and of its answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field, StrictBool

from ratelimit.decision.decision import Source
from ratelimit.errors import Fault, InvalidRequest
from ratelimit.request.check import (
    Cost,
    KeyText,
    ModelText,
    PlanText,
    RequestIdText,
    ReservationText,
    TenantText,
)
from ratelimit.request.timestamp import parse_timestamp
from ratelimit.request.validation import make_faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Clock = Literal["store", "request"]
"""Whose clock a timestamp is from: the store's, or the caller's."""

HALF_A_LINE: Final = b"\x18\n"
"""What ends a line of which the first half was written: the character that means cancel."""

_MAX_NAMES: Final = 256


def _parse_known_timestamp(value: object) -> int:
    if (timestamp := parse_timestamp(value)) is None:
        raise ValueError("required: an RFC 3339 time with an offset from UTC, or seconds since 1970")
    return timestamp


class HistoryLine(pydantic.BaseModel):
    """One line of a history: a decision on a check, or a settlement.

    Attributes:
        timestamp: the time of the decision or of the settlement, microseconds since the epoch.
        key: the API key's identifier.
        plan: the plan that was applied; if it is absent, the policy names it, as for a check.
        model: the model of the request.
        tenant: the account that owns the key; if it is absent, the policy names it.
        cost: what the check asked for, by unit; `requests` is 1 unless given.
        allowed: whether the request might pass.
        source: who decided; of a settlement `outage` if the store did not answer it.
        request_id: the check's request id.
        reservation: the reservation that the check made, or that the line settles.
        settled: what was really used, by unit. A unit that is not named keeps its estimate. A cancellation
            names every unit with 0.
        clock: whose clock `timestamp` is from. Without it, the lines are in the order of the decisions.
        used: the tokens that each bucket lacked right after the line, by the limit's name.
        violated: the limits that denied the check.
        process: the process that wrote the line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    timestamp: Annotated[int, BeforeValidator(_parse_known_timestamp)]
    key: KeyText
    plan: PlanText | None = None
    model: ModelText | None = None
    tenant: TenantText | None = None
    cost: Cost = Field(default_factory=dict)
    allowed: StrictBool
    source: Source = "store"
    request_id: RequestIdText | None = None
    reservation: ReservationText | None = None
    settled: Cost | None = None
    clock: Clock | None = None
    used: Annotated[dict[str, float], Field(max_length=_MAX_NAMES)] | None = None
    violated: Annotated[tuple[str, ...], Field(max_length=_MAX_NAMES)] | None = None
    process: Annotated[str, Field(max_length=64)] | None = None


class NumberedLine(NamedTuple):
    """A line and where it stands.

    Attributes:
        source: the name of the file.
        number: its number in the file, counted from 1.
        line: the line.
    """

    source: str
    number: int
    line: HistoryLine


_validate_json: Final = HistoryLine.__pydantic_validator__.validate_json


def read_line(text: str | bytes, source: str, number: int) -> NumberedLine:
    """Read one line.

    Args:
        text: the line: a JSON object.
        source: the name of the file.
        number: the line's number, counted from 1.

    Raises:
        InvalidRequest: the line is not JSON, or a member is wrong, missing or not listed. The error names
            the file, the line and the member.
    """
    try:
        return NumberedLine(source, number, _validate_json(text))
    except pydantic.ValidationError as error:
        faults = make_faults(error, lambda _: HistoryLine.model_fields, echo=False)
    place = f"{source}:{number}"
    raise InvalidRequest(
        [Fault(f"{place}: {fault.path}" if fault.path else place, fault.message) for fault in faults]
    )


def read_lines(file: Iterable[bytes], source: str) -> Iterator[NumberedLine]:
    """Read the lines of one file.

    Half a line is left out: a process leaves one that is killed, or has no room on the disk.

    Args:
        file: the file, open for reading bytes.
        source: its name.

    Raises:
        InvalidRequest: a line cannot be read; see `read_line`.
    """
    for number, text in enumerate(file, 1):
        if not text.isspace() and text.endswith((b"\n", b"}")) and not text.endswith(HALF_A_LINE):
            yield read_line(text, source, number)
