"""A usage record: what a request really used. It holds metadata only, no content."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import pydantic
from pydantic import ConfigDict, Field, StrictInt

from ratelimit.request.check import (
    MAX_COUNT,
    Amount,
    Cost,
    KeyText,
    ModelText,
    PlanText,
    ReservationText,
    TenantText,
    invalid_request,
)
from ratelimit.request.timestamp import MICROSECONDS, Timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_FAILURE_STATUS: Final = 400
"""This HTTP status and all above it count as failures."""

_TokenCount = Annotated[StrictInt, Field(ge=0, le=MAX_COUNT)]


class Usage(pydantic.BaseModel):
    """A usage record.

    Attributes:
        reservation: the reservation to settle. Without one, all that was used is charged now.
        key: the API key's identifier. It may be left out with a reservation, which has it.
        tenant: the account that owns the key; likewise.
        plan: the plan to charge; likewise.
        model: the model that answered.
        timestamp: when the request was made; by default the time of the store's clock.
        input_tokens: tokens of the prompt, 0 to 10^12.
        output_tokens: tokens of the answer, 0 to 10^12.
        latency_ms: how long the answer took, in milliseconds.
        status: the HTTP status of the answer, 100 to 599; 400 and above count as a failure.
        cost: how much of other units was used, each 0 to 10^12. An amount of `tokens`,
            `input_tokens` or `output_tokens` here replaces the one from the fields above.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    reservation: ReservationText | None = None
    key: KeyText | None = None
    tenant: TenantText | None = None
    plan: PlanText | None = None
    model: ModelText | None = None
    timestamp: Timestamp = None
    input_tokens: _TokenCount | None = None
    output_tokens: _TokenCount | None = None
    latency_ms: Amount | None = None
    status: Annotated[StrictInt, Field(ge=100, le=599)] | None = None
    cost: Cost = Field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether the answer was a failure."""
        return self.status is not None and self.status >= FIRST_FAILURE_STATUS

    def known(self) -> dict[str, float]:
        """Return how much was used of each known unit; `tokens` is the sum of input and output."""
        tokens = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        used = {unit: float(amount) for unit, amount in tokens.items() if amount is not None}
        if used:
            used["tokens"] = sum(used.values())
        return {**used, **self.cost}

    def fields(self) -> dict[str, str]:
        """Return the fields of the record's entry in the usage stream, as text; empty ones are left out."""
        given = self.model_dump(exclude_none=True, exclude={"timestamp", "cost"})
        fields = {name: _write_value(value) for name, value in given.items()}
        if self.timestamp is not None:
            fields["timestamp"] = f"{self.timestamp / MICROSECONDS:.6f}"
        if self.cost:
            fields["cost"] = json.dumps(self.cost)
        return fields


def _write_value(value: object) -> str:
    """Write a value exactly, and whole numbers without a fraction: `12`, not `12.0`."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def make_usage(fields: Usage | Mapping[str, Any], more: Mapping[str, Any]) -> Usage:
    """Make a usage record from fields or from another record, and add more fields.

    Raises:
        InvalidRequest: a field is missing, unknown or out of range; nothing was charged.
    """
    given = fields.model_dump(exclude_unset=True) if isinstance(fields, Usage) else fields
    if isinstance(fields, Usage):
        # The record's timestamp is valid but in microseconds, which validation would read as seconds.
        given = {**given, "timestamp": None}
    try:
        usage = Usage.model_validate({**given, **more})
    except pydantic.ValidationError as error:
        raise invalid_request(error, Usage) from None
    return usage.model_copy(update={"timestamp": fields.timestamp}) if isinstance(fields, Usage) else usage
