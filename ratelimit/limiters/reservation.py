"""A request that may pass, whose cost is an estimate until it has ended."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Protocol, Self

from ratelimit.errors import RateLimited, StoreUnavailable, UnknownReservation

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from ratelimit.decision.decision import Decision
    from ratelimit.decision.settlement import Settlement
    from ratelimit.request.usage import Usage

_finishing: set[asyncio.Task[None]] = set()
"""Tasks that nobody may wait for any more; the loop itself holds on to them only weakly."""


class Settler(Protocol):
    """What a reservation needs of a `Limiter`."""

    def settle(self, usage: Usage, *, reservation: str | None = None) -> Settlement:
        """Charge what was used."""

    def cancel(self, reservation: str) -> Settlement:
        """Refund what was taken."""

    def release(self, reservation: str) -> None:
        """Free the slots that the reservation holds."""


class AsyncSettler(Protocol):
    """What a reservation needs of an `AsyncLimiter`."""

    async def settle(self, usage: Usage, *, reservation: str | None = None) -> Settlement:
        """Charge what was used."""

    async def cancel(self, reservation: str) -> Settlement:
        """Refund what was taken."""

    async def release(self, reservation: str) -> None:
        """Free the slots that the reservation holds."""


class Reservation(AbstractContextManager["Reservation"]):
    """An admitted request to settle; see `Limiter.reserve`.

    Attributes:
        decision: the decision that admitted it.
        id: the reservation's id; empty where an outage admitted it and nothing could be reserved.
    """

    def __init__(self, limiter: Settler, decision: Decision) -> None:
        self.decision, self.id = _admitted(decision)
        self._limiter = limiter
        self._open = bool(self.id)

    def settle(self, usage: Usage) -> Settlement | None:
        """Charge what was really used instead of the estimate, once; None if nothing could be reserved."""
        settlement = self._limiter.settle(usage, reservation=self.id) if self.id else None
        self._open = False
        return settlement

    def cancel(self) -> None:
        """Give back what was taken. Does nothing once the reservation is settled."""
        if self.id:
            self._limiter.cancel(self.id)
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Keep the estimate charged if nobody said what was used, and free what the request held."""
        if self._open:
            with suppress(StoreUnavailable, UnknownReservation):  # then the slots free themselves in time
                self._limiter.release(self.id)


class AsyncReservation(AbstractAsyncContextManager["AsyncReservation"]):
    """`Reservation` for asyncio: entered with `async with`, or held with `await`.

    Attributes:
        decision: the decision that admitted it, once it is held.
        id: the reservation's id, once it is held; empty where nothing could be reserved.
    """

    decision: Decision
    id: str

    def __init__(self, limiter: AsyncSettler, ask: Callable[[], Coroutine[Any, Any, Decision]]) -> None:
        self._limiter = limiter
        self._ask: Callable[[], Coroutine[Any, Any, Decision]] | None = ask
        self._open = False

    def __await__(self) -> Generator[None, None, Self]:
        """Hold the reservation; raises RateLimited when the check is denied."""
        return self._hold().__await__()

    async def _hold(self) -> Self:
        ask, self._ask = self._ask, None
        if ask is not None:
            asked = asyncio.create_task(ask())
            try:
                decision = await asyncio.shield(asked)
            except asyncio.CancelledError:
                _finish(self._give_back(asked))  # it is on its way, for a request that will never run
                raise
            self.decision, self.id = _admitted(decision)
            self._open = bool(self.id)
        return self

    async def _give_back(self, asked: asyncio.Task[Decision]) -> None:
        decision = await asked
        if decision.reservation:
            await self._limiter.cancel(decision.reservation)

    async def settle(self, usage: Usage) -> Settlement | None:
        """See `Reservation.settle`."""
        settlement = await self._limiter.settle(usage, reservation=self.id) if self.id else None
        self._open = False
        return settlement

    async def cancel(self) -> None:
        """See `Reservation.cancel`."""
        if self.id:
            await self._limiter.cancel(self.id)
        self._open = False

    async def __aenter__(self) -> Self:
        return await self._hold()

    async def __aexit__(self, *_: object) -> None:
        """See `Reservation.__exit__`."""
        if self._open:
            # Cancellation that is repeated at every await, as anyio's is, must not keep the slot.
            await asyncio.shield(_finish(self._limiter.release(self.id)))


def _finish(work: Coroutine[Any, Any, object]) -> asyncio.Task[None]:
    """Let `work` end though whoever wanted it is cancelled; without a store slots free themselves."""

    async def finish() -> None:
        with suppress(StoreUnavailable, UnknownReservation):
            await work

    task = asyncio.create_task(finish())
    _finishing.add(task)
    task.add_done_callback(_finishing.discard)
    return task


def _admitted(decision: Decision) -> tuple[Decision, str]:
    if not decision:
        raise RateLimited(decision)
    return decision, decision.reservation or ""
