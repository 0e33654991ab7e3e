"""What lies behind the methods of `AsyncLimiter`: decisions, leases and calls to the store, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import NoScriptError

from ratelimit.decision.decision import Decision
from ratelimit.engine.check_script import split_replies
from ratelimit.engine.layout import KEYS, TENANTS, UNREAD
from ratelimit.errors import StoreUnavailable
from ratelimit.limiters.base import BaseLimiter
from ratelimit.limiters.charging import AsyncCharger
from ratelimit.metering.assignments import COUNTER, read_assignments
from ratelimit.shortcuts.coalescing import Coalescer, Reply
from ratelimit.shortcuts.leases import MIN_RETURN_DELAY, NANOSECONDS
from ratelimit.stores.async_transport import await_within
from ratelimit.stores.breaker import PAUSED, PausedCalls
from ratelimit.stores.failures import CONNECTION_ERRORS
from ratelimit.stores.scripts import CHECK, SETTLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import redis.asyncio

    from ratelimit.decision.settlement import Settlement
    from ratelimit.engine.check_script import ScriptArgument
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.engine.settle_script import SettleCall, SettleOptions
    from ratelimit.metering.assignments import Command
    from ratelimit.observers.activity import Activity
    from ratelimit.observers.observer import NoteDecision, Observer
    from ratelimit.policy import Limit, Policy
    from ratelimit.stores.async_transport import AsyncTransport
    from ratelimit.stores.clients import Store
    from ratelimit.stores.scripts import Script

_ASSIGNMENTS_DEADLINES: Final = 20
"""Reading all assignments may take this many deadlines: there may be many keys, and no check waits for it."""


class AsyncBase(BaseLimiter):
    """What lies behind the methods of `AsyncLimiter`; `BlockingBase` is the same for threads."""

    _opened_store: Store[redis.asyncio.Redis, AsyncTransport]
    _charger: AsyncCharger

    def __init__(
        self,
        policy: Policy | Limit | Iterable[Limit],
        settle_options: SettleOptions,
        deadline: float,
        observers: Iterable[Observer],
    ) -> None:
        super().__init__(policy, settle_options, observers)
        self._charger = AsyncCharger(
            lambda call: self._run_script(SETTLE, call.keys, call.args), self._ask_store, settle_options
        )
        self._deadline = deadline
        self._coalescer = Coalescer(self._run_check_script)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._return_timer: asyncio.TimerHandle | None = None
        self._return_time = 0  # when the timer ends, monotonic nanoseconds

    async def _decide(self, check: ResolvedCheck) -> Decision:
        """Decide a check and tell the observers."""
        now = time.monotonic_ns()
        return await self._end_decision(check, self._start_decision(check, now), now)

    async def _look(self, check: ResolvedCheck) -> Decision:
        """Decide a check that takes nothing. The observers are not told."""
        return await self._finish_decision(check, self._coalescer.submit(check), time.monotonic_ns(), ())

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
        if (decision := self._denial_memory.find_denial(check, now)) is not None:
            return decision
        if leases and (wanted := self._leases.plan_lease(check, now)):
            self._take_lease(wanted, now)
        return self._coalescer.submit(check)

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

        self._coalescer.submit(wanted).add_done_callback(add_lease)

    def _schedule_lease_return(self, end: int) -> None:
        """Start a timer that returns leases soon after `end`, so that they end even if no check comes.

        Args:
            end: when a lease ends, monotonic nanoseconds.
        """
        if self._closed or (self._return_timer is not None and self._return_time <= end):
            return
        if self._return_timer is not None:
            self._return_timer.cancel()
        wait = max(end - time.monotonic_ns(), MIN_RETURN_DELAY) / NANOSECONDS
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
        await self._coalescer.drain()
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
        [count] = await self._send_commands([("GET", UNREAD)])
        return int(count or 0)

    async def publish_activity(self, activity: Activity) -> None:
        """Tell the store what an observer has counted; see `Limiter.publish_activity`."""
        if commands := activity.encode_report():
            await self._send_commands(commands)

    async def _write_assignment(self, commands: list[Command]) -> None:
        await self._send_commands(commands)
        await self._read_assignments()

    async def _send_commands(self, commands: list[Command]) -> list[Any]:
        """Send commands together and return their replies."""
        started = time.monotonic_ns()
        try:
            pipeline: Any = self._opened_store.client.pipeline()
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = await await_within(self._deadline, pipeline.execute())
        except CONNECTION_ERRORS as error:
            self._note_failure(error, started)
            raise self._make_unavailable_error(error) from None
        self._note_call(0, started)
        return replies

    async def _read_assignments(self) -> None:
        client: Any = self._opened_store.client
        started = time.monotonic_ns()
        try:
            counter = await await_within(self._deadline, client.get(COUNTER)) or b""
            self._note_call(0, started)
            if counter != self._assignments_counter:
                deadline = _ASSIGNMENTS_DEADLINES * self._deadline
                keys = await await_within(deadline, client.hgetall(KEYS))
                tenants = await await_within(deadline, client.hgetall(TENANTS))
                self._set_assignments(counter, await asyncio.to_thread(read_assignments, keys, tenants))
        except CONNECTION_ERRORS as error:
            self._note_failure(error, started)
            raise self._make_unavailable_error(error) from None

    async def _run_check_script(self, checks: list[ResolvedCheck]) -> list[bytes]:
        call = self._run_script(CHECK, *self._encode_checks(checks), checks=len(checks))
        return split_replies(await call)

    async def _run_settle_script(self, call: SettleCall) -> Settlement:
        started = time.monotonic_ns()
        try:
            reply = await self._run_script(SETTLE, call.keys, call.args)
        except CONNECTION_ERRORS as error:
            raise self._make_unavailable_error(error) from None
        return self._read_settlement(call, reply, started)

    def _probe_store(self) -> None:
        """Try the store in the background. No check waits for that."""
        task = asyncio.get_running_loop().create_task(self._ask_store())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask_store(self) -> bool:
        """Return whether the store answers."""
        started = time.monotonic_ns()
        try:
            await self._opened_store.transport.call("PING")
        except CONNECTION_ERRORS as error:
            self._note_failure(error, started)
            return False
        self._note_call(0, started)
        return True

    async def _run_script(
        self, script: Script, keys: list[str], args: list[ScriptArgument], *, checks: int = 0
    ) -> Any:  # noqa: ANN401 - replies have many types
        call = self._opened_store.transport.call
        started = time.monotonic_ns()
        if self._breaker.is_open and (choice := self._breaker.choose(started)) != "call":
            if choice == "probe":
                self._probe_store()
            raise PausedCalls(PAUSED)
        try:
            try:
                reply = await call("EVALSHA", script.sha, len(keys), *keys, *args)
            except NoScriptError:  # The script did not run: the server was flushed, restarted or replaced.
                reply = await call("EVAL", script.source, len(keys), *keys, *args)
        except CONNECTION_ERRORS as error:
            self._note_failure(error, started)
            raise
        self._note_call(checks, started)
        return reply
