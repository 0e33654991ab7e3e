"""The public names of `ratelimit`. Users rely on them, so they must not change by accident."""

import inspect
from pathlib import Path

import pytest

import ratelimit

NAMES = [
    *("AsyncLimiter", "AsyncReservation", "Check", "Decision", "End", "Fault", "InvalidRequest", "Limit"),
    *(
        "LimitState",
        "Limiter",
        "LimiterClosed",
        "Observer",
        "Plan",
        "Policy",
        "PolicyError",
        "Rate",
        "RateLimitError",
        "RateLimited",
    ),
    *("Reservation", "Settlement", "StoreUnavailable", "UnknownReservation", "Usage", "__version__"),
    "limited",
]
FRAMEWORKS = {"asgi.py", "fastapi.py", "httpx.py", "wsgi.py"}
"""The modules that users import for a framework."""


def test_the_public_names_are_these():
    assert sorted(ratelimit.__all__) == NAMES


def test_at_most_fifteen_things_lie_at_the_top_of_the_library_beside_the_frameworks():
    entries = {path.name for path in Path(ratelimit.__file__).parent.iterdir()} - {"__pycache__"}
    assert entries >= FRAMEWORKS
    assert len(entries - FRAMEWORKS) <= 15, sorted(entries)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_documented(name):
    assert inspect.getdoc(getattr(ratelimit, name))


def test_both_limiters_have_the_same_methods_with_the_same_parameters():
    def methods(cls):
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_")
        }

    assert methods(ratelimit.Limiter) == methods(ratelimit.AsyncLimiter)
    both = [inspect.signature(cls).parameters for cls in (ratelimit.Limiter, ratelimit.AsyncLimiter)]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("error", "parents"),
    [
        (ratelimit.RateLimited, [ratelimit.RateLimitError]),
        (ratelimit.StoreUnavailable, [ratelimit.RateLimitError]),
        (ratelimit.LimiterClosed, [ratelimit.RateLimitError, RuntimeError]),
        (ratelimit.PolicyError, [ratelimit.RateLimitError, ValueError]),
        (ratelimit.InvalidRequest, [ratelimit.RateLimitError, ValueError]),
        (ratelimit.UnknownReservation, [ratelimit.InvalidRequest]),
    ],
)
def test_all_errors_have_their_documented_base_classes(error, parents):
    assert all(issubclass(error, parent) for parent in parents)
