"""Where in the store the limits of a plan are kept.

One string holds all the buckets of one owner, packed by lua/prelude.lua:

    rl1:{tenant}:k:key   buckets of a key          rl1:{key}:k   where the key is its own tenant
    rl1:{tenant}:t       buckets of a tenant
    rl1:{*}              buckets that everyone shares
    …/class              those of one class of models
    …!limit              beside them, what a limit on failures has counted
    …#limit              likewise, the sorted set of a limit's slots
    rl1:{tenant}:r:id    the record of a reservation
    rl1:{tenant}:q:key:id  the answer to a check, remembered by its request id
    rl1:usage            the stream of usage records
    rl1:keys             what was assigned to keys at run time
    rl1:tenants          what was assigned to tenants at run time

The tenant in braces is the hash tag: all there is about one tenant lives in one cluster slot and
is decided in one atomic call. Whatever is not a plain letter, digit or `_ - . ~` is written as its
percent code, so no key or tenant can be read as another's, nor as the `*` of everyone.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from struct import Struct
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote

from ratelimit.policy.spec import OTHER, LeaseSpec

if TYPE_CHECKING:
    from ratelimit.policy import Limit, Policy
    from ratelimit.policy.limit import Kind
    from ratelimit.policy.shape import Shape

Owner = Literal["key", "tenant", "everyone"]

PREFIX = "rl1"
"""The version of the layout: a new one never reads an old one's state."""

EVERYONE = f"{PREFIX}:{{*}}"
USAGE = f"{PREFIX}:usage"
KEYS = f"{PREFIX}:keys"
TENANTS = f"{PREFIX}:tenants"

_MARKS: Final[dict[Kind, str]] = {"failures": "!", "slots": "#"}
"""What parts the name of a limit that is no bucket from that of its owner."""

_PLAIN = re.compile("[A-Za-z0-9_.~-]+")
"""What needs no percent codes: most keys."""

LETTERS: dict[Kind, str] = {"bucket": "b", "post-paid": "p", "failures": "f", "slots": "s"}
"""How the scripts call each kind of limit; in upper case one in shadow mode."""

_NUMBERS: Final = {"b": 1.0, "B": 2.0, "p": 3.0, "P": 4.0}
"""How lua/check.lua calls the kinds of buckets."""

_BUCKET: Final = Struct("<5d")

FIRST_GROUP_ARGUMENT: Final = 2
"""The ARGV of lua/check.lua at which the limits begin."""


@dataclass(frozen=True, slots=True)
class PlacedLimit:
    """Where one limit is kept.

    Attributes:
        file: what follows the name of its owner: the class of models, if it has one, and a mark
            where it is not among the owner's buckets.
        position: its place among the plan's limits.
        kind: what the limit is kept as.
        unit: what it counts.
        letter: its kind, as the scripts call it.
    """

    limit: Limit
    shape: Shape
    file: str
    position: int
    kind: Kind
    unit: str
    letter: str

    @property
    def is_slots(self) -> bool:
        """Whether this limit has a set of its own beside the owner's buckets."""
        return self.kind == "slots"


Group = tuple[Owner, str, tuple[PlacedLimit, ...]]
"""What lies under one of the store's keys: whose it is, what follows the owner's name, and the limits."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The places of one plan's limits for one model class, grouped by the store's key they lie in.

    Attributes:
        groups: what is kept under each key.
        placed_limits: all of them, in the order in which the script reports them.
        policy_order: the numbers of the places, in the policy's order.
        weight: how many limits the store looks at.
        has_slots: whether there are slots among them.
        script_arguments: all of it as lua/check.lua is told.
        state_struct: unpacks what follows the verdict in a reply of that.
        default_costs: what a check that states no cost takes of each limit.
        packed: such a check as lua/check.lua is told, where this layout comes first.
        lease_amounts: what a process may take of each limit in advance; empty where it may not.
        lease_ttl: microseconds for which it may keep that.
    """

    groups: tuple[Group, ...]
    placed_limits: tuple[PlacedLimit, ...] = field(init=False)
    policy_order: tuple[int, ...] = field(init=False)
    weight: int = field(init=False)
    has_slots: bool = field(init=False)
    script_arguments: tuple[str | bytes, ...] = field(init=False)
    state_struct: Struct = field(init=False)
    default_costs: tuple[float, ...] = field(init=False)
    packed: bytes = field(init=False)
    lease_amounts: tuple[float, ...] = field(init=False)
    lease_ttl: int = field(init=False)
    _question: Struct = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Work out once what every check needs."""
        placed_limits = tuple(placed for _, _, group in self.groups for placed in group)
        numbers = sorted(range(len(placed_limits)), key=lambda number: placed_limits[number].position)
        object.__setattr__(self, "placed_limits", placed_limits)
        object.__setattr__(self, "policy_order", tuple(numbers))
        object.__setattr__(self, "weight", max(1, len(placed_limits)))
        object.__setattr__(self, "has_slots", any(placed.is_slots for placed in placed_limits))
        arguments = itertools.chain.from_iterable(_encode_group(group) for _, _, group in self.groups)
        object.__setattr__(self, "script_arguments", tuple(arguments))
        object.__setattr__(self, "_question", Struct(f"<{4 + len(placed_limits)}d"))
        default_costs = tuple(
            float(placed.kind == "bucket" and placed.unit == "requests") for placed in placed_limits
        )
        object.__setattr__(
            self, "default_costs", default_costs
        )  # shared by all keys, as is what it is packed to
        object.__setattr__(self, "packed", self.pack(FIRST_GROUP_ARGUMENT, 1, None, default_costs))
        object.__setattr__(self, "state_struct", Struct(f"<{1 + 2 * len(placed_limits)}d"))
        leases = [
            (placed, lease) for placed in placed_limits if isinstance(lease := placed.limit.lease, LeaseSpec)
        ]
        amounts = tuple(float(int(lease.share * placed.shape.burst)) for placed, lease in leases)
        object.__setattr__(self, "lease_amounts", amounts if len(amounts) == len(placed_limits) else ())
        object.__setattr__(self, "lease_ttl", min((lease.ttl for _, lease in leases), default=0))

    def pack(self, first: int, what: int, timestamp: int | None, costs: tuple[float, ...]) -> bytes:
        """Return a check as lua/check.lua is told.

        Args:
            first: the ARGV of the first of `script_arguments`, as Lua counts.
            what: 0 only to look, 1 to take, 2 to take and remember.
            timestamp: microseconds since the epoch; None for the store's clock.
            costs: what it takes of each limit.
        """
        last = first + len(self.script_arguments) - 2
        return self._question.pack(-1 if timestamp is None else timestamp, what, first, last, *costs)

    def store_keys(self, key: str, tenant: str) -> tuple[str, ...]:
        """Return the store's keys, one for each group."""
        return tuple(owner_key(owner, key, tenant) + file for owner, file, _ in self.groups)


def build_layout(policy: Policy, plan: str, model_class: str | None) -> Layout:
    """Return where the limits of `plan` are kept for requests of a model class."""
    buckets: dict[tuple[Owner, str], list[PlacedLimit]] = {}
    others: list[Group] = []
    for position, limit in enumerate(policy.plans[plan].limits):
        owner: Owner = "key" if "key" in limit.per else "tenant" if "tenant" in limit.per else "everyone"
        file = suffix_of(limit, model_class)
        letter = LETTERS[limit.kind]
        letter = letter.upper() if limit.mode == "shadow" else letter
        placed = PlacedLimit(
            limit, limit.shape_of(model_class), file, position, limit.kind, limit.unit, letter
        )
        if limit.kind in _MARKS:
            others.append((owner, file, (placed,)))
        else:
            buckets.setdefault((owner, file), []).append(placed)
    return Layout(
        (*((owner, file, tuple(placed_limits)) for (owner, file), placed_limits in buckets.items()), *others)
    )


def suffix_of(limit: Limit, model_class: str | None) -> str:
    """Return what follows the name of a limit's owner in the store's key that holds its state."""
    file = f"/{model_class or OTHER}" if "model" in limit.per else ""
    return f"{file}{_MARKS[limit.kind]}{limit.name}" if limit.kind in _MARKS else file


def _encode_group(placed_limits: tuple[PlacedLimit, ...]) -> tuple[str, bytes]:
    """Return what lua/check.lua is told of a group: names, or a letter for what is no bucket; and numbers."""
    [first, *_] = placed_limits
    if first.kind == "slots":
        return first.letter, Struct("<2d").pack(first.shape.burst, first.shape.period)
    if first.kind == "failures":
        return first.letter, b""
    shapes = ((placed.shape, _NUMBERS[placed.letter]) for placed in placed_limits)
    numbers = (
        _BUCKET.pack(shape.count, shape.period, shape.burst, shape.tolerance, kind) for shape, kind in shapes
    )
    return ",".join(placed.limit.name for placed in placed_limits) + "|", b"".join(numbers)


def owner_key(owner: Owner, key: str, tenant: str) -> str:
    """Return the name under which the buckets of `owner` are kept."""
    if owner == "everyone":
        return EVERYONE
    tag = _tag(tenant)
    if owner == "tenant":
        return f"{tag}:t"
    return f"{tag}:k" if key == tenant else f"{tag}:k:{_escape(key)}"


def record_key(tenant: str, token: str) -> str:
    """Return the name of a reservation's record."""
    return f"{_tag(tenant)}:r:{token}"


def answer_key(tenant: str, key: str, request_id: str) -> str:
    """Return the name under which the answer to a check is remembered."""
    return f"{_tag(tenant)}:q:{_escape(key)}:{_escape(request_id)}"


def _tag(tenant: str) -> str:
    return f"{PREFIX}:{{{_escape(tenant)}}}"


def _escape(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe="")
