"""Limiters on a real Valkey for the applications of these tests."""

import pytest

from ratelimit import AsyncLimiter, Limiter, Policy

from ..conftest import DEADLINE


@pytest.fixture
def url(valkey_url, open_client):
    """The URL of an empty Valkey."""
    open_client(valkey_url).flushall()
    return valkey_url


@pytest.fixture
def open_limiter(url):
    """Return an asyncio limiter, which the test closes on its own event loop."""

    def make(*limits, **options):
        policy = limits[0] if isinstance(limits[0], Policy) else limits
        return AsyncLimiter(options.pop("store", url), policy, **{"deadline": DEADLINE, **options})

    return make


@pytest.fixture
def make_limits(url):
    """Make limiters for threads, which are closed after the test."""
    made = []

    def make(*limits, **options):
        policy = limits[0] if isinstance(limits[0], Policy) else limits
        made.append(Limiter(options.pop("store", url), policy, **{"deadline": DEADLINE, **options}))
        return made[-1]

    yield make
    for limiter in made:
        limiter.close()
