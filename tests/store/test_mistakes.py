"""Mistakes of other rate limiters, one test for each, on every store."""

import asyncio
import time

from ratelimit import AsyncLimiter, Limit

from ..processes import wait_until
from ..stored import used

BASE = 1_700_000_000


def check_at_one_instant(limits, checks, **options):
    return [bool(limits.check("k", timestamp=BASE, **options)) for _ in range(checks)]


def test_p5_a_fast_bucket_is_not_deleted_as_soon_as_it_is_written(make_limiter):
    """throttled-py: EXPIRE floor(2·capacity/rate) is 0 and deletes the key: 500 of 500 pass."""
    limits = make_limiter(Limit("requests", "100/second", burst=10), max_skew=None)
    assert sum(check_at_one_instant(limits, 500)) == 10


def test_p5_a_fast_bucket_on_the_stores_clock_holds_too(make_limiter):
    """throttled-py, the same without timestamps: the burst and what has refilled since may pass, no more."""
    limits = make_limiter(Limit("requests", "100/second", burst=10))
    decisions = [decision for _ in range(4) for decision in limits.check_many(["k"] * 125)]
    seconds = (decisions[-1].timestamp - decisions[0].timestamp).total_seconds()
    assert 10 <= sum(map(bool, decisions)) <= 10 + 100 * seconds + 1


def test_p4_nobody_at_exactly_the_allowed_rate_is_denied(make_limiter):
    """throttled-py: a clock of whole seconds loses fractions, so 7 of 36 are denied at exactly the rate."""
    limits = make_limiter(Limit("requests", "36/minute", burst=1))
    assert all(
        limits.check_many([{"key": "k", "timestamp": BASE + n * 60 / 36 + n * 1e-6} for n in range(36)])
    )


def test_p5_a_key_that_asks_once_expires(make_limiter, client):
    """throttled-py's leaking bucket sets EXPIRE before HSET; PyrateLimiter sets none at all."""
    make_limiter(Limit("requests", "5/minute"), Limit("all", "9/minute", per=[])).check("k")
    assert [client.pttl(key) > 0 for key in client.scan_iter()] == [True, True]


def test_p2_a_cost_that_was_denied_is_not_charged(make_limiter):
    """limits, incr_expire.lua: after a denied cost of 100, a cost of 1 is denied as well."""
    limits = make_limiter(Limit("requests", "50/minute"))
    assert check_at_one_instant(limits, 1, cost={"requests": 100}) == [False]
    assert check_at_one_instant(limits, 1, cost={"requests": 50}) == [True]


def test_p2_a_limit_that_would_have_passed_is_not_charged_for_another_ones_denial(make_limiter, client):
    """slowapi; envoyproxy/ratelimit: of 50 calls 2 are admitted and 50 are charged."""
    limits = make_limiter(Limit("hundred", "100/minute"), Limit("two", "2/minute"))
    assert sum(check_at_one_instant(limits, 50)) == 2
    assert (used(client, "hundred"), used(client, "two")) == (2, 2)


def test_p5_memory_does_not_grow_with_the_cost(make_limiter, client):
    """limits' moving window, PyrateLimiter: a row for each unit; a cost of 100,000 takes megabytes."""
    limits = make_limiter(Limit("requests", "1000000/minute"))
    limits.check("k", timestamp=BASE)
    size_before = read_state_size(client)
    limits.check("k", timestamp=BASE, cost={"requests": 100_000})
    limits.check_many([{"key": "k", "timestamp": BASE, "cost": {"requests": 1_000}}] * 256)
    assert read_state_size(client) - size_before < 16


def read_state_size(client):
    return len(client.get("rl1:{k}:k"))


def test_p4_a_machine_whose_clock_is_ahead_neither_gains_nor_starves_the_rest(make_limiter):
    """limits, PyrateLimiter, upstash: one machine's fast clock doubles the limit or makes all others wait."""
    limits = make_limiter(Limit("requests", "600/hour", burst=4), max_skew=5)
    ahead = [bool(limits.check("k", timestamp=time.time() + 86_400)) for _ in range(6)]
    others = [bool(limits.check("k")) for _ in range(3)]
    assert ahead + others == [True] * 4 + [False] * 5
    assert limits.check("k").retry_after <= 6 + 5


def test_p1_a_frozen_clock_admits_the_whole_burst_at_any_rate(make_limiter):
    """redis_rate: float time loses the last of the burst for 77 of the rates from 1 to 200."""
    limits = make_limiter(Limit("requests", "1/minute"), max_skew=None)
    wrong = []
    for rate in range(1, 201, 3):
        limits.policy = Limit("requests", f"{rate}/minute")
        checks = {"key": f"k{rate}", "timestamp": BASE + 0.1}
        all_but_one = {**checks, "cost": {"requests": rate - 1}}
        if list(map(bool, limits.check_many([all_but_one, checks, checks]))) != [True, True, False]:
            wrong.append(rate)
    assert wrong == []


def test_p3_a_cost_above_the_burst_is_told_that_it_never_passes(make_limiter):
    """redis_rate: it gives a finite retry-after for a check that never passes."""
    decision = make_limiter(Limit("requests", "9/minute", burst=3)).check("k", cost={"requests": 4})
    assert decision.retry_after is None
    assert "Retry-After" not in decision.headers()


def test_p6_a_flushed_script_is_sent_again(make_limiter, client):
    """PyrateLimiter: only EVALSHA; NOSCRIPT after a flush or failover is an exception."""
    limits = make_limiter(Limit("requests", "5/minute"))
    limits.check("k", timestamp=BASE)
    client.script_flush()
    assert limits.check("k", timestamp=BASE).limits[0].remaining == 3


def test_separators_in_names_never_make_two_owners_one(make_limiter, client):
    """limits: ("x/y", "z") is the bucket of ("x", "y/z")."""
    limits = make_limiter(Limit("requests", "1/minute"), Limit("tenant", "9/minute", per=["tenant"]))
    owners = [
        ("x:k", "y"),
        ("y", "x:k"),
        ("k:y", "x"),
        ("x}:k:y", "x"),
        ("*", "*"),
        ("%2A", "%2A"),
        ("x:t", "x"),
        ("a}:k:x", "y"),
        ("x", "y}:k:a"),
        ("x", "y/z"),
        ("x/y", "z"),
        ("{x}", "x"),
        ("x", "{x}"),
        ("x", "x"),
        ("k", "x"),
        ("k", "x:k"),
    ]
    assert all(limits.check(key, tenant=tenant, timestamp=BASE) for key, tenant in owners)
    assert client.dbsize() == len(owners) + len({tenant for _, tenant in owners})


def test_state_of_another_kind_under_our_name_is_an_outage_and_not_an_exception(make_limiter, client):
    """limits: the key does not name the strategy, so a change of strategy ends in WRONGTYPE."""
    client.set("rl1:{k}:k", "not ours", ex=60)
    assert make_limiter(Limit("requests", "5/minute")).check("k").source == "outage"
    assert client.get("rl1:{k}:k") == "not ours"


def test_p6_a_late_reply_is_not_asked_for_again(make_limiter_on, proxy, open_client, real_url):
    """redis-py 8: a command whose reply is late is sent up to ten times more, and charged each time."""
    limits = make_limiter_on(proxy.url, Limit("requests", "50/minute"), deadline=0.2)
    limits.check("warm-up")
    proxy.is_dropping_replies, proxy.script_count = True, 0
    limits.check("k", timestamp=BASE)
    wait_until(lambda: open_client(real_url).exists("rl1:{k}:k"))
    assert used(open_client(real_url)) == 1
    assert proxy.script_count == 1


def test_p8_a_refused_connection_is_an_answer_and_not_seconds_of_waiting(make_limiter_on, refusing_url):
    """redis-py 8: each check takes four seconds until the error."""
    limits = make_limiter_on(refusing_url, Limit("requests", "5/minute"), deadline=0.05)
    start = time.monotonic()
    assert all(limits.check("k").source == "outage" for _ in range(10))
    assert time.monotonic() - start < 10


def test_p4_no_fraction_of_a_token_is_lost_between_checks(make_limiter):
    """Portkey: rounds the refill down and then advances the clock; and sets the tokens to 0 on a denial."""
    limits = make_limiter(Limit("requests", "1/minute", burst=10))
    check_at_one_instant(limits, 1, cost={"requests": 10})
    checks = [{"key": "k", "timestamp": BASE + n * 0.59, "cost": {"requests": 0.001}} for n in range(1, 103)]
    admitted = sum(map(bool, limits.check_many(checks)))
    assert admitted == 102
    assert limits.peek("k", timestamp=BASE + 60 + 102 * 0.06).limits[0].remaining == 1


def test_p8_a_frozen_server_hangs_nobody(make_limiter_on, silent_url):
    """LiteLLM: a frozen Redis hangs every request."""
    policy = [Limit("a", "5/minute"), Limit("b", "5/minute", on_outage="local")]

    async def run_checks():
        async with AsyncLimiter(silent_url, policy, deadline=0.05) as limits:
            return await asyncio.gather(*(limits.check("k") for _ in range(300)))

    start = time.monotonic()
    assert not make_limiter_on(silent_url, Limit("a", "1/day", on_outage="deny"), deadline=0.05).check("k")
    assert {decision.source for decision in asyncio.run(run_checks())} == {"outage"}
    assert time.monotonic() - start < 10


def test_retry_after_is_whole_seconds_rounded_up(make_limiter):
    """urllib3 refuses "0.503"; rounded down, clients would come back too early."""
    limits = make_limiter(Limit("requests", "7/second", burst=1))
    check_at_one_instant(limits, 1)
    denied = limits.check("k", timestamp=BASE)
    assert 0 < denied.retry_after < 1
    assert denied.headers()["Retry-After"] == "1"
    assert limits.check("k", timestamp=BASE + int(denied.headers()["Retry-After"]))
