"""A check as it is asked. The schema is the privacy policy: a field not listed here is refused.

Faults never repeat what was sent: whatever arrives by mistake must not reach a log.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, TypedDict

import pydantic
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StrictBool, StrictStr, WithJsonSchema

from ratelimit.errors import Fault, InvalidRequest
from ratelimit.request.timestamp import Timestamp
from ratelimit.request.validation import make_faults

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BATCH: Final = 256
"""Most checks in one batch."""

MAX_COUNT: Final = 10**12
"""Largest cost, burst and N of a rate. Doubles count exactly far beyond it, with room for fractions."""


def _visible(longest: int) -> AfterValidator:
    pattern = re.compile(f"[!-~]{{1,{longest}}}")

    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"must be 1 to {longest} visible ASCII characters, without spaces")
        return text

    return AfterValidator(check)


def _text(longest: int, description: str) -> Any:  # noqa: ANN401 - Annotated metadata has no common type
    schema = {"type": "string", "pattern": f"^[!-~]{{1,{longest}}}$", "description": description}
    return _visible(longest), WithJsonSchema(schema)


def _cost(amount: object) -> float:
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic collects ValueErrors
    if not 0 <= amount <= MAX_COUNT:  # also false for NaN
        raise ValueError(f"must be from 0 to {MAX_COUNT}")
    return float(amount)


Amount = Annotated[
    float,
    BeforeValidator(_cost),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": MAX_COUNT}),
]
Cost = Annotated[
    dict[Annotated[StrictStr, _visible(64)], Amount],
    Field(max_length=64, description="units taken"),
]
KeyText = Annotated[StrictStr, *_text(256, "the API key's identifier, never its secret")]
PlanText = Annotated[StrictStr, *_text(64, "the plan to apply")]
ModelText = Annotated[StrictStr, *_text(256, "the model asked for")]
TenantText = Annotated[StrictStr, *_text(256, "who owns the key")]
RequestIdText = Annotated[StrictStr, *_text(128, "makes a check repeatable")]
ReservationText = Annotated[StrictStr, *_text(512, "the id of a reservation")]


class Check(pydantic.BaseModel):
    """One request that asks to pass.

    Attributes:
        key: the API key's identifier, never its secret: 1 to 256 visible ASCII characters.
        timestamp: when the request was made; inside, microseconds since the epoch, or None
            for the store's clock.
        plan: the plan to apply; the policy's assignment for the key unless given.
        model: the model asked for; models that the policy does not list share one class.
        tenant: who owns the key; the policy's assignment, else the key itself.
        cost: units taken, each 0 to 10^12; `requests` is 1 unless given.
        request_id: 1 to 128 visible ASCII characters. A check that passed and is repeated with the
            same id within the time to remember gives the first answer again and charges nothing.
        reserve: whether the cost is an estimate: the decision then carries a reservation to settle.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    key: KeyText
    timestamp: Timestamp = None
    plan: PlanText | None = None
    model: ModelText | None = None
    tenant: TenantText | None = None
    request_id: RequestIdText | None = None
    reserve: Annotated[StrictBool, Field(description="whether the cost is an estimate to be settled")] = False
    cost: Cost = Field(default_factory=dict)


class CheckOptions(TypedDict, total=False):
    """What may be said of a check besides its key; see `Check`."""

    timestamp: datetime | float | str | None
    plan: str | None
    model: str | None
    tenant: str | None
    cost: Mapping[str, float]
    request_id: str | None
    reserve: bool


def make_check(fields: object) -> Check:
    """Make a check from its fields, or pass on one that was made before.

    Raises:
        InvalidRequest: a field is missing, unknown or out of range; nothing was charged.
    """
    if isinstance(fields, Check):
        return fields
    try:
        return Check.model_validate(fields)
    except pydantic.ValidationError as error:
        raise invalid_request(error) from None


def invalid_request(
    error: pydantic.ValidationError, schema: type[pydantic.BaseModel] = Check
) -> InvalidRequest:
    """Say what pydantic found in our words, without repeating what was sent."""
    return InvalidRequest(make_faults(error, lambda _: schema.model_fields, echo=False))


def invalid_field(field: str, message: str) -> InvalidRequest:
    """Make the error for one field."""
    return InvalidRequest([Fault(field, message)])
