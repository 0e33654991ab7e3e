"""The answer to a check."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from ratelimit.decision.headers import make_headers
from ratelimit.decision.limit_state import BLOCKED, LimitState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit.decision.headers import Dialect

Source = Literal["store", "denial-memory", "lease", "outage"]


@dataclass(frozen=True)
class Decision:
    """The answer to a check; true when the request may pass.

    Attributes:
        allowed: whether the request may pass.
        key: the key's identifier, masked: enough to recognise it, too little to use it.
        plan: the plan that was applied.
        model_class: the class of the model, None where no model was named.
        timestamp: the time the request was judged at.
        clamped: whether that is earlier than the timestamp given, which lay too far ahead.
        retry_after: seconds after which the same check passes if nobody else takes first;
            0 when allowed, None when it can never pass.
        violated: the names of the limits that denied it.
        reservation: the reservation's id, if one was asked for.
        source: who answered: `store`; `denial-memory` and `lease` in this process for it; or `outage`
            where the store could not.
        limits: every limit that was looked at, in the policy's order.
    """

    allowed: bool
    key: str
    plan: str
    model_class: str | None
    timestamp: datetime
    clamped: bool
    retry_after: float | None
    violated: tuple[str, ...]
    reservation: str | None
    source: Source
    limits: tuple[LimitState, ...]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a member of any type
        """Work out the members of a deferred decision: only what is missing is looked for here."""
        known = self.__dict__
        if (rest := known.get("_rest")) is not None:
            work, *asked = rest
            known.update(work(*asked))
            known.pop("_rest", None)  # another thread may be here too
        if name in known:
            return known[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __getstate__(self) -> dict[str, Any]:
        """Be copied and pickled as the members and nothing else."""
        return {member.name: getattr(self, member.name) for member in fields(self)}

    def __bool__(self) -> bool:
        return self.allowed

    @property
    def advice(self) -> str:
        """What to tell whoever was denied, in a few words."""
        if BLOCKED in self.violated:
            return "an operator has shut the key"
        if self.retry_after is None:
            return "this can never pass: it asks for more than the burst"
        return f"retry in {math.ceil(self.retry_after * 1000) / 1000:g} s"

    def headers(self, dialects: Sequence[Dialect] = ("ietf",)) -> dict[str, str]:
        """Return the response headers that tell a client of this decision.

        Args:
            dialects: any of `ietf`, `openai`, `venice`; see `ratelimit.decision.headers`.
        """
        return make_headers(self, dialects)

    def as_dict(self) -> dict[str, Any]:
        """Return the members of the JSON answer."""
        return {
            "allowed": self.allowed,
            "key": self.key,
            "plan": self.plan,
            "model_class": self.model_class,
            "timestamp": self.timestamp.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "clamped": self.clamped,
            "retry_after": self.retry_after,
            "violated": list(self.violated),
            "reservation": self.reservation,
            "source": self.source,
            "limits": [state.as_dict() for state in self.limits],
        }


_new: Final = object.__new__


def defer_decision(
    allowed: bool,  # noqa: FBT001 - a member
    source: Source,
    rest: tuple[Any, ...],
) -> Decision:
    """Make a decision whose other members are worked out when one is asked for.

    Most callers ask no more than whether the request may pass, and that is a tenth of the work.

    Args:
        allowed: whether the request may pass.
        source: who answered.
        rest: what works out all members, as a dictionary, and its arguments.
    """
    decision = _new(Decision)
    known = decision.__dict__
    known["allowed"] = allowed
    known["source"] = source
    known["_rest"] = rest
    return decision
