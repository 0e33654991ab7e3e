"""Where the store keeps the limits of a plan.

One string holds all the buckets of one owner; lua/prelude.lua packs it. keyspace.py lists the store keys.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from struct import Struct
from typing import TYPE_CHECKING, Final

from ratelimit.engine.keyspace import Owner, make_owner_store_key
from ratelimit.policy.spec import OTHER, LeaseSpec

if TYPE_CHECKING:
    from ratelimit.policy import Limit, Policy
    from ratelimit.policy.limit import Kind
    from ratelimit.policy.shape import Shape

LIMIT_MARKS: Final[dict[Kind, str]] = {"failures": "!", "slots": "#"}
"""The character before the limit's name in a store key, for kinds that are not kept as buckets."""

KIND_CODES: dict[Kind, str] = {"bucket": "b", "post-paid": "p", "failures": "f", "slots": "s"}
"""The scripts' code for each kind of limit; upper case means shadow mode."""

_BUCKET_CODES: Final = {"b": 1.0, "B": 2.0, "p": 3.0, "P": 4.0}
"""The number by which lua/check.lua knows each kind of bucket."""

_BUCKET_STRUCT: Final = Struct("<5d")

FIRST_GROUP_ARGUMENT: Final = 2
"""The ARGV of lua/check.lua at which the groups of limits begin."""


@dataclass(frozen=True, slots=True)
class PlacedLimit:
    """One limit of a layout: its shape, its kind and where the store keeps it.

    Attributes:
        suffix: what follows the owner's part of the store key: the model class, if the scope has
            one, and the limit's name if the limit is not kept as a bucket.
        position: its index among the plan's limits.
        kind: how its state is kept.
        unit: what it counts.
        kind_code: the scripts' code for its kind and mode.
    """

    limit: Limit
    shape: Shape
    suffix: str
    position: int
    kind: Kind
    unit: str
    kind_code: str

    @property
    def is_slots(self) -> bool:
        """Whether this limit has slots, which are kept in a sorted set beside the owner's buckets."""
        return self.kind == "slots"

    @property
    def is_local(self) -> bool:
        """Whether a bucket of this process decides for this limit during an outage."""
        return self.limit.on_outage == "local"


Group = tuple[Owner, str, tuple[PlacedLimit, ...]]
"""The limits under one store key: the owner, the suffix of the store key, and the placed limits."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The limits of one plan for one model class, grouped by the store key that holds their state.

    Attributes:
        groups: the groups, one for each store key.
        placed_limits: all limits, in the order in which the script reports them.
        policy_order: the indexes into `placed_limits`, in the policy's order.
        weight: how many limits the store looks at, at least 1.
        has_slots: whether a limit has slots.
        has_shared: whether a limit belongs to everyone.
        script_arguments: the groups as arguments of lua/check.lua.
        state_struct: unpacks the reply of lua/check.lua after the verdict.
        default_costs: what a check without a stated cost takes of each limit.
        packed: a check with the default costs as an argument of lua/check.lua. It is valid where
            this layout is the first of the call.
        lease_amounts: what a process may lease of each limit; empty if any limit cannot be leased.
        lease_ttl: microseconds for which a process may keep a lease.
        local_groups: the groups with limits that say `on_outage: local`: the index of each, and the names
            of these limits with commas between them.
    """

    groups: tuple[Group, ...]
    placed_limits: tuple[PlacedLimit, ...] = field(init=False)
    policy_order: tuple[int, ...] = field(init=False)
    weight: int = field(init=False)
    has_slots: bool = field(init=False)
    has_shared: bool = field(init=False)
    script_arguments: tuple[str | bytes, ...] = field(init=False)
    state_struct: Struct = field(init=False)
    default_costs: tuple[float, ...] = field(init=False)
    packed: bytes = field(init=False)
    lease_amounts: tuple[float, ...] = field(init=False)
    lease_ttl: int = field(init=False)
    local_groups: tuple[tuple[int, str], ...] = field(init=False)
    _check_struct: Struct = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Compute once what every check needs."""
        placed_limits = tuple(placed for _, _, group in self.groups for placed in group)
        numbers = sorted(range(len(placed_limits)), key=lambda number: placed_limits[number].position)
        object.__setattr__(self, "placed_limits", placed_limits)
        object.__setattr__(self, "policy_order", tuple(numbers))
        object.__setattr__(self, "weight", max(1, len(placed_limits)))
        object.__setattr__(self, "has_slots", any(placed.is_slots for placed in placed_limits))
        object.__setattr__(self, "has_shared", any(owner == "everyone" for owner, _, _ in self.groups))
        arguments = itertools.chain.from_iterable(_encode_group(group) for _, _, group in self.groups)
        object.__setattr__(self, "script_arguments", tuple(arguments))
        object.__setattr__(self, "_check_struct", Struct(f"<{4 + len(placed_limits)}d"))
        # All keys share this tuple and its packed form.
        default_costs = tuple(
            float(placed.kind == "bucket" and placed.unit == "requests") for placed in placed_limits
        )
        object.__setattr__(self, "default_costs", default_costs)
        object.__setattr__(self, "packed", self.pack(FIRST_GROUP_ARGUMENT, 1, None, default_costs))
        object.__setattr__(self, "state_struct", Struct(f"<{1 + 2 * len(placed_limits)}d"))
        leases = [
            (placed, lease) for placed in placed_limits if isinstance(lease := placed.limit.lease, LeaseSpec)
        ]
        amounts = tuple(float(int(lease.share * placed.shape.burst)) for placed, lease in leases)
        object.__setattr__(self, "lease_amounts", amounts if len(amounts) == len(placed_limits) else ())
        object.__setattr__(self, "lease_ttl", min((lease.ttl for _, lease in leases), default=0))
        names = (
            ",".join(placed.limit.name for placed in group if placed.is_local) for *_, group in self.groups
        )
        object.__setattr__(
            self, "local_groups", tuple((number, text) for number, text in enumerate(names) if text)
        )

    def pack(self, first: int, action: int, timestamp: int | None, costs: tuple[float, ...]) -> bytes:
        """Return a check as an argument of lua/check.lua.

        Args:
            first: the index in ARGV of the first of `script_arguments`, counted from 1.
            action: 0 to look only, 1 to take, 2 to take and remember.
            timestamp: microseconds since the epoch; None for the store's clock.
            costs: what it takes of each limit.
        """
        last = first + len(self.script_arguments) - 2
        return self._check_struct.pack(-1 if timestamp is None else timestamp, action, first, last, *costs)

    def make_store_keys(self, prefix: str, key: str, tenant: str) -> tuple[str, ...]:
        """Return the store keys of a key's state, one for each group; `prefix` is that of the tenant."""
        return tuple(
            make_owner_store_key(owner, prefix, key, tenant) + suffix for owner, suffix, _ in self.groups
        )


def build_layout(policy: Policy, plan: str, model_class: str | None) -> Layout:
    """Return where the store keeps the limits of `plan` for requests of a model class."""
    buckets: dict[tuple[Owner, str], list[PlacedLimit]] = {}
    others: list[Group] = []
    for position, limit in enumerate(policy.plans[plan].limits):
        owner: Owner = "key" if "key" in limit.per else "tenant" if "tenant" in limit.per else "everyone"
        suffix = make_store_key_suffix(limit, model_class)
        code = KIND_CODES[limit.kind]
        code = code.upper() if limit.mode == "shadow" else code
        placed = PlacedLimit(
            limit, limit.shape_of(model_class), suffix, position, limit.kind, limit.unit, code
        )
        if limit.kind in LIMIT_MARKS:
            others.append((owner, suffix, (placed,)))
        else:
            buckets.setdefault((owner, suffix), []).append(placed)
    groups = [*((owner, suffix, tuple(limits)) for (owner, suffix), limits in buckets.items()), *others]
    # What everyone shares comes last: on a cluster it is the second part of the check.
    groups.sort(key=lambda group: group[0] == "everyone")
    return Layout(tuple(groups))


def make_store_key_suffix(limit: Limit, model_class: str | None) -> str:
    """Return what follows the owner's part of the store key that holds a limit's state."""
    suffix = f"/{model_class or OTHER}" if "model" in limit.per else ""
    return f"{suffix}{LIMIT_MARKS[limit.kind]}{limit.name}" if limit.kind in LIMIT_MARKS else suffix


def _encode_group(placed_limits: tuple[PlacedLimit, ...]) -> tuple[str, bytes]:
    """Return the two arguments of lua/check.lua for a group.

    The first is the names of the buckets, or the code of a limit that is not kept as a bucket.
    The second is the numbers of the limits.
    """
    [first, *_] = placed_limits
    if first.kind == "slots":
        return first.kind_code, Struct("<2d").pack(first.shape.burst, first.shape.period)
    if first.kind == "failures":
        return first.kind_code, b""
    shapes = ((placed.shape, _BUCKET_CODES[placed.kind_code]) for placed in placed_limits)
    numbers = (
        _BUCKET_STRUCT.pack(shape.count, shape.period, shape.burst, shape.tolerance, code)
        for shape, code in shapes
    )
    return ",".join(placed.limit.name for placed in placed_limits) + "|", b"".join(numbers)
