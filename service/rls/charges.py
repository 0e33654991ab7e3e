"""What a request of the rate-limit service asks for: its descriptors, as charges of the limiter.

A descriptor is a list of entries, which are names and values that Envoy's configuration makes of a request:

`key`      the API key's identifier
`secret`   a secret instead, which is hashed; a scheme such as `Bearer` before it is left out
`address`  the client's address, for requests without a known key
`plan`, `model`, `tenant`   the fields of a check
`unit`     what `hits_addend` counts; `requests` unless given
`settle`   `true`: the request is over and this was used; it is charged past zero

Other entries mean nothing here. A descriptor without `key`, `secret` and `address` has no limit.

Descriptors of one request with the same key, plan, model and tenant are one check, which takes from all its
limits or from none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypedDict, cast

from ratelimit import Fault, InvalidRequest
from ratelimit.policy.spec import ANONYMOUS
from ratelimit.request.check import MAX_COUNT
from service.identity import identify_address, identify_secret

if TYPE_CHECKING:
    from envoy.extensions.common.ratelimit.v3.ratelimit_pb2 import RateLimitDescriptor
    from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest

    from ratelimit.web.identity import Identity
    from service.sidecar import Sidecar

_FIELDS: Final = ("plan", "model", "tenant")
_ENTRIES: Final = frozenset({"key", "secret", "address", *_FIELDS, "unit", "settle"})
_SETTLE_VALUES: Final = {"true": True, "false": False}


class Fields(TypedDict, total=False):
    """The fields of a check that a descriptor may have."""

    plan: str
    model: str
    tenant: str


class Charge(NamedTuple):
    """What some descriptors ask for together.

    Attributes:
        key: the API key's identifier.
        fields: the plan, model and tenant, those that are given.
        settles: whether this was used already, and is charged past zero.
        cost: how much of each unit.
        units: the unit of each descriptor, by the descriptor's place in the request.
    """

    key: str
    fields: Fields
    settles: bool
    cost: dict[str, float]
    units: dict[int, str]

    @property
    def only_looks(self) -> bool:
        """Whether it takes nothing: every `hits_addend` is 0."""
        return not any(self.cost.values())


def read_charges(request: RateLimitRequest, sidecar: Sidecar) -> list[Charge]:
    """Return what the descriptors of a request ask for.

    Raises:
        InvalidRequest: an entry is given twice, or its value is not allowed.
        Problem: the policy denies the key.
    """
    charges: dict[tuple[object, ...], Charge] = {}
    for index, descriptor in enumerate(request.descriptors):
        entries = _read_entries(descriptor)
        identity = _identify(entries, sidecar)
        if identity is None:
            continue
        key, is_anonymous = identity
        settles = _read_settle(entries.get("settle", "false"))
        unit = entries.get("unit") or "requests"
        fields = cast("Fields", {name: value for name in _FIELDS if (value := entries.get(name))})
        if is_anonymous:
            fields["plan"] = ANONYMOUS
        place = (settles, key, *map(fields.get, _FIELDS))
        charge = charges.setdefault(place, Charge(key, fields, settles, {}, {}))
        amount = charge.cost.get(unit, 0) + _read_amount(request, descriptor)
        charge.cost[unit] = min(amount, float(MAX_COUNT))
        charge.units[index] = unit
    return [*charges.values()]


def _read_entries(descriptor: RateLimitDescriptor) -> dict[str, str]:
    entries: dict[str, str] = {}
    for entry in descriptor.entries:
        if entry.key in entries:
            raise InvalidRequest(
                [Fault(entry.key, "is an entry of the descriptor twice; one may be the client's")]
            )
        if entry.key in _ENTRIES:
            entries[entry.key] = entry.value
    return entries


def _identify(entries: dict[str, str], sidecar: Sidecar) -> Identity | None:
    """Return whose request it is; None if no entry says so."""
    if "key" in entries:
        return entries["key"], False
    identity = None
    if secret := _read_secret(entries.get("secret", "")):
        identity = identify_secret(secret, sidecar)
    if identity is None and "address" in entries:
        return identify_address(entries["address"], sidecar)
    if identity is None and "secret" in entries:
        raise InvalidRequest([Fault("address", "is required for a secret that is empty or not known")])
    return identity


def _read_secret(text: str) -> str:
    """Return the secret of `Bearer <secret>`, or of a header that holds nothing else."""
    scheme, space, secret = text.strip().partition(" ")
    if not space:
        return "" if scheme.lower() == "bearer" else scheme
    return secret.strip() if scheme.lower() == "bearer" else ""


def _read_settle(text: str) -> bool:
    if text not in _SETTLE_VALUES:
        raise InvalidRequest([Fault("settle", "must be true or false")])
    return _SETTLE_VALUES[text]


def _read_amount(request: RateLimitRequest, descriptor: RateLimitDescriptor) -> float:
    """Return the addend of a descriptor, else that of the request, where 0 stands for 1: it is not given."""
    if descriptor.HasField("hits_addend"):
        return float(min(descriptor.hits_addend.value, MAX_COUNT))
    return float(request.hits_addend or 1)
