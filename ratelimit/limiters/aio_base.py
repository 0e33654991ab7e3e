"""What lies behind the methods of `AsyncLimiter`: decisions, leases and calls to the store, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from ratelimit.decision.decision import Decision
from ratelimit.engine.keyspace import make_unread_store_key
from ratelimit.errors import StoreUnavailable
from ratelimit.limiters.aio_cluster import AsyncCluster
from ratelimit.limiters.aio_server import AsyncServer
from ratelimit.limiters.base import BaseLimiter
from ratelimit.limiters.charging import AsyncCharger
from ratelimit.limiters.forks import start_again_after_fork
from ratelimit.metering.assignments import read_assignments
from ratelimit.shortcuts.leases import MIN_RETURN_DELAY, NANOSECONDS
from ratelimit.stores import connect_async
from ratelimit.stores.failures import CONNECTION_ERRORS
from ratelimit.stores.scripts import REPORT, SETTLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ratelimit.decision.settlement import Settlement
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.engine.settle_script import SettleCall, SettleOptions
    from ratelimit.limiters.aio_server import AsyncCalls
    from ratelimit.observers.activity import Activity
    from ratelimit.observers.observer import NoteDecision, Observer
    from ratelimit.policy import Limit, Policy
    from ratelimit.shortcuts.coalescing import Reply
    from ratelimit.stores.async_transport import AsyncTransport
    from ratelimit.stores.clients import Store
    from ratelimit.stores.transport import Command


class AsyncBase(BaseLimiter):
    """What lies behind the methods of `AsyncLimiter`; `BlockingBase` is the same for threads."""

    _calls: AsyncCalls
    _charger: AsyncCharger
    _opened_store: Store[AsyncTransport]
    _deadline: float

    def __init__(
        self,
        store: str,
        policy: Policy | Limit | Iterable[Limit],
        settle_options: SettleOptions,
        observers: Iterable[Observer],
    ) -> None:
        super().__init__(store, policy, settle_options, observers)
        start_again_after_fork(self)

    def _start_in_process(self) -> None:
        super()._start_in_process()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._return_timer: asyncio.TimerHandle | None = None
        self._return_time = 0  # when the timer ends, monotonic nanoseconds

    def _connect(self, store: str, deadline: float) -> Store[AsyncTransport]:
        """Open the store."""
        self._opened_store, self._deadline = connect_async(store, deadline), deadline
        self._open_calls()
        return self._opened_store

    def _open_calls(self) -> None:
        opened, deadline = self._opened_store, self._deadline
        if opened.url.kind == "cluster":
            self._calls = AsyncCluster(
                opened.open_transport,
                opened.url.hosts,
                deadline,
                self._make_watch,
                self._encode_checks,
                self._encode_refund,
            )
        else:
            self._calls = AsyncServer(
                lambda limit: opened.open_transport(limit, None),
                deadline,
                self._make_watch(),
                self._encode_checks,
            )
        self._charger = AsyncCharger(self._encode_charge, self._run_settle_calls, self._calls.ask)

    async def _decide(self, check: ResolvedCheck) -> Decision:
        """Decide a check and tell the observers."""
        now = time.monotonic_ns()
        return await self._end_decision(check, self._start_decision(check, now), now)

    async def _look(self, check: ResolvedCheck) -> Decision:
        """Decide a check that takes nothing. The observers are not told."""
        return await self._finish_decision(check, self._calls.submit(check), time.monotonic_ns(), ())

    async def _end_decision(
        self, check: ResolvedCheck, started: Decision | asyncio.Future[Reply], now: int
    ) -> Decision:
        """Return the decision on a check that was started at `now`, and tell the observers."""
        note_methods = self._observers.note_decision
        if not isinstance(started, Decision):
            return await self._finish_decision(check, started, now, note_methods)
        for note_decision in note_methods:
            note_decision(check, started, now, 0)
        return started

    async def _decide_many(self, checks: list[ResolvedCheck]) -> list[Decision]:
        now = time.monotonic_ns()
        started = [self._start_decision(check, now) for check in checks]
        try:
            return [
                await self._end_decision(check, reply, now)
                for check, reply in zip(checks, started, strict=True)
            ]
        finally:
            for reply in started:
                if not isinstance(reply, Decision):
                    reply.cancel()  # If this task is cancelled, checks that wait for a call are not sent.

    def _start_decision(self, check: ResolvedCheck, now: int) -> Decision | asyncio.Future[Reply]:
        """Decide a check locally, or return a future for the store's reply.

        If a lease is worth its call, this also sends the check that takes one.
        """
        leases = check.subject.layout.lease_amounts
        if leases and (decision := self._leases.spend(check, now)) is not None:
            return decision
        memory = self._denial_memory
        if memory.denials and (decision := memory.find_denial(check, now)) is not None:
            return decision
        if leases and (wanted := self._leases.plan_lease(check, now)):
            self._take_lease(wanted, now)
        return self._calls.submit(check)

    async def _finish_decision(
        self,
        check: ResolvedCheck,
        reply: asyncio.Future[Reply],
        sent: int,
        note_methods: Sequence[NoteDecision],
    ) -> Decision:
        """Return the decision in a reply, and tell the observers. If it is a denial, try to spend a lease."""
        try:
            raw, call_size = await reply
        except CONNECTION_ERRORS:
            decision, call_size = self._decide_without_store(check), 0
        else:
            decision = self._read_decision(check, raw, sent)
            if not decision.allowed and check.subject.layout.lease_amounts:
                # A lease may have taken the bucket's last tokens in the meantime, even in the same call.
                decision = self._leases.spend(check, time.monotonic_ns()) or decision
        for note_decision in note_methods:
            note_decision(check, decision, sent, call_size)
        return decision

    def _take_lease(self, wanted: ResolvedCheck, now: int) -> None:
        """Send the check that takes a lease. Until its reply comes, checks still go to the store."""

        def add_lease(reply: asyncio.Future[Reply]) -> None:
            if reply.cancelled() or reply.exception() is not None:
                return  # If the store took tokens, they are lost as after a crash.
            received = time.monotonic_ns()
            if self._leases.add_lease(wanted, reply.result()[0], now, received):
                self._schedule_lease_return(received + wanted.subject.layout.lease_ttl * 1000)

        self._calls.submit(wanted).add_done_callback(add_lease)

    def _schedule_lease_return(self, end: int) -> None:
        """Start a timer that returns leases soon after `end`, so that they end even if no check comes.

        Args:
            end: when a lease ends, monotonic nanoseconds.
        """
        now = time.monotonic_ns()
        # A timer whose time has passed is of an event loop that has ended.
        if self._closed or (self._return_timer is not None and now < self._return_time <= end):
            return
        if self._return_timer is not None:
            self._return_timer.cancel()
        wait = max(end - now, MIN_RETURN_DELAY) / NANOSECONDS
        loop = asyncio.get_running_loop()
        self._return_timer, self._return_time = loop.call_later(wait, self._return_expired_leases), end

    def _return_expired_leases(self) -> None:
        self._return_timer = None
        if expired := self._leases.pop_expired(time.monotonic_ns()):
            task = asyncio.get_running_loop().create_task(self._return_leases(expired))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if (end := self._leases.next_end) is not None:
            self._schedule_lease_return(end)

    async def _return_leases(self, expired: list[ResolvedCheck]) -> None:
        """Return the unspent tokens of leases to the store."""
        with contextlib.suppress(StoreUnavailable):  # The remaining tokens are lost, as after a crash.
            for check in expired:
                await self._run_settle_script(self._encode_lease_return(check))

    async def _close_leases(self) -> None:
        """Finish the checks under way, return all leases, charge what an outage left, and take no more."""
        self._closed = True
        if self._return_timer is not None:
            self._return_timer.cancel()
        await self._calls.drain()
        await asyncio.sleep(0)  # Now the callback of a lease that has just been taken has run.
        await asyncio.gather(*self._tasks)
        await self._return_leases(self._leases.pop_expired())
        await self._charger.close(self._outage)

    def _forget_buckets(self, store_keys: Sequence[str]) -> None:
        """Forget the denials and leases of buckets that have been reset."""
        super()._forget_buckets(store_keys)
        if (end := self._leases.next_end) is not None:
            self._schedule_lease_return(end)

    async def count_trimmed_unread(self) -> int:
        """Count the usage records that were removed unread; see `Limiter.count_trimmed_unread`."""
        streams = self._resolver.keyspace.usage_streams
        counts = await self._run_commands([("GET", make_unread_store_key(stream)) for stream in streams])
        return sum(int(count or 0) for count in counts)

    async def publish_activity(self, activity: Activity) -> None:
        """Tell the store what an observer has counted; see `Limiter.publish_activity`."""
        for keys, args in activity.encode_report(self._resolver.keyspace):
            try:
                await self._calls.run_script(REPORT, keys, args)
            except CONNECTION_ERRORS as error:
                raise self._make_unavailable_error(error) from None

    async def _write_assignment(self, commands: Sequence[Command]) -> None:
        await self._run_commands(commands)
        await self._read_assignments()

    async def _run_commands(self, commands: Sequence[Command], *, is_long: bool = False) -> list[Any]:
        """Run commands together and return their replies."""
        try:
            return await self._calls.run_commands(commands, is_long=is_long)
        except CONNECTION_ERRORS as error:
            raise self._make_unavailable_error(error) from None

    async def _read_assignments(self) -> None:
        keyspace = self._resolver.keyspace
        [counter] = await self._run_commands([("GET", keyspace.counter)])
        if (counter or b"") != self._assignments_counter:
            commands: Sequence[Command] = [("HGETALL", keyspace.keys), ("HGETALL", keyspace.tenants)]
            stored = await self._run_commands(commands, is_long=True)
            self._set_assignments(counter or b"", await asyncio.to_thread(read_assignments, *stored))

    async def _run_settle_calls(self, call: SettleCall) -> list[Sequence[bytes | str]]:
        return [await self._calls.run_script(SETTLE, part.keys, part.args) for part in call.calls]

    async def _run_settle_script(self, call: SettleCall) -> Settlement:
        started = time.monotonic_ns()
        try:
            replies = await self._run_settle_calls(call)
        except CONNECTION_ERRORS as error:
            self._note_unanswered(call, error)
            raise self._make_unavailable_error(error) from None
        return self._read_settlement(call, replies, started)
