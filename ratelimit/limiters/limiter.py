"""The limiter for threads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from ratelimit.errors import RateLimited
from ratelimit.limiters.arguments import USAGE_AGE, USAGE_LENGTH, make_settle_options
from ratelimit.limiters.blocking_base import BlockingBase
from ratelimit.limiters.closed import CLOSED_CALLS
from ratelimit.limiters.reservation import Reservation
from ratelimit.stores.failures import CONNECTION_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Unpack

    from ratelimit.decision.decision import Decision
    from ratelimit.decision.settlement import Settlement
    from ratelimit.limiters.base import CheckInput
    from ratelimit.observers.observer import Observer
    from ratelimit.policy import Limit, Policy
    from ratelimit.request.check import CheckOptions
    from ratelimit.request.usage import Usage


class Limiter(BlockingBase):
    """Decides which requests may pass, for threads. `AsyncLimiter` is the same for asyncio.

    ```python
    limiter = Limiter("redis://localhost:6379", Policy.from_file("policy.yaml"))
    decision = limiter.check("vk_9f3", model="qwen3-4b", cost={"tokens": 850})
    ```

    Threads may share one limiter. It may be made before a fork, as in `gunicorn --preload` and Celery's
    workers: each child has connections and leases of its own. A limiter is a context manager that closes
    itself at the end of the `with` block.

    Args:
        store: the URL of the store: `redis://`, `rediss://` or `unix://` for a server;
            `redis+sentinel://host:port,host:port/service` for a primary that Sentinels watch;
            `redis+cluster://host:port,host:port` for a cluster; `embedded://` or
            `embedded:///path/to/folder` for a private server, whose folder keeps the data; `memory://`
            or `memory://name` for an imitation inside this process.
        policy: a policy, one limit, or several limits.
        max_skew: seconds that a request's timestamp may lie ahead of the store's clock, from 0 to 86400;
            a later timestamp is brought back to that. None trusts all timestamps, for replays.
        deadline: seconds that one call to the store may take, above 0 and at most 60. After that each
            limit's `on_outage` applies.
        remember: seconds for which a reservation can be settled, and for which a repeated check or
            settlement gets its first answer again; from 1 to 86400.
        usage_length: how many usage records the store keeps, from 0 to 10^9: the newest, and up to a hundred
            more. 0 writes none.
        usage_age: seconds for which the store keeps a usage record, from 1 to 31622400 (366 days); up to a
            hundredth longer.
        observers: what to tell of decisions, calls and settlements; see `Observer`.

    Raises:
        InvalidRequest: the URL names no store, or an argument is out of range.
        PolicyError: the policy cannot be run.
        StoreUnavailable: the embedded server does not start, or the `embedded` extra is missing.
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
        self.address = self._opened_store.address

    def check(self, key: CheckInput, **options: Unpack[CheckOptions]) -> Decision:
        """Decide whether a request may pass, and charge its cost if so.

        The cost is taken from all limits that apply, or from none. During an outage this raises nothing:
        each limit's `on_outage` decides, and the decision's `source` is `outage`.

        Args:
            key: the API key's identifier; or a whole `Check`; or a check's fields as a mapping.
            **options: with a key, the other fields of `Check`: `timestamp`, `plan`, `model`, `tenant`,
                `cost`, `request_id` and `reserve`.

        Returns:
            The decision. It is true if the request may pass.

        Raises:
            InvalidRequest: a field is unknown or out of range, or the policy has no such plan or unit.
                Nothing was charged.
        """
        return self._decide(self._resolve(key, options))

    def check_many(self, checks: Sequence[CheckInput]) -> list[Decision]:
        """Decide up to 256 checks, with as few calls to the store as possible.

        Each check takes its own cost from all its limits or from none. Earlier checks of the list are
        decided first.

        Args:
            checks: keys, `Check` objects or mappings of a check's fields.

        Returns:
            The decisions, in the order of the checks.

        Raises:
            InvalidRequest: a check is invalid, or there are more than 256. Nothing was charged for any.
        """
        return self._decide_many(self._resolve_many(checks))

    def peek(self, key: CheckInput, **options: Unpack[CheckOptions]) -> Decision:
        """Return the decision that `check` would give now, and charge nothing.

        Takes the same arguments and raises the same errors as `check`.
        """
        return self._look(self._resolve(key, options, take=False))

    def acquire(
        self, key: CheckInput, *, timeout: float | None = None, **options: Unpack[CheckOptions]
    ) -> Decision:
        """Wait until a request may pass, and charge its cost.

        Args:
            key: as for `check`.
            timeout: seconds to wait at most; None waits without a bound.
            **options: as for `check`, but without `timestamp`: waiting goes by the store's clock.

        Raises:
            RateLimited: the request can never pass, or not before the timeout. This is raised as soon as
                it is known, which may be before the timeout.
            InvalidRequest: as for `check`; nothing was charged.
        """
        until = None if timeout is None else time.monotonic() + timeout
        check = self._resolve_for_acquire(key, options)
        while not (decision := self._decide(check)):
            wait = decision.retry_after
            if wait is None or (until is not None and time.monotonic() + wait > until):
                raise RateLimited(decision)
            time.sleep(wait)
        return decision

    def reserve(self, key: CheckInput, **options: Unpack[CheckOptions]) -> Reservation:
        """Check a request whose cost is an estimate, and settle it later.

        ```python
        with limiter.reserve("vk_9f3", cost={"tokens": 2000}) as reservation:
            reservation.settle(Usage(input_tokens=310, output_tokens=502, status=200))
        ```

        If the `with` block ends without a settlement, also by an error, the estimate stays charged and
        the reservation's slots are freed. `reservation.cancel()` refunds what was taken.

        Takes the same arguments as `check`.

        Raises:
            RateLimited: the check was denied.
            InvalidRequest: as for `check`; nothing was charged.
        """
        return Reservation(self, self._decide(self._resolve(key, options, reserve=True)))

    def settle(self, usage: Usage | Mapping[str, Any], *, reservation: str | None = None) -> Settlement:
        """Charge what a request really used.

        With a reservation, every limit that the check took from is charged actual - estimate. A bucket
        may go below empty. Settling the same reservation again charges nothing and returns the first
        settlement. Without a reservation, the limits of the key's plan are charged what was used.

        Args:
            usage: the usage record, or its fields as a mapping.
            reservation: the reservation's id, unless `usage` has it.

        Returns:
            The settlement. Its `settled` is false if the reservation was cancelled before.

        Raises:
            UnknownReservation: there is no such reservation, or the time to settle it is over.
            InvalidRequest: a field is wrong, or the reservation belongs to another key.
            StoreUnavailable: the store did not answer. It is not known whether the usage was charged. With
                a reservation it is safe to settle again; without one it may be charged twice.
        """
        return self._run_settle_script(self._encode_settle(usage, reservation))

    def cancel(self, reservation: str) -> Settlement:
        """Refund what a reservation took. If it is settled or cancelled already, nothing happens.

        Raises:
            UnknownReservation: there is no such reservation, or the time to settle it is over.
            StoreUnavailable: the store did not answer. It is safe to cancel again.
        """
        return self._run_settle_script(self._encode_reservation_end("cancel", reservation))

    def release(self, reservation: str) -> None:
        """Free a reservation's slots and keep its estimate charged. It can still be settled later.

        Raises:
            UnknownReservation: there is no such reservation, or the time to settle it is over.
            StoreUnavailable: the store did not answer. The slots become free after the limit's `ttl`.
        """
        self._run_settle_script(self._encode_reservation_end("release", reservation))

    def assign(
        self, key: str, *, plan: str | None = None, tenant: str | None = None, blocked: bool = False
    ) -> None:
        """Assign a plan or a tenant to a key, or block the key, for every limiter on this store.

        An assignment goes before the policy's `keys`. It replaces the key's previous assignment; without
        plan, tenant and block, only the policy applies to the key again. Other limiters see the change at
        their next `refresh`. The sidecar refreshes twice a second.

        Args:
            key: the API key's identifier, 1 to 256 visible ASCII characters.
            plan: the key's plan, one of the policy's.
            tenant: the account that owns the key, 1 to 256 visible ASCII characters.
            blocked: whether to deny every request of the key.

        Raises:
            InvalidRequest: a field is wrong, or the policy has no such plan.
            StoreUnavailable: the store did not answer. It is safe to assign again.
        """
        self._write_assignment(self._encode_key_assignment(key, plan=plan, tenant=tenant, blocked=blocked))

    def assign_tenant(self, tenant: str, *, plan: str | None = None) -> None:
        """Assign a plan to a tenant. It applies to every key of the tenant that has no plan of its own.

        The assignment goes before the policy's `tenants`. Otherwise this is like `assign`.

        Args:
            tenant: the tenant, 1 to 256 visible ASCII characters.
            plan: the plan, one of the policy's; with None only the policy applies to the tenant again.

        Raises:
            InvalidRequest: a field is wrong, or the policy has no such plan.
            StoreUnavailable: the store did not answer. It is safe to assign again.
        """
        self._write_assignment(self._encode_tenant_assignment(tenant, plan))

    def refresh(self) -> None:
        """Read the assignments of keys and tenants from the store, if they have changed since the last time.

        A limiter reads no assignments before the first `refresh`, `assign` or `assign_tenant`.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        self._read_assignments()

    def reset(self, key: str, *, tenant: str | None = None) -> None:
        """Forget what a key has used. Buckets that it shares with other keys stay as they are.

        Args:
            key: the API key's identifier.
            tenant: the key's tenant, unless the policy or an assignment says it.

        Raises:
            InvalidRequest: the key or the tenant is not 1 to 256 visible ASCII characters.
            StoreUnavailable: the store did not answer. It is safe to reset again.
        """
        store_keys = self._list_bucket_keys(key, tenant)
        self._run_commands([("UNLINK", *store_keys)])
        self._forget_buckets(store_keys)

    def ping(self) -> None:
        """Make sure that the store answers.

        Raises:
            StoreUnavailable: it does not; the message says why.
        """
        try:
            self._calls.ping()
        except CONNECTION_ERRORS as error:
            raise self._make_unavailable_error(error) from None

    def close(self) -> None:
        """Return all leases and close the connections. A second call does nothing.

        After that every other method that decides, charges or asks the store raises `LimiterClosed`.
        An embedded server stops when the last limiter of this process that uses it is closed.
        """
        if self._closed:
            return
        self._close_leases()
        calls, self._calls = self._calls, CLOSED_CALLS
        self._forget_what_decides()
        calls.close()
        self._opened_store.release()

    def __enter__(self) -> Self:
        self._require_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
