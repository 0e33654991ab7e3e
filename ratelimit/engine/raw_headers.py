"""Writes the headers of an admitted check from the script's reply, without the objects that users see.

A server that only passes the headers on needs none of them, and they are two thirds of the work.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ratelimit.decision.headers import write_entry, write_quota
from ratelimit.engine.bucket import compute_remaining_after
from ratelimit.engine.limit_status import ADMITTED, evaluate_limit, list_shown_numbers
from ratelimit.request.timestamp import MICROSECONDS

if TYPE_CHECKING:
    from ratelimit.decision.headers import WrittenHeaders
    from ratelimit.engine.layout import Layout, PlacedLimit
    from ratelimit.engine.resolver import ResolvedCheck

_MAX_LAYOUTS: Final = 1024


class _Shown(NamedTuple):
    """What headers show of a layout.

    Attributes:
        policy: RateLimit-Policy.
        encoded_policy: the same header as ASGI sends it.
        limits: the number of each limit, the limit and its name, in the policy's order.
    """

    policy: str
    encoded_policy: tuple[bytes, bytes]
    limits: tuple[tuple[int, PlacedLimit, str], ...]


def write_raw_headers(
    check: ResolvedCheck,
    reply: bytes,
    *_unused: Any,  # noqa: ANN401 - the headers do not depend on it
) -> WrittenHeaders | None:
    """Return what `make_headers` writes in the dialect `ietf`; None if that needs more than the reply.

    The arguments are those of `decode_members`, at the time of the reply.
    """
    subject = check.subject
    layout = subject.layout
    states = layout.state_struct
    # A denial has a Retry-After. A longer reply has times of failures; a shorter one has no states.
    if reply[0] != ADMITTED or len(reply) != 1 + states.size or subject.blocked:
        return None
    policy, encoded_policy, limits = _list_shown(layout)
    numbers: tuple[float, ...] = states.unpack_from(reply, 1)
    time = numbers[0]
    costs, taken = check.costs, check.take
    entries = []
    for number, placed, name in limits:
        used, at = numbers[2 * number + 1], numbers[2 * number + 2]
        if taken and time >= at and placed.kind_code == "b":  # `evaluate_limit` without its objects
            remaining, to_full = compute_remaining_after(placed.shape, used, at, time, costs[number])
        else:
            state = used, at, ()
            _, remaining, to_full = evaluate_limit(placed, costs[number], state, int(time), taken=taken)
        entries.append(write_entry(name, remaining, to_full / MICROSECONDS))
    return policy, encoded_policy, ", ".join(entries)


@functools.lru_cache(maxsize=_MAX_LAYOUTS)
def _list_shown(layout: Layout) -> _Shown:
    limits = tuple(
        (number, placed, placed.limit.name)
        for number in layout.policy_order
        if (placed := layout.placed_limits[number]).limit.mode == "enforce"
    )
    quotas = []
    for _, placed, name in limits:
        limit, period, _ = list_shown_numbers(placed.kind, placed.shape)
        quotas.append(write_quota(name, limit, period, placed.unit))
    policy = ", ".join(quotas)
    return _Shown(policy, (b"ratelimit-policy", policy.encode()), limits)
