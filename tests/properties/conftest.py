"""One limiter for all the examples of a test: connecting anew for each would take most of the time."""

import pytest

from ratelimit import Limit, Limiter

UNTIL_GIVEN = Limit("requests", "1/second")


@pytest.fixture(scope="session")
def limiters():
    """Keep one limiter for each store and each trust in timestamps."""
    made = {}

    def limiter(url, max_skew):
        if (url, max_skew) not in made:
            made[url, max_skew] = Limiter(url, UNTIL_GIVEN, max_skew=max_skew, deadline=20)
        return made[url, max_skew]

    yield limiter
    for limiter in made.values():
        limiter.close()
