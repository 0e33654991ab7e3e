"""The limiter for asyncio."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Self

from ratelimit.decision.decision import Decision
from ratelimit.errors import RateLimited
from ratelimit.limiters.aio_base import AsyncBase
from ratelimit.limiters.arguments import USAGE_AGE, USAGE_LENGTH, make_settle_options
from ratelimit.limiters.closed import CLOSED_CALLS
from ratelimit.limiters.reservation import AsyncReservation
from ratelimit.stores.failures import CONNECTION_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Unpack

    from ratelimit.decision.settlement import Settlement
    from ratelimit.limiters.base import CheckInput
    from ratelimit.observers.observer import Observer
    from ratelimit.policy import Limit, Policy
    from ratelimit.request.check import CheckOptions
    from ratelimit.request.usage import Usage


class AsyncLimiter(AsyncBase):
    """Decides which requests may pass, for asyncio. `Limiter` is the same for threads.

    It has the arguments, methods and errors of `Limiter`; its methods are awaited. One limiter belongs
    to one event loop at a time. Checks that wait at the same time share one call to the store.

    ```python
    async with AsyncLimiter("redis://localhost:6379", policy) as limiter:
        decision = await limiter.check("vk_9f3", cost={"tokens": 850})
    ```
    """

    def __init__(
        self,
        store: str,
        policy: Policy | Limit | Iterable[Limit],
        *,
        max_skew: float | None = 5.0,
        deadline: float = 0.05,
        remember: float = 600.0,
        usage_length: int = USAGE_LENGTH,
        usage_age: float = USAGE_AGE,
        observers: Iterable[Observer] = (),
    ) -> None:
        options = make_settle_options(max_skew, remember, usage_length, usage_age)
        super().__init__(store, policy, options, observers)
        # The store is opened last: after an error below this line nothing would close it.
        self._connect(store, deadline)

    async def check(self, key: CheckInput, **options: Unpack[CheckOptions]) -> Decision:
        """Decide whether a request may pass, and charge its cost if so; see `Limiter.check`."""
        # `_resolve` would look in the cache first, too. Most checks are found here, and save its call.
        cached = self._resolver.find_cached(key, options) if isinstance(key, str) else None
        check, now = cached or self._resolve(key, options), time.monotonic_ns()
        started, note_methods = self._start_decision(check, now), self._observers.note_decision
        # `_end_decision` would do the same. Without it each check saves a coroutine.
        if not isinstance(started, Decision):
            return await self._finish_decision(check, started, now, note_methods)
        for note_decision in note_methods:
            note_decision(check, started, now, 0)
        return started

    async def check_many(self, checks: Sequence[CheckInput]) -> list[Decision]:
        """Decide up to 256 checks; see `Limiter.check_many`."""
        return await self._decide_many(self._resolve_many(checks))

    async def peek(self, key: CheckInput, **options: Unpack[CheckOptions]) -> Decision:
        """Return the decision that `check` would give now, and charge nothing; see `Limiter.peek`."""
        return await self._look(self._resolve(key, options, take=False))

    async def acquire(
        self,
        key: CheckInput,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - a limit on waiting, not a cancellation
        **options: Unpack[CheckOptions],
    ) -> Decision:
        """Wait until a request may pass, and charge its cost; see `Limiter.acquire`.

        Other tasks run while this one waits.
        """
        until = None if timeout is None else time.monotonic() + timeout
        check = self._resolve_for_acquire(key, options)
        while not (decision := await self._decide(check)):
            wait = decision.retry_after
            if wait is None or (until is not None and time.monotonic() + wait > until):
                raise RateLimited(decision)
            await asyncio.sleep(wait)
        return decision

    def reserve(self, key: CheckInput, **options: Unpack[CheckOptions]) -> AsyncReservation:
        """Check a request whose cost is an estimate, and settle it later; see `Limiter.reserve`.

        ```python
        async with limiter.reserve("vk_9f3", cost={"tokens": 2000}) as reservation:
            await reservation.settle(Usage(input_tokens=310, output_tokens=502, status=200))
        ```

        The check is made when the reservation is entered with `async with`, or awaited:
        `reservation = await limiter.reserve(…)`. Then `RateLimited` is raised if it is denied.
        """
        check = self._resolve(key, options, reserve=True)
        return AsyncReservation(self, lambda: self._decide(check))

    async def settle(self, usage: Usage | Mapping[str, Any], *, reservation: str | None = None) -> Settlement:
        """Charge what a request really used; see `Limiter.settle`."""
        return await self._run_settle_script(self._encode_settle(usage, reservation))

    async def cancel(self, reservation: str) -> Settlement:
        """Refund what a reservation took; see `Limiter.cancel`."""
        return await self._run_settle_script(self._encode_reservation_end("cancel", reservation))

    async def release(self, reservation: str) -> None:
        """Free a reservation's slots and keep its estimate charged; see `Limiter.release`."""
        await self._run_settle_script(self._encode_reservation_end("release", reservation))

    async def assign(
        self, key: str, *, plan: str | None = None, tenant: str | None = None, blocked: bool = False
    ) -> None:
        """Assign a plan or a tenant to a key, or block the key; see `Limiter.assign`."""
        await self._write_assignment(
            self._encode_key_assignment(key, plan=plan, tenant=tenant, blocked=blocked)
        )

    async def assign_tenant(self, tenant: str, *, plan: str | None = None) -> None:
        """Assign a plan to a tenant; see `Limiter.assign_tenant`."""
        await self._write_assignment(self._encode_tenant_assignment(tenant, plan))

    async def refresh(self) -> None:
        """Read the assignments of keys and tenants if they have changed; see `Limiter.refresh`."""
        await self._read_assignments()

    async def reset(self, key: str, *, tenant: str | None = None) -> None:
        """Forget what a key has used; see `Limiter.reset`."""
        store_keys = self._list_bucket_keys(key, tenant)
        await self._run_commands([("UNLINK", *store_keys)])
        self._forget_buckets(store_keys)

    async def ping(self) -> None:
        """Make sure that the store answers; see `Limiter.ping`."""
        try:
            await self._calls.ping()
        except CONNECTION_ERRORS as error:
            raise self._make_unavailable_error(error) from None

    async def close(self) -> None:
        """Finish the checks under way, return all leases and close the connections; see `Limiter.close`."""
        if self._closed:
            return
        try:
            await self._close_leases()
        finally:
            calls, self._calls = self._calls, CLOSED_CALLS
            self._forget_what_decides()
            await calls.close()
            await asyncio.to_thread(self._opened_store.release)

    async def __aenter__(self) -> Self:
        self._require_open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
