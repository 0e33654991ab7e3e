"""Reservations: admitted checks whose cost is an estimate until they are settled."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Protocol, Self

from ratelimit.errors import LimiterClosed, RateLimited, StoreUnavailable, UnknownReservation

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from ratelimit.decision.decision import Decision
    from ratelimit.decision.settlement import Settlement
    from ratelimit.request.usage import Usage

_background_tasks: set[asyncio.Task[None]] = set()
"""Tasks that may have no other reference. The event loop itself keeps only weak ones."""


class Settler(Protocol):
    """What a reservation needs of a `Limiter`."""

    def settle(self, usage: Usage, *, reservation: str | None = None) -> Settlement:
        """Charge what was used."""

    def cancel(self, reservation: str) -> Settlement:
        """Refund what was taken."""

    def release(self, reservation: str) -> None:
        """Free the reservation's slots."""


class AsyncSettler(Protocol):
    """What a reservation needs of an `AsyncLimiter`."""

    async def settle(self, usage: Usage, *, reservation: str | None = None) -> Settlement:
        """Charge what was used."""

    async def cancel(self, reservation: str) -> Settlement:
        """Refund what was taken."""

    async def release(self, reservation: str) -> None:
        """Free the reservation's slots."""


class Reservation(AbstractContextManager["Reservation"]):
    """An admitted check to settle; see `Limiter.reserve`.

    Attributes:
        decision: the decision that admitted the check.
        id: the reservation's id; empty if the check was admitted during an outage, when nothing can be
            reserved.
    """

    def __init__(self, limiter: Settler, decision: Decision) -> None:
        self.decision, self.id = _require_admitted(decision)
        self._limiter = limiter
        self._open = bool(self.id)

    def settle(self, usage: Usage) -> Settlement | None:
        """Charge what was really used instead of the estimate; see `Limiter.settle`.

        Returns:
            The settlement; None if nothing was reserved because of an outage.

        Raises:
            UnknownReservation: the time to settle the reservation is over.
            InvalidRequest: the usage record is wrong.
            StoreUnavailable: the store did not answer. It is safe to settle again.
        """
        settlement = self._limiter.settle(usage, reservation=self.id) if self.id else None
        self._open = False
        return settlement

    def cancel(self) -> None:
        """Refund what was taken. If the reservation is settled or cancelled already, nothing happens.

        Raises:
            UnknownReservation: the time to settle the reservation is over.
            StoreUnavailable: the store did not answer. It is safe to cancel again.
        """
        if self.id:
            self._limiter.cancel(self.id)
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Free the slots if the reservation was neither settled nor cancelled; keep the estimate charged."""
        if self._open:
            # Without an answer from the store the slots become free after the limit's `ttl`.
            with suppress(StoreUnavailable, LimiterClosed, UnknownReservation):
                self._limiter.release(self.id)


class AsyncReservation(AbstractAsyncContextManager["AsyncReservation"]):
    """`Reservation` for asyncio: enter it with `async with`, or `await` it. Either makes the check.

    Attributes:
        decision: the decision that admitted the check; set once the check is made.
        id: the reservation's id; set once the check is made; empty if the check was admitted during an
            outage, when nothing can be reserved.
    """

    decision: Decision
    id: str

    def __init__(self, limiter: AsyncSettler, decide: Callable[[], Coroutine[Any, Any, Decision]]) -> None:
        self._limiter = limiter
        self._decide: Callable[[], Coroutine[Any, Any, Decision]] | None = decide
        self._open = False

    def __await__(self) -> Generator[None, None, Self]:
        """Make the check; raises RateLimited if it is denied."""
        return self._make_check().__await__()

    async def _make_check(self) -> Self:
        decide, self._decide = self._decide, None
        if decide is not None:
            deciding = asyncio.create_task(decide())
            try:
                decision = await asyncio.shield(deciding)
            except asyncio.CancelledError:
                # The check is on its way to the store, and its request will never run.
                _run_in_background(self._cancel_when_decided(deciding))
                raise
            self.decision, self.id = _require_admitted(decision)
            self._open = bool(self.id)
        return self

    async def _cancel_when_decided(self, deciding: asyncio.Task[Decision]) -> None:
        decision = await deciding
        if decision.reservation:
            await self._limiter.cancel(decision.reservation)

    async def settle(self, usage: Usage) -> Settlement | None:
        """Charge what was really used instead of the estimate; see `Reservation.settle`."""
        settlement = await self._limiter.settle(usage, reservation=self.id) if self.id else None
        self._open = False
        return settlement

    async def cancel(self) -> None:
        """Refund what was taken; see `Reservation.cancel`."""
        if self.id:
            await self._limiter.cancel(self.id)
        self._open = False

    async def __aenter__(self) -> Self:
        return await self._make_check()

    async def __aexit__(self, *_: object) -> None:
        """See `Reservation.__exit__`."""
        if self._open:
            # Some libraries, such as anyio, cancel again at every await. The slots must be freed anyway.
            await asyncio.shield(_run_in_background(self._limiter.release(self.id)))


def _run_in_background(work: Coroutine[Any, Any, object]) -> asyncio.Task[None]:
    """Start a task that ends even if the task that started it is cancelled.

    Without an answer from the store the slots become free after the limit's `ttl`.
    """

    async def run() -> None:
        with suppress(StoreUnavailable, LimiterClosed, UnknownReservation):
            await work

    task = asyncio.create_task(run())
    _background_tasks.add(task)
    task.add_done_callback(_background_tasks.discard)
    return task


def _require_admitted(decision: Decision) -> tuple[Decision, str]:
    if not decision:
        raise RateLimited(decision)
    return decision, decision.reservation or ""
