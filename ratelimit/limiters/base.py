"""What `Limiter` and `AsyncLimiter` have in common: everything except the calls to the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ratelimit.engine.check_script import ScriptArgument, encode_checks, read_decision
from ratelimit.engine.keyspace import make_owner_store_key
from ratelimit.engine.layout import make_store_key_suffix
from ratelimit.engine.refund_script import encode_refund
from ratelimit.engine.resolver import ResolvedCheck, Resolver
from ratelimit.engine.settle_script import (
    encode_charge,
    encode_lease_return,
    encode_reservation_end,
    encode_settle,
    read_settlement,
)
from ratelimit.errors import InvalidRequest, LimiterClosed, StoreUnavailable
from ratelimit.limiters.arguments import make_policy
from ratelimit.limiters.server_watch import ServerWatch
from ratelimit.metering.assignments import (
    KeyAssignment,
    TenantAssignment,
    check_tenant,
    encode_assignment,
    make_assignment,
)
from ratelimit.observers.observer import End, Observers, UnansweredEnd
from ratelimit.policy.spec import OTHER
from ratelimit.request.check import MAX_BATCH, Check, invalid_field, make_check
from ratelimit.request.usage import make_usage
from ratelimit.shortcuts.denial_memory import DenialMemory
from ratelimit.shortcuts.leases import Leases
from ratelimit.stores import StoreURL
from ratelimit.stores.breaker import PausedCalls
from ratelimit.stores.failures import explain_error, is_refusal
from ratelimit.stores.outage import Outage

if TYPE_CHECKING:
    from ratelimit.decision.decision import Decision
    from ratelimit.decision.settlement import Settlement
    from ratelimit.engine.keyspace import Owner
    from ratelimit.engine.settle_script import (
        ScriptCall,
        SettleAction,
        SettleCall,
        SettleOptions,
        SettleReply,
    )
    from ratelimit.limiters.charging import AsyncCharger, Charger
    from ratelimit.metering.assignments import Command
    from ratelimit.observers.observer import EndOutcome, Observer
    from ratelimit.policy import Limit, Policy
    from ratelimit.policy.assignment import Assignments
    from ratelimit.request.check import CheckOptions
    from ratelimit.request.usage import Usage
    from ratelimit.stores.url import Address

CheckInput = Check | str | Mapping[str, Any]
"""What callers pass for a check: a key, a whole check, or a check's fields."""


class BaseLimiter:
    """The state of a limiter that does not depend on how it calls the store.

    Attributes:
        store: the store's URL, without its password.
        max_skew: microseconds that a timestamp may lie ahead of the store's clock; None for no bound.
        remember: milliseconds for which reservations and answers are remembered.
    """

    _charger: Charger | AsyncCharger

    def __init__(
        self,
        store: str,
        policy: Policy | Limit | Iterable[Limit],
        settle_options: SettleOptions,
        observers: Iterable[Observer],
    ) -> None:
        url = StoreURL.parse(store)
        self.store = str(url)
        keyspace = url.keyspace
        self._observers = Observers(observers)
        self._resolver = Resolver(make_policy(policy), keyspace=keyspace)
        self._note_policy()
        self._assignments_counter: bytes | None = None
        self._closed = False
        usage_length = keyspace.share_usage_length(settle_options.usage_length)
        self._settle_options = settle_options._replace(usage_length=usage_length)
        self.max_skew, self.remember = settle_options.max_skew, settle_options.remember
        self._start_in_process()

    def _start_in_process(self) -> None:
        """Begin what belongs to one process: a child must not spend the leases of its parent after a fork."""
        self._open_breakers = 0  # of all servers
        self._breakers_lock = threading.Lock()
        self._outage = Outage(start_charging=self._start_charging)
        self._denial_memory = DenialMemory(self.max_skew)
        self._leases = Leases()

    def _start_in_child(self) -> None:
        """Begin again in a forked child. What an open limiter of the parent holds stays the parent's."""
        if not self._closed:
            self._start_in_process()
            if hasattr(self, "_opened_store"):  # else the fork came while this limiter was made
                self._open_calls()

    def _open_calls(self) -> None:
        """Begin calls to the store, on connections of this process."""
        raise NotImplementedError

    def _make_watch(self, server: Address | None = None) -> ServerWatch:
        """Return what will be known of the store's only server, or of a server of a cluster."""
        name = f"{self.store}, server {server[0]}:{server[1]}," if server else self.store
        return ServerWatch(name, self._observers, self._note_breaker, self._note_answer)

    @property
    def policy(self) -> Policy:
        """The policy in force. To change it, set another one: buckets keep what was used.

        As in the constructor, a single limit or several limits may be set instead of a policy.
        Setting raises `PolicyError` if the value is none of these.
        """
        return self._resolver.policy

    @policy.setter
    def policy(self, policy: Policy | Limit | Iterable[Limit]) -> None:
        previous = self._resolver
        self._resolver = Resolver(make_policy(policy), previous.assignments, previous.keyspace)
        self._note_policy()

    @property
    def has_read_assignments(self) -> bool:
        """Whether `refresh` has read the assignments in the store at least once."""
        return self._assignments_counter is not None

    def is_known(self, key: str) -> bool:
        """Return whether the policy's `keys` or an assignment names this key.

        For callers that turn secrets into keys and follow the policy's `unknown_keys`, as the sidecar does.
        """
        return self._resolver.is_known(key)

    def note_invalid_check(self) -> None:
        """Tell the observers of a check that was refused before this limiter was asked.

        For programs that read checks from elsewhere, as the sidecar does.
        """
        for note_invalid in self._observers.note_invalid:
            note_invalid()

    def count_leased_tokens(self) -> dict[str, float]:
        """Return how many tokens are out on lease in this process and not spent, by the limit's name."""
        return self._leases.count_tokens()

    def _require_open(self) -> None:
        if self._closed:
            raise LimiterClosed

    def _forget_what_decides(self) -> None:
        """Forget what decides checks without the store: a closed limiter must decide none."""
        self._denial_memory, self._leases = DenialMemory(self.max_skew), Leases()

    def _set_assignments(self, counter: bytes, assigned: Assignments) -> None:
        self._resolver = self._resolver.with_assignments(assigned)
        self._assignments_counter = counter

    def _note_policy(self) -> None:
        for note_policy in self._observers.note_policy:
            note_policy(self._resolver.policy)

    def _start_charging(self, outage: Outage) -> None:
        self._charger.start(outage)

    def _note_answer(self) -> None:
        """Note that the store, or a server of it, answered a call."""
        if self._outage.has_buckets:
            self._outage.note_answer()

    def _note_breaker(self, is_open: bool) -> None:  # noqa: FBT001 - a callback
        with self._breakers_lock:
            self._open_breakers += 1 if is_open else -1
            for note_breaker in self._observers.note_breaker:
                note_breaker(self._open_breakers > 0)

    def _resolve(
        self,
        check: CheckInput,
        options: CheckOptions | None = None,
        *,
        take: bool = True,
        reserve: bool = False,
    ) -> ResolvedCheck:
        try:
            if isinstance(check, str):
                cached = self._resolver.find_cached(check, options) if take and not reserve else None
                if cached is not None:
                    return cached
                check = {"key": check, **(options or {})}
            elif options:
                raise invalid_field(
                    next(iter(options)),
                    "must be a field of the check, where a check is given instead of a key",
                )
            made = make_check(check)
            made = made.model_copy(update={"reserve": True}) if reserve else made
            return self._resolver.resolve(made, take=take)
        except InvalidRequest:
            if take:
                self.note_invalid_check()
            raise

    def _resolve_many(self, checks: Sequence[CheckInput]) -> list[ResolvedCheck]:
        if isinstance(checks, str | Mapping | Check):
            self.note_invalid_check()
            raise invalid_field("checks", "must be a list of checks; for a single check call `check`")
        if len(checks) > MAX_BATCH:
            self.note_invalid_check()
            raise invalid_field("checks", f"has {len(checks)} checks; at most {MAX_BATCH} are allowed")
        resolved = []
        for index, check in enumerate(checks):
            try:
                resolved.append(self._resolve(check))
            except InvalidRequest as error:
                faults = (fault._replace(path=f"{index}.{fault.path}") for fault in error.faults)
                raise InvalidRequest(list(faults)) from None
        return resolved

    def _encode_checks(self, checks: Sequence[ResolvedCheck]) -> tuple[list[str], list[ScriptArgument]]:
        return encode_checks(checks, self.max_skew, self.remember)

    def _resolve_for_acquire(self, check: CheckInput, options: CheckOptions) -> ResolvedCheck:
        resolved = self._resolve(check, options)
        if resolved.timestamp is not None:
            raise invalid_field("timestamp", "not allowed in acquire, which waits by the store's clock")
        return resolved

    def _encode_settle(self, usage: Usage | Mapping[str, Any], reservation: str | None) -> SettleCall:
        fields = {} if reservation is None else {"reservation": reservation}
        return encode_settle(self._resolver, make_usage(usage, fields), self._settle_options)

    def _encode_reservation_end(self, action: SettleAction, reservation: str) -> SettleCall:
        return encode_reservation_end(action, reservation, self._resolver, self._settle_options)

    def _encode_lease_return(self, check: ResolvedCheck) -> SettleCall:
        return encode_lease_return(check, self._resolver.keyspace, self._settle_options)

    def _encode_charge(self, check: ResolvedCheck) -> SettleCall:
        return encode_charge(check, self._resolver.keyspace, self._settle_options)

    def _encode_refund(self, own: ResolvedCheck, reply: bytes) -> ScriptCall:
        return encode_refund(own, reply, self._resolver.keyspace, self._settle_options)

    def _forget_buckets(self, store_keys: Sequence[str]) -> None:
        """Forget the denials, leases and last states of buckets that have been reset."""
        self._outage.forget_store_keys(store_keys)
        self._denial_memory.forget_store_keys(store_keys, time.monotonic_ns())
        self._leases.drop_store_keys(store_keys)

    def _encode_key_assignment(self, key: str, **fields: object) -> list[Command]:
        """Return the commands that store an assignment of a key."""
        key = make_check({"key": key}).key
        assignment = make_assignment(KeyAssignment, fields)
        if assignment.plan is not None:
            self._resolver.require_plan(assignment.plan)
        return encode_assignment(self._resolver.keyspace, key, assignment)

    def _encode_tenant_assignment(self, tenant: str, plan: str | None) -> list[Command]:
        """Return the commands that store an assignment of a tenant."""
        tenant = check_tenant(tenant)
        assignment = make_assignment(TenantAssignment, {"plan": plan})
        if assignment.plan is not None:
            self._resolver.require_plan(assignment.plan)
        return encode_assignment(self._resolver.keyspace, tenant, assignment)

    def _read_settlement(
        self, call: SettleCall, replies: Sequence[Sequence[bytes | str]], started: int
    ) -> Settlement:
        """Return the settlement in the store's replies, update the denial memory and tell the observers."""
        read = read_settlement(call, replies)
        self._denial_memory.forget_store_keys([limit.store_key for limit in read.limits], time.monotonic_ns())
        if call.ends and not read.settlement.replayed:
            self._outage.remember_settled(read.limits)
        if call.ends and self._observers.note_end:
            self._note_end(call, read, started)
        return read.settlement

    def _note_unanswered(self, call: SettleCall, error: Exception) -> None:
        """Tell the observers of a call that may have ended a request; one that was not sent has not."""
        if call.ends and (len(call.calls) > 1 or not isinstance(error, PausedCalls)):
            for note_unanswered_end in self._observers.note_unanswered_end:
                note_unanswered_end(UnansweredEnd(call.usage, call.tenant, call.reservation))

    def _note_end(self, call: SettleCall, read: SettleReply, started: int) -> None:
        """Tell the observers that a request ended."""
        usage = call.usage
        outcome: EndOutcome = "cancelled"
        if read.settlement.replayed:
            outcome = "replayed"
        elif usage is not None:
            outcome = "charged" if usage.reservation is None else "settled"
        model = (usage.model if usage else None) or read.model
        model_class = self.policy.class_of(model)
        states = read.settlement.limits
        end = End(
            outcome,
            usage,
            read.key,
            read.tenant,
            read.plan,
            model,
            model_class,
            started,
            call.reservation,
            read.t,
            states,
        )
        for note_end in self._observers.note_end:
            note_end(end)

    def _read_decision(self, check: ResolvedCheck, reply: bytes, sent: int) -> Decision:
        """Return the decision in the store's reply, update the denial memory and remember the state.

        Args:
            check: the check.
            reply: the reply of the check script.
            sent: when the call was sent, monotonic nanoseconds.
        """
        decision = read_decision(check, reply)
        if check.subject.layout.local_groups:
            self._outage.remember_reply(check, reply)
        memory = self._denial_memory
        if not decision.allowed:
            memory.remember(check, reply, sent, time.monotonic_ns())
        elif memory.denials:
            memory.forget_check(check)
        return decision

    def _decide_without_store(self, check: ResolvedCheck) -> Decision:
        return self._outage.decide(check, self.max_skew)

    def _make_unavailable_error(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"{self.store}: {explain_error(error)}", refused=is_refusal(error))

    def _list_bucket_keys(self, key: str, tenant: str | None) -> list[str]:
        """Return the store keys of all buckets that belong to this key and to no other key."""
        check = make_check({"key": key, "tenant": tenant})
        _, tenant, _ = self._resolver.resolve_key(key, None, check.tenant)
        classes = {*self.policy.classes.values(), OTHER}
        limits = [limit for plan in self.policy.plans.values() for limit in plan.limits]
        # Buckets of limits that an edit of the policy has removed must be found, too.
        suffixes = {"", *(f"/{name}" for name in classes)}
        suffixes.update(make_store_key_suffix(limit, name) for limit in limits for name in classes)
        prefix = self._resolver.keyspace.make_prefix(tenant)
        owners: tuple[Owner, ...] = ("key", "tenant") if tenant == key else ("key",)
        return [
            make_owner_store_key(owner, prefix, key, tenant) + suffix
            for owner in owners
            for suffix in sorted(suffixes)
        ]
