"""P6: a check with the same request id gets the first answer again, on any limiter, and is charged once."""

from ratelimit import Limit, Policy

from ..processes import wait_until

TOKENS = Limit("tokens", "1000/day", unit="tokens")


def read_remaining(limits, key="k"):
    return limits.peek(key).limits[0].remaining


def test_p6_a_check_repeated_with_its_request_id_charges_once(make_limiter):
    first_limiter, second_limiter = make_limiter(TOKENS), make_limiter(TOKENS)
    first = first_limiter.check("k", cost={"tokens": 100}, request_id="r1", reserve=True)
    for limits in (first_limiter, second_limiter, first_limiter):
        assert limits.check("k", cost={"tokens": 100}, request_id="r1", reserve=True) == first
    assert read_remaining(first_limiter) == 900


def test_p6_request_ids_belong_to_their_key(make_limiter):
    limits = make_limiter(TOKENS)
    for key in ("k", "k:r1", "k%3Ar1"):
        for request_id in ("r1", "r1:r1"):
            limits.check(key, cost={"tokens": 100}, request_id=request_id)
        assert read_remaining(limits, key) == 800


def test_p6_request_ids_of_a_tenants_keys_and_of_the_tenant_as_a_key_are_apart(make_limiter):
    limits = make_limiter(TOKENS)
    for key in ("k", "acme", ":k"):
        limits.check(key, tenant="acme", cost={"tokens": 100}, request_id="r1")
        assert limits.peek(key, tenant="acme").limits[0].remaining == 900


def test_p6_a_denial_is_not_remembered_since_it_has_written_nothing(make_limiter, read_store):
    limits = make_limiter(TOKENS)
    assert not limits.check("k", cost={"tokens": 1001}, request_id="r1")
    assert read_store() == {}
    assert limits.check("k", cost={"tokens": 1000}, request_id="r1")


def test_p6_a_peek_neither_uses_nor_makes_an_answer(make_limiter, client):
    limits = make_limiter(TOKENS)
    limits.peek("k", request_id="r1")
    assert client.dbsize() == 0


def test_p6_the_answer_stands_though_the_policy_was_edited(make_limiter):
    limits = make_limiter(TOKENS)
    first = limits.check("k", cost={"tokens": 100}, request_id="r1", reserve=True)
    limits.policy = Policy.of(Limit("requests", "1/day"), TOKENS, Limit("more", "1/day"))
    again = limits.check("k", cost={"tokens": 100}, request_id="r1", reserve=True)
    assert (again.allowed, again.reservation, again.limits) == (True, first.reservation, ())


def test_p6_repeats_in_one_batch_charge_once(make_limiter):
    limits = make_limiter(TOKENS)
    check = {"key": "k", "cost": {"tokens": 100}, "request_id": "r1"}
    assert all(limits.check_many([check] * 10))
    assert read_remaining(limits) == 900


def test_p6_answers_and_reservations_are_forgotten_in_time(make_limiter, client):
    limits = make_limiter(Limit("tokens", "1000/second", unit="tokens"), remember=1)
    limits.check("k", cost={"tokens": 900}, request_id="r1", reserve=True)
    limits.reserve("k", cost={"tokens": 50}).settle({"input_tokens": 700})
    limits.cancel(limits.reserve("another").id)
    assert client.dbsize() > 1
    wait_until(lambda: client.keys() == ["rl1:usage"])


def test_a_check_pays_nothing_for_what_it_does_not_use(real_url, make_limiter_on, open_client):
    """The commands are those that docs/operations/state.md lists."""
    client = open_client(real_url)
    limits = make_limiter_on(real_url, Limit("requests", "10/day"), TOKENS)
    limits.check("warm")

    def count_commands(run_check):
        client.config_resetstat()
        run_check()
        stats = client.info("commandstats")
        return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}

    def keep_limiter_commands(counts):
        return {
            name: calls
            for name, calls in counts.items()
            if name not in {"config|resetstat", "config", "info"}
        }

    plain = {"evalsha": 1, "time": 1, "mget": 1, "set": 1}
    assert keep_limiter_commands(count_commands(lambda: limits.check("k"))) == plain
    peeked = {"evalsha": 1, "time": 1, "mget": 1}
    assert keep_limiter_commands(count_commands(lambda: limits.peek("k"))) == peeked
    assert keep_limiter_commands(count_commands(lambda: limits.check("k", cost={"tokens": 5000}))) == peeked
    reserved = keep_limiter_commands(count_commands(lambda: limits.check("another", reserve=True)))
    assert reserved == {**plain, "set": 2}
    twice = keep_limiter_commands(count_commands(lambda: limits.check_many(["k", "k", "another"])))
    assert twice == {**plain, "set": 3}


def test_p6_a_repeat_on_another_plan_is_the_first_answer_of_limits_unknown(make_limiter):
    limits = make_limiter(
        Policy.from_text("""
default_plan: free
plans:
  free: {limits: {requests: {rate: 5/day}, failures: {unit: failures, rate: 5/day}}}
  pro: {limits: {failures: {unit: failures, rate: 5/day}, requests: {rate: 6/day}}}
""")
    )
    limits.settle({"key": "k", "status": 500})
    assert limits.check("k", request_id="r1").limits
    again = limits.check("k", request_id="r1", plan="pro")
    assert (again.allowed, again.limits) == (True, ())
