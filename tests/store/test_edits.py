"""P11: what was used stays used while limits are edited, added and reordered."""

import pytest

from ratelimit import Limit, Policy, PolicyError

from ..stored import buckets

BASE = 1_700_000_000
TOKENS = Limit("tokens", "100/minute", unit="tokens")


def remaining(limits):
    return {state.name: state.remaining for state in limits.peek("k", timestamp=BASE).limits}


@pytest.fixture
def used_three(limiter):
    """Three of five requests are used, and thirty of a hundred tokens."""
    limits = limiter(Limit("requests", "5/minute"), TOKENS)
    limits.check("k", timestamp=BASE, cost={"requests": 3, "tokens": 30})
    return limits


def test_p11_a_higher_rate_keeps_what_was_used(used_three):
    used_three.policy = [Limit("requests", "50/minute"), TOKENS]
    assert remaining(used_three) == {"requests": 47, "tokens": 70}


def test_p11_a_lower_burst_keeps_what_was_used(used_three):
    used_three.policy = [Limit("requests", "5/minute", burst=2), TOKENS]
    assert remaining(used_three) == {"requests": 0, "tokens": 70}
    assert not used_three.check("k", timestamp=BASE)


def test_p11_a_slower_rate_keeps_what_was_used(used_three):
    used_three.policy = Limit("requests", "5/day")
    assert remaining(used_three) == {"requests": 2}


def test_p11_reordering_keeps_what_was_used(used_three):
    used_three.policy = [TOKENS, Limit("requests", "5/minute")]
    assert remaining(used_three) == {"tokens": 70, "requests": 2}


def test_p11_a_limit_that_is_added_starts_full_and_changes_no_other(used_three):
    used_three.policy = [Limit("new", "9/minute"), Limit("requests", "5/minute"), TOKENS]
    assert remaining(used_three) == {"new": 9, "requests": 2, "tokens": 70}


def test_p11_a_limit_that_is_removed_and_put_back_kept_what_was_used(used_three):
    used_three.policy = TOKENS
    used_three.check("k", timestamp=BASE)
    used_three.policy = [Limit("requests", "5/minute"), TOKENS]
    assert remaining(used_three) == {"requests": 2, "tokens": 70}


def test_p11_plans_that_take_turns_at_a_key_keep_what_each_has_used_and_grow_nothing(limiter, client):
    limits = limiter(
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


def test_p11_what_is_settled_under_another_policy_leaves_the_rest_as_it_was(used_three, client):
    used_three.policy = [Limit("extra", "7/minute", unit="tokens"), Limit("requests", "5/minute")]
    used_three.settle({"key": "k", "timestamp": BASE, "input_tokens": 4})
    used_three.policy = [Limit("requests", "5/minute"), TOKENS]
    assert remaining(used_three) == {"requests": 2, "tokens": 70}
    assert buckets(client)["extra"].used == 4


def test_p11_a_limit_that_is_put_in_the_shadow_keeps_what_was_used(used_three):
    used_three.policy = [Limit("requests", "5/minute", mode="shadow"), TOKENS]
    assert remaining(used_three) == {"requests": 2, "tokens": 70}


def test_p11_another_limiter_with_another_policy_sees_what_was_used(used_three, limiter):
    assert remaining(limiter(Limit("requests", "8/minute"))) == {"requests": 5}


@pytest.mark.parametrize("bad", ["policy.yaml", [], [Limit("a", "1/day"), Limit("a", "2/day")], None, 5])
def test_p11_a_bad_policy_is_refused_whole_and_the_running_one_stays(used_three, bad):
    running = used_three.policy
    with pytest.raises(PolicyError):
        used_three.policy = bad
    assert used_three.policy is running
    assert remaining(used_three) == {"requests": 2, "tokens": 70}


def test_p11_one_bad_line_refuses_the_whole_file(tmp_path, used_three):
    file = tmp_path / "policy.yaml"
    file.write_text(
        "plans:\n  p:\n    limits:\n      requests: {rate: 9/minute}\n      tokens: {rat: 1/day}\n"
    )
    running = used_three.policy
    with pytest.raises(PolicyError) as raised:
        used_three.policy = Policy.from_file(file)
    assert f"{file}:5: plans.p.limits.tokens" in str(raised.value)
    assert used_three.policy is running


def test_p11_a_name_that_changes_its_kind_starts_afresh_and_harms_nobody(limiter):
    bucket, failures = Limit("x", "5/day"), Limit("x", "5/day", unit="failures")
    limits = limiter(bucket)
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
