"""A policy: plans with their limits, model classes, and the plans of keys and tenants."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from ratelimit.errors import Fault, PolicyError
from ratelimit.policy.assignment import NOT_ASSIGNED, Assignment
from ratelimit.policy.limit import Limit, refuse_rates_by_class
from ratelimit.policy.rules import find_contradictions, find_missing_leases
from ratelimit.policy.spec import OTHER, KeySpec, PolicySpec, UnknownKeys, find_allowed_fields
from ratelimit.policy.yaml_text import YamlText
from ratelimit.request.validation import make_faults

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike


@dataclass(frozen=True, slots=True)
class Plan:
    """A named set of limits, in the order of the file."""

    name: str
    limits: tuple[Limit, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """Plans, model classes, and the plans of keys and tenants. A policy is immutable.

    Attributes:
        default_plan: the plan of keys that have no other plan.
        plans: plans by name.
        classes: model classes by model id; all other models are of class `other`.
        keys: assignments by key.
        tenants: plans by tenant, for those keys of the tenant that have no plan of their own.
        unknown_keys: how the sidecar answers a secret whose key is neither in `keys` nor assigned:
            `default_plan`, `anonymous` (limit it by the client's address) or `deny` (answer 401).
        source: where the policy was read from; for messages.
        version: a hash of the content: policies with the same version decide alike.
    """

    default_plan: str
    plans: Mapping[str, Plan]
    classes: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, Assignment] = field(default_factory=dict)
    tenants: Mapping[str, str] = field(default_factory=dict)
    unknown_keys: UnknownKeys = "default_plan"
    source: str = "policy"
    version: str = ""

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Policy:
        """Read a policy file (YAML, UTF-8).

        Raises:
            PolicyError: the file cannot be read, or is not a valid policy; it lists all faults
                with their lines.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise PolicyError([Fault("", f"cannot be read: {reason}")], str(path)) from None
        return cls.from_text(text, source=str(path))

    @classmethod
    def from_text(cls, text: str, *, source: str = "policy") -> Policy:
        """Read a policy from YAML text.

        Raises:
            PolicyError: the text is not a valid policy; it lists all faults with their lines.
        """
        yaml = YamlText(text, source)
        if not isinstance(yaml.data, dict):
            message = "must be a mapping that contains `plans`; the README has an example"
            raise PolicyError([Fault("", message)], source)
        try:
            spec = PolicySpec.model_validate(yaml.data)
        except pydantic.ValidationError as error:
            yaml.raise_faults(make_faults(error, find_allowed_fields, echo=True))
            raise
        yaml.raise_faults(find_contradictions(spec))
        return cls._from_spec(spec, source)

    @classmethod
    def of(cls, *limits: Limit) -> Policy:
        """Make a policy from limits written in Python. It has one plan, called `default`.

        Raises:
            PolicyError: there is no limit, two limits have the same name, or a limit needs model
                classes or a lease that the policy does not have.
        """
        names = [limit.name for limit in limits]
        if not limits or len(set(names)) != len(names):
            raise PolicyError(
                [Fault("", f"needs one or more limits with different names, not {names}")], "Policy.of"
            )
        for limit in limits:
            refuse_rates_by_class(limit)
        if faults := list(find_missing_leases({limit.name: limit for limit in limits})):
            raise PolicyError(faults, "Policy.of")
        return cls("default", {"default": Plan("default", limits)}, version=_hash(repr(limits)))

    @classmethod
    def _from_spec(cls, spec: PolicySpec, source: str) -> Policy:
        plans = {
            name: Plan(name, tuple(Limit.of_spec(limit, fields) for limit, fields in plan.limits.items()))
            for name, plan in spec.plans.items()
        }
        return cls(
            default_plan=spec.default_plan or next(iter(plans)),
            plans=plans,
            classes={model: name for name, models in spec.models.items() for model in models},
            keys={key: Assignment(assigned.plan, assigned.tenant) for key, assigned in spec.keys.items()},
            tenants={name: tenant.plan for name, tenant in spec.tenants.items() if tenant.plan},
            unknown_keys=spec.unknown_keys,
            source=source,
            version=_hash(repr(spec)),
        )

    def assignment(self, key: str) -> Assignment:
        """Return the plan and the tenant that the policy assigns to a key."""
        return self.keys.get(key, NOT_ASSIGNED)

    def class_of(self, model: str | None) -> str | None:
        """Return the class of a model; None for None."""
        return None if model is None else self.classes.get(model, OTHER)

    @property
    def units(self) -> frozenset[str]:
        """All units that the plans meter."""
        return frozenset(limit.unit for plan in self.plans.values() for limit in plan.limits)

    def as_dict(self) -> dict[str, Any]:
        """Return the policy as plain data, with the fields of its file."""
        classes: dict[str, list[str]] = {}
        for model, name in self.classes.items():
            classes.setdefault(name, []).append(model)
        return {
            "default_plan": self.default_plan,
            "models": classes,
            "plans": {
                name: {"limits": {limit.name: limit.as_dict() for limit in plan.limits}}
                for name, plan in self.plans.items()
            },
            "keys": {
                key: KeySpec(plan=assigned.plan, tenant=assigned.tenant).model_dump(exclude_none=True)
                for key, assigned in self.keys.items()
            },
            "tenants": {name: {"plan": plan} for name, plan in self.tenants.items()},
            "unknown_keys": self.unknown_keys,
        }


def _hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:12]
