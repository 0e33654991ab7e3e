"""Limits with leases, and checks until a lease is taken."""

from ratelimit import Limit
from ratelimit.shortcuts.leases import CHECKS_BEFORE_LEASE

LONG_LEASE = {"share": 0.05, "ttl": "60s"}
"""A lease that does not end during a test."""

SLOW = Limit("requests", "1000/365d", lease=LONG_LEASE)
"""A limit that refills nothing during a test; a lease takes 50 of its tokens."""


def make_key_hot(limits, key="k", **options):
    """Check until a key is hot and the last check is decided by a lease; return how many passed."""
    decisions = [limits.check(key, **options) for _ in range(CHECKS_BEFORE_LEASE + 1)]
    assert decisions[-1].source == "lease"
    return sum(map(bool, decisions))


async def make_key_hot_async(limits, key="k", **options):
    """Do the same in asyncio, with one check more: the check that starts a lease does not wait for it."""
    decisions = [await limits.check(key, **options) for _ in range(CHECKS_BEFORE_LEASE + 2)]
    assert decisions[-1].source == "lease"
    return sum(map(bool, decisions))
