"""Where in the store the limits of a plan are kept.

One hash holds all the buckets of one owner, two fields a limit:

    rl1:{tenant}:k:key   buckets of a key          rl1:{key}:k   where the key is its own tenant
    rl1:{tenant}:t       buckets of a tenant
    rl1:{*}              buckets that everyone shares
    …#limit              beside a hash, the sorted set of a limit's slots
    rl1:{tenant}:r:id    the record of a reservation
    rl1:{tenant}:q:key:id  the answer to a check, remembered by its request id
    rl1:usage            the stream of usage records
    rl1:keys             what was assigned to keys at run time

The tenant in braces is the hash tag: all there is about one tenant lives in one cluster slot and
is decided in one atomic call. Whatever is not a plain letter, digit or `_ - . ~` is written as its
percent code, so no key or tenant can be read as another's, nor as the `*` of everyone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from ratelimit.policy.spec import OTHER, LeaseSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratelimit.bucket import Shape
    from ratelimit.policy import Limit, Policy
    from ratelimit.policy.limit import Kind

Owner = Literal["key", "tenant", "everyone"]

PREFIX = "rl1"
"""The version of the layout: a new one never reads an old one's state."""

EVERYONE = f"{PREFIX}:{{*}}"
USAGE = f"{PREFIX}:usage"
KEYS = f"{PREFIX}:keys"

FAILURES_MARK = "!"
"""Ends the field of a limit on failures, whose state a bucket of the same name could not read."""

_PLAIN = re.compile("[A-Za-z0-9_.~-]+")
"""What needs no percent codes: most keys."""

LETTERS: dict[Kind, str] = {"bucket": "b", "post-paid": "p", "failures": "f", "slots": "s"}
"""How the scripts call each kind of limit; in upper case one in shadow mode."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one limit is kept.

    Attributes:
        field: its field in the owner's hash; for slots, what follows the `#`.
        position: its place among the plan's limits.
        kind: what the limit is kept as.
        unit: what it counts.
        letter: its kind, as the scripts call it.
    """

    limit: Limit
    shape: Shape
    field: str
    position: int
    kind: Kind
    unit: str
    letter: str

    @property
    def is_slots(self) -> bool:
        """Whether this limit has a set of its own beside the owner's hash."""
        return self.kind == "slots"


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The places of one plan's limits for one model class, grouped by the store's key they lie in.

    Attributes:
        groups: each owner, and what is kept under one key of that owner.
        places: all of them, in the order in which the script reports them.
        ordered: the numbers of the places, in the policy's order.
        weight: how many limits the store looks at.
        words: all of it as lua/check.lua is told.
        lease: what a process may take of each limit in advance; empty where it may not.
        lease_ttl: microseconds for which it may keep that.
    """

    groups: tuple[tuple[Owner, tuple[Place, ...]], ...]
    places: tuple[Place, ...] = field(init=False)
    ordered: tuple[int, ...] = field(init=False)
    weight: int = field(init=False)
    words: tuple[str, ...] = field(init=False)
    lease: tuple[float, ...] = field(init=False)
    lease_ttl: int = field(init=False)

    def __post_init__(self) -> None:
        """Work out once what every check needs."""
        places = tuple(place for _, group in self.groups for place in group)
        numbers = sorted(range(len(places)), key=lambda number: places[number].position)
        object.__setattr__(self, "places", places)
        object.__setattr__(self, "ordered", tuple(numbers))
        object.__setattr__(self, "weight", max(1, len(places)))
        object.__setattr__(self, "words", (str(len(self.groups)), *_words(self.groups)))
        leases = [(place, lease) for place in places if isinstance(lease := place.limit.lease, LeaseSpec)]
        amounts = tuple(float(int(lease.share * place.shape.burst)) for place, lease in leases)
        object.__setattr__(self, "lease", amounts if len(amounts) == len(places) else ())
        object.__setattr__(self, "lease_ttl", min((lease.ttl for _, lease in leases), default=0))

    def names(self, key: str, tenant: str) -> tuple[str, ...]:
        """Return the store's keys, one for each group."""
        return tuple(
            slots_of(hash_of(owner, key, tenant), places[0].field)
            if places[0].is_slots
            else hash_of(owner, key, tenant)
            for owner, places in self.groups
        )


def lay_out(policy: Policy, plan: str, model_class: str | None) -> Layout:
    """Return where the limits of `plan` are kept for requests of a model class."""
    hashes: dict[Owner, list[Place]] = {}
    slots: list[tuple[Owner, tuple[Place, ...]]] = []
    for position, limit in enumerate(policy.plans[plan].limits):
        owner: Owner = "key" if "key" in limit.per else "tenant" if "tenant" in limit.per else "everyone"
        name = f"{limit.name}:{model_class or OTHER}" if "model" in limit.per else limit.name
        if limit.kind == "failures":
            name += FAILURES_MARK
        shape = limit.shape_of(model_class)
        letter = LETTERS[limit.kind]
        letter = letter.upper() if limit.mode == "shadow" else letter
        place = Place(limit, shape, name, position, limit.kind, limit.unit, letter)
        if place.is_slots:
            slots.append((owner, (place,)))
        else:
            hashes.setdefault(owner, []).append(place)
    return Layout((*((owner, tuple(places)) for owner, places in hashes.items()), *slots))


def _words(groups: tuple[tuple[Owner, tuple[Place, ...]], ...]) -> Iterator[str]:
    for _, places in groups:
        if places[0].is_slots:
            shape = places[0].shape
            yield from ("0", f"{shape.burst:.0f}", f"{shape.period:.0f}", places[0].letter)
            continue
        yield str(len(places))
        for place in places:
            shape = place.shape
            yield from (place.field, f"{shape.count:.0f}", f"{shape.period:.0f}", f"{shape.burst:.0f}")
            yield place.letter


def hash_of(owner: Owner, key: str, tenant: str) -> str:
    """Return the name of the hash that holds the buckets of `owner`."""
    if owner == "everyone":
        return EVERYONE
    tag = _tag(tenant)
    if owner == "tenant":
        return f"{tag}:t"
    return f"{tag}:k" if key == tenant else f"{tag}:k:{_escape(key)}"


def slots_of(name: str, field: str) -> str:
    """Return the name of the set that holds a limit's slots, beside the hash of its owner."""
    return f"{name}#{field}"


def record_of(tenant: str, token: str) -> str:
    """Return the name of a reservation's record."""
    return f"{_tag(tenant)}:r:{token}"


def answer_of(tenant: str, key: str, request_id: str) -> str:
    """Return the name under which the answer to a check is remembered."""
    return f"{_tag(tenant)}:q:{_escape(key)}:{_escape(request_id)}"


def _tag(tenant: str) -> str:
    return f"{PREFIX}:{{{_escape(tenant)}}}"


def _escape(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe="")
