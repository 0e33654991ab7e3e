"""What lies behind the methods of `Limiter`: decisions, leases and calls to the store, for threads."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from ratelimit.engine.check_script import split_into_calls
from ratelimit.engine.keyspace import make_unread_store_key
from ratelimit.errors import StoreUnavailable
from ratelimit.limiters.base import BaseLimiter
from ratelimit.limiters.blocking_cluster import Cluster
from ratelimit.limiters.blocking_server import Server
from ratelimit.limiters.charging import Charger
from ratelimit.limiters.forks import start_again_after_fork
from ratelimit.metering.assignments import read_assignments
from ratelimit.shortcuts.leases import MIN_RETURN_DELAY, NANOSECONDS
from ratelimit.stores import connect
from ratelimit.stores.failures import CONNECTION_ERRORS
from ratelimit.stores.scripts import REPORT, SETTLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ratelimit.decision.decision import Decision
    from ratelimit.decision.settlement import Settlement
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.engine.settle_script import SettleCall, SettleOptions
    from ratelimit.limiters.blocking_server import Calls
    from ratelimit.observers.activity import Activity
    from ratelimit.observers.observer import Observer
    from ratelimit.policy import Limit, Policy
    from ratelimit.stores.clients import Store
    from ratelimit.stores.transport import Command, Transport


class BlockingBase(BaseLimiter):
    """What lies behind the methods of `Limiter`; `AsyncBase` is the same for asyncio."""

    _calls: Calls
    _charger: Charger
    _opened_store: Store[Transport]
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
        self._lease_lock = threading.Lock()  # held while leases are read or changed
        self._return_lock = threading.Lock()  # held while leases are returned; taken before `_lease_lock`
        self._return_timer: threading.Timer | None = None
        self._return_time = 0  # when the timer ends, monotonic nanoseconds
        self._process = os.getpid()

    def _connect(self, store: str, deadline: float) -> Store[Transport]:
        """Open the store."""
        self._opened_store, self._deadline = connect(store, deadline), deadline
        self._open_calls()
        return self._opened_store

    def _open_calls(self) -> None:
        opened, deadline = self._opened_store, self._deadline
        if opened.url.kind == "cluster":
            self._calls = Cluster(
                opened.open_transport,
                opened.url.hosts,
                deadline,
                self._make_watch,
                self._encode_checks,
                self._encode_refund,
            )
        else:
            self._calls = Server(
                lambda limit: opened.open_transport(limit, None),
                deadline,
                self._make_watch(),
                self._encode_checks,
            )
        self._charger = Charger(self._encode_charge, self._run_settle_calls, self._calls.ask)

    def _decide(self, check: ResolvedCheck) -> Decision:
        """Decide a check and tell the observers."""
        started = time.monotonic_ns()
        decision, call_size = self._decide_locally(check), 0
        if decision is None:
            [(decision, call_size)] = self._decide_in_store([check])
        for note_decision in self._observers.note_decision:
            note_decision(check, decision, started, call_size)
        return decision

    def _look(self, check: ResolvedCheck) -> Decision:
        """Decide a check that takes nothing. The observers are not told."""
        return self._decide_in_store([check])[0][0]

    def _decide_many(self, checks: list[ResolvedCheck]) -> list[Decision]:
        started = time.monotonic_ns()
        local = [self._decide_locally(check) for check in checks]
        others = [check for check, decision in zip(checks, local, strict=True) if decision is None]
        decided = iter([each for call in split_into_calls(others) for each in self._decide_in_store(call)])
        decisions = [(decision, 0) if decision is not None else next(decided) for decision in local]
        for note_decision in self._observers.note_decision:
            for check, (decision, call_size) in zip(checks, decisions, strict=True):
                note_decision(check, decision, started, call_size)
        return [decision for decision, _ in decisions]

    def _decide_locally(self, check: ResolvedCheck) -> Decision | None:
        """Decide a check with leased tokens or from the denial memory; None if it must go to the store.

        If a lease is worth its call, this takes one and decides the check with its tokens.
        """
        now = time.monotonic_ns()
        leases = bool(check.subject.layout.lease_amounts)
        decision = self._spend_lease(check, now) if leases else None
        decision = decision or self._denial_memory.find_denial(check, now)
        return self._take_lease(check, now) if decision is None and leases else decision

    def _decide_in_store(self, checks: list[ResolvedCheck]) -> list[tuple[Decision, int]]:
        """Decide checks with one call. Beside each decision is how many checks the store decided in it."""
        sent = time.monotonic_ns()
        replies = self._calls.run_checks(checks)
        return [
            (self._decide_without_store(check), 0)
            if isinstance(reply, Exception)
            else (self._finish_decision(check, reply, sent), len(checks))
            for check, reply in zip(checks, replies, strict=True)
        ]

    def _finish_decision(self, check: ResolvedCheck, reply: bytes, sent: int) -> Decision:
        """Return the decision in a reply. If it is a denial, try to spend leased tokens."""
        decision = self._read_decision(check, reply, sent)
        if decision or not check.subject.layout.lease_amounts:
            return decision
        # Another thread may have taken a lease in the meantime, and with it the bucket's last tokens.
        return self._spend_lease(check, time.monotonic_ns()) or decision

    def _spend_lease(self, check: ResolvedCheck, now: int) -> Decision | None:
        """Decide a check with leased tokens; None if there are not enough."""
        with self._lease_lock:
            return self._leases.spend(check, now)

    def _take_lease(self, check: ResolvedCheck, now: int) -> Decision | None:
        """Take a lease if it is worth its call, and decide the check with its tokens; None if not."""
        with self._lease_lock:
            wanted = self._leases.plan_lease(check, now)
        if wanted is None:
            return None
        [reply] = self._calls.run_checks([wanted])
        if isinstance(reply, Exception):  # If the store took tokens, they are lost as after a crash.
            return self._decide_without_store(check)
        self._outage.remember_reply(wanted, reply)
        received = time.monotonic_ns()
        with self._lease_lock:
            # After `close` nobody would return it.
            if self._closed or not self._leases.add_lease(wanted, reply, now, received):
                return None
            self._schedule_lease_return(received + wanted.subject.layout.lease_ttl * 1000)
            return self._leases.spend(check, received)

    def _schedule_lease_return(self, end: int) -> None:
        """Start a timer that returns leases soon after `end`, so that they end even if no check comes.

        Callers hold `_lease_lock`.

        Args:
            end: when a lease ends, monotonic nanoseconds.
        """
        if self._closed or (self._return_timer is not None and self._return_time <= end):
            return
        if self._return_timer is not None:
            self._return_timer.cancel()
        wait = max(end - time.monotonic_ns(), MIN_RETURN_DELAY) / NANOSECONDS
        self._return_timer, self._return_time = threading.Timer(wait, self._return_expired_leases), end
        self._return_timer.daemon = True
        self._return_timer.start()

    def _return_expired_leases(self) -> None:
        with self._return_lock:
            with self._lease_lock:
                self._return_timer = None
                expired = self._leases.pop_expired(time.monotonic_ns())
                if (end := self._leases.next_end) is not None:
                    self._schedule_lease_return(end)
            if not self._closed:
                self._return_leases(expired)

    def _return_leases(self, expired: list[ResolvedCheck]) -> None:
        """Return the unspent tokens of leases to the store.

        After a fork the child does nothing here: the leases are the parent's.
        """
        if os.getpid() != self._process:
            return
        with contextlib.suppress(StoreUnavailable):  # The remaining tokens are lost, as after a crash.
            for check in expired:
                self._run_settle_script(self._encode_lease_return(check))

    def _close_leases(self) -> None:
        """Return all leases, charge what an outage left, and take no more."""
        with self._return_lock:
            with self._lease_lock:
                self._closed = True
                expired = self._leases.pop_expired()
                if self._return_timer is not None:
                    self._return_timer.cancel()
            self._return_leases(expired)
        self._charger.close(self._outage)

    def _forget_buckets(self, store_keys: Sequence[str]) -> None:
        """Forget the denials and leases of buckets that have been reset."""
        with self._lease_lock:
            super()._forget_buckets(store_keys)
            if (end := self._leases.next_end) is not None:
                self._schedule_lease_return(end)

    def count_trimmed_unread(self) -> int:
        """Count the usage records that were removed from the stream unread, by any limiter on this store.

        A record is unread if a consumer group had not read it, or if there was no group at all. The count
        starts again at 0 when the stream has not been trimmed for three times `usage_age`.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        streams = self._resolver.keyspace.usage_streams
        counts = self._run_commands([("GET", make_unread_store_key(stream)) for stream in streams])
        return sum(int(count or 0) for count in counts)

    def publish_activity(self, activity: Activity) -> None:
        """Tell the store what an observer has counted since the last time, for `ratelimit top`.

        Call this every second. If nothing was counted, nothing is sent.

        Args:
            activity: one of this limiter's `observers`.

        Raises:
            StoreUnavailable: the store did not answer. The next call tells it.
        """
        for keys, args in activity.encode_report(self._resolver.keyspace):
            try:
                self._calls.run_script(REPORT, keys, args)
            except CONNECTION_ERRORS as error:
                raise self._make_unavailable_error(error) from None

    def _write_assignment(self, commands: Sequence[Command]) -> None:
        self._run_commands(commands)
        self._read_assignments()

    def _run_commands(self, commands: Sequence[Command], *, is_long: bool = False) -> list[Any]:
        """Run commands together and return their replies."""
        try:
            return self._calls.run_commands(commands, is_long=is_long)
        except CONNECTION_ERRORS as error:
            raise self._make_unavailable_error(error) from None

    def _read_assignments(self) -> None:
        keyspace = self._resolver.keyspace
        [counter] = self._run_commands([("GET", keyspace.counter)])
        if (counter or b"") != self._assignments_counter:
            commands: Sequence[Command] = [("HGETALL", keyspace.keys), ("HGETALL", keyspace.tenants)]
            stored = self._run_commands(commands, is_long=True)
            self._set_assignments(counter or b"", read_assignments(*stored))

    def _run_settle_calls(self, call: SettleCall) -> list[Sequence[bytes | str]]:
        return [self._calls.run_script(SETTLE, part.keys, part.args) for part in call.calls]

    def _run_settle_script(self, call: SettleCall) -> Settlement:
        started = time.monotonic_ns()
        try:
            replies = self._run_settle_calls(call)
        except CONNECTION_ERRORS as error:
            self._note_unanswered(call, error)
            raise self._make_unavailable_error(error) from None
        return self._read_settlement(call, replies, started)
