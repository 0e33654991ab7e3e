"""The proxy of examples/, run as a reader runs it, and a second limiter that reads its store."""

import re
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis

from ratelimit import Limiter, Policy
from ratelimit.request.privacy import identifier_of

from ..processes import run_program

ROOT = Path(__file__).parents[2]
PEPPER = "pepper-for-tests"
SERVING = re.compile(r"Serving (\S+);")

# A rate per week gives back almost no token while a test runs, so tests can compare charges exactly.
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


def identify(secret):
    """Return the key that a secret becomes."""
    return identifier_of(secret, PEPPER)


@contextmanager
def run_proxy(folder, *options, token_delay=0.0):
    """Run the proxy until the end of the block, and yield the address that it prints.

    It must print no error and no warning.
    """
    command = [
        sys.executable,
        "-W",
        "error",
        str(ROOT / "examples" / "llm_proxy.py"),
        "--port",
        "0",
        *options,
    ]
    output, errors = folder / "output", folder / "errors"
    variables = {"RATELIMIT_KEY_PEPPER": PEPPER, "TOKEN_DELAY": str(token_delay)}
    with run_program(command, output, lambda: SERVING.match(output.read_text()), errors=errors, **variables):
        yield SERVING.match(output.read_text())[1]
    assert not errors.read_text()


@contextmanager
def run_proxy_with_keys(folder, plans, token_delay):
    """Run the proxy with a plan for each secret, and yield its address and its store."""
    file = folder / "policy.yaml"
    assigned = "".join(f"  {identify(secret)}: {{plan: {plan}}}\n" for secret, plan in plans.items())
    file.write_text(f"default_plan: roomy\nplans:{PLANS}keys:\n{assigned}")
    url = f"embedded://{folder / 'store'}"
    with (
        run_proxy(folder, "--policy", str(file), "--store", url, token_delay=token_delay) as address,
        Limiter(url, Policy.from_file(file), deadline=5) as limiter,
        redis.Redis.from_url(limiter.address, decode_responses=True) as client,
    ):
        yield SimpleNamespace(url=address, store=Store(limiter, client))


@pytest.fixture(scope="module")
def proxy(request, tmp_path_factory):
    """One proxy for a module. Its tests use different secrets of the module's KEYS."""
    with run_proxy_with_keys(
        tmp_path_factory.mktemp("proxy"), request.module.KEYS, token_delay=0.002
    ) as proxy:
        yield proxy


@pytest.fixture
def stuck_proxy(tmp_path):
    """A proxy whose upstream sends no token before the test ends."""
    with run_proxy_with_keys(tmp_path, {"sk-early": "roomy"}, token_delay=3600) as proxy:
        yield proxy


class Store:
    """Reads what the proxy's store holds for the key of a secret."""

    def __init__(self, limiter, client):
        self.limiter, self.client = limiter, client

    def read_limit(self, secret, name):
        return next(limit for limit in self.limiter.peek(identify(secret)).limits if limit.name == name)

    def read_charge(self, secret):
        """Return how many tokens were charged."""
        tokens = self.read_limit(secret, "tokens")
        return tokens.burst - tokens.remaining

    def read_free_slots(self, secret):
        """Return how many more streams may run at the same time."""
        return self.read_limit(secret, "parallel").remaining

    def read_records(self, secret):
        """Return the usage records, oldest first."""
        entries = (entry for _, entry in self.client.xrange("rl1:usage"))
        return [entry for entry in entries if entry["key"] == identify(secret)]
