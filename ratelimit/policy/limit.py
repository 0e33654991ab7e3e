"""One limit: a named rate over one unit, with a burst and a scope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pydantic

from ratelimit.bucket import Shape
from ratelimit.errors import Fault, PolicyError
from ratelimit.faults import faults_of
from ratelimit.policy.spec import OTHER, Charge, LimitSpec, Mode, Name, OnOutage, Scope
from ratelimit.rate import Rate

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        charge: when the cost is taken: at the `check`.

    Raises:
        PolicyError: something is unknown, misspelt or contradictory.
    """

    name: str
    rate: Rate | str | Mapping[str, Rate | str]
    burst: int | None = None
    unit: str = "requests"
    per: Sequence[Scope] = ("key",)
    mode: Mode = "enforce"
    on_outage: OnOutage = "allow"
    charge: Charge = "check"

    def __post_init__(self) -> None:
        """Hold a limit written in Python to the schema of the policy file."""
        raw = {field: getattr(self, field) for field in LimitSpec.model_fields}
        if isinstance(self.per, tuple):
            raw["per"] = list(self.per)
        try:
            [(_, spec)] = _named.validate_python({self.name: raw}).items()
        except pydantic.ValidationError as error:
            raise PolicyError(
                faults_of(error, lambda _: LimitSpec.model_fields, echo=True), f"Limit({self.name!r})"
            ) from None
        object.__setattr__(self, "rate", spec.rate)
        object.__setattr__(self, "per", tuple(spec.per))

    def rate_of(self, model_class: str | None) -> Rate:
        """Return the rate that holds for a model class (None where no model was named)."""
        if isinstance(self.rate, Rate):
            return self.rate
        rates = cast("Mapping[str, Rate]", self.rate)  # __post_init__ parsed every rate
        return rates.get(model_class or OTHER) or rates[OTHER]

    def shape_of(self, model_class: str | None) -> Shape:
        """Return the bucket's shape for a model class."""
        rate = self.rate_of(model_class)
        return Shape(float(rate.count), float(rate.period), float(self.burst or rate.count))

    def as_dict(self) -> dict[str, object]:
        """Return the limit as plain data, in the shape of the policy file."""
        by_class = self.rate if isinstance(self.rate, Mapping) else {}
        rate = {name: str(rate) for name, rate in by_class.items()} or str(self.rate)
        return {
            "unit": self.unit,
            "rate": rate,
            "burst": self.burst,
            "per": list(self.per),
            "mode": self.mode,
            "on_outage": self.on_outage,
            "charge": self.charge,
        }


def check_alone(limit: Limit) -> None:
    """Refuse a limit that only a policy with model classes could hold.

    Raises:
        PolicyError: the limit has a rate for a model class.
    """
    if not isinstance(limit.rate, Rate) and set(limit.rate) != {OTHER}:
        fault = Fault(
            "rate", "rates by model class need the `models` of a policy; use Policy.from_text or from_file"
        )
        raise PolicyError([fault], f"Limit({limit.name!r})")
