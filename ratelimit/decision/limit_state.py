"""The state of one limit, as users see it in a decision or a settlement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

Mode = Literal["enforce", "shadow"]

BLOCKED: Final = "blocked"
"""The name in `Decision.violated` if an operator has blocked the key. No limit may have this name."""


@dataclass(frozen=True, slots=True)
class LimitState:
    """The state of one limit after a check.

    Attributes:
        name: the limit's name in the policy.
        unit: what the limit counts.
        limit: units per period.
        period: seconds.
        burst: the bucket's capacity.
        remaining: whole units that can be taken now, never negative.
        reset_after: seconds until the bucket is full.
        retry_after: seconds until this limit admits the check: 0 if it does now, None for never.
        mode: `enforce` or `shadow`. A shadow limit whose `retry_after` is not 0 would deny the check.
    """

    name: str
    unit: str
    limit: int
    period: float
    burst: int
    remaining: int
    reset_after: float
    retry_after: float | None
    mode: Mode

    def as_dict(self) -> dict[str, Any]:
        """Return the members of the JSON answer."""
        return {
            "name": self.name,
            "unit": self.unit,
            "limit": self.limit,
            "period": self.period,
            "burst": self.burst,
            "remaining": self.remaining,
            "reset_after": self.reset_after,
            "retry_after": self.retry_after,
            "mode": self.mode,
        }
