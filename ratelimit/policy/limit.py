"""One limit: a named rate over one unit, with a burst and a scope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast

import pydantic

from ratelimit.errors import Fault, PolicyError
from ratelimit.policy.rate import Rate, write_period
from ratelimit.policy.shape import Shape
from ratelimit.policy.spec import (
    CONCURRENT,
    FAILURES,
    OTHER,
    Charge,
    LeaseSpec,
    LimitSpec,
    Name,
    OnOutage,
    Scope,
)
from ratelimit.request.timestamp import MICROSECONDS
from ratelimit.request.validation import make_faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ratelimit.decision.limit_state import Mode

Kind = Literal["bucket", "post-paid", "slots", "failures"]

_DEFAULT_TTL: Final = 600 * MICROSECONDS
"""Time after which a reservation that is not settled frees its slot."""

_LEASE_FIELD_STEPS: Final = 3
"""Steps of a path to a field of a lease: the limit's name, `lease`, the field."""

_LIMIT_BY_NAME: Final = pydantic.TypeAdapter(dict[Name, LimitSpec])


@dataclass(frozen=True, slots=True)
class Limit:
    """A named rate over one unit, with a burst and a scope.

    ```python
    Limit("requests", "60/minute", burst=20)
    Limit("tokens", {"small": "90000/minute", "other": "30000/minute"}, unit="tokens", per=["key", "model"])
    ```

    Attributes:
        name: the limit's name in decisions and headers. The store keeps the limit's state under it:
            what was used stays counted when anything but the name is changed.
        rate: `N/second|minute|hour|day` or `N/30s`, `N/5m`, `N/2h`, `N/7d`; or a rate for each
            model class. N is from 1 to 10^12.
        burst: the bucket's capacity, 1 to 10^12; by default the N of the rate.
        unit: what is counted. By default a check costs 1 of `requests` and nothing of other units.
        per: what a bucket belongs to: any of `key`, `tenant`, `model`; [] means one bucket for everyone.
        mode: `enforce`; or `shadow`, which counts and reports but never denies.
        on_outage: the decision when the store does not answer: `allow`, `deny`, or `local` (decide by a
            bucket of this process, which starts from the last state that the process has seen).
        local_share: only with `on_outage: local`: the part of the rate and of the burst that one process
            admits during an outage, above 0 and at most 1. With n processes, 1/n keeps the limit.
        charge: with `check` the check takes the cost. With `settle` the check passes if the bucket is
            not empty, and takes nothing; the settlement takes what was used, even below empty.
        denial_memory: whether a process may repeat a denial from memory, without asking the store,
            until the bucket admits again but for at most a second. Not for unit `concurrent`.
        lease: `{"share": 0.05, "ttl": "1s"}`: how much of a bucket with frequent checks a process may
            take in advance and spend without asking the store. Give it to all limits of a plan or to none.
        capacity: only for unit `concurrent`, instead of a rate: how many reservations may be open at
            once, 1 to 10^12.
        ttl: only for unit `concurrent`: the time after which a reservation that is not settled frees
            its slot, such as `30s` or `10m`; 10 minutes by default.
        block: only for unit `failures`: how long checks are denied after more than N failures in the
            period; by default the period.

    Raises:
        PolicyError: a value is unknown, misspelt or contradicts another.
    """

    name: str
    rate: Rate | str | Mapping[str, Rate | str] | None = None
    burst: int | None = None
    unit: str = "requests"
    per: Sequence[Scope] = ("key",)
    mode: Mode = "enforce"
    on_outage: OnOutage = "allow"
    local_share: float = 1.0
    charge: Charge = "check"
    denial_memory: bool = True
    lease: LeaseSpec | Mapping[str, object] | None = None
    capacity: int | None = None
    ttl: str | int | None = None
    block: str | int | None = None

    def __post_init__(self) -> None:
        """Validate the limit by the schema of the policy file."""
        raw = {field: getattr(self, field) for field in LimitSpec.model_fields}
        if isinstance(self.per, tuple):
            raw["per"] = list(self.per)
        try:
            [(_, spec)] = _LIMIT_BY_NAME.validate_python({self.name: raw}).items()
        except pydantic.ValidationError as error:
            raise PolicyError(
                make_faults(error, _find_allowed_fields, echo=True), f"Limit({self.name!r})"
            ) from None
        object.__setattr__(self, "rate", spec.rate)
        object.__setattr__(self, "per", tuple(spec.per))
        object.__setattr__(self, "ttl", spec.ttl)
        object.__setattr__(self, "block", spec.block)
        object.__setattr__(self, "lease", spec.lease)

    @classmethod
    def of_spec(cls, name: str, spec: LimitSpec) -> Limit:
        """Make a limit from its part of a policy file."""
        fields = dict(spec)
        for time in ("ttl", "block"):
            fields[time] = fields[time] and write_period(fields[time])
        return cls(name, **fields)

    def rate_of(self, model_class: str | None) -> Rate:
        """Return the rate for a model class. The class is None if the check names no model."""
        if isinstance(self.rate, Rate):
            return self.rate
        rates = cast("Mapping[str, Rate]", self.rate)  # __post_init__ has parsed all rates
        return rates.get(model_class or OTHER) or rates[OTHER]

    @property
    def kind(self) -> Kind:
        """How the store keeps the limit's state."""
        if self.unit == CONCURRENT:
            return "slots"
        if self.unit == FAILURES:
            return "failures"
        return "post-paid" if self.charge == "settle" else "bucket"

    def shape_of(self, model_class: str | None) -> Shape:
        """Return the limit's numbers for a model class.

        For slots the period is the time to live and the burst is the capacity. For failures the
        burst is the length of the block in microseconds. A shape can hold all of these, so no other
        type is needed.
        """
        if self.kind == "slots":
            return Shape(1.0, float(cast("int | None", self.ttl) or _DEFAULT_TTL), float(self.capacity or 0))
        rate = self.rate_of(model_class)
        if self.kind == "failures":
            return Shape(
                float(rate.count), float(rate.period), float(cast("int | None", self.block) or rate.period)
            )
        return Shape(float(rate.count), float(rate.period), float(self.burst or rate.count))

    def as_dict(self) -> dict[str, object]:
        """Return the limit as plain data, with the fields of the policy file."""
        rates = self.rate if isinstance(self.rate, Mapping) else {}
        rate = {model_class: str(rate) for model_class, rate in rates.items()} or str(self.rate)
        times = {name: write_period(value) for name in ("ttl", "block") if (value := getattr(self, name))}
        if self.kind == "slots":
            numbers: dict[str, object] = {"capacity": self.capacity}
        else:
            numbers = {"rate": rate} if self.burst is None else {"rate": rate, "burst": self.burst}
        behaviour = {"per": list(self.per), "mode": self.mode, "on_outage": self.on_outage}
        local_share = {} if self.local_share == 1 else {"local_share": self.local_share}
        charge = {} if self.kind in {"slots", "failures"} else {"charge": self.charge}
        denial_memory = {} if self.denial_memory else {"denial_memory": False}
        spec = cast("LeaseSpec | None", self.lease)
        lease = {} if spec is None else {"lease": {"share": spec.share, "ttl": write_period(spec.ttl)}}
        optional = {**local_share, **charge, **denial_memory, **lease}
        return {"unit": self.unit, **numbers, **times, **behaviour, **optional}


def refuse_rates_by_class(limit: Limit) -> None:
    """Refuse a limit that needs model classes, for a policy that has none.

    Raises:
        PolicyError: the limit has a rate for a model class other than `other`.
    """
    if isinstance(limit.rate, Mapping) and set(limit.rate) != {OTHER}:
        fault = Fault(
            "rate",
            "must be one rate, because rates by model class need the `models` of a policy; use"
            " Policy.from_text or Policy.from_file",
        )
        raise PolicyError([fault], f"Limit({limit.name!r})")


def _find_allowed_fields(path: tuple[str, ...]) -> Iterable[str]:
    return LeaseSpec.model_fields if len(path) == _LEASE_FIELD_STEPS else LimitSpec.model_fields
