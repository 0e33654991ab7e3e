"""A policy: named plans of limits, the classes of models, and who is on which plan."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from ratelimit.errors import Fault, PolicyError
from ratelimit.policy.assignment import NOT_ASSIGNED, Assignment
from ratelimit.policy.limit import Limit, check_alone
from ratelimit.policy.rules import contradictions, half_leased
from ratelimit.policy.source import Source
from ratelimit.policy.spec import OTHER, KeySpec, PolicySpec, UnknownKeys, fields_at
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
    """Plans, model classes and who is on which plan; immutable, and complete or not there at all.

    Attributes:
        default_plan: the plan of a key that nothing else gives one.
        plans: plans by name.
        classes: model id to class; every other model is of class `other`.
        keys: assignments by key.
        tenants: plans by tenant, for every key of the tenant that has no plan of its own.
        unknown_keys: what the sidecar does with a secret that neither `keys` nor an assignment knows:
            `default_plan`, `anonymous` (limit it by the client's address) or `deny` (answer 401).
        source: where it was read from, for messages.
        version: a fingerprint of the content: two policies with one version decide alike.
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
            PolicyError: the file cannot be read, or is not a policy; every fault is listed
                with its line.
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
            PolicyError: the text is not a policy; every fault is listed with its line.
        """
        yaml = Source(text, source)
        if not isinstance(yaml.data, dict):
            raise PolicyError([Fault("", "must be a mapping with `plans`; the README shows one")], source)
        try:
            spec = PolicySpec.model_validate(yaml.data)
        except pydantic.ValidationError as error:
            yaml.refuse(make_faults(error, fields_at, echo=True))
            raise
        yaml.refuse(contradictions(spec))
        return cls._of_spec(spec, source)

    @classmethod
    def of(cls, *limits: Limit) -> Policy:
        """Make a policy of one plan, called `default`, from limits written in Python.

        Raises:
            PolicyError: there is no limit, or two share a name.
        """
        names = [limit.name for limit in limits]
        if not limits or len(set(names)) != len(names):
            raise PolicyError(
                [Fault("", f"needs one or more limits with different names, not {names}")], "Policy.of"
            )
        for limit in limits:
            check_alone(limit)
        if faults := list(half_leased({limit.name: limit for limit in limits})):
            raise PolicyError(faults, "Policy.of")
        return cls("default", {"default": Plan("default", limits)}, version=_fingerprint(repr(limits)))

    @classmethod
    def _of_spec(cls, spec: PolicySpec, source: str) -> Policy:
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
            version=_fingerprint(repr(spec)),
        )

    def assignment(self, key: str) -> Assignment:
        """Return what this policy says of a key."""
        return self.keys.get(key, NOT_ASSIGNED)

    def class_of(self, model: str | None) -> str | None:
        """Return the class of a model; None where no model was named."""
        return None if model is None else self.classes.get(model, OTHER)

    @property
    def units(self) -> frozenset[str]:
        """Every unit that some plan meters."""
        return frozenset(limit.unit for plan in self.plans.values() for limit in plan.limits)

    def as_dict(self) -> dict[str, Any]:
        """Return the policy as plain data, in the shape of its file."""
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


def _fingerprint(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:12]
