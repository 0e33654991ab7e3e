"""Strategies for worlds: a policy of a few limits, and a sequence of checks that compete for them."""

import json
from itertools import accumulate

from hypothesis import strategies as st

from ratelimit import Policy

BASE = 1_700_000_000_000_000
SECOND = 1_000_000
CLASSES = {"small": ["m1", "m2"], "large": ["m3"]}

_periods = st.sampled_from(["second", "minute", "hour", "day", "3s", "30s", "7d"])
_counts = st.one_of(st.integers(1, 12), st.integers(1, 400), st.sampled_from([1_000, 75_000, 7_000_000]))
_rates = st.builds("{}/{}".format, _counts, _periods)
_scopes = st.sampled_from([["key"], ["tenant"], [], ["model"], ["key", "model"], ["tenant", "model"]])


@st.composite
def _limits(draw):
    per = draw(_scopes)
    by_class = "model" in per and draw(st.booleans())
    rate = {name: draw(_rates) for name in [*CLASSES, "other"]} if by_class else draw(_rates)
    limit = {
        "rate": rate,
        "per": per,
        "unit": draw(st.sampled_from(["requests", "requests", "tokens", "pages"])),
        "mode": draw(st.sampled_from(["enforce", "enforce", "enforce", "shadow"])),
    }
    burst = draw(st.none() | st.integers(1, 30))
    return limit if burst is None else {**limit, "burst": burst}


@st.composite
def policies(draw):
    limits = draw(st.lists(_limits(), min_size=1, max_size=4))
    return _make_policy(limits)


def _make_policy(limits):
    names = {f"limit-{number}": limit for number, limit in enumerate(limits)}
    return Policy.from_text(json.dumps({"models": CLASSES, "plans": {"only": {"limits": names}}}))


_amounts = st.one_of(
    st.integers(0, 3),
    st.integers(0, 40),
    st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 1e-6, 1e-9, 2.000001]),
    st.floats(0, 20, allow_nan=False),
    st.integers(0, 10_000_000),
)
_gaps = st.one_of(
    st.just(0),
    st.integers(-3, 3),
    st.integers(-5 * SECOND, 5 * SECOND),
    st.sampled_from([SECOND, SECOND - 1, SECOND + 1, 60 * SECOND, 3_600 * SECOND, -SECOND, -90 * SECOND]),
    st.integers(-2 * 86_400 * SECOND, 2 * 86_400 * SECOND),
)


@st.composite
def _checks(draw, units):
    check = {"key": draw(st.sampled_from(["a", "a", "b"]))}
    if draw(st.integers(0, 3)) == 0:
        check["tenant"] = draw(st.sampled_from(["a", "org"]))
    if draw(st.booleans()):
        check["model"] = draw(st.sampled_from(["m1", "m2", "m3", "unlisted"]))
    cost = draw(st.dictionaries(st.sampled_from(sorted(units | {"requests"})), _amounts, max_size=3))
    return {**check, "cost": cost} if cost else check


@st.composite
def sequences(draw, units, *, max_length=25):
    """Draw checks with their times; some are late, some early, some equal."""
    t = BASE
    sequence = []
    for _ in range(draw(st.integers(1, max_length))):
        t += draw(_gaps)
        sequence.append((draw(_checks(units)), t))
    return sequence


@st.composite
def busy_worlds(draw):
    """Draw worlds of one key and few tokens, in which many checks compete within seconds."""
    rates = st.builds("{}/{}".format, st.integers(1, 9), st.sampled_from(["second", "3s", "minute"]))
    limits = draw(st.lists(st.builds(_make_busy_limit, rates, st.integers(1, 5)), min_size=1, max_size=2))
    near = st.one_of(st.just(0), st.integers(-2 * SECOND, 2 * SECOND), st.sampled_from([SECOND, -SECOND]))
    gaps = draw(st.lists(near, min_size=20, max_size=60))
    costs = st.sampled_from([1, 1, 1, 0.5, 1 / 3, 2])
    sequence = [({"key": "a", "cost": {"requests": draw(costs)}}, t) for t in accumulate(gaps, initial=BASE)]
    return _make_policy(limits), sequence


def _make_busy_limit(rate, burst):
    return {"rate": rate, "burst": burst}


@st.composite
def worlds(draw):
    policy = draw(policies())
    return policy, draw(sequences(policy.units))
