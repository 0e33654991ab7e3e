"""Whose bucket a limit takes from, and what is reported without being enforced."""

import pytest

from ratelimit import Limit, Policy

from ..stored import buckets

BASE = 1_700_000_000
CLASSES = """
models: {small: [m1, m2], large: [m3]}
plans:
  free:
    limits:
      requests: {per: [key, model], rate: {small: 3/minute, large: 1/minute, other: 2/minute}}
"""


def count_admitted(limits, checks, key="k", **options):
    return sum(bool(limits.check(key, timestamp=BASE, **options)) for _ in range(checks))


def test_a_limit_per_key_gives_each_key_its_own_bucket(make_limiter):
    limits = make_limiter(Limit("requests", "2/minute"))
    assert [count_admitted(limits, 5, key) for key in ("a", "b")] == [2, 2]


def test_a_limit_per_key_is_apart_for_each_tenant_of_the_key(make_limiter):
    limits = make_limiter(Limit("requests", "2/minute"))
    assert [count_admitted(limits, 5, tenant=tenant) for tenant in ("t", "u", None)] == [2, 2, 2]


def test_keys_of_a_tenant_share_the_tenants_bucket(make_limiter):
    limits = make_limiter(Limit("requests", "3/minute", per=["tenant"]))
    assert [count_admitted(limits, 2, key, tenant="t") for key in ("a", "b")] == [2, 1]
    assert count_admitted(limits, 5, tenant="u") == 3


def test_a_key_without_a_tenant_is_its_own(make_limiter):
    limits = make_limiter(Limit("requests", "3/minute", per=["tenant"]))
    assert count_admitted(limits, 2, "a") + count_admitted(limits, 9, "b", tenant="a") == 3


def test_everyone_shares_one_bucket(make_limiter):
    limits = make_limiter(Limit("requests", "3/minute", per=[]))
    assert [count_admitted(limits, 2, key, tenant=tenant) for key, tenant in [("a", "t"), ("b", None)]] == [
        2,
        1,
    ]


def test_everyone_shares_the_bucket_of_a_model_class(make_limiter):
    policy = Policy.from_text(CLASSES.replace("[key, model]", "[model]"))
    limits = make_limiter(policy)
    assert count_admitted(limits, 2, "a", model="m1") + count_admitted(limits, 9, "b", model="m2") == 3
    assert count_admitted(limits, 9, "b", model="m3") == 1


def test_models_of_a_class_share_its_bucket_at_its_rate(make_limiter):
    limits = make_limiter(Policy.from_text(CLASSES))
    decision = limits.check("k", timestamp=BASE, model="m1")
    assert (decision.model_class, decision.limits[0].limit, decision.limits[0].remaining) == ("small", 3, 2)
    assert count_admitted(limits, 9, model="m2") == 2
    assert count_admitted(limits, 9, model="m3") == 1


def test_unknown_models_and_no_model_share_the_class_other(make_limiter):
    limits = make_limiter(Policy.from_text(CLASSES))
    decision = limits.check("k", timestamp=BASE, model="unheard-of")
    assert (decision.model_class, decision.limits[0].limit) == ("other", 2)
    assert count_admitted(limits, 9, model="unheard-of-too") == 1
    assert count_admitted(limits, 9) == 0
    assert limits.check("k", timestamp=BASE).model_class is None


def test_p5_ten_thousand_invented_models_grow_nothing(make_limiter, client):
    limits = make_limiter(Policy.from_text(CLASSES.replace("2/minute", "20000/minute")))
    for start in range(0, 10_000, 250):
        names = [{"key": "k", "timestamp": BASE, "model": f"made-up-{start + n}"} for n in range(250)]
        assert all(limits.check_many(names))
    assert client.keys() == ["rl1:{k}:k/other"]
    assert list(buckets(client, "rl1:{k}:k/other")) == ["requests"]
    assert len(limits._resolver._layouts) == 1


def test_a_shadow_limit_reports_and_never_denies(make_limiter):
    limits = make_limiter(Limit("requests", "5/minute"), Limit("trial", "2/minute", mode="shadow"))
    decisions = [limits.check("k", timestamp=BASE) for _ in range(5)]
    assert all(decisions)
    trial = [decision.limits[1] for decision in decisions]
    assert [state.remaining for state in trial] == [1, 0, 0, 0, 0]
    assert [state.retry_after for state in trial] == pytest.approx([0, 0, 30, 30, 30], abs=1e-4)
    assert all(decision.violated == () and decision.retry_after == 0 for decision in decisions)


def test_a_shadow_limit_takes_nothing_when_an_enforced_one_denies(make_limiter, read_store):
    limits = make_limiter(Limit("requests", "1/minute"), Limit("trial", "9/minute", mode="shadow"))
    limits.check("k", timestamp=BASE)
    before = read_store()
    denied = limits.check("k", timestamp=BASE)
    assert not denied
    assert denied.limits[1].remaining == 8
    assert read_store() == before


def test_a_plan_is_the_callers_choice_else_the_policys_else_the_default(make_limiter):
    limits = make_limiter(
        Policy.from_text("""
default_plan: free
plans:
  free: {limits: {requests: {rate: 1/minute}}}
  pro: {limits: {requests: {rate: 9/minute}}}
  none: {limits: {}}
keys:
  vip: {plan: pro}
""")
    )
    assert limits.peek("anyone").plan == "free"
    assert limits.peek("vip").plan == "pro"
    assert limits.peek("vip", plan="free").plan == "free"
    assert limits.check("anyone", plan="none").limits == ()


def test_a_key_that_changes_plan_keeps_what_it_used(make_limiter):
    limits = make_limiter(
        Policy.from_text("""
default_plan: free
plans:
  free: {limits: {requests: {rate: 4/minute}}}
  pro: {limits: {requests: {rate: 9/minute}}}
""")
    )
    assert count_admitted(limits, 9) == 4
    assert count_admitted(limits, 9, plan="pro") == 5
