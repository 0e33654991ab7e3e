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

DEFAULT_TTL: Final = 600 * MICROSECONDS
"""When an abandoned reservation frees its slot."""

_IN_LEASE: Final = 3
"""How deep a path is that ends in a lease: the limit's name, `lease`, and a field of it."""

_named = pydantic.TypeAdapter(dict[Name, LimitSpec])


@dataclass(frozen=True, slots=True)
class Limit:
    """A named rate over one unit, with a burst and a scope.

    ```python
    Limit("requests", "60/minute", burst=20)
    Limit("tokens", {"small": "90000/minute", "other": "30000/minute"}, unit="tokens", per=["key", "model"])
    ```

    Attributes:
        name: what the limit is called in answers and headers, and what its state is filed
            under: editing anything else keeps what was used.
        rate: `N/second|minute|hour|day` or `N/30s`, `N/5m`, `N/2h`, `N/7d`; or a rate for each
            model class. N is from 1 to 10^12.
        burst: the bucket's capacity, 1 to 10^12; the rate's N unless given.
        unit: what is counted. A check costs 1 of `requests` unless it says otherwise, and
            nothing of any other unit unless it says so.
        per: what a bucket belongs to: any of `key`, `tenant`, `model`; [] is one for everyone.
        mode: `enforce`, or `shadow` to count and report without ever denying.
        on_outage: the answer when the store cannot give one: `allow`, `deny` or `local`.
        charge: `check` takes the cost at the check; with `settle` a check needs something left
            and takes nothing, and the settlement takes what was used, below empty if need be.
        denial_memory: whether a process may repeat a denial from memory until the bucket admits,
            for a second at the most, without asking the store. Not for unit `concurrent`.
        lease: `{"share": 0.05, "ttl": "1s"}`: what a process may take in advance of a bucket that is
            asked for all the time, to spend without asking the store. All limits of a plan or none.
        capacity: of unit `concurrent`: reservations open at once, 1 to 10^12. No rate.
        ttl: of unit `concurrent`: when a reservation that nobody settles frees its slot, as
            `30s`, `10m`; 10 minutes unless given.
        block: of unit `failures`: how long a key with more than N failures in the period stays
            shut; the period unless given.

    Raises:
        PolicyError: something is unknown, misspelt or contradictory.
    """

    name: str
    rate: Rate | str | Mapping[str, Rate | str] | None = None
    burst: int | None = None
    unit: str = "requests"
    per: Sequence[Scope] = ("key",)
    mode: Mode = "enforce"
    on_outage: OnOutage = "allow"
    charge: Charge = "check"
    denial_memory: bool = True
    lease: LeaseSpec | Mapping[str, object] | None = None
    capacity: int | None = None
    ttl: str | int | None = None
    block: str | int | None = None

    def __post_init__(self) -> None:
        """Hold a limit written in Python to the schema of the policy file."""
        raw = {field: getattr(self, field) for field in LimitSpec.model_fields}
        if isinstance(self.per, tuple):
            raw["per"] = list(self.per)
        try:
            [(_, spec)] = _named.validate_python({self.name: raw}).items()
        except pydantic.ValidationError as error:
            raise PolicyError(make_faults(error, _fields_at, echo=True), f"Limit({self.name!r})") from None
        object.__setattr__(self, "rate", spec.rate)
        object.__setattr__(self, "per", tuple(spec.per))
        object.__setattr__(self, "ttl", spec.ttl)
        object.__setattr__(self, "block", spec.block)
        object.__setattr__(self, "lease", spec.lease)

    @classmethod
    def of_spec(cls, name: str, spec: LimitSpec) -> Limit:
        """Make a limit of what a policy file says of it."""
        fields = dict(spec)
        for time in ("ttl", "block"):
            fields[time] = fields[time] and write_period(fields[time])
        return cls(name, **fields)

    def rate_of(self, model_class: str | None) -> Rate:
        """Return the rate that holds for a model class (None where no model was named)."""
        if isinstance(self.rate, Rate):
            return self.rate
        rates = cast("Mapping[str, Rate]", self.rate)  # __post_init__ parsed every rate
        return rates.get(model_class or OTHER) or rates[OTHER]

    @property
    def kind(self) -> Kind:
        """How the store keeps this limit."""
        if self.unit == CONCURRENT:
            return "slots"
        if self.unit == FAILURES:
            return "failures"
        return "post-paid" if self.charge == "settle" else "bucket"

    def shape_of(self, model_class: str | None) -> Shape:
        """Return the limit's numbers for a model class.

        For slots the burst is the capacity and the period the time to live; for failures the
        burst is the block: they too are a number of things, a time and another number.
        """
        if self.kind == "slots":
            return Shape(1.0, float(cast("int | None", self.ttl) or DEFAULT_TTL), float(self.capacity or 0))
        rate = self.rate_of(model_class)
        if self.kind == "failures":
            return Shape(
                float(rate.count), float(rate.period), float(cast("int | None", self.block) or rate.period)
            )
        return Shape(float(rate.count), float(rate.period), float(self.burst or rate.count))

    def as_dict(self) -> dict[str, object]:
        """Return the limit as plain data, in the shape of the policy file."""
        by_class = self.rate if isinstance(self.rate, Mapping) else {}
        rate = {name: str(rate) for name, rate in by_class.items()} or str(self.rate)
        times = {name: write_period(value) for name in ("ttl", "block") if (value := getattr(self, name))}
        if self.kind == "slots":
            numbers: dict[str, object] = {"capacity": self.capacity}
        else:
            numbers = {"rate": rate} if self.burst is None else {"rate": rate, "burst": self.burst}
        meaning = {"per": list(self.per), "mode": self.mode, "on_outage": self.on_outage}
        charge = {} if self.kind in {"slots", "failures"} else {"charge": self.charge}
        memory = {} if self.denial_memory else {"denial_memory": False}
        lease = cast("LeaseSpec | None", self.lease)
        leased = {} if lease is None else {"lease": {"share": lease.share, "ttl": write_period(lease.ttl)}}
        return {"unit": self.unit, **numbers, **times, **meaning, **charge, **memory, **leased}


def check_alone(limit: Limit) -> None:
    """Refuse a limit that only a policy with model classes could hold.

    Raises:
        PolicyError: the limit has a rate for a model class.
    """
    if isinstance(limit.rate, Mapping) and set(limit.rate) != {OTHER}:
        fault = Fault(
            "rate", "rates by model class need the `models` of a policy; use Policy.from_text or from_file"
        )
        raise PolicyError([fault], f"Limit({limit.name!r})")


def _fields_at(path: tuple[str, ...]) -> Iterable[str]:
    return LeaseSpec.model_fields if len(path) == _IN_LEASE else LimitSpec.model_fields
