"""How a blocking limiter decides: with leased tokens, from memory, or by asking the store."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

from ratelimit.engine.check_script import split_into_calls, split_replies
from ratelimit.errors import StoreUnavailable
from ratelimit.limiters.base import CONNECTION_ERRORS, BaseLimiter
from ratelimit.shortcuts.leases import LOOK_AGAIN, NANOSECONDS
from ratelimit.stores.scripts import CHECK, SETTLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import redis

    from ratelimit.decision.decision import Decision
    from ratelimit.decision.settlement import Settlement
    from ratelimit.engine.check_script import ScriptArgument
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.policy import Limit, Policy
    from ratelimit.stores.clients import Store
    from ratelimit.stores.scripts import Script
    from ratelimit.stores.transport import Transport


class BlockingBase(BaseLimiter):
    """What `Limiter` does behind its methods."""

    _opened: Store[redis.Redis, Transport]

    def __init__(
        self,
        policy: Policy | Limit | Iterable[Limit],
        max_skew: float | None,
        remember: float,
    ) -> None:
        super().__init__(policy, max_skew, remember)
        self._spending = threading.Lock()  # held where leases are used
        self._returning = threading.Lock()  # held while they are given back; taken before the other
        self._timer: threading.Timer | None = None
        self._looks_at = 0
        self._process = os.getpid()

    def _one(self, check: ResolvedCheck) -> Decision:
        known = self._known(check)
        return self._ask_store([check])[0] if known is None else known

    def _decide(self, checks: list[ResolvedCheck]) -> list[Decision]:
        known = [self._known(check) for check in checks]
        asked = [check for check, decision in zip(checks, known, strict=True) if decision is None]
        answers = iter([decision for call in split_into_calls(asked) for decision in self._ask_store(call)])
        return [next(answers) if decision is None else decision for decision in known]

    def _known(self, check: ResolvedCheck) -> Decision | None:
        """Decide a check without asking the store about it, if that is possible."""
        now = time.monotonic_ns()
        leases = bool(check.subject.layout.lease_amounts)
        decision = self._spend(check, now) if leases else None
        decision = decision or self._denial_memory.find_denial(check, now)
        return self._lease(check, now) if decision is None and leases else decision

    def _spend(self, check: ResolvedCheck, now: int) -> Decision | None:
        """Decide a check with tokens taken in advance."""
        with self._spending:
            return self._leases.spend(check, now)

    def _lease(self, check: ResolvedCheck, now: int) -> Decision | None:
        """Take tokens in advance if they are worth it, and decide the check with them."""
        with self._spending:
            wanted = self._leases.plan_lease(check, now)
        if wanted is None:
            return None
        try:
            [reply] = split_replies(self._run(CHECK, *self._encode([wanted])))
        except CONNECTION_ERRORS as error:  # what was taken, if it was, is lost as in a crash
            return self._without_store(check, error)
        self._outage.note_success()
        heard = time.monotonic_ns()
        with self._spending:
            if not self._leases.add_lease(wanted, reply, now, heard):
                return None
            self._look_at(heard + wanted.subject.layout.lease_ttl * 1000)
            return self._leases.spend(check, heard)

    def _look_at(self, end: int) -> None:
        """See to it that leases end also when nobody asks any more."""
        if self._closed or (self._timer is not None and self._looks_at <= end):
            return
        if self._timer is not None:
            self._timer.cancel()
        wait = max(end - time.monotonic_ns(), LOOK_AGAIN) / NANOSECONDS
        self._timer, self._looks_at = threading.Timer(wait, self._look), end
        self._timer.daemon = True
        self._timer.start()

    def _look(self) -> None:
        with self._returning:
            with self._spending:
                self._timer = None
                over = self._leases.pop_expired(time.monotonic_ns())
                if (end := self._leases.next_end) is not None:
                    self._look_at(end)
            if not self._closed:
                self._give_back(over)

    def _give_back(self, over: list[ResolvedCheck]) -> None:
        """Return to the store what is left of leases, but for those of a process that we were forked from."""
        if os.getpid() != self._process:
            return
        with contextlib.suppress(StoreUnavailable):  # the rest is lost, as in a crash
            for check in over:
                self._settle(*self._encode_return(check))

    def _ask_store(self, checks: list[ResolvedCheck]) -> list[Decision]:
        sent = time.monotonic_ns()
        try:
            replies = split_replies(self._run(CHECK, *self._encode(checks)))
        except CONNECTION_ERRORS as error:
            return [self._without_store(check, error) for check in checks]
        self._outage.note_success()
        return [self._told(check, reply, sent) for check, reply in zip(checks, replies, strict=True)]

    def _told(self, check: ResolvedCheck, reply: bytes, sent: int) -> Decision:
        """Return what the store decided; what it could not give may have been leased meanwhile."""
        decision = self._read(check, reply, sent)
        if decision or not check.subject.layout.lease_amounts:
            return decision
        return self._spend(check, time.monotonic_ns()) or decision

    def _settle(self, keys: list[str], args: list[ScriptArgument]) -> Settlement:
        try:
            reply = self._run(SETTLE, keys, args)
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None
        return self._read_settle(reply)

    def _run(self, script: Script, keys: list[str], args: list[ScriptArgument]) -> Any:  # noqa: ANN401 - whatever it says
        call = self._opened.transport.call
        try:
            return call("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:  # it did not run: a flush, a restart, a failover
            return call("EVAL", script.source, len(keys), *keys, *args)

    def _reset(self, names: Sequence[str]) -> None:
        """Forget buckets that have been emptied."""
        with self._spending:
            self._emptied(names)
            if (end := self._leases.next_end) is not None:
                self._look_at(end)

    def _close(self) -> None:
        """Give back all that is leased, and lease no more."""
        with self._returning:
            with self._spending:
                self._closed = True
                over = self._leases.pop_expired()
                if self._timer is not None:
                    self._timer.cancel()
            self._give_back(over)
