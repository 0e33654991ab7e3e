"""What a request really used, as told when it has ended. Metadata only: nothing else can enter."""

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

FAILED: Final = 400
"""Statuses from here on are failures."""

_Tokens = Annotated[StrictInt, Field(ge=0, le=MAX_COUNT)]


class Usage(pydantic.BaseModel):
    """A usage record.

    Attributes:
        reservation: the reservation to settle; without one what was used is charged as it is.
        key: the API key's identifier; a reservation knows it.
        tenant: who owns the key; likewise.
        plan: the plan to charge; likewise.
        model: the model that answered.
        timestamp: when the request was made; the store's clock if absent.
        input_tokens: tokens of the prompt, 0 to 10^12.
        output_tokens: tokens of the answer, 0 to 10^12.
        latency_ms: milliseconds that the answer took.
        status: the HTTP status of the answer, 100 to 599; from 400 on it counts as a failure.
        cost: other units used, each 0 to 10^12; goes before what the tokens say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    reservation: ReservationText | None = None
    key: KeyText | None = None
    tenant: TenantText | None = None
    plan: PlanText | None = None
    model: ModelText | None = None
    timestamp: Timestamp = None
    input_tokens: _Tokens | None = None
    output_tokens: _Tokens | None = None
    latency_ms: Amount | None = None
    status: Annotated[StrictInt, Field(ge=100, le=599)] | None = None
    cost: Cost = Field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether the answer was a failure."""
        return self.status is not None and self.status >= FAILED

    def known(self) -> dict[str, float]:
        """Return every unit whose use is known: `tokens` are those of input and output."""
        counted = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        known = {unit: float(amount) for unit, amount in counted.items() if amount is not None}
        if known:
            known["tokens"] = sum(known.values())
        return {**known, **self.cost}

    def fields(self) -> dict[str, str]:
        """Return what goes into the usage stream: the fields that were told, as text."""
        told = self.model_dump(exclude_none=True, exclude={"timestamp", "cost"})
        fields = {name: _text(value) for name, value in told.items()}
        if self.timestamp is not None:
            fields["timestamp"] = f"{self.timestamp / MICROSECONDS:.6f}"
        if self.cost:
            fields["cost"] = json.dumps(self.cost)
        return fields


def _text(value: object) -> str:
    """Write a number with every digit that it has, and no more: `12`, not `12.0`."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def make_usage(fields: Usage | Mapping[str, Any], more: Mapping[str, Any]) -> Usage:
    """Make a usage record of fields and more, or of another record and more.

    Raises:
        InvalidRequest: a field is missing, unknown or out of range; nothing was charged.
    """
    told = fields.model_dump(exclude_unset=True) if isinstance(fields, Usage) else fields
    if isinstance(fields, Usage):
        # Its timestamp is in microseconds by now; the record was valid, and only `more` is new.
        told = {**told, "timestamp": None}
    try:
        usage = Usage.model_validate({**told, **more})
    except pydantic.ValidationError as error:
        raise invalid_request(error, Usage) from None
    return usage.model_copy(update={"timestamp": fields.timestamp}) if isinstance(fields, Usage) else usage
