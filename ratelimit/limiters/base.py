"""What the blocking and the asyncio limiter have in common: everything but the waiting."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

from ratelimit.engine.check_script import ScriptArgument, encode_checks, read_decision, text_of
from ratelimit.engine.layout import KEYS, TENANTS, make_owner_store_key, make_store_key_suffix
from ratelimit.engine.resolver import ResolvedCheck, Resolver
from ratelimit.engine.settle_script import (
    encode_lease_return,
    encode_reservation_end,
    encode_settle,
    find_store_keys,
    read_settlement,
)
from ratelimit.errors import Fault, InvalidRequest, PolicyError, StoreUnavailable
from ratelimit.metering.assignments import (
    KeyAssignment,
    TenantAssignment,
    check_tenant,
    encode_assignment,
    make_assignment,
)
from ratelimit.policy import Limit, Policy
from ratelimit.policy.spec import OTHER
from ratelimit.request.check import MAX_BATCH, Check, invalid_field, make_check
from ratelimit.request.timestamp import MICROSECONDS
from ratelimit.request.usage import make_usage
from ratelimit.shortcuts.denial_memory import DenialMemory
from ratelimit.shortcuts.leases import Leases
from ratelimit.stores.outage import Outage

if TYPE_CHECKING:
    from ratelimit.decision.decision import Decision
    from ratelimit.decision.settlement import Settlement
    from ratelimit.engine.layout import Owner
    from ratelimit.engine.settle_script import SettleAction
    from ratelimit.metering.assignments import Command
    from ratelimit.policy.assignment import Assignments
    from ratelimit.request.check import CheckOptions
    from ratelimit.request.usage import Usage
    from ratelimit.stores import StoreURL

CONNECTION_ERRORS = (RedisError, OSError, TimeoutError)
"""All that can go wrong between us and a store."""

REFUSALS = (AuthenticationError, AuthorizationError, NoPermissionError)
"""What no waiting mends: the store is there and will not serve us."""

CheckInput = Check | str | Mapping[str, Any]
"""What may be asked for: a key, or a whole check, or its fields."""


class BaseLimiter:
    """The state of a limiter that does not depend on how its calls travel."""

    def __init__(
        self, policy: Policy | Limit | Iterable[Limit], max_skew: float | None, remember: float
    ) -> None:
        self._resolver = Resolver(make_policy(policy))
        self._assignments_counter: bytes | None = None
        self._closed = False
        self.max_skew = parse_max_skew(max_skew)
        self.remember = parse_remember(remember)
        self._denial_memory = DenialMemory(self.max_skew)
        self._leases = Leases()

    def _at(self, url: StoreURL) -> None:
        """Note where the store is, once nothing can go wrong any more that would leave it open."""
        self.store = str(url)
        self._outage = Outage(self.store)

    @property
    def policy(self) -> Policy:
        """The policy in force. Assign another to change it: buckets keep what was used."""
        return self._resolver.policy

    @policy.setter
    def policy(self, policy: Policy | Limit | Iterable[Limit]) -> None:
        self._resolver = Resolver(make_policy(policy), self._resolver.assignments)

    @property
    def has_read_assignments(self) -> bool:
        """Whether the assignments in the store have been read at least once; see `Limiter.refresh`."""
        return self._assignments_counter is not None

    def is_known(self, key: str) -> bool:
        """Whether the policy's `keys` or an assignment names a key.

        For callers who turn secrets into keys and obey the policy's `unknown_keys`, as the sidecar does.
        """
        return self._resolver.is_known(key)

    def _set_assignments(self, counter: bytes, assigned: Assignments) -> None:
        self._resolver = self._resolver.with_assignments(assigned)
        self._assignments_counter = counter

    def _ask(
        self, asked: CheckInput, options: CheckOptions | None = None, *, take: bool = True
    ) -> ResolvedCheck:
        if isinstance(asked, str):
            cached = self._resolver.find_cached(asked, options) if take else None
            if cached is not None:
                return cached
            asked = {"key": asked, **(options or {})}
        elif options:
            raise invalid_field(next(iter(options)), "goes into the check itself, not beside it")
        return self._resolver.resolve(make_check(asked), take=take)

    def _ask_many(self, checks: Sequence[CheckInput]) -> list[ResolvedCheck]:
        if isinstance(checks, str | Mapping | Check):
            raise invalid_field("checks", "must be a list; for one, use check")
        if len(checks) > MAX_BATCH:
            raise invalid_field("checks", f"{len(checks)} is too many at once; at most {MAX_BATCH}")
        resolved = []
        for index, check in enumerate(checks):
            try:
                resolved.append(self._ask(check))
            except InvalidRequest as error:
                faults = (fault._replace(path=f"{index}.{fault.path}") for fault in error.faults)
                raise InvalidRequest(list(faults)) from None
        return resolved

    def _encode(self, checks: Sequence[ResolvedCheck]) -> tuple[list[str], list[ScriptArgument]]:
        return encode_checks(checks, self.max_skew, self.remember)

    def _ask_acquire(self, asked: CheckInput, options: CheckOptions) -> ResolvedCheck:
        check = self._ask(asked, options)
        if check.timestamp is not None:
            raise invalid_field("timestamp", "stands still while acquire waits; leave it out")
        return check

    def _ask_reserve(self, asked: CheckInput, options: CheckOptions) -> ResolvedCheck:
        if isinstance(asked, str):
            return self._ask(asked, {**options, "reserve": True})
        return self._ask(make_check(asked).model_copy(update={"reserve": True}), options)

    def _encode_settle(
        self, usage: Usage | Mapping[str, Any], reservation: str | None
    ) -> tuple[list[str], list[ScriptArgument]]:
        more = {} if reservation is None else {"reservation": reservation}
        return encode_settle(self._resolver, make_usage(usage, more), self.max_skew, self.remember)

    def _encode_reservation(
        self, what: SettleAction, reservation: str
    ) -> tuple[list[str], list[ScriptArgument]]:
        return encode_reservation_end(what, reservation, self.max_skew, self.remember)

    def _encode_return(self, check: ResolvedCheck) -> tuple[list[str], list[ScriptArgument]]:
        return encode_lease_return(check, self.max_skew, self.remember)

    def _emptied(self, names: Sequence[str]) -> None:
        """Remember nothing about buckets that have been reset."""
        self._denial_memory.forget_store_keys(names, time.monotonic_ns())
        self._leases.drop_store_keys(names)

    def _encode_key_assignment(self, key: str, **fields: object) -> list[Command]:
        """Return the commands that assign something to a key."""
        key = make_check({"key": key}).key
        assignment = make_assignment(KeyAssignment, fields)
        if assignment.plan is not None:
            self._resolver.require_plan(assignment.plan)
        return encode_assignment(KEYS, key, assignment)

    def _encode_tenant_assignment(self, tenant: str, plan: str | None) -> list[Command]:
        """Return the commands that assign a plan to a tenant."""
        tenant = check_tenant(tenant)
        assignment = make_assignment(TenantAssignment, {"plan": plan})
        if assignment.plan is not None:
            self._resolver.require_plan(assignment.plan)
        return encode_assignment(TENANTS, tenant, assignment)

    def _read_settle(self, reply: Sequence[bytes | str]) -> Settlement:
        self._outage.note_success()
        texts = [text_of(limit_cost) for limit_cost in reply]
        self._denial_memory.forget_store_keys(find_store_keys(texts), time.monotonic_ns())
        return read_settlement(texts)

    def _read(self, check: ResolvedCheck, reply: bytes, sent: int) -> Decision:
        """Return what the store decided, asked at `sent` (monotonic nanoseconds)."""
        decision = read_decision(check, reply)
        if decision.allowed:
            self._denial_memory.forget_check(check)
        else:
            self._denial_memory.remember(check, reply, sent, time.monotonic_ns())
        return decision

    def _without_store(self, check: ResolvedCheck, error: Exception) -> Decision:
        self._outage.note_failure(explain(error))
        return self._outage.decide(check, self.max_skew)

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"{self.store}: {explain(error)}", refused=isinstance(error, REFUSALS))

    def _owned(self, key: str, tenant: str | None) -> list[str]:
        """Return the names under which lies what a key has used, and nobody else."""
        check = make_check({"key": key, "tenant": tenant})
        _, owner, _ = self._resolver.resolve_key(key, None, check.tenant)
        classes = {*self.policy.classes.values(), OTHER}
        limits = [limit for plan in self.policy.plans.values() for limit in plan.limits]
        files = {"", *(f"/{name}" for name in classes)}  # of whatever limits there were before an edit
        files.update(make_store_key_suffix(limit, name) for limit in limits for name in classes)
        owners: tuple[Owner, ...] = ("key", "tenant") if owner == key else ("key",)
        return [make_owner_store_key(whose, key, owner) + file for whose in owners for file in sorted(files)]


def make_policy(policy: Policy | Limit | Iterable[Limit]) -> Policy:
    """Take a policy, or make one of limits.

    Raises:
        PolicyError: it is neither.
    """
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, Limit):
        return Policy.of(policy)
    with contextlib.suppress(TypeError):  # it is not several of anything
        limits = tuple(policy)
        if all(isinstance(limit, Limit) for limit in limits):
            return Policy.of(*limits)
    message = "must be a Policy, a Limit or several; a file is read with Policy.from_file(path)"
    raise PolicyError([Fault("", message)], "policy")


def parse_remember(remember: float) -> int:
    """Return seconds to remember as milliseconds.

    Raises:
        InvalidRequest: it is not from a second to a day.
    """
    if not 1 <= remember <= 86_400:  # noqa: PLR2004 - a day
        raise invalid_field("remember", "must be from 1 to 86400 seconds")
    return round(remember * 1000)


def parse_max_skew(max_skew: float | None) -> int | None:
    """Return seconds of skew as microseconds; None, for trusting timestamps entirely, stays None.

    Raises:
        InvalidRequest: it is negative or above a day.
    """
    if max_skew is None:
        return None
    if not 0 <= max_skew <= 86_400:  # noqa: PLR2004 - a day
        raise invalid_field(
            "max_skew", "must be from 0 to 86400 seconds, or None to trust timestamps entirely"
        )
    return round(max_skew * MICROSECONDS)


def explain(error: Exception) -> str:
    """Say in one line what went wrong between us and a store."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "no answer within the deadline"
    return text.rstrip(".")
