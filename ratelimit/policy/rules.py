"""Rules that hold across a whole policy. They apply after each part is valid on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimit.decision.limit_state import BLOCKED
from ratelimit.errors import Fault
from ratelimit.policy.spec import ANONYMOUS, OTHER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ratelimit.policy.limit import Limit
    from ratelimit.policy.spec import LimitSpec, PolicySpec


def find_contradictions(spec: PolicySpec) -> Iterator[Fault]:
    """Yield all contradictions between the parts of a policy."""
    yield from _check_default_plan(spec)
    yield from _check_models(spec)
    yield from _check_assigned_plans(spec)
    yield from _check_unknown_keys(spec)
    yield from _check_rates_by_class(spec)
    yield from _check_limit_names(spec)
    yield from _check_shared_names(spec)
    for name, plan in spec.plans.items():
        yield from find_missing_leases(plan.limits, f"plans.{name}.limits.")


def find_missing_leases(limits: Mapping[str, LimitSpec | Limit], path: str = "") -> Iterator[Fault]:
    """Yield a fault if some limits of a plan have a lease and others have none.

    A process can decide a check without the store only if it holds a lease on each limit of the plan.
    """
    without = [name for name, limit in limits.items() if limit.lease is None]
    if without and len(without) < len(limits):
        leased = ", ".join(name for name in limits if name not in without)
        yield Fault(
            f"{path}{without[0]}.lease",
            f"required because other limits of the plan have a lease ({leased}): while one limit has none,"
            " each check asks the store, and leases save nothing; give a lease to all limits of the plan or"
            " to none",
        )


def _check_default_plan(spec: PolicySpec) -> Iterator[Fault]:
    plans = ", ".join(spec.plans)
    if spec.default_plan is None:
        if len(spec.plans) > 1:
            yield Fault("default_plan", f"required if there is more than one plan; allowed: {plans}")
    elif spec.default_plan not in spec.plans:
        yield Fault("default_plan", f"there is no plan {spec.default_plan!r}; allowed: {plans}")


def _check_models(spec: PolicySpec) -> Iterator[Fault]:
    class_by_model: dict[str, str] = {}
    for name, models in spec.models.items():
        if name == OTHER:
            yield Fault(
                f"models.{name}", f"{OTHER!r} is the class of every model not listed; choose another name"
            )
        for index, model in enumerate(models):
            if model in class_by_model:
                yield Fault(
                    f"models.{name}.{index}", f"{model!r} is already in class {class_by_model[model]!r}"
                )
            class_by_model.setdefault(model, name)


def _check_assigned_plans(spec: PolicySpec) -> Iterator[Fault]:
    for section, assignments in (("keys", spec.keys), ("tenants", spec.tenants)):
        for name, assigned in assignments.items():
            if assigned.plan is not None and assigned.plan not in spec.plans:
                yield Fault(
                    f"{section}.{name}.plan",
                    f"there is no plan {assigned.plan!r}; allowed: {', '.join(spec.plans)}",
                )


def _check_unknown_keys(spec: PolicySpec) -> Iterator[Fault]:
    if spec.unknown_keys == ANONYMOUS and ANONYMOUS not in spec.plans:
        yield Fault(
            "unknown_keys",
            f"{ANONYMOUS!r} needs a plan of that name in `plans`; add it, or use 'default_plan' or 'deny'",
        )


def _list_limits(spec: PolicySpec) -> Iterator[tuple[str, str, LimitSpec]]:
    """Yield the path, name and spec of each limit in each plan."""
    for plan, plan_spec in spec.plans.items():
        for name, limit in plan_spec.limits.items():
            yield f"plans.{plan}.limits.{name}", name, limit


def _check_rates_by_class(spec: PolicySpec) -> Iterator[Fault]:
    """Rates by class must name each class, so that no class is forgotten and then unlimited."""
    classes = [*spec.models, *([] if OTHER in spec.models else [OTHER])]
    for path, _, limit in _list_limits(spec):
        if isinstance(limit.rate, dict):
            for name in limit.rate:
                if name not in classes:
                    yield Fault(
                        f"{path}.rate.{name}",
                        f"there is no model class {name!r}; allowed: {', '.join(classes)}",
                    )
            missing = [name for name in classes if name not in limit.rate]
            if missing:
                yield Fault(
                    f"{path}.rate",
                    f"has no rate for model class {', '.join(missing)}; write a rate for each of"
                    f" {', '.join(classes)}",
                )


def _check_limit_names(spec: PolicySpec) -> Iterator[Fault]:
    for path, name, _ in _list_limits(spec):
        if name == BLOCKED:
            yield Fault(
                path,
                f"a limit cannot be called {BLOCKED!r}, because denials use this name for keys that an"
                " operator has blocked; choose another name",
            )


def _check_shared_names(spec: PolicySpec) -> Iterator[Fault]:
    """Compare the limits that have the same name in different plans.

    The store keeps a limit's state under its name, so that a key keeps what it used when its plan
    changes. So a name must count one unit in all plans, and a bucket that keys of several plans
    share must have one shape.
    """
    first: dict[str, tuple[str, LimitSpec]] = {}
    for path, name, limit in _list_limits(spec):
        other_path, other = first.setdefault(name, (path, limit))
        if other.unit != limit.unit:
            yield Fault(
                f"{path}.unit",
                f"is {limit.unit!r}, but {other_path} counts {other.unit!r}: limits of one name must count"
                " the same unit, because a key that changes plan keeps what it used under that name; give"
                " one of them another name",
            )
        is_shared = not {"key", "tenant"} & set(limit.per) or not {"key", "tenant"} & set(other.per)
        if is_shared and (limit.per, limit.rate, limit.burst) != (other.per, other.rate, other.burst):
            yield Fault(
                path,
                f"shares its bucket with {other_path}, because `per` has neither key nor tenant; give both"
                " the same per, rate and burst, or give one of them another name",
            )
