"""Checks in two parts, for a cluster.

There, what belongs to a tenant and what everyone shares lie in different slots, and one call may not span
slots. So a check whose limits lie in both is decided in two calls:

    parts = split_check(check)                    # None if one call is enough
    first reply = decide parts.own                # what belongs to the tenant
    if it is a denial: only look at parts.shared, so that the decision shows every limit
    else:              decide parts.shared, at the time of the first reply
    if that is a denial: refund parts.own         # refund_script.py
    merge_replies(check, parts, first reply, second reply)

So a check never passes that one of its limits would deny. Between the two calls the tenant's tokens are
taken, also if the second call denies: checks of the tenant in that time may be denied that would pass a
moment later.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, NamedTuple

from ratelimit.engine.check_script import (
    REMEMBERED,
    STATES_START,
    compute_checksum,
    split_answer,
    unpack_time,
)
from ratelimit.engine.keyspace import EVERYONE, find_slot, find_tag, make_shared_prefix
from ratelimit.engine.layout import Layout
from ratelimit.engine.limit_status import NONE

if TYPE_CHECKING:
    from ratelimit.engine.resolver import ResolvedCheck

_SHARED_SLOT: Final = find_slot(find_tag(EVERYONE))
_STATE_SIZE: Final = 16  # two doubles for each limit


class Parts(NamedTuple):
    """The two parts of a check.

    Attributes:
        own: the limits that belong to the tenant; there may be none.
        shared: the limits that everyone shares.
    """

    own: ResolvedCheck
    shared: ResolvedCheck

    @property
    def needs_own(self) -> bool:
        """Whether a call for `own` says or writes something: it has limits, or is remembered."""
        own = self.own
        return bool(own.subject.store_keys) or (own.take and bool(own.reservation or own.request_id))


@functools.lru_cache(maxsize=512)
def _split_layout(layout: Layout) -> tuple[Layout, Layout]:
    """Return the layouts of the limits that belong to the tenant, and of those that everyone shares."""
    own = tuple(group for group in layout.groups if group[0] != "everyone")
    return Layout(own), Layout(layout.groups[len(own) :])


def split_check(check: ResolvedCheck) -> Parts | None:
    """Return the parts of a check; None if all its limits belong to the tenant."""
    subject = check.subject
    if not subject.layout.has_shared:
        return None
    own, shared = _split_layout(subject.layout)
    groups, limits = len(own.groups), len(own.placed_limits)
    own_subject = subject._replace(layout=own, store_keys=subject.store_keys[:groups])
    shared_subject = subject._replace(
        layout=shared,
        store_keys=subject.store_keys[groups:],
        prefix=make_shared_prefix(subject.tenant),
        cluster_slot=_SHARED_SLOT,
    )
    return Parts(
        check._replace(subject=own_subject, costs=check.costs[:limits], packed=None),
        check._replace(subject=shared_subject, costs=check.costs[limits:], packed=None),
    )


def plan_shared(parts: Parts, own_reply: bytes) -> ResolvedCheck:
    """Return the check to send for the shared limits, after the reply for the tenant's own.

    It takes nothing if the tenant's limits deny. It has the time of the first reply, so that both parts are
    decided at the same time, and the reservation of the first reply, which may be that of an earlier check.
    """
    reservation, _, states = split_answer(parts.own, own_reply)
    return parts.shared._replace(
        take=parts.shared.take and is_admitted(own_reply),
        timestamp=int(unpack_time(states)),
        reservation=reservation,
    )


def is_admitted(reply: bytes) -> bool:
    """Whether a reply of lua/check.lua admits the check."""
    return not reply.startswith(b"0")


def must_refund(parts: Parts, own_reply: bytes, shared_reply: bytes) -> bool:
    """Whether the tenant's limits must be given back what was taken: the shared ones deny."""
    # A remembered answer was charged by an earlier check, which gives it back itself.
    return parts.own.take and own_reply.startswith(b"1") and not is_admitted(shared_reply)


def merge_replies(check: ResolvedCheck, parts: Parts, own_reply: bytes | None, shared_reply: bytes) -> bytes:
    """Return the reply that lua/check.lua would give for all limits.

    Args:
        check: the whole check.
        parts: its parts.
        own_reply: the reply for the tenant's limits; None if there was no call.
        shared_reply: the reply for the shared limits.
    """
    if own_reply is None:
        return shared_reply
    reservation, is_same, own = split_answer(parts.own, own_reply)
    _, is_same_shared, shared = split_answer(parts.shared, shared_reply)
    allowed = is_admitted(own) and is_admitted(shared)
    own_end, shared_end = (
        STATES_START + _STATE_SIZE * len(part.subject.layout.placed_limits) for part in parts
    )
    merged = b"%d%b" % (allowed, own[1:STATES_START])
    if is_same and is_same_shared:
        merged += own[STATES_START:own_end] + shared[STATES_START:shared_end]
        merged += own[own_end:] + shared[shared_end:]
    if own_reply[0] != REMEMBERED or not allowed:
        return merged
    return f"again {reservation or NONE} {compute_checksum(check)} ".encode() + merged
