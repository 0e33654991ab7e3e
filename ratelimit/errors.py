"""All exceptions that this library raises.

```
RateLimitError
├── RateLimited        a check was denied, and the caller wanted an exception for that
├── StoreUnavailable   the store did not answer before the deadline, or refused the connection
├── LimiterClosed      a limiter was used after its end (also a RuntimeError)
├── PolicyError        a policy is invalid (also a ValueError)
└── InvalidRequest     a request or an argument is invalid (also a ValueError)
    └── UnknownReservation   the reservation does not exist, or has expired
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit.decision.decision import Decision


class RateLimitError(Exception):
    """Base class of all exceptions that this library raises."""


class RateLimited(RateLimitError):  # noqa: N818 - the name is public
    """A check was denied.

    Attributes:
        decision: the denial. It names the limits that denied the check, and has `retry_after` in
            seconds (None if the check can never pass).
    """

    def __init__(self, decision: Decision) -> None:
        super().__init__(f"{decision.key} is over {', '.join(decision.violated)}; {decision.advice}")
        self.decision = decision


class StoreUnavailable(RateLimitError):  # noqa: N818 - the name is public
    """The store did not answer before the deadline, or refused the connection or the command.

    Attributes:
        refused: whether the store answers but denies access. Then a retry does not help.
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class LimiterClosed(RateLimitError, RuntimeError):  # noqa: N818 - the name is public
    """A limiter was used after it was closed. Nothing was decided or charged."""

    def __init__(self) -> None:
        super().__init__("this limiter is closed; make a new one, or close it later")


class Fault(NamedTuple):
    """One thing that is wrong in a policy or a request.

    Attributes:
        path: where the fault is, such as `plans.free.limits.tokens.rate` or `cost.tokens`.
        message: what is wrong and what is allowed.
        line: the line in the file, counted from 1; None if there is no file.
    """

    path: str
    message: str
    line: int | None = None


class PolicyError(RateLimitError, ValueError):
    """A policy is invalid. No part of it is used, and a policy that is already in force stays in force.

    Attributes:
        faults: all faults that were found, in the order of the file.
        source: the name of the file, or of what the policy was made from.
    """

    def __init__(self, faults: Sequence[Fault], source: str = "policy") -> None:
        self.faults = tuple(faults)
        self.source = source
        super().__init__("\n".join(self._format_faults()))

    def _format_faults(self) -> list[str]:
        return [
            ": ".join(
                part
                for part in (
                    f"{self.source}:{fault.line}" if fault.line else self.source,
                    fault.path,
                    fault.message,
                )
                if part
            )
            for fault in self.faults
        ]


class InvalidRequest(RateLimitError, ValueError):  # noqa: N818 - the name is public
    """A request or an argument is invalid; nothing was charged.

    Attributes:
        faults: all fields that are wrong, with what is allowed in each.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{fault.path}: {fault.message}" for fault in faults))


class UnknownReservation(InvalidRequest):
    """The reservation does not exist, or has expired; nothing was charged."""

    def __init__(self) -> None:
        super().__init__([Fault("reservation", "there is no such reservation, or it has expired")])
