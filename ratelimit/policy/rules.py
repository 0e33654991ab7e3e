"""What must hold across a whole policy, once every part of it reads well alone."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ratelimit.decision.limit_state import BLOCKED
from ratelimit.errors import Fault
from ratelimit.policy.spec import ANONYMOUS, OTHER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ratelimit.policy.limit import Limit
    from ratelimit.policy.spec import LimitSpec, PolicySpec


def contradictions(spec: PolicySpec) -> Iterator[Fault]:
    """Yield every contradiction between the parts of a policy."""
    yield from _default_plan(spec)
    yield from _models(spec)
    yield from _assigned_plans(spec)
    yield from _unknown_keys(spec)
    yield from _classes(spec)
    yield from _shared_names(spec)
    for name, plan in spec.plans.items():
        yield from half_leased(plan.limits, f"plans.{name}.limits.")


def half_leased(limits: Mapping[str, LimitSpec | Limit], path: str = "") -> Iterator[Fault]:
    """A check is decided in this process only if all of its limits can be."""
    without = [name for name, limit in limits.items() if limit.lease is None]
    if without and len(without) < len(limits):
        leased = ", ".join(name for name in limits if name not in without)
        yield Fault(
            f"{path}{without[0]}.lease",
            f"required beside {leased}: a check must ask the store as long as one limit of its plan has no"
            " lease, and then leases save nothing; give all of them one, or none",
        )


def _default_plan(spec: PolicySpec) -> Iterator[Fault]:
    plans = ", ".join(spec.plans)
    if spec.default_plan is None:
        if len(spec.plans) > 1:
            yield Fault("default_plan", f"required with more than one plan; one of {plans}")
    elif spec.default_plan not in spec.plans:
        yield Fault("default_plan", f"there is no plan {spec.default_plan!r}; one of {plans}")


def _models(spec: PolicySpec) -> Iterator[Fault]:
    seen: dict[str, str] = {}
    for name, models in spec.models.items():
        if name == OTHER:
            yield Fault(
                f"models.{name}", f"{OTHER!r} is the class of every model not listed; choose another name"
            )
        for index, model in enumerate(models):
            if model in seen:
                yield Fault(f"models.{name}.{index}", f"{model!r} is already in class {seen[model]!r}")
            seen.setdefault(model, name)


def _assigned_plans(spec: PolicySpec) -> Iterator[Fault]:
    for section, assignments in (("keys", spec.keys), ("tenants", spec.tenants)):
        for name, assigned in assignments.items():
            if assigned.plan is not None and assigned.plan not in spec.plans:
                yield Fault(
                    f"{section}.{name}.plan",
                    f"there is no plan {assigned.plan!r}; one of {', '.join(spec.plans)}",
                )


def _unknown_keys(spec: PolicySpec) -> Iterator[Fault]:
    if spec.unknown_keys == ANONYMOUS and ANONYMOUS not in spec.plans:
        yield Fault(
            "unknown_keys",
            f"{ANONYMOUS!r} needs a plan of that name in `plans`; or use default_plan or deny",
        )


def _limits(spec: PolicySpec) -> Iterator[tuple[str, str, LimitSpec]]:
    for plan, plan_spec in spec.plans.items():
        for name, limit in plan_spec.limits.items():
            yield f"plans.{plan}.limits.{name}", name, limit


def _classes(spec: PolicySpec) -> Iterator[Fault]:
    """A rate for each class must name every class, so that no model is unlimited by oversight."""
    classes = [*spec.models, *([] if OTHER in spec.models else [OTHER])]
    for path, _, limit in _limits(spec):
        if isinstance(limit.rate, dict):
            for name in limit.rate:
                if name not in classes:
                    yield Fault(
                        f"{path}.rate.{name}",
                        f"there is no model class {name!r}; one of {', '.join(classes)}",
                    )
            missing = [name for name in classes if name not in limit.rate]
            if missing:
                yield Fault(f"{path}.rate", f"no rate for class {', '.join(missing)}")


def _shared_names(spec: PolicySpec) -> Iterator[Fault]:
    """State is filed under a limit's name, so that a key keeps what it used when its plan changes.

    A name therefore means one unit in every plan, and a bucket that keys of several
    plans share has one shape.
    """
    for path, name, _ in _limits(spec):
        if name == BLOCKED:
            yield Fault(path, f"{BLOCKED!r} is what stands among the violated limits of a key that is shut")
    first: dict[str, list[tuple[str, LimitSpec]]] = defaultdict(list)
    for path, name, limit in _limits(spec):
        for other_path, other in first[name][:1]:
            if other.unit != limit.unit:
                yield Fault(
                    f"{path}.unit",
                    f"{limit.unit!r}, but {other_path} counts {other.unit!r}: a key that"
                    " changes plan keeps what it used under the limit's name, so give one of them another"
                    " name",
                )
            everyone = not {"key", "tenant"} & set(limit.per) or not {"key", "tenant"} & set(other.per)
            if everyone and (limit.per, limit.rate, limit.burst) != (other.per, other.rate, other.burst):
                yield Fault(
                    path,
                    f"shares its bucket with {other_path}, since neither key nor tenant is in `per`:"
                    " give both the same per, rate and burst, or one of them another name",
                )
        first[name].append((path, limit))
