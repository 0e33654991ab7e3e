"""P9 and P11: resets, policy edits, assignments and shadow limits while tokens are leased."""

import asyncio

from ratelimit import Limit
from ratelimit.shortcuts.leases import CHECKS_BEFORE_LEASE

from .leases import LONG_LEASE, SLOW, make_key_hot, make_key_hot_async


def test_p9_after_a_reset_the_lease_is_neither_spent_nor_given_back(make_limiter, read_used):
    limits = make_limiter(SLOW)
    make_key_hot(limits)
    limits.reset("k")
    assert limits.check("k").limits[0].remaining == 999  # the key is still hot, so it takes a new lease
    assert read_used() == 50
    limits.close()
    assert read_used() == 1


def test_p9_a_reset_of_a_key_gives_its_tenant_back_what_was_leased(
    make_limiter, make_async_limiter, read_used
):
    limit = Limit("shared", "1000/365d", per=["tenant"], lease=LONG_LEASE)
    limits = make_limiter(SLOW, limit)
    make_key_hot(limits, tenant="t")
    limits.reset("k", tenant="t")
    limits.close()
    assert read_used("shared", "rl1:{t}:t") == CHECKS_BEFORE_LEASE + 1

    async def run_checks():
        async with make_async_limiter(SLOW, limit) as limits:
            await make_key_hot_async(limits, tenant="u")
            await limits.reset("k", tenant="u")

    asyncio.run(run_checks())
    assert read_used("shared", "rl1:{u}:t") == CHECKS_BEFORE_LEASE + 2


def test_p9_p11_a_policy_edit_keeps_what_was_used_and_returns_the_rest(make_limiter, read_used):
    limits = make_limiter(SLOW)
    admitted = make_key_hot(limits)
    limits.policy = Limit("requests", "2000/365d", lease=LONG_LEASE)
    admitted += make_key_hot(limits)
    assert limits.check("k").limits[0].remaining < 2000 - admitted
    limits.close()
    assert read_used() == admitted + 1


def test_p9_an_assignment_of_another_key_takes_no_lease_anew(make_limiter, read_used):
    limits = make_limiter(SLOW)
    make_key_hot(limits)
    limits.assign("another", tenant="t")
    assert limits.check("k").source == "lease"
    assert read_used() == CHECKS_BEFORE_LEASE + 50
    limits.assign("k", blocked=True)
    assert limits.check("k").violated == ("blocked",)
    limits.close()
    assert read_used() == CHECKS_BEFORE_LEASE + 2


def test_p9_a_shadow_limit_is_given_back_no_more_than_it_gave(make_limiter, read_used):
    shadow = Limit("shadow", "100/365d", mode="shadow", lease={"share": 0.2, "ttl": "60s"})
    limits = make_limiter(SLOW, shadow)
    assert all(limits.check("k") for _ in range(90))
    assert limits.check("k", cost={"requests": 20}).limits[1].retry_after > 0
    assert all(limits.check("k") for _ in range(30))
    limits.close()
    assert read_used() == 140
    assert read_used("shadow") == 100
