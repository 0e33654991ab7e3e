"""The policy file as a schema. This module alone defines which fields exist.

It is the source of the JSON Schema of `ratelimit policy schema`, of the errors of `ratelimit
policy check`, and of the checks of a `Limit` written in Python.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

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
from ratelimit.policy.rate import RATE_HELP, Rate, parse_period
from ratelimit.request.check import MAX_COUNT
from ratelimit.request.timestamp import MICROSECONDS
from ratelimit.request.validation import TAG_PREFIX, make_field_error, shorten

ANONYMOUS: Final = "anonymous"
"""The plan of requests without a known key. They are limited by the client's address."""

OTHER: Final = "other"
"""The class of all models that no model class lists."""

CONCURRENT: Final = "concurrent"
"""The unit of limits on open reservations."""

FAILURES: Final = "failures"
"""The unit of limits on failed responses."""

_MAX_FAILURES: Final = 1000
"""Largest N of a limit on failures: the store keeps the time of each failure that still counts."""

_MIN_LEASED_TOKENS: Final = 2
_MIN_LOCAL_TOKENS: Final = 1 - 1e-9  # not 1: 49 · (1 / 49) is less
_MAX_LEASE_TTL: Final = 60 * MICROSECONDS
_MAX_REFILL_TIME: Final = 10 * 366 * 86_400 * MICROSECONDS

_FIELDS_BY_UNIT: Final = {
    CONCURRENT: ("unit", "capacity", "ttl", "per", "mode", "on_outage"),
    FAILURES: ("unit", "rate", "block", "per", "mode", "on_outage", "denial_memory"),
}
_UNIT_BY_FIELD: Final = {"capacity": CONCURRENT, "ttl": CONCURRENT, "block": FAILURES}

Scope = Literal["key", "tenant", "model"]
OnOutage = Literal["allow", "deny", "local"]
Charge = Literal["check", "settle"]
UnknownKeys = Literal["default_plan", "anonymous", "deny"]


def _restrict_text(pattern: str, description: str) -> Any:  # noqa: ANN401 - Annotated metadata has no common type
    """Allow only text that matches a pattern. The error shows the description, not the pattern."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{shorten(value)} is not allowed; allowed: {description}")
        return value

    return AfterValidator(check), WithJsonSchema(
        {"type": "string", "pattern": f"^{pattern}$", "description": description}
    )


Name = Annotated[
    StrictStr,
    *_restrict_text(
        "[A-Za-z0-9][A-Za-z0-9_-]{0,63}",
        "1 to 64 letters, digits, `_` and `-`, of which the first is a letter or digit",
    ),
]
Identifier = Annotated[
    StrictStr, *_restrict_text("[!-~]{1,256}", "1 to 256 visible ASCII characters, without spaces")
]
Count = Annotated[StrictInt, Field(ge=1, le=MAX_COUNT)]
RateText = Annotated[
    Rate,
    BeforeValidator(lambda value: value if isinstance(value, Rate) else Rate.parse(value)),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": "^[0-9]+/(second|minute|hour|day|[0-9]+[smhd])$",
            "description": RATE_HELP,
            "examples": ["20/minute", "100/30s"],
        }
    ),
]
PeriodText = Annotated[
    int,
    BeforeValidator(parse_period),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]+[smhd]$", "examples": ["30s", "10m"]}),
]
_ONE_RATE, _RATE_BY_CLASS = f"{TAG_PREFIX}one-rate", f"{TAG_PREFIX}rate-by-class"
Rates = Annotated[
    Annotated[RateText, Tag(_ONE_RATE)]
    | Annotated[dict[Name, RateText], Field(min_length=1), Tag(_RATE_BY_CLASS)],
    Discriminator(lambda value: _RATE_BY_CLASS if isinstance(value, Mapping) else _ONE_RATE),
]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LeaseSpec(_Spec):
    """How many tokens a process may take in advance, and how long it may keep them."""

    share: float = Field(
        gt=0,
        le=0.5,
        strict=True,
        description="the part of the burst that a process takes at a time; above 0, at most 0.5",
    )
    ttl: PeriodText = Field(
        MICROSECONDS,
        description="how long a process keeps the tokens before it returns the rest; 1s by default, at most"
        " 60s",
        json_schema_extra={"default": "1s"},  # not in microseconds, as the model holds it
    )

    @model_validator(mode="after")
    def _check_ttl(self) -> LeaseSpec:
        if self.ttl > _MAX_LEASE_TTL:
            raise make_field_error(
                "ttl", "must be at most 60s, because a process that crashes loses the tokens of its leases"
            )
        return self


class LimitSpec(_Spec):
    """A rate over one unit, with a burst and a scope."""

    unit: Name = Field(
        "requests",
        description="what is counted; a check costs 1 of `requests` unless its cost says otherwise",
    )
    rate: Rates | None = Field(
        None, description="one rate; or a rate for each model class, if `per` contains `model`"
    )
    burst: Count | None = Field(None, description="the bucket's capacity; by default the N of the rate")
    per: list[Scope] = Field(
        ["key"], description="what a bucket belongs to; [] means one bucket for everyone"
    )
    mode: Mode = Field("enforce", description="`shadow` counts and reports but never denies")
    on_outage: OnOutage = Field("allow", description="the decision when the store does not answer")
    local_share: float = Field(
        1.0,
        gt=0,
        le=1,
        strict=True,
        description="only with `on_outage: local`: the part of the rate and of the burst that one process"
        " admits during an outage; above 0, at most 1",
    )
    charge: Charge = Field(
        "check",
        description="`check`: the check takes the cost. `settle`: the check passes if the bucket is not empty"
        " and takes nothing; the settlement takes what was used",
    )
    denial_memory: StrictBool = Field(
        True, description="whether a process may repeat a denial from memory, for at most a second"
    )
    lease: LeaseSpec | None = Field(
        None, description="tokens that a process takes in advance and spends without asking the store"
    )
    capacity: Count | None = Field(
        None, description="only for unit `concurrent`: how many reservations may be open at once"
    )
    ttl: PeriodText | None = Field(
        None,
        description="only for unit `concurrent`: the time after which a reservation that is not settled frees"
        " its slot; 10m by default",
    )
    block: PeriodText | None = Field(
        None,
        description="only for unit `failures`: how long checks are denied after too many failures; by default"
        " the period of the rate",
    )

    @model_validator(mode="after")
    def _check_fields_together(self) -> LimitSpec:
        if len(set(self.per)) != len(self.per):
            raise make_field_error("per", "must not contain the same value twice")
        self._check_fields_of_unit()
        if isinstance(self.rate, dict) and "model" not in self.per:
            raise make_field_error(
                "rate",
                "must be one rate, because a rate for each model class needs `model` in `per`, for example"
                " per: [key, model]",
            )
        if self.lease is not None and self.charge == "settle":
            raise make_field_error(
                "lease", "is not allowed with `charge: settle`; allowed with `charge: check`"
            )
        if self.local_share != 1 and self.on_outage != "local":
            raise make_field_error("local_share", "is allowed only with `on_outage: local`")
        for rate in self.rates():
            burst = self.burst or rate.count
            if burst * self.local_share < _MIN_LOCAL_TOKENS:
                raise make_field_error(
                    "local_share",
                    f"{self.local_share:g} of a burst of {burst} is less than 1 token, so nothing would be"
                    " admitted during an outage; use a larger `local_share`, a larger burst, or `on_outage:"
                    " deny`",
                )
            if self.lease is not None and burst * self.lease.share < _MIN_LEASED_TOKENS:
                raise make_field_error(
                    "lease",
                    f"{self.lease.share:g} of a burst of {burst} is less than {_MIN_LEASED_TOKENS} tokens,"
                    " which saves nothing; use a larger `share`, a larger burst, or no lease",
                )
            if burst * rate.period > _MAX_REFILL_TIME * rate.count:
                raise make_field_error(
                    "burst",
                    f"a burst of {burst} at {rate} takes more than ten years to refill; use a smaller burst"
                    " or a higher rate",
                )
            if self.unit == FAILURES and rate.count > _MAX_FAILURES:
                raise make_field_error(
                    "rate", f"the N of a limit on failures is at most {_MAX_FAILURES}, not {rate.count}"
                )
        return self

    def _check_fields_of_unit(self) -> None:
        """Check that each field goes with the unit, and that no required field is missing."""
        allowed = _FIELDS_BY_UNIT.get(self.unit)
        for name in sorted(self.model_fields_set):
            if getattr(self, name) == type(self).model_fields[name].get_default():
                continue
            if allowed is not None and name not in allowed:
                raise make_field_error(
                    name, f"is not allowed with unit {self.unit!r}; allowed: {', '.join(allowed)}"
                )
            if _UNIT_BY_FIELD.get(name, self.unit) != self.unit:
                raise make_field_error(
                    name, f"is allowed only with unit {_UNIT_BY_FIELD[name]!r}, not with {self.unit!r}"
                )
        if self.unit == CONCURRENT and self.capacity is None:
            raise make_field_error("capacity", "required; write a whole number from 1 to 10^12")
        if self.unit != CONCURRENT and self.rate is None:
            raise make_field_error("rate", f"required; {RATE_HELP}")
        if self.on_outage == "local" and (allowed is not None or self.charge == "settle"):
            raise make_field_error(
                "on_outage",
                f"'local' is not allowed with unit {self.unit!r}; use 'allow' or 'deny'"
                if allowed is not None
                else "'local' is not allowed with `charge: settle`; use 'allow' or 'deny'",
            )

    def rates(self) -> list[Rate]:
        """Return all rates of the limit."""
        if self.rate is None:
            return []
        return list(self.rate.values()) if isinstance(self.rate, dict) else [self.rate]


class PlanSpec(_Spec):
    """A named set of limits."""

    limits: dict[Name, LimitSpec] = Field(max_length=64)


class KeySpec(_Spec):
    """The plan and the tenant of one key."""

    plan: Name | None = Field(
        None, description="the key's plan; by default the plan of its tenant, else the default plan"
    )
    tenant: Identifier | None = Field(
        None, description="the account that owns the key; by default the key itself"
    )


class TenantSpec(_Spec):
    """The plan of one tenant."""

    plan: Name | None = Field(
        None, description="the plan of those keys of the tenant that have no plan of their own"
    )


class PolicySpec(_Spec):
    """Plans, model classes, keys, tenants and defaults."""

    default_plan: Name | None = Field(
        None, description="the plan of keys that have no other plan; optional if there is only one plan"
    )
    models: dict[Name, list[Identifier]] = Field(
        {}, description="model classes: the name of each, and the ids of its models"
    )
    plans: dict[Name, PlanSpec] = Field(min_length=1)
    keys: dict[Identifier, KeySpec] = Field({}, description="keys with a plan or tenant of their own")
    tenants: dict[Identifier, TenantSpec] = Field({}, description="tenants with a plan of their own")
    unknown_keys: UnknownKeys = Field(
        "default_plan",
        description="how to answer a secret whose key is neither in `keys` nor assigned: `default_plan`"
        " applies the default plan, `anonymous` applies the plan `anonymous` to the client's address, `deny`"
        " answers 401",
    )


def find_allowed_fields(path: tuple[str, ...]) -> list[str]:
    """Return the names of the fields that are allowed in place of the last step of `path`."""
    specs: dict[tuple[str, int], type[_Spec]] = {
        ("plans", 3): PlanSpec,
        ("plans", 5): LimitSpec,
        ("plans", 6): LeaseSpec,
        ("keys", 3): KeySpec,
        ("tenants", 3): TenantSpec,
    }
    return list(specs.get((path[0], len(path)), PolicySpec).model_fields)
