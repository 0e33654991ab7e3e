"""From a check to a question: everything that the policy says about it, looked up."""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

from ratelimit.engine.layout import Layout, answer_of, lay_out, record_of
from ratelimit.policy.assignment import NO_ASSIGNMENTS, NOT_ASSIGNED
from ratelimit.policy.spec import CONCURRENT, FAILURES
from ratelimit.rate import MAX_COUNT
from ratelimit.request.check import Check, CheckOptions, fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ratelimit.engine.layout import Place
    from ratelimit.policy import Policy
    from ratelimit.policy.assignment import Assignments

_OURS = frozenset({CONCURRENT, FAILURES})
"""Units that requests do not state: we count them."""

_PLAIN: Final = frozenset({"plan", "model", "tenant", "cost"})
_NUMBERS: Final = frozenset({int, float})  # not bool, which is an int that nobody means
_NOTHING: Final[dict[str, float]] = {}
_MOST_KNOWN: Final = 32_768

_Asked = str | tuple[str, str | None, str | None, str | None]
"""How a key asks: with plan, model and tenant, or just by itself."""


class Part(NamedTuple):
    """One limit that a question looks at, where it lies, and what the question would take there."""

    place: Place
    name: str
    cost: float


class Route(NamedTuple):
    """What the policy says of a key that asks in one way, whatever it asks for.

    Attributes:
        blocked: whether an operator has shut the key.
        layout: the limits it is held to.
        names: the store's keys they lie in, one for each group of the layout.
    """

    key: str
    plan: str
    model_class: str | None
    tenant: str
    blocked: bool
    layout: Layout
    names: tuple[str, ...]


class Question(NamedTuple):
    """A check with everything looked up that the policy says about it.

    Attributes:
        route: whom it is about, and which limits it touches.
        take: whether to take what is admitted, or only to look.
        costs: what it would take of each limit, in the order of the layout's places.
        timestamp: when the request was made, microseconds since the epoch; None for the store's clock.
        model: the model asked for.
        request_id: makes it repeatable.
        reservation: the id that its reservation will have, if one was asked for.
        packed: the whole of it as lua/check.lua is told, where its layout comes first: of a check with
            nothing but the usual cost, which is packed once.
    """

    route: Route
    take: bool
    costs: tuple[float, ...]
    timestamp: int | None = None
    model: str | None = None
    request_id: str | None = None
    reservation: str | None = None
    packed: bytes | None = None

    @property
    def is_plain(self) -> bool:
        """Whether all that it wants of the store is to take something now, and to keep no record of it."""
        return self.packed is not None or (
            self.take and self.timestamp is None and self.request_id is None and self.reservation is None
        )

    @property
    def parts(self) -> list[Part]:
        """Every limit it touches, in the order in which the script reports them."""
        groups = zip(self.route.names, self.route.layout.groups, strict=True)
        places = ((name, place) for name, (_, _, places) in groups for place in places)
        return [Part(place, name, cost) for (name, place), cost in zip(places, self.costs, strict=True)]

    @property
    def remembered(self) -> str | None:
        """The store's key under which the answer is remembered, if the check has a request id."""
        if self.request_id is None or not self.take:
            return None
        return answer_of(self.route.tenant, self.route.key, self.request_id)

    def only(self, wanted: Callable[[Place], bool]) -> Question:
        """Return the question about some of its limits, with nothing to reserve."""
        layout, parts = self.route.layout, self.parts
        kept = (
            (owner, file, tuple(place for place in places if wanted(place)))
            for owner, file, places in layout.groups
        )
        groups = [(name, group) for name, group in zip(self.route.names, kept, strict=True) if group[2]]
        route = self.route._replace(
            layout=Layout(tuple(group for _, group in groups)), names=tuple(name for name, _ in groups)
        )
        costs = tuple(part.cost for part in parts if wanted(part.place))
        return self._replace(route=route, costs=costs, reservation=None, packed=None)

    def costing(self, costs: tuple[float, ...]) -> Question:
        """Return the same question about other costs."""
        return self._replace(costs=costs, packed=None)


class Asker:
    """Turns checks into questions under one policy, remembering each plan's layout.

    Attributes:
        assigned: what operators assigned at run time; it goes before what the policy says.
    """

    def __init__(self, policy: Policy, assigned: Assignments = NO_ASSIGNMENTS) -> None:
        self.policy = policy
        self.assigned = assigned
        self._units = (policy.units - _OURS) | {"requests"}
        self._layouts: dict[tuple[str, str | None], Layout] = {}
        self._usual: dict[_Asked, Question] = {}

    def reassigned(self, assigned: Assignments) -> Asker:
        """Return one with other assignments and the same layouts, by whose identity leases and denials go."""
        asker = Asker(self.policy, assigned)
        asker._layouts = self._layouts  # filled by both, alike
        return asker

    def ask(self, check: Check, *, take: bool) -> Question:
        """Look up what the policy says about a check, to take what it costs or only to look.

        Raises:
            InvalidRequest: there is no such plan, or no plan meters a unit of its cost.
        """
        asked = _asked(check.key, check.plan, check.model, check.tenant)
        question = self._usual.get(asked) or self._ask(asked, check)
        route, costs = question.route, question.costs
        if check.cost or check.reserve:
            self.metered(check.cost)
            costs = _costs(route.layout, check.cost, slots=float(check.reserve))
        take = take and not route.blocked
        reservation = new_reservation(route.tenant) if check.reserve and take else None
        return Question(route, take, costs, check.timestamp, check.model, check.request_id, reservation)

    def known(self, key: str, options: CheckOptions | None) -> Question | None:
        """Ask for a key that has asked in this way before, which needs no second look at most of it.

        Returns:
            None where there is more to look at: `ask` then says what is wrong, if anything is.
        """
        if not options:
            return self._usual.get(key)
        model, cost = options.get("model"), options.get("cost", _NOTHING)
        if not (options.keys() <= _PLAIN and self._is_plain(cost)):
            return None
        try:
            question = self._usual.get(_asked(key, options.get("plan"), model, options.get("tenant")))
        except TypeError:  # something that is no text, and cannot be looked up
            return None
        if question is None or not cost:
            return question
        costs = _costs(question.route.layout, cost, slots=0.0)
        return Question(question.route, question.take, costs, None, model)

    def _is_plain(self, cost: object) -> bool:
        """Whether a cost is as it should be, as far as can be seen at a glance."""
        return type(cost) is dict and all(
            type(amount) in _NUMBERS and 0 <= amount <= MAX_COUNT and unit in self._units
            for unit, amount in cost.items()
        )

    def _ask(self, asked: _Asked, check: Check) -> Question:
        """Look up the usual question of a key that asks in this way, and remember it."""
        key = check.key
        plan, tenant, blocked = self.who(key, check.plan, check.tenant)
        model_class = self.policy.class_of(check.model)
        layout = self._layout(plan, model_class)
        route = Route(key, plan, model_class, tenant, blocked, layout, layout.names(key, tenant))
        if len(self._usual) >= _MOST_KNOWN:
            self._usual.clear()  # callers choose these words, so there is a bound to how many are kept
        packed = None if blocked else layout.packed
        question = Question(route, not blocked, layout.usual, None, check.model, packed=packed)
        self._usual[asked] = question
        return question

    def who(self, key: str, plan: str | None, tenant: str | None) -> tuple[str, str, bool]:
        """Return the plan and tenant of a key, and whether it is blocked.

        The plan comes from the request, the key, the tenant or the default: the first of these that
        names one. For a key and for a tenant, what an operator assigned goes before the policy.

        Raises:
            InvalidRequest: the request names a plan that does not exist.
        """
        policy, assigned = self.policy, self.assigned.keys.get(key, NOT_ASSIGNED)
        named = policy.assignment(key)
        tenant = tenant or assigned.tenant or named.tenant or key
        if plan is not None:
            self.require_plan(plan)
        of_tenant = self.assigned.tenants.get(tenant), policy.tenants.get(tenant)
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
            raise fault("plan", f"there is no such plan; one of {', '.join(self.policy.plans)}")

    def is_known(self, key: str) -> bool:
        """Whether the policy's `keys` or an assignment names a key."""
        return key in self.policy.keys or key in self.assigned.keys

    def metered(self, cost: Mapping[str, float]) -> None:
        """Refuse a cost in a unit that no plan meters.

        Raises:
            InvalidRequest: there is one.
        """
        for unit in cost:
            if unit not in self._units:
                raise fault(
                    f"cost.{unit}", f"no plan meters this unit; any of {', '.join(sorted(self._units))}"
                )

    def _layout(self, plan: str, model_class: str | None) -> Layout:
        layout = self._layouts.get((plan, model_class))
        if layout is None:  # one for all threads: leases go by its identity
            layout = self._layouts.setdefault((plan, model_class), lay_out(self.policy, plan, model_class))
        return layout


def _asked(key: str, plan: str | None, model: str | None, tenant: str | None) -> _Asked:
    return key if plan is None and model is None and tenant is None else (key, plan, model, tenant)


def _costs(layout: Layout, cost: Mapping[str, float], *, slots: float) -> tuple[float, ...]:
    """Return what a check takes of each limit; of open reservations `slots`, of failures nothing."""
    return tuple(
        [
            cost.get(place.unit, 1.0 if place.unit == "requests" else 0.0)
            if place.kind == "bucket"
            else slots
            if place.kind == "slots"
            else 0.0
            for place in layout.places
        ]
    )


def new_reservation(tenant: str) -> str:
    """Return a new reservation's id: 96 random bits, and the tenant so that any sidecar finds the record."""
    return f"{secrets.token_urlsafe(12)}.{base64.urlsafe_b64encode(tenant.encode()).decode().rstrip('=')}"


def record_named(reservation: str) -> str | None:
    """Return the name of a reservation's record, or None where the text cannot be a reservation's id."""
    token, _, tag = reservation.partition(".")
    try:
        tenant = base64.b64decode(tag + "=" * (-len(tag) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return record_of(tenant, token) if tenant and _is_token(token) else None


def _is_token(token: str) -> bool:
    return len(token) == 16 and token.replace("-", "a").replace("_", "a").isalnum() and token.isascii()  # noqa: PLR2004
