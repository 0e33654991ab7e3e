"""The state of one limit, as users see it in a decision or a settlement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

Mode = Literal["enforce", "shadow"]

BLOCKED: Final = "blocked"
"""The name among the violated limits when an operator has blocked the key; no limit may have it."""


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit as a check left it.

    Attributes:
        name: the limit's name in the policy.
        unit: what it counts.
        limit: units a period.
        period: seconds.
        burst: the bucket's capacity.
        remaining: whole units that could be taken now, never negative.
        reset_after: seconds until nothing is missing.
        retry_after: seconds until this limit would admit the check: 0 if it does, None for never.
        mode: `enforce` or `shadow`; a shadow limit with a `retry_after` would have denied.
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
