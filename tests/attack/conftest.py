"""A sidecar that is attacked: with every token set, on a real server, and dumps of what its store holds."""

import pytest
import redis

from ..rls_client import run_rls_sidecar

GATEWAY_TOKEN, ADMIN_TOKEN, PEPPER = "gateway-token-of-tests", "admin-token-of-tests", "a-pepper-for-tests"

# So slow that nothing is full again, and forgotten, during a test.
POLICY = """
default_plan: free
unknown_keys: anonymous
models: {small: [qwen3-4b]}
plans:
  anonymous: {limits: {requests: {rate: 2/day}}}
  free:
    limits:
      requests: {rate: 5/day}
      tokens: {unit: tokens, rate: 1000/day}
      failures: {unit: failures, rate: 20/day, block: 1h}
  crowd: {limits: {requests: {rate: 500/day}, parallel: {unit: concurrent, capacity: 4, ttl: 1h}}}
"""

TOKEN_LINE = f"X-RateLimit-Gateway-Token: {GATEWAY_TOKEN}".encode()
ADMIN_LINE = f"Authorization: Bearer {ADMIN_TOKEN}".encode()


@pytest.fixture(scope="session")
def attacked_url(start_valkey):
    """A server of its own: the sidecar asks it in the background, which other tests must not see."""
    return start_valkey("attacked")


@pytest.fixture(scope="module")
def store(attacked_url):
    """A client of the sidecar's server, which is empty when a module begins."""
    with redis.Redis.from_url(attacked_url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def attacked(attacked_url):
    """A sidecar and a client of its rate-limit service."""
    flags = ["--gateway-token", GATEWAY_TOKEN, "--admin-token", ADMIN_TOKEN, "--key-pepper", PEPPER]
    with run_rls_sidecar("--redis", attacked_url, *flags, policy=POLICY) as (sidecar, service, _):
        sidecar.client.headers["X-RateLimit-Gateway-Token"] = GATEWAY_TOKEN
        yield sidecar, service


@pytest.fixture(scope="module")
def sidecar(attacked, store):
    return attacked[0]


@pytest.fixture(scope="module")
def read_state(store):
    """Return all that the store holds, but the counts for `ratelimit top`, which expire while a test runs."""
    return lambda: {key: store.dump(key) for key in store.keys("*") if not key.startswith(b"rl1:top:")}
