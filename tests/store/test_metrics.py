"""Metrics count exactly what a limiter decided, on every store and for every kind of limit."""

import asyncio
import random
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from ratelimit import InvalidRequest, Limit, Limiter, Policy

from ..counts import Counts
from ..processes import find_free_port

BASE = 1_700_000_000

EVERY_KIND = """
default_plan: free
models: {s: [small], l: [large]}
plans:
  free:
    limits:
      requests: {rate: 10/minute}
      tokens: {unit: tokens, rate: 100/minute, burst: 50}
      tried: {rate: 4/minute, mode: shadow}
  pro:
    limits:
      requests: {per: [key, model], rate: {s: 30/minute, l: 10/minute, other: 20/minute}}
      parallel: {unit: concurrent, capacity: 3, ttl: 1h}
      paid: {unit: images, rate: 5/day, charge: settle}
      failures: {unit: failures, rate: 2/1m, block: 30s}
"""
ONLY_BUCKETS = """
default_plan: free
models: {s: [small], l: [large]}
plans:
  free:
    limits:
      requests: {rate: 10/minute}
      tokens: {unit: tokens, rate: 100/minute, burst: 50}
      tried: {rate: 4/minute, mode: shadow}
  pro: {limits: {requests: {per: [key, model], rate: {s: 30/minute, l: 10/minute, other: 20/minute}}}}
"""


def _make_checks(seed):
    chosen = random.Random(seed)
    for number in range(300):
        reserve = chosen.random() < 0.1
        yield {
            "key": chosen.choice("abc"),
            "plan": chosen.choice(["free", "pro"]),
            "model": chosen.choice([None, "small", "large", "unlisted"]),
            "cost": chosen.choice([{}, {}, {"requests": 2}, {"tokens": 7}, {"requests": 0}]),
            "timestamp": chosen.choice([BASE + number // 10, BASE + number // 10 - 7]),
            "reserve": reserve,
        }


@pytest.mark.parametrize("policy", [EVERY_KIND, ONLY_BUCKETS], ids=["every kind", "only buckets"])
def test_the_counts_are_those_of_the_decisions(make_limiter, policy):
    counts = Counts()
    limits = make_limiter(Policy.from_text(policy), observers=[counts.observer])
    checks, denials, near = Counter(), Counter(), Counter()
    opened = 0
    for check in _make_checks(seed=1):
        decision = limits.check(check)
        model_class = decision.model_class or ""
        checks[decision.plan, model_class, decision.allowed, decision.source] += 1
        opened += decision.reservation is not None
        for state in decision.limits:
            # After a check that was admitted, the wait of a limit is that before it took.
            denied = state.name in decision.violated or (state.mode == "shadow" and state.retry_after != 0)
            denials[decision.plan, state.name, model_class, state.mode] += denied
            if decision and not denied and state.mode == "enforce" and state.unit != "failures":
                missing = state.reset_after * state.limit / state.period if state.period else None
                left = state.remaining if missing is None else state.burst - missing
                near[decision.plan, state.name] += left < state.burst / 5 - 1e-4
    assert sum(denials.values()) > 50
    assert sum(near.values()) > 20
    for (plan, model_class, allowed, source), count in checks.items():
        labels = {"plan": plan, "model_class": model_class, "source": source}
        result = "allowed" if allowed else "denied"
        assert counts.read("ratelimit_checks_total", result=result, **labels) == count
    for (plan, limit, model_class, mode), count in denials.items():
        labels = {"plan": plan, "limit": limit, "model_class": model_class, "mode": mode}
        assert counts.read("ratelimit_denials_total", **labels) == count, labels
    for (plan, limit), count in near.items():
        assert counts.read("ratelimit_near_limit_total", plan=plan, limit=limit) == count, limit
    assert counts.read("ratelimit_checks_total") == sum(checks.values()) == 300
    assert counts.read("ratelimit_denials_total") == sum(denials.values())
    assert counts.read("ratelimit_reservations_total", outcome="opened") == opened


def test_a_flood_decided_from_memory_is_counted_by_the_limits_that_deny(make_limiter):
    counts = Counts()
    limits = make_limiter(Limit("requests", "1/hour"), Limit("daily", "1/day"), observers=[counts.observer])
    for _ in range(10):
        limits.check("k")
    assert counts.read("ratelimit_checks_total", result="denied", source="denial-memory") == 8
    assert counts.read("ratelimit_denials_total", limit="requests") == 9
    assert counts.read("ratelimit_denials_total", limit="daily") == 9


def test_asyncio_counts_the_same_and_the_size_of_calls(make_async_limiter):
    counts = Counts()

    async def run_checks():
        async with make_async_limiter(Limit("requests", "3/day"), observers=[counts.observer]) as limits:
            await asyncio.gather(*(limits.check("k") for _ in range(5)))

    asyncio.run(run_checks())
    assert counts.read("ratelimit_checks_total", result="allowed") == 3
    assert counts.read("ratelimit_checks_total", result="denied") == 2
    assert counts.read("ratelimit_checks_per_call_sum") == 5
    assert counts.read("ratelimit_checks_per_call_count") == 1
    assert counts.read("ratelimit_store_seconds_count") == 1
    assert counts.read("ratelimit_store_up") == 1


def test_timestamps_that_were_clamped_are_counted(make_limiter):
    counts = Counts()
    limits = make_limiter(Limit("requests", "100/day"), observers=[counts.observer])
    now = limits.check("k").timestamp.timestamp()
    limits.check("k", timestamp=now)
    limits.check("k", timestamp=now + 3600)
    assert counts.read("ratelimit_clamped_timestamps_total") == 1


def test_a_repeated_answer_opens_no_second_reservation(make_limiter):
    counts = Counts()
    limits = make_limiter(Limit("requests", "3/day"), observers=[counts.observer])
    for _ in range(2):
        assert limits.check("k", request_id="one", reserve=True)
    assert counts.read("ratelimit_reservations_total", outcome="opened") == 1
    assert counts.read("ratelimit_checks_total", result="allowed") == 2


def test_a_blocked_key_is_denied_by_the_block(make_limiter):
    counts = Counts()
    limits = make_limiter(Limit("requests", "3/day"), observers=[counts.observer])
    limits.assign("k", blocked=True)
    limits.check("k")
    assert counts.read("ratelimit_denials_total") == 1
    assert counts.read("ratelimit_denials_total", limit="blocked") == 1
    assert counts.read("ratelimit_checks_total", result="denied") == 1


def test_checks_on_leases_and_their_tokens_are_counted(make_limiter):
    counts = Counts()
    limit = Limit("requests", "1000/hour", lease={"share": 0.1, "ttl": "10s"})
    limits = make_limiter(limit, observers=[counts.observer])
    for _ in range(50):
        limits.check("k")
    leased = counts.read("ratelimit_checks_total", source="lease")
    assert leased > 20
    assert counts.read("ratelimit_checks_total", result="allowed") == 50
    counts.observer.set_leased_tokens(limits.count_leased_tokens())
    unspent = counts.read("ratelimit_leased_tokens", limit="requests")
    assert unspent == sum(limits.count_leased_tokens().values()) > 0
    limits.close()
    counts.observer.set_leased_tokens(limits.count_leased_tokens())
    assert counts.read("ratelimit_leased_tokens") == 0


@pytest.mark.parametrize(
    ("on_outage", "labels"),
    [
        ("allow", {"result": "allowed", "source": "outage"}),
        ("deny", {"result": "unavailable", "source": "outage"}),
        ("local", {"result": "allowed", "source": "outage"}),
    ],
)
def test_an_outage_is_counted(on_outage, labels):
    counts = Counts()
    url = f"redis://127.0.0.1:{find_free_port()}"
    limit = Limit("requests", "1/day", on_outage=on_outage)
    with Limiter(url, limit, deadline=5, observers=[counts.observer]) as limits:
        assert counts.read("ratelimit_store_up") == 0
        limits.check("k")
        assert counts.read("ratelimit_checks_total", **labels) == 1
        assert counts.read("ratelimit_store_errors_total", reason="connection") == 1
        assert counts.read("ratelimit_denials_total") == (on_outage == "deny")
        limits.check("k")
        denied = counts.read("ratelimit_checks_total", result="denied", source="outage")
        assert denied == (on_outage == "local")
        assert counts.read("ratelimit_denials_total") == {"allow": 0, "deny": 2, "local": 1}[on_outage]


def test_no_request_adds_a_series(make_limiter):
    counts = Counts()
    limits = make_limiter(Policy.from_text(EVERY_KIND), observers=[counts.observer])
    series = _list_series(counts)
    for number in range(2_000):
        plan = ("free", "pro", f"plan-{number}")[number % 3]
        try:
            limits.check(f"key-{number % 700}", plan=plan, model=f"model-{number}", tenant=f"tenant-{number}")
        except InvalidRequest:
            assert plan == f"plan-{number}"
    assert _list_series(counts) == series
    assert counts.read("ratelimit_checks_total", result="invalid") == 666
    assert counts.read("ratelimit_checks_total", model_class="other", result="allowed") == 1334


def _list_series(counts):
    return {
        (sample.name, *sorted(sample.labels.items()))
        for family in counts._registry.collect()
        for sample in family.samples
    }


def test_a_new_policy_gets_its_series_and_its_version(make_limiter):
    counts = Counts()
    limits = make_limiter(Limit("requests", "3/day"), observers=[counts.observer])
    first = limits.policy.version
    limits.policy = Policy.from_text(EVERY_KIND)
    assert counts.read("ratelimit_policy_info", version=first) == 0
    assert counts.read("ratelimit_policy_info", version=limits.policy.version) == 1
    limits.check("k", plan="pro")
    assert counts.read("ratelimit_checks_total", plan="pro", result="allowed") == 1


def test_an_edit_of_the_limits_is_counted_by_the_new_limits(make_limiter):
    counts = Counts()
    limits = make_limiter(Limit("old", "1/day"), observers=[counts.observer])
    limits.check_many(["k", "k"])
    limits.policy = [Limit("new", "1/day"), Limit("old", "9/day")]
    limits.check_many(["k", "k"])
    assert counts.read("ratelimit_denials_total", limit="old") == 1
    assert counts.read("ratelimit_denials_total", limit="new") == 1


def test_threads_lose_no_count(make_limiter_on):
    counts = Counts()
    limits = make_limiter_on("memory://", Limit("requests", "1/day"), observers=[counts.observer])
    limits.check("k")
    interval, threads, calls = sys.getswitchinterval(), 8, 20_000
    sys.setswitchinterval(1e-6)  # threads take turns as often as they can
    try:
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(threads):
                pool.submit(lambda: [limits.check("k") for _ in range(calls)])
            counts.read("ratelimit_checks_total")  # collects in the meantime
    finally:
        sys.setswitchinterval(interval)
    assert counts.read("ratelimit_checks_total") == 1 + threads * calls
    assert counts.read("ratelimit_denials_total", limit="requests") == threads * calls
