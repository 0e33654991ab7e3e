"""P1 to P4 with late, future and missing timestamps in one sequence, on the store's own clock."""

import json
import time
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Policy

from .model import Model, to_expected
from .worlds import SECOND

SKEW = 5 * SECOND
MILLISECONDS = 5_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def make_policy(limits):
    limits_by_name = {f"limit-{number}": limit for number, limit in enumerate(limits)}
    return Policy.from_text(json.dumps({"plans": {"only": {"limits": limits_by_name}}}))


# How far the timestamp is from the store's clock; None for no timestamp.
_offsets = st.one_of(
    st.none(),
    st.integers(-3 * SECOND, 3 * SECOND),
    st.integers(60 * SECOND, 10**14),
    st.integers(-(10**14), 0),
)
_rates = st.builds(
    "{}/{}".format, st.sampled_from([1, 3, 7, 100, 75_000]), st.sampled_from(["second", "minute", "day"])
)
_limits = st.fixed_dictionaries(
    {"rate": _rates, "burst": st.integers(1, 9), "mode": st.sampled_from(["enforce", "enforce", "shadow"])}
)
_policies = st.lists(_limits, min_size=1, max_size=3).map(make_policy)
_costs = st.one_of(st.integers(0, 4), st.floats(0, 4))


def to_micros(moment):
    return round((moment - EPOCH).total_seconds() * SECOND)


@given(policy=_policies, requests=st.lists(st.tuples(_offsets, _costs), min_size=1, max_size=20))
def test_p4_no_timestamp_is_trusted_further_than_max_skew(limiters, open_client, model_url, policy, requests):
    open_client(model_url).flushall()
    limiter = limiters(model_url, 5.0)
    limiter.policy = policy
    now = time.time_ns() // 1_000
    checks = [
        {"key": "k", "cost": {"requests": cost}}
        | ({} if offset is None else {"timestamp": (now + offset) / SECOND})
        for offset, cost in requests
    ]
    decisions = limiter.check_many(checks)
    after = time.time_ns() // 1_000

    model = Model(policy)
    for (offset, _), check, decision in zip(requests, checks, decisions, strict=True):
        decided_at = to_micros(decision.timestamp)
        if offset is None or offset > 3 * SECOND:
            ahead = SKEW if offset else 0
            assert now - MILLISECONDS <= decided_at - ahead <= after + MILLISECONDS
        else:
            assert decided_at == now + offset
        assert decision.clamped == (offset is not None and offset > 3 * SECOND)
        assert to_expected(decision) == model.decide(check, decided_at)
