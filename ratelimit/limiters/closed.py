"""What a limiter has in place of its calls to the store after it was closed."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from ratelimit.errors import LimiterClosed


class _ClosedCalls:
    """Every method of `Calls` and `AsyncCalls` raises `LimiterClosed`. So no check has to ask for it."""

    def __getattr__(self, _name: str) -> NoReturn:
        raise LimiterClosed


CLOSED_CALLS: Final[Any] = _ClosedCalls()
