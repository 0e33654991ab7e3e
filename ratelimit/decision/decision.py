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

    from ratelimit.decision.headers import Dialect, WrittenHeaders

Source = Literal["store", "denial-memory", "lease", "outage"]


@dataclass(frozen=True)
class Decision:
    """The answer to a check. It is true if the request may pass.

    Attributes:
        allowed: whether the request may pass.
        key: the key's identifier, masked: people can recognise it, but it cannot be used.
        plan: the plan that was applied.
        model_class: the class of the model; None if the check names no model.
        timestamp: the time that the decision is for.
        clamped: whether `timestamp` is earlier than the timestamp of the check, which was too far in
            the future.
        retry_after: seconds after which the same check passes if no other check takes first;
            0 if allowed, None if it can never pass.
        violated: the names of the limits that denied the check.
        reservation: the reservation's id, if the check asked for a reservation.
        source: who decided: `store`; this process by `denial-memory` or by a `lease`; or `outage` if
            the store did not answer.
        limits: the state of each limit that applies, in the order of the policy.
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

    if not TYPE_CHECKING:  # Type checkers would take any misspelt member for one of these.

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a member of any type
            """Compute the members of a deferred decision. Python calls this only for missing members."""
            members = self.__dict__
            if (deferred := members.get("_deferred")) is not None:
                compute, _, *arguments = deferred
                members.update(compute(*arguments))
                members.pop("_deferred", None)  # None, because another thread may have removed it
            if name in members:
                return members[name]
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self
            )

    def __getstate__(self) -> dict[str, Any]:
        """Return the members only, for copies and pickles: what computes them cannot be pickled."""
        return {member.name: getattr(self, member.name) for member in fields(self)}

    def __bool__(self) -> bool:
        return self.allowed

    @property
    def is_unavailable(self) -> bool:
        """Whether the check was denied only because the store did not answer: no limit was looked at."""
        return not self.allowed and self.source == "outage" and not self.limits

    @property
    def advice(self) -> str:
        """Why the check was denied, or when to retry; for messages."""
        if BLOCKED in self.violated:
            return "an operator has blocked the key"
        if self.retry_after is None:
            return "this can never pass: it asks for more than the burst"
        return f"retry in {math.ceil(self.retry_after * 1000) / 1000:g} s"

    def headers(self, dialects: Sequence[Dialect] = ("ietf",)) -> dict[str, str]:
        """Return the response headers for this decision.

        Args:
            dialects: any of `ietf`, `openai`, `venice`; see `ratelimit.decision.headers`.
        """
        written = write_deferred_headers(self, dialects)
        if written is None:
            return make_headers(self, dialects)
        policy, _, entries = written
        return {"RateLimit-Policy": policy, "RateLimit": entries} if entries else {}

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


_new_object: Final = object.__new__


def find_deferred(decision: Decision) -> tuple[Any, ...] | None:
    """Return what computes the members of a decision, as in `defer_decision`; None if they are computed."""
    return decision.__dict__.get("_deferred")


def write_deferred_headers(decision: Decision, dialects: Sequence[Dialect]) -> WrittenHeaders | None:
    """Return the headers of a decision if they can be written without its members, else None."""
    deferred = decision.__dict__.get("_deferred")
    if deferred is None or deferred[1] is None or len(dialects) != 1 or dialects[0] != "ietf":
        return None
    headers: WrittenHeaders | None = deferred[1](*deferred[2:])
    return headers


def defer_decision(
    allowed: bool,  # noqa: FBT001 - a member
    source: Source,
    deferred: tuple[Any, ...],
) -> Decision:
    """Make a decision that computes its other members when one of them is first read.

    Most callers read only whether the request may pass, and that is a tenth of the work.

    Args:
        allowed: whether the request may pass.
        source: who decided.
        deferred: a function that returns all members as a dictionary; one that returns `WrittenHeaders`, or
            None if it cannot, or None in place of that function; then the arguments of both.
    """
    decision = _new_object(Decision)
    members = decision.__dict__
    members["allowed"] = allowed
    members["source"] = source
    members["_deferred"] = deferred
    return decision
