"""Resolves checks: looks up everything that the policy says about a check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ratelimit.engine.keyspace import (
    ONE_SERVER,
    find_slot,
    find_tag,
    make_answer_store_key,
    make_record_store_key,
)
from ratelimit.engine.layout import build_layout
from ratelimit.engine.reservation_id import make_reservation_id
from ratelimit.policy.assignment import NO_ASSIGNMENTS, NOT_ASSIGNED
from ratelimit.policy.spec import CONCURRENT, FAILURES
from ratelimit.request.check import MAX_COUNT, Check, CheckOptions, invalid_field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimit.engine.keyspace import Keyspace
    from ratelimit.engine.layout import Layout, PlacedLimit
    from ratelimit.policy import Policy
    from ratelimit.policy.assignment import Assignments

_COUNTED_BY_LIMITER: Final = frozenset({CONCURRENT, FAILURES})
"""Units that a request cannot state a cost in: the limiter counts them."""

_CACHED_OPTIONS: Final = frozenset({"plan", "model", "tenant", "cost"})
_AMOUNT_TYPES: Final = frozenset({int, float})  # not bool: a bool is an int, but never meant as a cost
_NO_COST: Final[dict[str, float]] = {}
_MAX_CACHED: Final = 32_768

_CacheKey = str | tuple[str, str | None, str | None, str | None]
"""A key with the plan, model and tenant of the check; or the key alone if the check names none of these."""


class LimitCost(NamedTuple):
    """What a check costs one limit.

    Attributes:
        placed: the limit.
        store_key: the store key that holds its state.
        cost: what the check takes of it.
    """

    placed: PlacedLimit
    store_key: str
    cost: float


class Subject(NamedTuple):
    """Who a check is about, and which limits apply. It does not depend on the cost.

    Attributes:
        key: the API key's identifier.
        plan: the plan that applies.
        model_class: the class of the model; None if the check names no model.
        tenant: the account that owns the key.
        blocked: whether an operator has blocked the key.
        layout: the limits that apply.
        store_keys: the store keys that hold their state, one for each group of the layout.
        prefix: the start of the store keys of what is remembered of a check.
        cluster_slot: the cluster slot of the prefix; 0 for a store that is not a cluster.
    """

    key: str
    plan: str
    model_class: str | None
    tenant: str
    blocked: bool
    layout: Layout
    store_keys: tuple[str, ...]
    prefix: str
    cluster_slot: int = 0


class ResolvedCheck(NamedTuple):
    """A check with everything that the policy says about it.

    Attributes:
        subject: who it is about, and which limits apply.
        take: whether to take the cost if admitted; False only looks.
        costs: what it takes of each limit, in the order of the layout's placed limits.
        timestamp: when the request was made, microseconds since the epoch; None for the store's clock.
        model: the model that the check names.
        request_id: makes the check repeatable.
        reservation: the id of its reservation, if the check reserves.
        packed: the whole check as an argument of lua/check.lua, valid where its layout is the first of
            the call. Only for a check with the default cost, which is packed once for all keys.
    """

    subject: Subject
    take: bool
    costs: tuple[float, ...]
    timestamp: int | None = None
    model: str | None = None
    request_id: str | None = None
    reservation: str | None = None
    packed: bytes | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it takes something at the store's time and needs no record in the store."""
        return self.packed is not None or (
            self.take and self.timestamp is None and self.request_id is None and self.reservation is None
        )

    @property
    def limit_costs(self) -> list[LimitCost]:
        """The cost for each limit, in the order in which the script reports them."""
        groups = zip(self.subject.store_keys, self.subject.layout.groups, strict=True)
        limits = ((store_key, placed) for store_key, (_, _, group) in groups for placed in group)
        return [
            LimitCost(placed, store_key, cost)
            for (store_key, placed), cost in zip(limits, self.costs, strict=True)
        ]

    @property
    def answer_store_key(self) -> str | None:
        """The store key under which the answer is remembered, if the check has a request id."""
        if self.request_id is None or not self.take:
            return None
        subject = self.subject
        return make_answer_store_key(subject.prefix, subject.key, subject.tenant, self.request_id)

    @property
    def record_store_key(self) -> str | None:
        """The store key of the reservation's record, if the check reserves."""
        if self.reservation is None:
            return None
        return make_record_store_key(self.subject.prefix, self.reservation.partition(".")[0])

    def with_layout(
        self, layout: Layout, store_keys: tuple[str, ...], costs: tuple[float, ...]
    ) -> ResolvedCheck:
        """Return the same check for other limits, without a reservation.

        Args:
            layout: the limits.
            store_keys: the store keys that hold their state, one for each group.
            costs: what the check takes of each limit.
        """
        subject = self.subject._replace(layout=layout, store_keys=store_keys)
        return self._replace(subject=subject, costs=costs, reservation=None, packed=None)

    def with_costs(self, costs: tuple[float, ...]) -> ResolvedCheck:
        """Return the same check with other costs."""
        return self._replace(costs=costs, packed=None)


class Resolver:
    """Turns checks into resolved checks under one policy. It caches layouts, and the checks of each key.

    Attributes:
        policy: the policy.
        assignments: what operators assigned at run time; it goes before the policy.
        keyspace: the store keys.
        has_shared_limits: whether a plan has a limit that everyone shares.
    """

    def __init__(
        self, policy: Policy, assignments: Assignments = NO_ASSIGNMENTS, keyspace: Keyspace = ONE_SERVER
    ) -> None:
        self.policy = policy
        self.keyspace = keyspace
        self.assignments = assignments
        self.has_shared_limits = any(
            not {"key", "tenant"}.intersection(limit.per)
            for plan in policy.plans.values()
            for limit in plan.limits
        )
        self._units = (policy.units - _COUNTED_BY_LIMITER) | {"requests"}
        self._layouts: dict[tuple[str, str | None], Layout] = {}
        self._cache: dict[_CacheKey, ResolvedCheck] = {}

    def with_assignments(self, assignments: Assignments) -> Resolver:
        """Return a resolver with other assignments and the same layouts.

        Leases and remembered denials belong to a layout object, so the objects must stay the same.
        """
        resolver = Resolver(self.policy, assignments, self.keyspace)
        resolver._layouts = self._layouts  # both resolvers may add to it: the layouts are the same
        return resolver

    def resolve(self, check: Check, *, take: bool) -> ResolvedCheck:
        """Look up what the policy says about a check.

        Args:
            check: the check.
            take: whether to take the cost if admitted; False only looks.

        Raises:
            InvalidRequest: there is no such plan, or no plan meters a unit of its cost.
        """
        cache_key = _make_cache_key(check.key, check.plan, check.model, check.tenant)
        default = self._cache.get(cache_key) or self._resolve_default(cache_key, check)
        subject, costs = default.subject, default.costs
        if check.cost or check.reserve:
            self.refuse_unmetered_units(check.cost)
            costs = _list_costs(subject.layout, check.cost, slots=float(check.reserve))
        take = take and not subject.blocked
        reservation = make_reservation_id(subject.tenant) if check.reserve and take else None
        return ResolvedCheck(
            subject, take, costs, check.timestamp, check.model, check.request_id, reservation
        )

    def find_cached(self, key: str, options: CheckOptions | None) -> ResolvedCheck | None:
        """Return the resolved check from the cache, for a key with the same plan, model and tenant.

        Returns:
            None if it is not cached or needs validation; `resolve` then reports what is wrong.
        """
        if not options:
            return self._cache.get(key)
        model, cost = options.get("model"), options.get("cost", _NO_COST)
        if not (options.keys() <= _CACHED_OPTIONS and (cost is _NO_COST or self._is_valid_cost(cost))):
            return None
        try:
            check = self._cache.get(_make_cache_key(key, options.get("plan"), model, options.get("tenant")))
        except TypeError:  # an option is not text, and cannot be hashed
            return None
        if check is None or not cost:
            return check
        costs = _list_costs(check.subject.layout, cost, slots=0.0)
        return ResolvedCheck(check.subject, check.take, costs, None, model)

    def _is_valid_cost(self, cost: object) -> bool:
        """Whether a cost is a plain dict of metered units with amounts in range."""
        return type(cost) is dict and all(
            type(amount) in _AMOUNT_TYPES and 0 <= amount <= MAX_COUNT and unit in self._units
            for unit, amount in cost.items()
        )

    def _resolve_default(self, cache_key: _CacheKey, check: Check) -> ResolvedCheck:
        """Resolve a check as if it had the default cost, and cache the result."""
        key = check.key
        plan, tenant, blocked = self.resolve_key(key, check.plan, check.tenant)
        model_class = self.policy.class_of(check.model)
        layout = self._find_layout(plan, model_class)
        prefix = self.keyspace.make_prefix(tenant)
        store_keys = layout.make_store_keys(prefix, key, tenant)
        cluster_slot = find_slot(find_tag(prefix)) if self.keyspace.shards else 0
        subject = Subject(key, plan, model_class, tenant, blocked, layout, store_keys, prefix, cluster_slot)
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()  # callers choose what is cached, so its size needs a bound
        packed = None if blocked else layout.packed
        default = ResolvedCheck(subject, not blocked, layout.default_costs, None, check.model, packed=packed)
        self._cache[cache_key] = default
        return default

    def resolve_key(self, key: str, plan: str | None, tenant: str | None) -> tuple[str, str, bool]:
        """Return the plan and tenant of a key, and whether it is blocked.

        The plan comes from the request, the key, the tenant or the default: the first of these that
        names one. For a key and for a tenant, what an operator assigned goes before the policy.

        Raises:
            InvalidRequest: the request names a plan that does not exist.
        """
        policy, assigned = self.policy, self.assignments.keys.get(key, NOT_ASSIGNED)
        named = policy.assignment(key)
        tenant = tenant or assigned.tenant or named.tenant or key
        if plan is not None:
            self.require_plan(plan)
        of_tenant = self.assignments.tenants.get(tenant), policy.tenants.get(tenant)
        plans = (plan, assigned.plan, named.plan, *of_tenant)
        # An assigned plan may not exist any more: it was assigned under another policy.
        chosen = next((name for name in plans if name is not None and name in policy.plans), None)
        return chosen or policy.default_plan, tenant, assigned.blocked

    def require_plan(self, plan: str) -> None:
        """Refuse a plan that the policy does not have.

        Raises:
            InvalidRequest: there is no such plan.
        """
        if plan not in self.policy.plans:
            raise invalid_field("plan", f"there is no such plan; allowed: {', '.join(self.policy.plans)}")

    def is_known(self, key: str) -> bool:
        """Whether the policy's `keys` or an assignment names a key."""
        return key in self.policy.keys or key in self.assignments.keys

    def refuse_unmetered_units(self, cost: Mapping[str, float]) -> None:
        """Refuse a cost in a unit that no plan meters.

        Raises:
            InvalidRequest: there is such a unit.
        """
        for unit in cost:
            if unit not in self._units:
                raise invalid_field(
                    f"cost.{unit}", f"no plan meters this unit; allowed: {', '.join(sorted(self._units))}"
                )

    def _find_layout(self, plan: str, model_class: str | None) -> Layout:
        layout = self._layouts.get((plan, model_class))
        if layout is None:
            # Leases belong to a layout object, so all threads must get the same one.
            layout = self._layouts.setdefault(
                (plan, model_class), build_layout(self.policy, plan, model_class)
            )
        return layout


def _make_cache_key(key: str, plan: str | None, model: str | None, tenant: str | None) -> _CacheKey:
    return key if plan is None and model is None and tenant is None else (key, plan, model, tenant)


def _list_costs(layout: Layout, cost: Mapping[str, float], *, slots: float) -> tuple[float, ...]:
    """Return what a check takes of each limit: `slots` of a `concurrent` one, nothing of failures."""
    return tuple(
        [
            cost.get(placed.unit, 1.0 if placed.unit == "requests" else 0.0)
            if placed.kind == "bucket"
            else slots
            if placed.kind == "slots"
            else 0.0
            for placed in layout.placed_limits
        ]
    )
