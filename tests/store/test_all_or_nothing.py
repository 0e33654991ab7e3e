"""P2: a check takes from all its buckets or from none, and a denial writes nothing."""

import pytest

from ratelimit import Limit

BASE = 1_700_000_000
SCOPES = [["key"], ["tenant"], ["key", "model"], []]


@pytest.mark.parametrize("denier", range(len(SCOPES)))
def test_p2_a_denial_by_any_one_limit_leaves_all_as_they_were(limiter, contents, denier):
    limits = limiter(
        *(
            Limit(f"limit-{n}", "2/minute" if n == denier else "100/minute", per=per)
            for n, per in enumerate(SCOPES)
        )
    )
    call = {"key": "k", "tenant": "t", "model": "m", "timestamp": BASE}
    assert all(limits.check_many([call, call]))
    before = contents()
    assert len(before) == 4

    decisions = limits.check_many([call] * 20)

    assert not any(decisions)
    assert {decision.violated for decision in decisions} == {(f"limit-{denier}",)}
    assert contents() == before


def test_p2_the_first_denial_ever_leaves_an_empty_store(limiter, contents):
    limits = limiter(Limit("many", "100/minute"), Limit("few", "2/minute", per=["tenant"]))
    assert not limits.check("k", cost={"requests": 3})
    assert contents() == {}


def test_p2_a_denial_does_not_touch_the_time_to_live(limiter, client):
    limits = limiter(Limit("many", "100/day"), Limit("few", "1/day"))
    limits.check("k")
    client.pexpire("rl1:{k}:k", 50_000)
    assert not limits.check("k")
    assert 0 < client.pttl("rl1:{k}:k") <= 50_000


def test_p2_what_was_denied_costs_later_checks_nothing(limiter):
    limits = limiter(Limit("tokens", "100/minute", unit="tokens"))
    assert not limits.check("k", timestamp=BASE, cost={"tokens": 101})
    assert limits.check("k", timestamp=BASE, cost={"tokens": 60})
    assert not limits.check("k", timestamp=BASE, cost={"tokens": 41})
    assert limits.check("k", timestamp=BASE, cost={"tokens": 40})


def test_p2_an_admitted_check_takes_from_every_bucket(limiter, contents):
    limits = limiter(*(Limit(f"limit-{n}", "9/minute", per=per) for n, per in enumerate(SCOPES)))
    limits.check("k", tenant="t", model="m", timestamp=BASE, cost={"requests": 2.5})
    used = {limit: bucket.used for found in contents().values() for limit, bucket in found.items()}
    assert used == dict.fromkeys(["limit-0", "limit-1", "limit-2", "limit-3"], 2.5)


def test_p2_checks_of_one_batch_see_what_the_ones_before_took(limiter):
    limits = limiter(Limit("mine", "2/minute"), Limit("ours", "3/minute", per=["tenant"]))
    asked = [{"key": key, "tenant": "t", "timestamp": BASE} for key in ("a", "a", "a", "b", "b")]
    decisions = limits.check_many(asked)
    assert [decision.violated for decision in decisions] == [(), (), ("mine",), (), ("ours",)]
