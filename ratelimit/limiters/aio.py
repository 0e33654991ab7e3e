"""The limiter for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, Self

from redis.exceptions import NoScriptError

from ratelimit.decision.decision import Decision
from ratelimit.engine.check_script import split_replies
from ratelimit.engine.layout import KEYS, TENANTS
from ratelimit.errors import RateLimited, StoreUnavailable
from ratelimit.limiters.base import CONNECTION_ERRORS, BaseLimiter, CheckInput
from ratelimit.limiters.reservation import AsyncReservation
from ratelimit.metering import assignments
from ratelimit.shortcuts.coalescing import Coalescer, Reply
from ratelimit.shortcuts.leases import LOOK_AGAIN, NANOSECONDS
from ratelimit.stores import connect_async
from ratelimit.stores.async_transport import await_within
from ratelimit.stores.scripts import CHECK, SETTLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Unpack

    from ratelimit.decision.settlement import Settlement
    from ratelimit.engine.check_script import ScriptArgument
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.metering.assignments import Command
    from ratelimit.policy import Limit, Policy
    from ratelimit.request.check import CheckOptions
    from ratelimit.request.usage import Usage
    from ratelimit.stores.scripts import Script


_PATIENCE: Final = 20
"""Deadlines that reading every assignment may take."""


class AsyncLimiter(BaseLimiter):
    """`Limiter` for asyncio: the same arguments, methods and errors, awaited. It belongs to one event loop.

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
    ) -> None:
        super().__init__(policy, max_skew, remember)
        opened = connect_async(store, deadline)
        self._at(opened.url)
        self._opened = opened
        self._deadline = deadline
        self._coalescer = Coalescer(self._check)
        self._returning: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._looks_at = 0

    async def check(self, key: CheckInput, **options: Unpack[CheckOptions]) -> Decision:
        """See `Limiter.check`."""
        # `_ask` would look here first as well: one call less on the way that most checks take.
        known = self._resolver.find_cached(key, options) if isinstance(key, str) else None
        check, now = known or self._ask(key, options), time.monotonic_ns()
        begun = self._begin(check, now)
        return begun if isinstance(begun, Decision) else await self._answer(check, begun, now)

    async def check_many(self, checks: Sequence[CheckInput]) -> list[Decision]:
        """See `Limiter.check_many`."""
        return await self._decide(self._ask_many(checks))

    async def peek(self, key: CheckInput, **options: Unpack[CheckOptions]) -> Decision:
        """See `Limiter.peek`."""
        return await self._one(self._ask(key, options, take=False))

    async def acquire(
        self,
        key: CheckInput,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - a limit on waiting, not a cancellation
        **options: Unpack[CheckOptions],
    ) -> Decision:
        """See `Limiter.acquire`; other tasks run while this one waits."""
        until = None if timeout is None else time.monotonic() + timeout
        check = self._ask_acquire(key, options)
        while not (decision := await self._one(check)):
            wait = decision.retry_after
            if wait is None or (until is not None and time.monotonic() + wait > until):
                raise RateLimited(decision)
            await asyncio.sleep(wait)
        return decision

    def reserve(self, key: CheckInput, **options: Unpack[CheckOptions]) -> AsyncReservation:
        """See `Limiter.reserve`: `async with limiter.reserve(…) as reservation`, or `await` it."""
        check = self._ask_reserve(key, options)
        return AsyncReservation(self, lambda: self._one(check))

    async def settle(self, usage: Usage | Mapping[str, Any], *, reservation: str | None = None) -> Settlement:
        """See `Limiter.settle`."""
        return await self._settle(*self._encode_settle(usage, reservation))

    async def cancel(self, reservation: str) -> Settlement:
        """See `Limiter.cancel`."""
        return await self._settle(*self._encode_reservation("cancel", reservation))

    async def release(self, reservation: str) -> None:
        """See `Limiter.release`."""
        await self._settle(*self._encode_reservation("release", reservation))

    async def assign(
        self, key: str, *, plan: str | None = None, tenant: str | None = None, blocked: bool = False
    ) -> None:
        """See `Limiter.assign`."""
        await self._store_assignment(
            self._encode_key_assignment(key, plan=plan, tenant=tenant, blocked=blocked)
        )

    async def assign_tenant(self, tenant: str, *, plan: str | None = None) -> None:
        """See `Limiter.assign_tenant`."""
        await self._store_assignment(self._encode_tenant_assignment(tenant, plan))

    async def _store_assignment(self, commands: list[Command]) -> None:
        try:
            pipeline: Any = self._opened.client.pipeline()
            for command in commands:
                pipeline.execute_command(*command)
            await await_within(self._deadline, pipeline.execute())
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None
        await self.refresh()

    async def refresh(self) -> None:
        """See `Limiter.refresh`."""
        client: Any = self._opened.client
        try:
            counter = await await_within(self._deadline, client.get(assignments.COUNTER)) or b""
            if counter != self._assignments_counter:
                # No request waits for this, so it may take longer: there may be many keys.
                keys = await await_within(_PATIENCE * self._deadline, client.hgetall(KEYS))
                tenants = await await_within(_PATIENCE * self._deadline, client.hgetall(TENANTS))
                read = assignments.read_assignments
                self._set_assignments(counter, await asyncio.to_thread(read, keys, tenants))
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None

    async def reset(self, key: str, *, tenant: str | None = None) -> None:
        """See `Limiter.reset`."""
        try:
            names = self._owned(key, tenant)
            await await_within(self._deadline, self._opened.client.unlink(*names))
            self._emptied(names)
            if (end := self._leases.next_end) is not None:
                self._look_at(end)
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None

    async def ping(self) -> None:
        """See `Limiter.ping`."""
        try:
            await await_within(self._deadline, self._opened.client.ping())
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None

    async def _one(self, check: ResolvedCheck) -> Decision:
        now = time.monotonic_ns()
        begun = self._begin(check, now)
        return begun if isinstance(begun, Decision) else await self._answer(check, begun, now)

    async def _decide(self, checks: list[ResolvedCheck]) -> list[Decision]:
        now = time.monotonic_ns()
        begun = [self._begin(check, now) for check in checks]
        try:
            return [
                reply if isinstance(reply, Decision) else await self._answer(check, reply, now)
                for check, reply in zip(checks, begun, strict=True)
            ]
        finally:
            for reply in begun:
                if not isinstance(reply, Decision):
                    reply.cancel()  # if we were: what has not left yet is not asked any more

    def _begin(self, check: ResolvedCheck, now: int) -> Decision | asyncio.Future[Reply]:
        """Return the decision if it needs no asking, or what will be the store's reply."""
        leases = check.subject.layout.lease_amounts
        if leases and (decision := self._leases.spend(check, now)) is not None:
            return decision
        if (decision := self._denial_memory.find_denial(check, now)) is not None:
            return decision
        if leases and (wanted := self._leases.plan_lease(check, now)):
            self._lease(wanted, now)
        return self._coalescer.submit(check)

    def _lease(self, wanted: ResolvedCheck, now: int) -> None:
        """Take tokens in advance; checks go on asking the store until it has said yes."""

        def landed(reply: asyncio.Future[Reply]) -> None:
            if reply.cancelled() or reply.exception() is not None:
                return  # what was taken, if it was, is lost as in a crash
            heard = time.monotonic_ns()
            if self._leases.add_lease(wanted, reply.result(), now, heard):
                self._look_at(heard + wanted.subject.layout.lease_ttl * 1000)

        self._coalescer.submit(wanted).add_done_callback(landed)

    def _look_at(self, end: int) -> None:
        """See to it that leases end also when nobody asks any more."""
        if self._closed or (self._alarm is not None and self._looks_at <= end):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        wait = max(end - time.monotonic_ns(), LOOK_AGAIN) / NANOSECONDS
        self._alarm, self._looks_at = asyncio.get_running_loop().call_later(wait, self._look), end

    def _look(self) -> None:
        self._alarm = None
        if over := self._leases.pop_expired(time.monotonic_ns()):
            returning = asyncio.get_running_loop().create_task(self._give_back(over))
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
        if (end := self._leases.next_end) is not None:
            self._look_at(end)

    async def _give_back(self, over: list[ResolvedCheck]) -> None:
        """Return to the store what is left of leases."""
        with contextlib.suppress(StoreUnavailable):  # the rest is lost, as in a crash
            for check in over:
                await self._settle(*self._encode_return(check))

    async def _answer(self, check: ResolvedCheck, reply: asyncio.Future[Reply], sent: int) -> Decision:
        try:
            decision = self._read(check, await reply, sent)
        except CONNECTION_ERRORS as error:
            return self._without_store(check, error)
        if decision or not check.subject.layout.lease_amounts:
            return decision
        # What the store could not give may have been leased meanwhile, even in the same call.
        return self._leases.spend(check, time.monotonic_ns()) or decision

    async def _check(self, checks: list[ResolvedCheck]) -> list[bytes]:
        replies = split_replies(await self._run(CHECK, *self._encode(checks)))
        self._outage.note_success()
        return replies

    async def _settle(self, keys: list[str], args: list[ScriptArgument]) -> Settlement:
        try:
            reply = await self._run(SETTLE, keys, args)
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None
        return self._read_settle(reply)

    async def _run(self, script: Script, keys: list[str], args: list[ScriptArgument]) -> Any:  # noqa: ANN401 - likewise
        call = self._opened.transport.call
        try:
            return await call("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:  # it did not run: a flush, a restart, a failover
            return await call("EVAL", script.source, len(keys), *keys, *args)

    async def close(self) -> None:
        """See `Limiter.close`; checks under way are answered first."""
        if self._closed:
            return
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        try:
            await self._coalescer.drain()
            await asyncio.sleep(0)  # a lease that has just been granted is held by now
            await asyncio.gather(*self._returning)
            await self._give_back(self._leases.pop_expired())
        finally:
            await self._opened.transport.close()
            await self._opened.client.aclose()
            await self._opened.client.connection_pool.disconnect()
            await asyncio.to_thread(self._opened.release)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
