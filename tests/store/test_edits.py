"""P11: what was used stays used when limits are edited, added and reordered."""

import pytest

from ratelimit import Limit, Policy, PolicyError

from ..stored import buckets

BASE = 1_700_000_000
TOKENS = Limit("tokens", "100/minute", unit="tokens")


def read_remaining(limits):
    return {state.name: state.remaining for state in limits.peek("k", timestamp=BASE).limits}


@pytest.fixture
def used_limiter(make_limiter):
    """A limiter of whose limits 3 of 5 requests and 30 of 100 tokens are used."""
    limits = make_limiter(Limit("requests", "5/minute"), TOKENS)
    limits.check("k", timestamp=BASE, cost={"requests": 3, "tokens": 30})
    return limits


def test_p11_a_higher_rate_keeps_what_was_used(used_limiter):
    used_limiter.policy = [Limit("requests", "50/minute"), TOKENS]
    assert read_remaining(used_limiter) == {"requests": 47, "tokens": 70}


def test_p11_a_lower_burst_keeps_what_was_used(used_limiter):
    used_limiter.policy = [Limit("requests", "5/minute", burst=2), TOKENS]
    assert read_remaining(used_limiter) == {"requests": 0, "tokens": 70}
    assert not used_limiter.check("k", timestamp=BASE)


def test_p11_a_slower_rate_keeps_what_was_used(used_limiter):
    used_limiter.policy = Limit("requests", "5/day")
    assert read_remaining(used_limiter) == {"requests": 2}


def test_p11_reordering_keeps_what_was_used(used_limiter):
    used_limiter.policy = [TOKENS, Limit("requests", "5/minute")]
    assert read_remaining(used_limiter) == {"tokens": 70, "requests": 2}


def test_p11_a_limit_that_is_added_starts_full_and_changes_no_other(used_limiter):
    used_limiter.policy = [Limit("new", "9/minute"), Limit("requests", "5/minute"), TOKENS]
    assert read_remaining(used_limiter) == {"new": 9, "requests": 2, "tokens": 70}


def test_p11_a_limit_that_is_removed_and_put_back_kept_what_was_used(used_limiter):
    used_limiter.policy = TOKENS
    used_limiter.check("k", timestamp=BASE)
    used_limiter.policy = [Limit("requests", "5/minute"), TOKENS]
    assert read_remaining(used_limiter) == {"requests": 2, "tokens": 70}


def test_p11_plans_that_take_turns_at_a_key_keep_what_each_has_used_and_grow_nothing(make_limiter, client):
    limits = make_limiter(
        Policy.from_text("""
default_plan: a
plans:
  a: {limits: {requests: {rate: 100/day}, slow: {rate: 1000/day}}}
  b: {limits: {quick: {rate: 100/minute}, requests: {rate: 100/day}}}
""")
    )
    for turn in range(1, 21):
        assert limits.check("k", plan="a", timestamp=BASE).limits[1].remaining == 1000 - turn
        assert limits.check("k", plan="b", timestamp=BASE).limits[0].remaining == 100 - turn
    assert limits.peek("k", timestamp=BASE).limits[0].remaining == 60
    assert {name: bucket.used for name, bucket in buckets(client).items()} == {
        "requests": 40,
        "slow": 20,
        "quick": 20,
    }
    assert client.strlen("rl1:{k}:k") == len("quick,requests|slow|") + 8 * (3 * 2 + 2)
    assert client.pttl("rl1:{k}:k") == pytest.approx(1000 * (40 * 864 + 5), abs=20_000)


def test_p11_what_is_settled_under_another_policy_leaves_the_rest_as_it_was(used_limiter, client):
    used_limiter.policy = [Limit("extra", "7/minute", unit="tokens"), Limit("requests", "5/minute")]
    used_limiter.settle({"key": "k", "timestamp": BASE, "input_tokens": 4})
    used_limiter.policy = [Limit("requests", "5/minute"), TOKENS]
    assert read_remaining(used_limiter) == {"requests": 2, "tokens": 70}
    assert buckets(client)["extra"].used == 4


def test_p11_a_limit_that_is_put_in_the_shadow_keeps_what_was_used(used_limiter):
    used_limiter.policy = [Limit("requests", "5/minute", mode="shadow"), TOKENS]
    assert read_remaining(used_limiter) == {"requests": 2, "tokens": 70}


def test_p11_another_limiter_with_another_policy_sees_what_was_used(used_limiter, make_limiter):
    assert read_remaining(make_limiter(Limit("requests", "8/minute"))) == {"requests": 5}


@pytest.mark.parametrize("bad", ["policy.yaml", [], [Limit("a", "1/day"), Limit("a", "2/day")], None, 5])
def test_p11_a_bad_policy_is_refused_whole_and_the_running_one_stays(used_limiter, bad):
    running_policy = used_limiter.policy
    with pytest.raises(PolicyError):
        used_limiter.policy = bad
    assert used_limiter.policy is running_policy
    assert read_remaining(used_limiter) == {"requests": 2, "tokens": 70}


def test_p11_one_bad_line_refuses_the_whole_file(tmp_path, used_limiter):
    file = tmp_path / "policy.yaml"
    file.write_text(
        "plans:\n  p:\n    limits:\n      requests: {rate: 9/minute}\n      tokens: {rat: 1/day}\n"
    )
    running_policy = used_limiter.policy
    with pytest.raises(PolicyError) as raised:
        used_limiter.policy = Policy.from_file(file)
    assert f"{file}:5: plans.p.limits.tokens" in str(raised.value)
    assert used_limiter.policy is running_policy


def test_p11_a_name_that_changes_its_kind_starts_afresh_and_harms_nobody(make_limiter):
    bucket, failures = Limit("x", "5/day"), Limit("x", "5/day", unit="failures")
    limits = make_limiter(bucket)
    limits.check("k")
    limits.check("victim", cost={"requests": 5})
    limits.policy = failures
    assert limits.check("k").limits[0].remaining == 5
    limits.settle({"key": "k", "status": 500})
    limits.policy = bucket
    decisions = limits.check_many(["k", "victim"])
    assert [(decision.allowed, decision.source) for decision in decisions] == [
        (True, "store"),
        (False, "store"),
    ]
