"""One limiter for all the examples of a test: a new connection for each would take most of the time."""

import pytest

from ratelimit import Limit, Limiter

PLACEHOLDER = Limit("requests", "1/second")


@pytest.fixture(scope="session", params=["valkey", "cluster", "sentinel"])
def model_url(request):
    """The URL of each kind of store in turn, not emptied."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(scope="session")
def limiters():
    """Make one limiter for each store and each `max_skew`; tests set its policy."""
    made = {}

    def make(url, max_skew):
        if (url, max_skew) not in made:
            made[url, max_skew] = Limiter(url, PLACEHOLDER, max_skew=max_skew, deadline=20)
        return made[url, max_skew]

    yield make
    for limiter in made.values():
        limiter.close()
