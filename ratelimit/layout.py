"""Where in the store the limits of a plan are kept.

One hash holds all the buckets of one owner, two fields a limit:

    rl1:{tenant}:k:key   buckets of a key          rl1:{key}:k   where the key is its own tenant
    rl1:{tenant}:t       buckets of a tenant
    rl1:{*}              buckets that everyone shares

The tenant in braces is the hash tag: all there is about one tenant lives in one cluster slot and
is decided in one atomic call. Whatever is not a plain letter, digit or `_ - . ~` is written as its
percent code, so no key or tenant can be read as another's, nor as the `*` of everyone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from ratelimit.policy.spec import OTHER

if TYPE_CHECKING:
    from ratelimit.bucket import Shape
    from ratelimit.policy import Limit, Policy

Owner = Literal["key", "tenant", "everyone"]

PREFIX = "rl1"
"""The version of the layout: a new one never reads an old one's state."""

EVERYONE = f"{PREFIX}:{{*}}"


@dataclass(frozen=True, slots=True)
class Slot:
    """One limit's place: the field of its owner's hash, and the shape of the bucket there.

    Attributes:
        position: its place among the plan's limits.
        args: field, count, period and burst, ready to be sent.
    """

    limit: Limit
    shape: Shape
    field: str
    position: int
    args: tuple[str, float, float, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """The slots of one plan for one model class, grouped by who owns the hash they lie in."""

    groups: tuple[tuple[Owner, tuple[Slot, ...]], ...]


def lay_out(policy: Policy, plan: str, model_class: str | None) -> Layout:
    """Return where the limits of `plan` are kept for requests of a model class."""
    groups: dict[Owner, list[Slot]] = {}
    for position, limit in enumerate(policy.plans[plan].limits):
        owner: Owner = "key" if "key" in limit.per else "tenant" if "tenant" in limit.per else "everyone"
        field = f"{limit.name}:{model_class or OTHER}" if "model" in limit.per else limit.name
        shape = limit.shape_of(model_class)
        slot = Slot(limit, shape, field, position, (field, shape.count, shape.period, shape.burst))
        groups.setdefault(owner, []).append(slot)
    return Layout(tuple((owner, tuple(slots)) for owner, slots in groups.items()))


def hash_of(owner: Owner, key: str, tenant: str) -> str:
    """Return the name of the hash that holds the buckets of `owner`."""
    if owner == "everyone":
        return EVERYONE
    tag = f"{PREFIX}:{{{_escape(tenant)}}}"
    if owner == "tenant":
        return f"{tag}:t"
    return f"{tag}:k" if key == tenant else f"{tag}:k:{_escape(key)}"


def _escape(text: str) -> str:
    return text if text.isalnum() else quote(text, safe="")
