"""The blocking limiter."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from ratelimit.engine.layout import KEYS, TENANTS
from ratelimit.errors import RateLimited
from ratelimit.limiters.base import CONNECTION_ERRORS, CheckInput
from ratelimit.limiters.blocking_base import BlockingBase
from ratelimit.limiters.reservation import Reservation
from ratelimit.metering import assignments
from ratelimit.stores import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Unpack

    from ratelimit.decision.decision import Decision
    from ratelimit.decision.settlement import Settlement
    from ratelimit.metering.assignments import Command
    from ratelimit.policy import Limit, Policy
    from ratelimit.request.check import CheckOptions
    from ratelimit.request.usage import Usage


class Limiter(BlockingBase):
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
        self._opened = connect(store, deadline)
        self._at(self._opened.url)
        self.address = self._opened.address

    def check(self, key: CheckInput, **options: Unpack[CheckOptions]) -> Decision:
        """Ask whether a request may pass, and charge it if so.

        Args:
            key: the API key's identifier; or a whole `Check`, or its fields as a mapping.
            **options: see `CheckOptions`: timestamp, plan, model, tenant, cost, request_id, reserve.

        Raises:
            InvalidRequest: the check cannot be asked; nothing was charged.
        """
        return self._one(self._ask(key, options))

    def check_many(self, checks: Sequence[CheckInput]) -> list[Decision]:
        """Ask for up to 256 requests in one call; each is all or nothing on its own, in order.

        Raises:
            InvalidRequest: one of the checks cannot be asked; nothing was charged for any.
        """
        return self._decide(self._ask_many(checks))

    def peek(self, key: CheckInput, **options: Unpack[CheckOptions]) -> Decision:
        """Say what a check would answer now, and charge nothing."""
        return self._one(self._ask(key, options, take=False))

    def acquire(
        self, key: CheckInput, *, timeout: float | None = None, **options: Unpack[CheckOptions]
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
        check = self._ask_acquire(key, options)
        while not (decision := self._one(check)):
            wait = decision.retry_after
            if wait is None or (until is not None and time.monotonic() + wait > until):
                raise RateLimited(decision)
            time.sleep(wait)
        return decision

    def reserve(self, key: CheckInput, **options: Unpack[CheckOptions]) -> Reservation:
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
        """Assign a plan or tenant to a key, or block it, for every limiter on this store.

        An assignment goes before the policy's `keys` and stays until the key is assigned again.
        With nothing given, the policy applies to the key again. Other limiters see the change at
        their next `refresh`; the sidecar refreshes twice a second.

        Args:
            key: the API key's identifier.
            plan: the key's plan.
            tenant: who owns the key.
            blocked: whether to deny every request of the key.

        Raises:
            InvalidRequest: a field is wrong, or there is no such plan.
            StoreUnavailable: the store did not answer.
        """
        self._store_assignment(self._encode_key_assignment(key, plan=plan, tenant=tenant, blocked=blocked))

    def assign_tenant(self, tenant: str, *, plan: str | None = None) -> None:
        """Assign a plan to a tenant, for every key of the tenant that has no plan of its own.

        It goes before the policy's `tenants`; otherwise as `assign`.

        Args:
            tenant: the tenant, 1 to 256 visible ASCII characters.
            plan: the plan; None leaves the tenant to the policy again.

        Raises:
            InvalidRequest: a field is wrong, or there is no such plan.
            StoreUnavailable: the store did not answer.
        """
        self._store_assignment(self._encode_tenant_assignment(tenant, plan))

    def _store_assignment(self, commands: list[Command]) -> None:
        try:
            pipeline: Any = self._opened.client.pipeline()
            for command in commands:
                pipeline.execute_command(*command)
            pipeline.execute()
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None
        self.refresh()

    def refresh(self) -> None:
        """Read what has been assigned to keys and tenants since the last time.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        client: Any = self._opened.client
        try:
            counter = client.get(assignments.COUNTER) or b""
            if counter != self._assignments_counter:
                stored = client.hgetall(KEYS), client.hgetall(TENANTS)
                self._set_assignments(counter, assignments.read_assignments(*stored))
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
            self._reset(names)
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

    def close(self) -> None:
        """Close every connection; stop the embedded server if nobody else uses it."""
        if self._closed:
            return
        self._close()
        self._opened.transport.close()
        self._opened.client.close()
        self._opened.client.connection_pool.disconnect()
        self._opened.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
