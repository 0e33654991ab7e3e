"""A record tells the settlement which limits to charge, whatever their owners are called."""

import pytest

from ratelimit import InvalidRequest, Limit, Policy, UnknownReservation, Usage

from ..stored import used

BASE = 1_700_000_000
POLICY = Policy.from_text("""
models: {small: [m1]}
plans:
  p:
    limits:
      of-key: {rate: 100/day, unit: tokens}
      of-key-and-model: {rate: 100/day, unit: tokens, per: [key, model]}
      of-tenant: {rate: 100/day, unit: tokens, per: [tenant]}
      of-tenant-and-model: {rate: 100/day, unit: tokens, per: [tenant, model]}
      of-everyone: {rate: 100/day, unit: tokens, per: []}
      of-model: {rate: 100/day, unit: tokens, per: [model]}
      watched: {rate: 3/day, unit: tokens, mode: shadow}
      parallel: {unit: concurrent, capacity: 3, ttl: 1h, per: [key, model]}
      failures: {unit: failures, rate: 9/day, per: [tenant, model]}
      failures-of-key: {unit: failures, rate: 9/day}
""")
NAMES = ["vk_9f3", "%20", "}:k{*}", ";|%R:=", "~.-_", '"\\']


@pytest.mark.parametrize("tenant", [None, *NAMES])
@pytest.mark.parametrize("key", NAMES)
def test_each_limit_is_settled_where_the_check_has_charged_it(make_limiter, client, key, tenant):
    limits = make_limiter(POLICY)
    options = {"tenant": tenant, "model": "m1", "cost": {"tokens": 10}}
    held = limits.reserve(key, **options)
    settled = held.settle(Usage(input_tokens=3, output_tokens=1, status=500))
    remaining = {state.name: state.remaining for state in settled.limits}
    assert remaining == {
        **{name: 96 for name in remaining if name.startswith("of-")},
        "parallel": 3,
        "failures": 8,
        "failures-of-key": 8,
    }
    looked = limits.peek(key, tenant=tenant, model="m1")
    assert {state.name: state.remaining for state in looked.limits} == {**remaining, "watched": 3}
    [(_, record)] = client.xrange("rl1:usage")
    assert (record["key"], record["tenant"], record["model"]) == (key, tenant or key, "m1")
    # The settlement has added no store key.
    kinds = sorted(client.type(name) for name in client.scan_iter())
    assert kinds == sorted(["string"] * (6 + 2 + 1) + ["stream"])


@pytest.mark.parametrize("cost", [1 / 3, 0.1, 1e-9, 1e12, 1e12 - 1, 123e6, 0.1 + 0.2, 5e-324, 100.0, 0.0])
def test_p7_no_digit_of_the_estimate_is_lost_in_the_record(make_limiter, client, cost):
    limits = make_limiter(Limit("tokens", "1000000000000/7d", burst=10**12, unit="tokens"), max_skew=None)
    held = limits.reserve("k", cost={"tokens": cost}, timestamp=BASE)
    held.settle(Usage(cost={"tokens": cost}, timestamp=BASE))
    assert used(client, "tokens") == cost


def test_p6_a_repeated_settlement_gets_every_digit_of_the_first_answer(make_limiter):
    limits = make_limiter(
        Limit("tokens", "7/minute", unit="tokens", burst=1000),
        Limit("images", "7/366d", unit="images", charge="settle"),
        Limit("failures", "9/60m", unit="failures"),
        Limit("others", "2/60m", unit="failures", block="1h"),
        Limit("parallel", unit="concurrent", capacity=2, ttl="30s"),
        max_skew=None,
    )
    for second in range(3):
        limits.settle({"key": "k", "timestamp": BASE + second, "status": 500})
    held = limits.reserve("k", cost={"tokens": 1 / 3}, timestamp=BASE + 3605)
    usage = Usage(cost={"tokens": 0.1, "images": 1e-9}, status=500, timestamp=BASE + 3606.000001)
    first, again = (limits.settle(usage, reservation=held.id) for _ in range(2))
    assert first.limits == again.limits
    assert [state.name for state in first.limits] == ["tokens", "images", "failures", "others", "parallel"]
    assert (first.replayed, again.replayed) == (False, True)


def test_a_record_of_an_older_version_is_unknown_and_stays(make_limiter, client):
    limits = make_limiter(Limit("tokens", "1000/day", unit="tokens"))
    held = limits.reserve("k", cost={"tokens": 5})
    [name] = client.keys("*:R:*")
    client.delete(name)
    client.hset(name.replace(":R:", ":r:"), mapping={"state": "open"})
    with pytest.raises(UnknownReservation):
        held.settle(Usage(input_tokens=1))
    with pytest.raises(UnknownReservation):
        held.cancel()
    assert client.hgetall(name.replace(":R:", ":r:")) == {"state": "open"}


def test_another_spelling_of_the_same_id_is_no_reservation(make_limiter):
    """In base64 the last character of `aw` has four bits that mean nothing: `ax` is `k`, too."""
    limits = make_limiter(Limit("tokens", "1000/day", unit="tokens"))
    held = limits.reserve("k", cost={"tokens": 5})
    assert held.id.endswith(".aw")
    with pytest.raises(UnknownReservation):
        limits.cancel(f"{held.id[:-1]}x")
    limits.cancel(held.id)


def test_a_settlement_answers_what_a_look_at_the_same_time_would(make_limiter):
    limits = make_limiter(
        Limit("tokens", "7/minute", unit="tokens", burst=1000),
        Limit("failures", "4/60m", unit="failures"),
        Limit("shut", "2/60m", unit="failures", block="1h"),
        Limit("watched", "1/60m", unit="failures", mode="shadow"),
        max_skew=None,
    )
    held = limits.reserve("k", cost={"tokens": 1 / 3}, timestamp=BASE)
    for second in (-3590, 3, 1):
        limits.settle({"key": "k", "timestamp": BASE + second, "status": 500})
    usage = Usage(cost={"tokens": 123.4}, status=500, timestamp=BASE + 20.000001)
    assert held.settle(usage).limits == limits.peek("k", timestamp=BASE + 20.000001).limits


def test_failures_that_count_do_not_make_a_settled_record_longer(make_limiter, client):
    limits = make_limiter(Limit("failures", "200/60m", unit="failures"), max_skew=None)

    def measure_record(status):
        client.delete(*client.keys("*:R:*"), "none")
        limits.reserve("k", timestamp=BASE).settle(Usage(status=status, timestamp=BASE))
        [record] = client.keys("*:R:*")
        return client.strlen(record)

    size = measure_record(500)
    for second in range(100):
        limits.settle({"key": "k", "timestamp": BASE + second / 100, "status": 500})
    assert measure_record(500) == size


@pytest.mark.parametrize("tenant", [None, "acme"])
def test_a_settlement_may_name_its_key_and_no_other(make_limiter, tenant):
    limits = make_limiter(Limit("tokens", "1000/day", unit="tokens"))
    held = limits.reserve("vk_1", tenant=tenant, cost={"tokens": 5})
    for is_replayed in (False, True):
        for other in ("vk_2", "acme" if tenant else "vk_1:"):
            with pytest.raises(InvalidRequest, match="key: is not the key of this reservation"):
                held.settle(Usage(key=other, input_tokens=7))
        assert held.settle(Usage(key="vk_1", input_tokens=7)).replayed is is_replayed
    assert limits.peek("vk_1", tenant=tenant).limits[0].remaining == 993
