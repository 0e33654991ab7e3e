"""The policy file as a schema: the only place that says which fields exist.

The JSON Schema of `ratelimit policy schema`, the errors of `ratelimit policy
check` and the checks of a `Limit` written in Python all come from here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    WithJsonSchema,
    model_validator,
)

from ratelimit.decision.limit_state import Mode
from ratelimit.policy.rate import ALLOWED, Rate, parse_period
from ratelimit.request.check import MAX_COUNT
from ratelimit.request.timestamp import MICROSECONDS
from ratelimit.request.validation import TAG, at, short

ANONYMOUS = "anonymous"
"""The plan of requests that carry no known key: they are limited by the client's address."""

OTHER = "other"
"""The class of every model that no class names."""

_DECADE = 10 * 366 * 86_400 * MICROSECONDS
CONCURRENT = "concurrent"
"""The unit of limits on open reservations."""

_LONGEST_LEASE = 60 * MICROSECONDS

FAILURES = "failures"
"""The unit of limits on failed responses."""

MOST_FAILURES = 1000
"""Each failure that still counts is remembered by its time, so there is a bound to how many."""

_FIELDS_OF = {
    CONCURRENT: ("unit", "capacity", "ttl", "per", "mode", "on_outage"),
    FAILURES: ("unit", "rate", "block", "per", "mode", "on_outage", "denial_memory"),
}
_ONLY_OF = {"capacity": CONCURRENT, "ttl": CONCURRENT, "block": FAILURES}

_LEAST_LEASE = 2

Scope = Literal["key", "tenant", "model"]
OnOutage = Literal["allow", "deny", "local"]
Charge = Literal["check", "settle"]
UnknownKeys = Literal["default_plan", "anonymous", "deny"]


def _pattern(pattern: str, description: str) -> Any:  # noqa: ANN401 - Annotated metadata has no common type
    """Restrict text to a pattern, with a description in place of the pattern where it is broken."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{short(value)} is not allowed: {description}")
        return value

    return AfterValidator(check), WithJsonSchema(
        {"type": "string", "pattern": f"^{pattern}$", "description": description}
    )


Name = Annotated[
    StrictStr, *_pattern("[A-Za-z0-9][A-Za-z0-9_-]{0,63}", "1 to 64 letters, digits, `_` and `-`")
]
Identifier = Annotated[StrictStr, *_pattern("[!-~]{1,256}", "1 to 256 visible ASCII characters, no spaces")]
Count = Annotated[StrictInt, Field(ge=1, le=MAX_COUNT)]
RateText = Annotated[
    Rate,
    BeforeValidator(lambda value: value if isinstance(value, Rate) else Rate.parse(value)),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": "^[0-9]+/(second|minute|hour|day|[0-9]+[smhd])$",
            "description": ALLOWED,
            "examples": ["20/minute", "100/30s"],
        }
    ),
]
PeriodText = Annotated[
    int,
    BeforeValidator(parse_period),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]+[smhd]$", "examples": ["30s", "10m"]}),
]
_ONE, _BY_CLASS = f"{TAG}one", f"{TAG}by-class"
Rates = Annotated[
    Annotated[RateText, Tag(_ONE)] | Annotated[dict[Name, RateText], Field(min_length=1), Tag(_BY_CLASS)],
    Discriminator(lambda value: _BY_CLASS if isinstance(value, Mapping) else _ONE),
]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LeaseSpec(_Spec):
    """How much of a bucket a process may take in advance, and for how long it may keep it."""

    share: float = Field(
        gt=0,
        le=0.5,
        strict=True,
        description="the part of the burst that one process takes at a time, up to a half",
    )
    ttl: PeriodText = Field(
        MICROSECONDS, description="when what is left of it goes back; 1s unless given, at most 60s"
    )

    @model_validator(mode="after")
    def _short(self) -> LeaseSpec:
        if self.ttl > _LONGEST_LEASE:
            raise at("ttl", "is at most 60s: a process that crashes takes its leases with it")
        return self


class LimitSpec(_Spec):
    """A rate over one unit, with a burst and a scope."""

    unit: Name = Field(
        "requests", description="what is counted; a check costs 1 of `requests` unless it says more"
    )
    rate: Rates | None = Field(
        None, description="one rate, or one for each model class when `per` names `model`"
    )
    burst: Count | None = Field(None, description="the bucket's capacity; the rate's count unless given")
    per: list[Scope] = Field(["key"], description="what a bucket belongs to; [] is one bucket for everyone")
    mode: Mode = Field("enforce", description="`shadow` counts and reports but never denies")
    on_outage: OnOutage = Field("allow", description="the answer when the store cannot give one")
    charge: Charge = Field(
        "check", description="`settle`: a check needs something left and takes nothing, the settlement takes"
    )
    denial_memory: StrictBool = Field(
        True, description="whether a denial may be repeated from memory, for a second at the most"
    )
    lease: LeaseSpec | None = Field(
        None, description="tokens that a process takes in advance, to spend without asking the store"
    )
    capacity: Count | None = Field(None, description="of `concurrent`: reservations open at once")
    ttl: PeriodText | None = Field(
        None, description="of `concurrent`: when an abandoned reservation frees its slot; 10m unless given"
    )
    block: PeriodText | None = Field(
        None,
        description="of `failures`: how long a key that is over stays shut; the rate's period unless given",
    )

    @model_validator(mode="after")
    def _consistent(self) -> LimitSpec:
        if len(set(self.per)) != len(self.per):
            raise at("per", "names something twice")
        self._fields_of_the_unit()
        if isinstance(self.rate, dict) and "model" not in self.per:
            raise at("rate", "for each model class needs `model` in `per`, such as per: [key, model]")
        if self.lease is not None and self.charge == "settle":
            raise at("lease", "needs a limit that checks are charged to, and `charge: settle` charges later")
        for rate in self.rates():
            burst = self.burst or rate.count
            if self.lease is not None and burst * self.lease.share < _LEAST_LEASE:
                message = f"{self.lease.share:g} of a burst of {burst} is less than {_LEAST_LEASE} tokens"
                raise at("lease", f"{message}: not worth it")
            if burst * rate.period > _DECADE * rate.count:
                raise at("burst", f"{burst} at {rate} would take over ten years to refill")
            if self.unit == FAILURES and rate.count > MOST_FAILURES:
                raise at("rate", f"counts at most {MOST_FAILURES} failures, not {rate.count}")
        return self

    def _fields_of_the_unit(self) -> None:
        """Some units have a meaning of their own, and fields that go with it."""
        allowed = _FIELDS_OF.get(self.unit)
        for name in sorted(self.model_fields_set):
            if getattr(self, name) == type(self).model_fields[name].get_default():
                continue
            if allowed is not None and name not in allowed:
                raise at(name, f"unit {self.unit!r} has no such field; it has {', '.join(allowed)}")
            if _ONLY_OF.get(name, self.unit) != self.unit:
                raise at(name, f"goes with unit {_ONLY_OF[name]!r}, not {self.unit!r}")
        if (self.unit == CONCURRENT and self.capacity is None) or (
            self.unit != CONCURRENT and self.rate is None
        ):
            needs = ("capacity", "1 to 10^12") if self.unit == CONCURRENT else ("rate", ALLOWED)
            raise at(needs[0], f"required; {needs[1]}")
        if self.on_outage == "local" and (allowed is not None or self.charge == "settle"):
            raise at("on_outage", "local needs a bucket that checks are charged to; use allow or deny")

    def rates(self) -> list[Rate]:
        """Return every rate of the limit."""
        if self.rate is None:
            return []
        return list(self.rate.values()) if isinstance(self.rate, dict) else [self.rate]


class PlanSpec(_Spec):
    """A named set of limits."""

    limits: dict[Name, LimitSpec] = Field(max_length=64)


class KeySpec(_Spec):
    """What one key is assigned to."""

    plan: Name | None = Field(None, description="the key's plan; the default plan unless given")
    tenant: Identifier | None = Field(None, description="who owns the key; the key itself unless given")


class TenantSpec(_Spec):
    """What one tenant is assigned to."""

    plan: Name | None = Field(None, description="the plan of each key of the tenant that has none of its own")


class PolicySpec(_Spec):
    """Plans, model classes and defaults."""

    default_plan: Name | None = Field(
        None, description="the plan of a key that names none; optional with one plan"
    )
    models: dict[Name, list[Identifier]] = Field({}, description="class: its model ids")
    plans: dict[Name, PlanSpec] = Field(min_length=1)
    keys: dict[Identifier, KeySpec] = Field({}, description="keys with a plan or tenant of their own")
    tenants: dict[Identifier, TenantSpec] = Field({}, description="tenants with a plan of their own")
    unknown_keys: UnknownKeys = Field(
        "default_plan",
        description="what holds for a secret that neither `keys` nor an assignment knows: the default plan,"
        " the plan `anonymous` by the client's address, or 401",
    )


def fields_at(path: tuple[str, ...]) -> list[str]:
    """Return the fields that are allowed where the last step of `path` stands."""
    specs: dict[tuple[str, int], type[_Spec]] = {
        ("plans", 3): PlanSpec,
        ("plans", 5): LimitSpec,
        ("plans", 6): LeaseSpec,
        ("keys", 3): KeySpec,
        ("tenants", 3): TenantSpec,
    }
    return list(specs.get((path[0], len(path)), PolicySpec).model_fields)
