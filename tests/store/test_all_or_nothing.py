"""P2: a check takes from all its buckets or from none, and a denial writes nothing."""

import pytest

from ratelimit import Limit, Policy

BASE = 1_700_000_000
SCOPES = [["key"], ["tenant"], ["key", "model"], []]
TWO_PLANS = """
default_plan: small
plans:
  small: {limits: {few: {rate: 2/day}}}
  large: {limits: {many: {rate: 90/day}, more: {rate: 99/day}}}
keys: {a: {plan: small}, b: {plan: large}}
"""


@pytest.mark.parametrize("denier", range(len(SCOPES)))
def test_p2_a_denial_by_any_one_limit_leaves_all_as_they_were(make_limiter, read_store, denier):
    limits = make_limiter(
        *(
            Limit(f"limit-{n}", "2/minute" if n == denier else "100/minute", per=per)
            for n, per in enumerate(SCOPES)
        )
    )
    check = {"key": "k", "tenant": "t", "model": "m", "timestamp": BASE}
    assert all(limits.check_many([check, check]))
    buckets_before = read_store()
    assert len(buckets_before) == 4

    decisions = limits.check_many([check] * 20)

    assert not any(decisions)
    assert {decision.violated for decision in decisions} == {(f"limit-{denier}",)}
    assert read_store() == buckets_before


def test_p2_the_first_denial_ever_leaves_an_empty_store(make_limiter, read_store):
    limits = make_limiter(Limit("many", "100/minute"), Limit("few", "2/minute", per=["tenant"]))
    assert not limits.check("k", cost={"requests": 3})
    assert read_store() == {}


def test_p2_a_denial_does_not_touch_the_time_to_live(make_limiter, client):
    limits = make_limiter(Limit("many", "100/day"), Limit("few", "1/day"))
    limits.check("k")
    client.pexpire("rl1:{k}:k", 50_000)
    assert not limits.check("k")
    assert 0 < client.pttl("rl1:{k}:k") <= 50_000


def test_p2_what_was_denied_costs_later_checks_nothing(make_limiter):
    limits = make_limiter(Limit("tokens", "100/minute", unit="tokens"))
    assert not limits.check("k", timestamp=BASE, cost={"tokens": 101})
    assert limits.check("k", timestamp=BASE, cost={"tokens": 60})
    assert not limits.check("k", timestamp=BASE, cost={"tokens": 41})
    assert limits.check("k", timestamp=BASE, cost={"tokens": 40})


def test_p2_an_admitted_check_takes_from_every_bucket(make_limiter, read_store):
    limits = make_limiter(*(Limit(f"limit-{n}", "9/minute", per=per) for n, per in enumerate(SCOPES)))
    limits.check("k", tenant="t", model="m", timestamp=BASE, cost={"requests": 2.5})
    used = {limit: bucket.used for found in read_store().values() for limit, bucket in found.items()}
    assert used == dict.fromkeys(["limit-0", "limit-1", "limit-2", "limit-3"], 2.5)


def test_p2_checks_of_one_batch_see_what_the_ones_before_took(make_limiter):
    limits = make_limiter(Limit("mine", "2/minute"), Limit("ours", "3/minute", per=["tenant"]))
    checks = [{"key": key, "tenant": "t", "timestamp": BASE} for key in ("a", "a", "a", "b", "b")]
    decisions = limits.check_many(checks)
    assert [decision.violated for decision in decisions] == [(), (), ("mine",), (), ("ours",)]


def test_p2_a_batch_of_several_plans_takes_from_each_keys_own_limits(make_limiter, read_store):
    limits = make_limiter(Policy.from_text(TWO_PLANS))
    for _ in range(2):  # The second time, both checks are in the cache of resolved checks.
        assert all(limits.check_many(["a", "b"]))
    found = {limit: round(bucket.used) for group in read_store().values() for limit, bucket in group.items()}
    assert found == {"few": 2, "many": 2, "more": 2}
    assert [decision.violated for decision in limits.check_many(["b", "a"])] == [(), ("few",)]
