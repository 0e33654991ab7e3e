"""What an operator finds in the store after a day's traffic, and what is left when all buckets are full."""

import random
import struct
import time

import fakeredis
import pytest

from ratelimit import Limiter, Policy, RateLimited, Usage
from ratelimit.request.privacy import identifier_of
from ratelimit.stores.clients import get_fake_server

from ..conftest import CLIENT_OPTIONS
from ..stored import buckets

DAY = 86_400
MORNING = 1_771_545_600.0
READABLE = set('abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;@#!{}*-_~%=+/"')
POLICY = Policy.from_text("""
default_plan: free
models: {small: [qwen3-4b], large: [qwen3-235b]}
plans:
  free:
    limits:
      requests: {rate: 20/minute, burst: 5}
      requests-daily: {rate: 100/day}
      tokens: {unit: tokens, rate: 30000/minute, per: [key, model]}
      images: {unit: images, rate: 10/day, charge: settle}
      parallel: {unit: concurrent, capacity: 2, ttl: 10m}
      failures: {unit: failures, rate: 5/30s, block: 30s}
      everyone: {unit: tokens, rate: 1000000/hour, per: [], mode: shadow}
""")


class Clock:
    """The clock of both the limiter and the store."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(MORNING)
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
def limiter_and_client(clock):
    with Limiter("memory://a-day", POLICY) as limiter:
        yield limiter, fakeredis.FakeRedis(server=get_fake_server("a-day"), **CLIENT_OPTIONS)


def simulate_day(limiter, clock, secrets):
    """Reserve at random times of a day; settle, cancel or abandon each reservation; return their number."""
    randomness = random.Random(7)
    admitted = 0
    for _ in range(1500):
        clock.now += randomness.expovariate(1500 / DAY)
        key = identifier_of(randomness.choice(secrets), "pepper")
        try:
            held = limiter.reserve(
                key,
                model=randomness.choice(["qwen3-4b", "qwen3-235b", f"invented-{randomness.random()}", None]),
                cost={"tokens": randomness.randrange(5000)},
                request_id=f"r{randomness.random()}",
            )
        except RateLimited:
            continue
        admitted += 1
        outcome = randomness.random()
        if outcome < 0.6:
            usage = Usage(
                input_tokens=randomness.randrange(9000),
                cost={"images": 1},
                status=randomness.choice([200, 500]),
            )
            held.settle(usage)
        elif outcome < 0.8:
            held.cancel()
    return admitted


def read_value(client, name):
    kind = client.type(name)
    if kind == "hash":
        return client.hgetall(name)
    if kind == "string" and name.endswith((":k", ":t", "/small", "/large", "/other", "{*}")):
        return buckets(client, name)
    if kind == "string" and name.endswith("!failures"):
        return list(struct.iter_unpack("<d", client.get(name).encode("latin-1")))
    if kind == "zset":
        return client.zrange(name, 0, -1)
    return client.get(name) if kind == "string" else client.xrange(name)


def test_p5_p10_a_days_traffic_is_readable_expires_and_holds_no_secret(limiter_and_client, clock):
    limiter, client = limiter_and_client
    secrets = [f"sk-very-secret-{number}" for number in range(10)]
    assert simulate_day(limiter, clock, secrets) > 200
    names = client.keys("*")
    assert len(names) > 10
    for name in names:
        text = f"{name}{read_value(client, name)}"
        assert client.pttl(name) > 0, name
        assert "very-secret" not in text
        assert set(text) <= READABLE | set("'()[] "), text


def test_p5_nothing_is_left_once_every_bucket_is_full_again(limiter_and_client, clock):
    limiter, client = limiter_and_client
    simulate_day(limiter, clock, [f"sk-{number}" for number in range(10)])
    # The slowest limit takes a day to refill, and settlements may have left it in debt.
    debts = [
        state.reset_after
        for number in range(10)
        for state in limiter.peek(identifier_of(f"sk-{number}", "pepper"), model="qwen3-4b").limits
    ]
    clock.now += max(*debts, 600) + 6
    assert client.keys("*") == ["rl1:usage"]
    clock.now += 31 * DAY
    assert client.keys("*") == []
