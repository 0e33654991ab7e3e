"""A check, as callers send it. Fields that the schema does not list are refused, to protect privacy.

Faults never repeat what was sent, because content that is sent by mistake must not reach a log.
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
"""Largest number of checks in one batch."""

MAX_COUNT: Final = 10**12
"""Largest cost, burst and N of a rate. Doubles are exact far beyond it, and leave room for fractions."""


def _require_visible_ascii(max_length: int) -> AfterValidator:
    pattern = re.compile(f"[!-~]{{1,{max_length}}}")

    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"must be 1 to {max_length} visible ASCII characters, without spaces")
        return text

    return AfterValidator(check)


def _restrict_text(max_length: int, description: str) -> Any:  # noqa: ANN401 - Annotated metadata has no common type
    schema = {"type": "string", "pattern": f"^[!-~]{{1,{max_length}}}$", "description": description}
    return _require_visible_ascii(max_length), WithJsonSchema(schema)


def _parse_amount(amount: object) -> float:
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic collects ValueErrors
    if not 0 <= amount <= MAX_COUNT:  # also false for NaN
        raise ValueError(f"must be from 0 to {MAX_COUNT}")
    return float(amount)


Amount = Annotated[
    float,
    BeforeValidator(_parse_amount),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": MAX_COUNT}),
]
Cost = Annotated[
    dict[Annotated[StrictStr, _require_visible_ascii(64)], Amount],
    Field(max_length=64, description="how much to take of each unit"),
]
KeyText = Annotated[StrictStr, *_restrict_text(256, "the API key's identifier, never its secret")]
PlanText = Annotated[StrictStr, *_restrict_text(64, "the plan to apply")]
ModelText = Annotated[StrictStr, *_restrict_text(256, "the model of the request")]
TenantText = Annotated[StrictStr, *_restrict_text(256, "the account that owns the key")]
RequestIdText = Annotated[
    StrictStr, *_restrict_text(128, "a repeated check with the same id is charged only once")
]
ReservationText = Annotated[StrictStr, *_restrict_text(512, "the id of a reservation")]


class Check(pydantic.BaseModel):
    """One request that asks to pass.

    Attributes:
        key: the API key's identifier, never its secret: 1 to 256 visible ASCII characters.
        timestamp: when the request was made: an aware datetime, RFC 3339 text or epoch seconds. It is
            kept as microseconds since the epoch. None means the time of the store's clock.
        plan: the plan to apply; by default the plan of the key, of its tenant, or the default plan.
        model: the model of the request; models that the policy does not list share one class.
        tenant: the account that owns the key; by default the tenant assigned to the key, else the key.
        cost: how much to take of each unit, 0 to 10^12; `requests` is 1 by default.
        request_id: 1 to 128 visible ASCII characters. If a check was admitted and is repeated with the
            same id soon enough (the limiter's `remember`), it gets the same decision and is not
            charged again.
        reserve: whether the cost is an estimate. The decision then has a reservation to settle.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    key: KeyText
    timestamp: Timestamp = None
    plan: PlanText | None = None
    model: ModelText | None = None
    tenant: TenantText | None = None
    request_id: RequestIdText | None = None
    reserve: Annotated[
        StrictBool, Field(description="whether the cost is an estimate, to be settled later")
    ] = False
    cost: Cost = Field(default_factory=dict)


class CheckOptions(TypedDict, total=False):
    """The fields of a check except its key; see `Check`."""

    timestamp: datetime | float | str | None
    plan: str | None
    model: str | None
    tenant: str | None
    cost: Mapping[str, float]
    request_id: str | None
    reserve: bool


def make_check(fields: object) -> Check:
    """Make a check from its fields, or return a check as it is.

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
    """Turn an error of pydantic into ours, which does not repeat what was sent."""
    return InvalidRequest(make_faults(error, lambda _: schema.model_fields, echo=False))


def invalid_field(field: str, message: str) -> InvalidRequest:
    """Make the error for one field."""
    return InvalidRequest([Fault(field, message)])
