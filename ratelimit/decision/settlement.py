"""The answer to a settlement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ratelimit.decision.limit_state import LimitState


@dataclass(frozen=True, slots=True)
class Settlement:
    """The answer to a settlement or a cancellation.

    Attributes:
        settled: whether the usage is charged; false for a cancellation.
        replayed: whether it was done before; then nothing was charged this time.
        limits: the state of each limit that was settled, after the first settlement.
    """

    settled: bool
    replayed: bool
    limits: tuple[LimitState, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the members of the JSON answer."""
        limits = [state.as_dict() for state in self.limits]
        return {"settled": self.settled, "replayed": self.replayed, "limits": limits}
