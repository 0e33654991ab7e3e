"""Everything this library raises.

```
RateLimitError
├── RateLimited        a check was denied and the caller asked for an exception
├── StoreUnavailable   the store did not answer in time, or refused us
├── PolicyError        a policy that cannot be run (also a ValueError)
└── InvalidRequest     a question that cannot be asked (also a ValueError)
    └── UnknownReservation   there is no such reservation, or it has been forgotten
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit.decision.decision import Decision


class RateLimitError(Exception):
    """Base of every exception raised by this library."""


class RateLimited(RateLimitError):  # noqa: N818 - the name is part of the contract, and reads well in an `except`
    """The check was denied; `decision` says by what, and how long to wait.

    Attributes:
        decision: the denial, with `retry_after` in seconds (None for never).
    """

    def __init__(self, decision: Decision) -> None:
        super().__init__(f"{decision.key} is over {', '.join(decision.violated)}; {decision.advice}")
        self.decision = decision


class StoreUnavailable(RateLimitError):  # noqa: N818 - the name is part of the contract
    """The store did not answer within the deadline, or would not serve us.

    Attributes:
        refused: the store is there and will not let us in; waiting does not help.
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class Fault(NamedTuple):
    """One thing that is wrong in a policy or a request.

    Attributes:
        path: dotted place of the fault, such as `plans.free.limits.tokens.rate` or `cost.tokens`.
        message: what is wrong and what is allowed.
        line: line in the file, counted from 1; None where there is no file.
    """

    path: str
    message: str
    line: int | None = None


class PolicyError(RateLimitError, ValueError):
    """A policy that cannot be run; nothing of it was taken over.

    Attributes:
        faults: every fault found, in the order of the file.
        source: the file's name, or what stood in for it.
    """

    def __init__(self, faults: Sequence[Fault], source: str = "policy") -> None:
        self.faults = tuple(faults)
        self.source = source
        super().__init__("\n".join(self._lines()))

    def _lines(self) -> list[str]:
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


class InvalidRequest(RateLimitError, ValueError):  # noqa: N818 - the name is part of the contract
    """A question that cannot be asked; nothing was charged.

    Attributes:
        faults: every field at fault, with what is allowed there.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{fault.path}: {fault.message}" for fault in faults))


class UnknownReservation(InvalidRequest):
    """There is no such reservation: it never was, or it was forgotten after its time. Nothing was charged."""

    def __init__(self) -> None:
        super().__init__(
            [Fault("reservation", "there is no such reservation, or its time to be settled is over")]
        )
