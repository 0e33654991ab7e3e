"""How much memory of the store a reservation takes, before and after it is settled."""

import pytest

from ratelimit import Policy, Usage

KEY, MODEL = "vk_0123456789abcdef0123456789abcdef", "qwen3-4b-instruct-25"
POLICY = Policy.from_text("""
default_plan: free
models: {xs: [qwen3-4b-instruct-25]}
plans:
  free:
    limits:
      requests: {rate: 20/minute, burst: 5}
      requests-daily: {rate: 100/day}
      tokens: {unit: tokens, rate: 30000/minute, on_outage: deny}
  free-parallel:
    limits:
      requests: {rate: 20/minute, burst: 5}
      requests-daily: {rate: 100/day}
      tokens: {unit: tokens, rate: 30000/minute}
      parallel: {unit: concurrent, capacity: 10, ttl: 10m}
  pro:
    limits:
      requests: {per: [key, model], rate: {xs: 500/minute, other: 20/minute}}
      tokens: {per: [tenant, model], unit: tokens, rate: {xs: 1000000/minute, other: 500000/minute}}
      parallel: {unit: concurrent, capacity: 10, ttl: 10m}
      failures: {unit: failures, rate: 20/30s, block: 30s}
      model-capacity: {per: [model], unit: tokens, rate: 5000000/minute, mode: shadow}
""")


@pytest.mark.parametrize(
    ("options", "most"),
    [({}, 400), ({"plan": "free-parallel"}, 400), ({"plan": "pro", "tenant": "acme-corporation"}, 500)],
    ids=["three limits", "and concurrent", "five limits and a tenant"],
)
def test_a_reservation_takes_less_than_400_bytes(make_limiter_on, real_url, open_client, options, most):
    client = open_client(real_url)
    limits = make_limiter_on(real_url, POLICY)
    held = limits.reserve(KEY, model=MODEL, cost={"tokens": 1234.5}, **options)
    [store_key] = client.keys("*:R:*")
    before = client.memory_usage(store_key)
    # A status of 200: each failure that counts is 8 bytes of the answer.
    held.settle(Usage(input_tokens=310, output_tokens=502, latency_ms=840, status=200))
    after = client.memory_usage(store_key)
    server = client.info("server")
    version = server.get("valkey_version", server["redis_version"])
    print(f"{version}: {before} bytes, settled {after} bytes")  # noqa: T201 - for pytest -s
    assert 100 < before < most
    assert 100 < after < most
