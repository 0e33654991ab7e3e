"""The proxy of examples/, served as a reader would, and a second limiter to look into its store."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis

from ratelimit import Limiter, Policy
from ratelimit.request.privacy import identifier_of

ROOT = Path(__file__).parents[2]
PEPPER = "pepper-for-tests"

# Budgets of a week hardly refill while a test runs, so what was charged can be read off to the token.
PLANS = """
  roomy:
    limits:
      tokens: {unit: tokens, rate: 10000/7d}
      parallel: {unit: concurrent, capacity: 1, ttl: 10m}
      failures: {unit: failures, rate: 2/5m, block: 5m}
  tight:
    limits:
      tokens: {unit: tokens, rate: 100/7d}
  paced:
    limits:
      requests: {rate: 30/minute, burst: 1}
"""


def identifier(secret):
    return identifier_of(secret, PEPPER)


@contextmanager
def serving(folder, *options, token_delay=0.0):
    """Run the proxy as a reader would; yields the address that it prints."""
    command = [
        sys.executable,
        "-W",
        "error",
        str(ROOT / "examples" / "llm_proxy.py"),
        "--port",
        "0",
        *options,
    ]
    environment = {**os.environ, "RATELIMIT_KEY_PEPPER": PEPPER, "TOKEN_DELAY": str(token_delay)}
    log = folder / "proxy.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as process,
    ):
        try:
            said = re.match(r"Serving (\S+);", process.stdout.readline())
            assert said, log.read_text()
            yield said[1]
        finally:
            process.terminate()
            process.wait(timeout=30)
    assert not log.read_text()


@contextmanager
def watched(folder, keys, token_delay):
    """Run the proxy for secrets and their plans; yields its address, and a look into its store."""
    file = folder / "policy.yaml"
    assigned = "".join(f"  {identifier(secret)}: {{plan: {plan}}}\n" for secret, plan in keys.items())
    file.write_text(f"default_plan: roomy\nplans:{PLANS}keys:\n{assigned}")
    url = f"embedded://{folder / 'store'}"
    with (
        serving(folder, "--policy", str(file), "--store", url, token_delay=token_delay) as address,
        Limiter(url, Policy.from_file(file), deadline=5) as limiter,
        redis.Redis.from_url(limiter.address, decode_responses=True) as client,
    ):
        yield SimpleNamespace(url=address, store=Store(limiter, client))


@pytest.fixture(scope="module")
def proxy(request, tmp_path_factory):
    """One proxy for a module, whose tests stay apart by the keys that its KEYS give them."""
    with watched(tmp_path_factory.mktemp("proxy"), request.module.KEYS, token_delay=0.002) as proxy:
        yield proxy


@pytest.fixture
def stuck_proxy(tmp_path):
    """A proxy whose upstream thinks for longer than anybody waits."""
    with watched(tmp_path, {"sk-early": "roomy"}, token_delay=3600) as proxy:
        yield proxy


class Store:
    """What the proxy's store says of the key that a secret stands for."""

    def __init__(self, limiter, client):
        self.limiter, self.client = limiter, client

    def limit(self, secret, name):
        return next(limit for limit in self.limiter.peek(identifier(secret)).limits if limit.name == name)

    def charged(self, secret):
        tokens = self.limit(secret, "tokens")
        return tokens.burst - tokens.remaining

    def slots_free(self, secret):
        return self.limit(secret, "parallel").remaining

    def records(self, secret):
        """Return what was recorded for billing, oldest first."""
        entries = (entry for _, entry in self.client.xrange("rl1:usage"))
        return [entry for entry in entries if entry["key"] == identifier(secret)]
