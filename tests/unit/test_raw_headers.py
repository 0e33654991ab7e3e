"""Headers that are written from the script's reply are those that are written from the members."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit import Limit, Policy
from ratelimit.decision.headers import make_headers
from ratelimit.engine.check_script import read_decision
from ratelimit.engine.raw_headers import write_raw_headers
from ratelimit.engine.resolver import Resolver
from ratelimit.request.check import make_check
from ratelimit.web.encoding import encode_decision, encode_headers

BASE = 1_700_000_000_000_000
BUCKETS = st.tuples(
    st.just("bucket"),
    st.sampled_from([("7/minute", 7), ("20/minute", 5), ("3/second", 40), ("1000000/365d", 33)]),
    st.floats(0, 60, allow_subnormal=False),
    st.integers(-30_000_000, 90_000_000),
)
POST_PAID = st.tuples(
    st.just("post-paid"), st.just(("9/hour", 9)), st.floats(0, 60), st.integers(0, 90_000_000)
)
SLOTS = st.tuples(st.just("slots"), st.just(None), st.integers(0, 3), st.integers(-1, 5_000))
FAILURES = st.tuples(st.just("failures"), st.just(None), st.just(0), st.just(0))
MODES = st.sampled_from(["enforce", "enforce", "shadow"])
LIMITS = st.lists(st.tuples(BUCKETS | POST_PAID | SLOTS | FAILURES, MODES), min_size=1, max_size=5)
COSTS = st.sampled_from([0.0, 1.0, 2.5, 7.0])


def make_limit(number, limit):
    (kind, numbers, *_), mode = limit
    name = f"l{number}"
    if kind == "slots":
        return Limit(name, capacity=4, unit="concurrent", ttl="1m", mode=mode)
    if kind == "failures":
        return Limit(name, "20/day", unit="failures", mode=mode)
    rate, burst = numbers
    paid = "settle" if kind == "post-paid" else "check"
    return Limit(name, rate, burst=burst, unit=f"u{number}", mode=mode, charge=paid)


def list_state(kind, first, second):
    if kind in {"slots", "failures"}:
        return float(first), float(second)
    return float(first), float(BASE - second) if first else 0.0


def resolve(limits, cost, *, take=True):
    policy = Policy.of(*(make_limit(number, limit) for number, limit in enumerate(limits)))
    costs = {limit.unit: cost for limit in policy.plans["default"].limits if limit.unit.startswith("u")}
    return Resolver(policy).resolve(make_check({"key": "k", "cost": costs}), take=take)


@given(LIMITS, COSTS, st.booleans(), st.booleans())
@example([(("bucket", ("7/minute", 7), 4.5, 0), "enforce")], 1.0, True, True)
@example([(("bucket", ("7/minute", 7), 6.0, -30_000_000), "enforce")], 1.0, True, True)  # late
@example([(("bucket", ("7/minute", 7), 6.0, 0), "shadow")], 1.0, True, True)  # nothing to show
def test_the_headers_of_a_reply_are_those_of_its_members(limits, cost, take, is_allowed):
    check = resolve(limits, cost, take=take)
    layout = check.subject.layout
    by_name = {f"l{number}": state for number, ((kind, _, *state), _) in enumerate(limits)}
    kinds = {f"l{number}": kind for number, ((kind, *_), _) in enumerate(limits)}
    states = [
        number
        for placed in layout.placed_limits
        for number in list_state(kinds[placed.limit.name], *by_name[placed.limit.name])
    ]
    reply = (b"1" if is_allowed else b"0") + layout.state_struct.pack(BASE, *states)
    assert (write_raw_headers(check, reply) is None) == (not is_allowed)
    decision = read_decision(check, reply)
    headers, encoded = decision.headers(), encode_decision(decision, ["ietf"])
    assert headers == make_headers(decision)
    assert encoded == encode_headers(headers)
    assert set(decision.headers(["ietf", "venice"])) >= set(headers)


@pytest.mark.parametrize("reply", [b"0", b"1"])
def test_a_reply_without_states_needs_the_members(reply):
    check = resolve([(("bucket", ("7/minute", 7), 0, 0), "enforce")], 1.0)
    cut = reply + check.subject.layout.state_struct.pack(BASE, 0, 0)[:8]
    assert write_raw_headers(check, cut) is None
    assert read_decision(check, cut).headers().get("RateLimit") is None


def test_a_blocked_key_needs_the_members():
    check = resolve([(("bucket", ("7/minute", 7), 0, 0), "enforce")], 1.0)
    check = check._replace(subject=check.subject._replace(blocked=True))
    reply = b"1" + check.subject.layout.state_struct.pack(BASE, 0, 0)
    assert write_raw_headers(check, reply) is None
    assert not read_decision(check, reply)
