"""The blocking limiter."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from redis.exceptions import NoScriptError

from ratelimit import assignments
from ratelimit.call import calls_of
from ratelimit.errors import RateLimited, StoreUnavailable
from ratelimit.layout import KEYS
from ratelimit.leases import LOOK_AGAIN, NANOSECONDS
from ratelimit.reservation import Reservation
from ratelimit.scripts import CHECK, SETTLE
from ratelimit.shell import CONNECTION_ERRORS, AskedFor, Shell
from ratelimit.stores import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Unpack

    from ratelimit.ask import Question
    from ratelimit.decision import Decision
    from ratelimit.policy import Limit, Policy
    from ratelimit.request import CheckOptions
    from ratelimit.scripts import Script
    from ratelimit.settlement import Settlement
    from ratelimit.usage import Usage


class Limiter(Shell):
    """Decides which requests may pass; for threads. `AsyncLimiter` is the same for asyncio.

    ```python
    limiter = Limiter("redis://localhost:6379", Policy.from_file("policy.yaml"))
    decision = limiter.check("vk_9f3", model="qwen3-4b", cost={"tokens": 850})
    ```

    Safe to share between threads; create a new one after a fork.

    Args:
        store: the URL of the store: `redis://`, `rediss://`, `unix://`, `embedded://[path]` for
            a private server, `memory://` for none at all.
        policy: a policy, one limit, or several.
        max_skew: seconds that a request's timestamp may lie ahead of the store's clock;
            None trusts timestamps entirely, for replays.
        deadline: seconds that one call of the store may take before `on_outage` applies.
        remember: seconds for which reservations can be settled, and repeated checks and
            settlements get their first answer; 1 to 86400.

    Raises:
        InvalidRequest: the URL names no store, or an argument is out of range.
        PolicyError: the policy cannot be run.
        StoreUnavailable: the embedded server does not start.
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
        opened = connect(store, deadline)
        self._at(opened.url)
        self._opened = opened
        self._spending = threading.Lock()  # held where leases are used
        self._returning = threading.Lock()  # held while they are given back; taken before the other
        self._timer: threading.Timer | None = None
        self._looks_at = 0
        self.address = opened.address

    def check(self, key: AskedFor, **options: Unpack[CheckOptions]) -> Decision:
        """Ask whether a request may pass, and charge it if so.

        Args:
            key: the API key's identifier; or a whole `Check`, or its fields as a mapping.
            **options: see `CheckOptions`: timestamp, plan, model, tenant, cost, request_id, reserve.

        Raises:
            InvalidRequest: the check cannot be asked; nothing was charged.
        """
        return self._one(self._ask(key, options))

    def check_many(self, checks: Sequence[AskedFor]) -> list[Decision]:
        """Ask for up to 256 requests in one call; each is all or nothing on its own, in order.

        Raises:
            InvalidRequest: one of the checks cannot be asked; nothing was charged for any.
        """
        return self._decide(self._ask_many(checks))

    def peek(self, key: AskedFor, **options: Unpack[CheckOptions]) -> Decision:
        """Say what a check would answer now, and charge nothing."""
        return self._one(self._ask(key, options, take=False))

    def acquire(
        self, key: AskedFor, *, timeout: float | None = None, **options: Unpack[CheckOptions]
    ) -> Decision:
        """Wait until a request may pass.

        Args:
            key: the API key's identifier.
            timeout: seconds to wait at most; None waits for as long as it takes.
            **options: as for `check`, but for the timestamp: waiting goes by the store's clock.

        Raises:
            RateLimited: it will not pass in time, or never can; said at once, not at the end.
            InvalidRequest: the check cannot be asked.
        """
        until = None if timeout is None else time.monotonic() + timeout
        question = self._ask_acquire(key, options)
        while not (decision := self._one(question)):
            wait = decision.retry_after
            if wait is None or (until is not None and time.monotonic() + wait > until):
                raise RateLimited(decision)
            time.sleep(wait)
        return decision

    def reserve(self, key: AskedFor, **options: Unpack[CheckOptions]) -> Reservation:
        """Check a request whose cost is an estimate, and hold it until it is settled.

        ```python
        with limiter.reserve("vk_9f3", cost={"tokens": 2000}) as reservation:
            reservation.settle(Usage(input_tokens=310, output_tokens=502, status=200))
        ```

        Left without being settled, be it by an error, the estimate stays charged and what the
        request held is freed. `cancel()` gives back what was taken.

        Raises:
            RateLimited: the check was denied.
            InvalidRequest: the check cannot be asked; nothing was charged.
        """
        return Reservation(self, self._one(self._ask_reserve(key, options)))

    def settle(self, usage: Usage | Mapping[str, Any], *, reservation: str | None = None) -> Settlement:
        """Charge what a request really used.

        With a reservation: actual - estimate on every limit that the check took from, below empty
        if need be, once. Without one: what was used, to the limits of the key's plan.

        Args:
            usage: what was used, and by whom.
            reservation: the reservation's id, unless `usage` names it.

        Raises:
            UnknownReservation: it never was, or was forgotten.
            InvalidRequest: the record cannot be charged.
            StoreUnavailable: the store did not answer; whether it was charged is not known, and
                settling the same reservation again is safe.
        """
        return self._settle(*self._encode_settle(usage, reservation))

    def cancel(self, reservation: str) -> Settlement:
        """Give back what a reservation took, once; nothing happens if it is settled or cancelled already.

        Raises:
            UnknownReservation: it never was, or was forgotten.
            StoreUnavailable: the store did not answer; trying again is safe.
        """
        return self._settle(*self._encode_reservation("cancel", reservation))

    def release(self, reservation: str) -> None:
        """Free the slots that a reservation holds and leave the rest to be settled later.

        Raises:
            UnknownReservation: it never was, or was forgotten.
            StoreUnavailable: the store did not answer; the slots free themselves in time.
        """
        self._settle(*self._encode_reservation("release", reservation))

    def assign(
        self, key: str, *, plan: str | None = None, tenant: str | None = None, blocked: bool = False
    ) -> None:
        """Assign a plan or tenant to a key, or shut it, for every limiter on this store.

        It goes before what the policy says of the key, and stays until it is assigned anew;
        with nothing given the key is left to the policy again. Limiters elsewhere see it when
        they next `refresh`; the sidecar does so all the time.

        Raises:
            InvalidRequest: a field is wrong, or there is no such plan.
            StoreUnavailable: the store did not answer.
        """
        commands = self._assign(key, {"plan": plan, "tenant": tenant, "blocked": blocked})
        try:
            pipeline: Any = self._opened.client.pipeline()
            for command in commands:
                pipeline.execute_command(*command)
            pipeline.execute()
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None
        self.refresh()

    def refresh(self) -> None:
        """See what has been assigned to keys since.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        client: Any = self._opened.client
        try:
            counter = client.get(assignments.COUNTER) or b""
            if counter != self._assigned_at:
                self._assigned(counter, assignments.read(client.hgetall(KEYS)))
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None

    def reset(self, key: str, *, tenant: str | None = None) -> None:
        """Forget what a key has used. Buckets that it shares with others stay as they are.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        try:
            names = self._owned(key, tenant)
            self._opened.client.unlink(*names)
            with self._spending:
                self._emptied(names)
                if (end := self._leases.next_end) is not None:
                    self._look_at(end)
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None

    def ping(self) -> None:
        """Make sure that the store answers.

        Raises:
            StoreUnavailable: it does not; the message says why.
        """
        try:
            self._opened.client.ping()
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None

    def _one(self, question: Question) -> Decision:
        known = self._known(question)
        return self._ask_store([question])[0] if known is None else known

    def _decide(self, questions: list[Question]) -> list[Decision]:
        known = [self._known(question) for question in questions]
        asked = [question for question, decision in zip(questions, known, strict=True) if decision is None]
        answers = iter([decision for call in calls_of(asked) for decision in self._ask_store(call)])
        return [next(answers) if decision is None else decision for decision in known]

    def _known(self, question: Question) -> Decision | None:
        """Decide a check without asking the store about it, if that is possible."""
        now = time.monotonic_ns()
        leases = bool(question.route.layout.lease)
        decision = self._spend(question, now) if leases else None
        decision = decision or self._denials.answer(question, now)
        return self._lease(question, now) if decision is None and leases else decision

    def _spend(self, question: Question, now: int) -> Decision | None:
        """Decide a check with tokens taken in advance."""
        with self._spending:
            return self._leases.spend(question, now)

    def _lease(self, question: Question, now: int) -> Decision | None:
        """Take tokens in advance if they are worth it, and decide the check with them."""
        with self._spending:
            wanted = self._leases.wanted(question, now)
        if wanted is None:
            return None
        try:
            [reply] = self._run(CHECK, *self._encode([wanted]))
        except CONNECTION_ERRORS as error:  # what was taken, if it was, is lost as in a crash
            return self._without_store(question, error)
        self._outage.ended()
        heard = time.monotonic_ns()
        with self._spending:
            if not self._leases.granted(wanted, reply, now, heard):
                return None
            self._look_at(heard + wanted.route.layout.lease_ttl * 1000)
            return self._leases.spend(question, heard)

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
                over = self._leases.over(time.monotonic_ns())
                if (end := self._leases.next_end) is not None:
                    self._look_at(end)
            if not self._closed:
                self._give_back(over)

    def _give_back(self, over: list[Question]) -> None:
        """Return to the store what is left of leases."""
        with contextlib.suppress(StoreUnavailable):  # the rest is lost, as in a crash
            for question in over:
                self._settle(*self._encode_return(question))

    def _ask_store(self, questions: list[Question]) -> list[Decision]:
        sent = time.monotonic_ns()
        try:
            replies = self._run(CHECK, *self._encode(questions))
        except CONNECTION_ERRORS as error:
            return [self._without_store(question, error) for question in questions]
        self._outage.ended()
        return [self._told(question, reply, sent) for question, reply in zip(questions, replies, strict=True)]

    def _told(self, question: Question, reply: bytes | str, sent: int) -> Decision:
        """Return what the store decided; what it could not give may have been leased meanwhile."""
        decision = self._read(question, reply, sent)
        if decision or not question.route.layout.lease:
            return decision
        return self._spend(question, time.monotonic_ns()) or decision

    def _settle(self, keys: list[str], args: list[str | float]) -> Settlement:
        try:
            reply = self._run(SETTLE, keys, args)
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None
        return self._read_settle(reply)

    def _run(self, script: Script, keys: list[str], args: list[str | float]) -> Any:  # noqa: ANN401 - whatever it says
        call = self._opened.wire.call
        try:
            return call("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:  # it did not run: a flush, a restart, a failover
            return call("EVAL", script.source, len(keys), *keys, *args)

    def close(self) -> None:
        """Close every connection; stop the embedded server if nobody else uses it."""
        if self._closed:
            return
        with self._returning:
            with self._spending:
                self._closed = True
                over = self._leases.over()
                if self._timer is not None:
                    self._timer.cancel()
            self._give_back(over)
        self._opened.wire.close()
        self._opened.client.close()
        self._opened.client.connection_pool.disconnect()
        self._opened.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
