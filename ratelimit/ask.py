"""From a check to a question: everything that the policy says about it, looked up."""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ratelimit.layout import answer_of, hash_of, lay_out, record_of, slots_of
from ratelimit.policy.spec import CONCURRENT, FAILURES
from ratelimit.request import Check, fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ratelimit.layout import Layout, Place
    from ratelimit.policy import Policy
    from ratelimit.policy.policy import Assignment

_OURS = frozenset({CONCURRENT, FAILURES})
"""Units that requests do not state: we count them."""


@dataclass(frozen=True, slots=True)
class Part:
    """One limit that a question looks at, and what it would take there."""

    place: Place
    cost: float


@dataclass(frozen=True, slots=True)
class Question:
    """A check with everything looked up that the policy says about it.

    Attributes:
        take: whether to take what is admitted, or only to look.
        blocked: whether an operator has shut the key.
        groups: the store's keys it touches, each with its parts.
        reservation: the id that its reservation will have, if one was asked for.
    """

    check: Check
    take: bool
    plan: str
    model_class: str | None
    tenant: str
    blocked: bool
    groups: tuple[tuple[str, tuple[Part, ...]], ...]
    reservation: str | None = None

    @property
    def parts(self) -> Iterable[Part]:
        """Every part, in the order in which the script reports them."""
        return (part for _, parts in self.groups for part in parts)

    @property
    def weight(self) -> int:
        """How many limits the store looks at for it."""
        return max(1, sum(len(parts) for _, parts in self.groups))

    @property
    def remembered(self) -> str | None:
        """The store's key under which the answer is remembered, if the check has a request id."""
        if self.check.request_id is None or not self.take:
            return None
        return answer_of(self.tenant, self.check.key, self.check.request_id)


class Asker:
    """Turns checks into questions under one policy, remembering each plan's layout.

    Attributes:
        assigned: what operators assigned to keys at run time; goes before what the policy says.
    """

    def __init__(self, policy: Policy, assigned: Mapping[str, Assignment]) -> None:
        self.policy = policy
        self.assigned = assigned
        self._units = (policy.units - _OURS) | {"requests"}
        self._layouts: dict[tuple[str, str | None], Layout] = {}

    def ask(self, check: Check, *, take: bool) -> Question:
        """Look up what the policy says about a check, to take what it costs or only to look.

        Raises:
            InvalidRequest: there is no such plan, or no plan meters a unit of its cost.
        """
        self.metered(check.cost)
        plan, tenant, blocked = self.who(check.key, check.plan, check.tenant)
        model_class = self.policy.class_of(check.model)
        cost = {"requests": 1.0, **check.cost}
        groups: list[tuple[str, tuple[Part, ...]]] = []
        for owner, places in self._layout(plan, model_class).groups:
            name = hash_of(owner, check.key, tenant)
            if places[0].is_slots:
                name = slots_of(name, places[0].field)
                groups.append((name, (Part(places[0], float(check.reserve)),)))
            else:
                groups.append((name, tuple(Part(place, _cost(place, cost)) for place in places)))
        take = take and not blocked
        reservation = new_reservation(tenant) if check.reserve and take else None
        return Question(check, take, plan, model_class, tenant, blocked, tuple(groups), reservation)

    def who(self, key: str, plan: str | None, tenant: str | None) -> tuple[str, str, bool]:
        """Return the plan and tenant of a key, and whether it is blocked.

        What the request says goes first, then what an operator assigned, then the policy.

        Raises:
            InvalidRequest: there is no such plan.
        """
        named, assigned = self.policy.assignment(key), self.assigned.get(key)
        if assigned is not None:
            plan, tenant = plan or assigned.plan, tenant or assigned.tenant
            if plan not in self.policy.plans and plan == assigned.plan:
                plan = None  # assigned under another policy: the plan is gone
        plan = plan or named.plan or self.policy.default_plan
        if plan not in self.policy.plans:
            raise fault("plan", f"there is no such plan; one of {', '.join(self.policy.plans)}")
        return plan, tenant or named.tenant or key, assigned is not None and assigned.blocked

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
        if layout is None:
            layout = self._layouts[plan, model_class] = lay_out(self.policy, plan, model_class)
        return layout


def _cost(place: Place, cost: Mapping[str, float]) -> float:
    return cost.get(place.limit.unit, 0.0) if place.limit.kind == "bucket" else 0.0


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
