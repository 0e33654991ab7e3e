"""P6 and P7: reservations are charged once when they are settled, and their slots are freed."""

import json
import time

import pytest

from ratelimit import (
    InvalidRequest,
    Limit,
    Policy,
    RateLimited,
    StoreUnavailable,
    UnknownReservation,
    Usage,
)

TOKENS = Limit("tokens", "1000/day", unit="tokens")
PARALLEL = Limit("parallel", unit="concurrent", capacity=2, ttl="30s")
POST_PAID = Limit("images", "10/day", unit="images", charge="settle")
BASE = 1_700_000_000


def read_remaining(limits, key="k", name="tokens", **options):
    return next(state.remaining for state in limits.peek(key, **options).limits if state.name == name)


def test_p7_a_reservation_is_settled_with_what_was_used(make_limiter):
    limits = make_limiter(TOKENS)
    with limits.reserve("k", cost={"tokens": 400}) as reservation:
        assert read_remaining(limits) == 600
        settlement = reservation.settle(Usage(input_tokens=100, output_tokens=150))
    assert (settlement.settled, settlement.replayed, settlement.limits[0].remaining) == (True, False, 750)
    assert read_remaining(limits) == 750


def test_p7_debt_is_repaid_before_anything_passes(make_limiter):
    limits = make_limiter(Limit("tokens", "100/minute", unit="tokens"), max_skew=None)
    held = limits.reserve("k", cost={"tokens": 10}, timestamp=BASE)
    held.settle(Usage(input_tokens=160, timestamp=BASE))
    assert not limits.check("k", timestamp=BASE)
    wait = limits.check("k", cost={"tokens": 40}, timestamp=BASE).retry_after
    assert wait == 60.0
    assert not limits.check("k", cost={"tokens": 40}, timestamp=BASE + wait - 0.001)
    assert limits.check("k", cost={"tokens": 40}, timestamp=BASE + wait)


def test_p7_cancelling_never_lifts_a_bucket_above_full(make_limiter):
    limits = make_limiter(Limit("tokens", "100/minute", unit="tokens"), max_skew=None)
    first = limits.reserve("k", cost={"tokens": 60}, timestamp=BASE)
    limits.reserve("k", cost={"tokens": 40}, timestamp=BASE)
    limits.check("k", cost={"tokens": 1}, timestamp=BASE + 30)  # 51 are missing now; the refund is 60
    first.cancel()
    first.cancel()
    # A late request would see a bucket above full, because its time has not earned the refill.
    assert read_remaining(limits, timestamp=BASE + 30) == 100
    assert read_remaining(limits, timestamp=BASE + 24) == 90


def test_p7_left_unsettled_the_estimate_stays_charged_and_the_slot_is_freed(make_limiter):
    limits = make_limiter(TOKENS, PARALLEL)
    reservation = limits.reserve("k", cost={"tokens": 400})
    with pytest.raises(ZeroDivisionError), reservation:
        read_remaining(limits) / (read_remaining(limits, name="parallel") - 1)
    assert (read_remaining(limits), read_remaining(limits, name="parallel")) == (600, 2)
    reservation.settle(Usage(input_tokens=1))  # still possible after the block
    assert read_remaining(limits) == 999


def test_a_denied_reservation_raises_and_holds_nothing(make_limiter, read_store):
    limits = make_limiter(TOKENS, PARALLEL)
    with pytest.raises(RateLimited) as raised:
        limits.reserve("k", cost={"tokens": 1001})
    assert raised.value.decision.violated == ("tokens",)
    assert read_store() == {}


def test_p6_settle_cancel_and_release_after_one_another_have_their_answers(make_limiter):
    limits = make_limiter(TOKENS)
    settled = limits.reserve("k", cost={"tokens": 100}).id
    assert limits.settle(Usage(input_tokens=10), reservation=settled).replayed is False
    assert limits.settle(Usage(input_tokens=999), reservation=settled).replayed is True
    answer = limits.cancel(settled)
    assert (answer.settled, answer.replayed) == (True, True)
    assert read_remaining(limits) == 990
    cancelled = limits.reserve("k", cost={"tokens": 100}).id
    assert limits.cancel(cancelled).replayed is False
    answer = limits.settle(Usage(input_tokens=999), reservation=cancelled)
    assert (answer.settled, answer.replayed) == (False, True)
    assert read_remaining(limits) == 990


@pytest.mark.parametrize("reservation", ["", "x", "a.b", "A" * 16 + ".dms", "é", "A" * 16 + ".\n"])
def test_an_unknown_or_malformed_reservation_moves_nothing(make_limiter, read_store, reservation):
    limits = make_limiter(TOKENS)
    with pytest.raises(InvalidRequest):
        limits.settle({"input_tokens": 5, "reservation": reservation})
    with pytest.raises(UnknownReservation):
        limits.cancel(reservation)
    assert read_store() == {}


def test_an_edit_of_the_policy_cannot_mis_refund(make_limiter):
    limits = make_limiter(TOKENS)
    held = limits.reserve("k", cost={"tokens": 400})
    limits.policy = Policy.of(
        Limit("requests", "5/day"), Limit("tokens", "200/day", unit="tokens", burst=500)
    )
    held.cancel()
    assert read_remaining(limits) == 500


def test_what_a_settled_request_did_not_tell_keeps_its_estimate(make_limiter):
    limits = make_limiter(Limit("requests", "10/day"), TOKENS, Limit("images", "10/day", unit="images"))
    held = limits.reserve("k", cost={"tokens": 100, "images": 2})
    held.settle(Usage(cost={"images": 5}))
    assert (
        read_remaining(limits),
        read_remaining(limits, name="images"),
        read_remaining(limits, name="requests"),
    ) == (900, 5, 9)


def test_a_limit_that_the_estimate_left_out_is_charged_when_it_settles(make_limiter):
    limits = make_limiter(TOKENS, Limit("output", "100/day", unit="output_tokens"))
    limits.reserve("k").settle(Usage(input_tokens=30, output_tokens=12))
    assert (read_remaining(limits), read_remaining(limits, name="output")) == (958, 88)


def test_a_post_paid_limit_takes_nothing_until_it_settles_and_then_needs_something_left(make_limiter):
    limits = make_limiter(POST_PAID, max_skew=None)
    first, second = (limits.reserve("k", cost={"images": 9}, timestamp=BASE) for _ in range(2))
    assert read_remaining(limits, name="images", timestamp=BASE) == 10
    first.settle(Usage(cost={"images": 9}, timestamp=BASE))
    assert limits.check("k", timestamp=BASE)
    second.settle(Usage(cost={"images": 9}, timestamp=BASE))
    denied = limits.check("k", timestamp=BASE)
    assert denied.violated == ("images",)
    assert not limits.check("k", timestamp=BASE + denied.retry_after - 0.001)
    assert limits.check("k", timestamp=BASE + denied.retry_after)


def test_slots_are_held_until_settled_cancelled_or_their_time_is_over(make_limiter):
    limits = make_limiter(PARALLEL, max_skew=None)
    first, _ = (limits.reserve("k", timestamp=BASE) for _ in range(2))
    denied = limits.check("k", timestamp=BASE + 10, reserve=True)
    assert (denied.violated, denied.retry_after) == (("parallel",), 20.0)
    assert limits.check("k", timestamp=BASE + 10)  # takes no slot
    first.cancel()
    assert limits.check("k", timestamp=BASE + 10, reserve=True)
    assert not limits.check("k", timestamp=BASE + 29.999999, reserve=True)
    # The second reservation was never settled: its slot is free after the ttl, and not before.
    assert limits.check("k", timestamp=BASE + 30, reserve=True)


def test_a_reservation_can_be_settled_for_as_long_as_it_holds_a_slot(make_limiter, client):
    limits = make_limiter(Limit("parallel", unit="concurrent", capacity=1, ttl="1h"), remember=1)
    limits.reserve("k")
    [record] = client.keys("rl1:{k}:R:*")
    assert 3_500_000 < client.pttl(record) <= 3_600_000


def test_failures_past_the_limit_shut_the_key_and_then_it_is_open(make_limiter):
    limits = make_limiter(Limit("failures", "20/30s", unit="failures", block="30s"), max_skew=None)

    def settle_failure(second):
        limits.settle(Usage(key="k", status=500, timestamp=BASE + second))

    for number in range(20):
        settle_failure(number)
    assert limits.check("k", timestamp=BASE + 19)
    settle_failure(29.5)
    assert limits.peek("k", timestamp=BASE + 29.5).retry_after == 30.0
    settle_failure(40)  # a failure while the key is shut does not make that longer
    assert not limits.check("k", timestamp=BASE + 59.499999)
    assert limits.check("k", timestamp=BASE + 59.5)
    for number in range(20):
        settle_failure(60 + number / 10)
    assert limits.check("k", timestamp=BASE + 62)


def test_failures_count_in_a_sliding_window(make_limiter):
    limits = make_limiter(Limit("failures", "2/30s", unit="failures"), max_skew=None)
    for second in (0, 20, 30, 50, 60, 80):  # never three within 30 s
        limits.settle(Usage(key="k", status=500, timestamp=BASE + second))
        assert limits.check("k", timestamp=BASE + second)
    limits.settle(Usage(key="k", status=500, timestamp=BASE + 89.9))
    assert not limits.check("k", timestamp=BASE + 89.9)


def test_p5_a_failure_told_late_does_not_shorten_the_life_of_the_others(make_limiter, client):
    limits = make_limiter(Limit("failures", "2/60m", unit="failures"), max_skew=7200)
    now = time.time()
    limits.settle({"key": "k", "status": 500, "timestamp": now})
    limits.settle({"key": "k", "status": 500, "timestamp": now - 1800})
    assert client.pttl("rl1:{k}:k!failures") == pytest.approx(1000 * (3600 + 7200), abs=20_000)
    limits.settle({"key": "k", "status": 500, "timestamp": now})
    assert limits.peek("k", timestamp=now).retry_after == pytest.approx(3600, abs=1)


def test_a_record_of_each_settlement_goes_to_the_usage_stream(make_limiter, client):
    limits = make_limiter(TOKENS)
    held = limits.reserve("vk_1", tenant="acme", model="m", timestamp=BASE)
    held.settle(Usage(input_tokens=3, output_tokens=4, latency_ms=12.5, status=200, cost={"tokens": 9}))
    held.settle(Usage(input_tokens=3))
    limits.cancel(limits.reserve("vk_1").id)
    limits.settle(Usage(key="vk_2", input_tokens=1, timestamp=BASE + 0.25))
    first, second = (fields for _, fields in client.xrange("rl1:usage"))
    assert json.loads(first.pop("cost")) == {"tokens": 9}
    assert first == {
        "reservation": held.id,
        "key": "vk_1",
        "tenant": "acme",
        "plan": "default",
        "model": "m",
        "timestamp": f"{BASE}.000000",
        "input_tokens": "3",
        "output_tokens": "4",
        "latency_ms": "12.5",
        "status": "200",
    }
    assert (second["key"], second["tenant"], second["timestamp"]) == ("vk_2", "vk_2", f"{BASE}.250000")
    assert client.pttl("rl1:usage") > 0


def test_reset_forgets_slots_and_failures_and_what_each_class_of_models_used(make_limiter, client):
    by_class = Limit("by-class", unit="concurrent", capacity=1, per=["key", "model"])
    failures = Limit("failures", "5/day", unit="failures")
    limits = make_limiter(PARALLEL, by_class, failures, Limit("requests", "5/day", per=["key", "model"]))
    limits.reserve("k")
    limits.settle({"key": "k", "status": 500})
    kept_store_keys = {name for name in client.scan_iter() if ":R:" in name or name == "rl1:usage"}
    assert len(set(client.scan_iter()) - kept_store_keys) == 4
    limits.policy = [PARALLEL, by_class, failures]
    limits.reset("k")
    assert set(client.scan_iter()) == kept_store_keys


def test_p5_a_settlement_into_debt_makes_the_key_outlive_its_debt(make_limiter, client):
    limits = make_limiter(Limit("tokens", "100/minute", unit="tokens"))
    limits.reserve("k", cost={"tokens": 1}).settle(Usage(input_tokens=10_000))
    assert 99 * 60_000 < client.pttl("rl1:{k}:k") <= 100 * 60_000 + 6_000


def test_a_settlement_that_failed_leaves_the_slot_to_be_freed(make_limiter, monkeypatch):
    limits = make_limiter(PARALLEL)
    monkeypatch.setattr(limits, "settle", _raise_store_unavailable)
    with pytest.raises(StoreUnavailable), limits.reserve("k") as reservation:
        reservation.settle(Usage())
    assert read_remaining(limits, name="parallel") == 2


def _raise_store_unavailable(*_, **__):
    raise StoreUnavailable("no answer")


def test_every_digit_of_a_record_reaches_the_stream(make_limiter, client):
    make_limiter(TOKENS).settle(Usage(key="k", latency_ms=1234567.8, cost={"tokens": 0.1}))
    [(_, fields)] = client.xrange("rl1:usage")
    assert (fields["latency_ms"], json.loads(fields["cost"])) == ("1234567.8", {"tokens": 0.1})


def test_failures_that_count_are_seen_by_a_check(make_limiter):
    limits = make_limiter(
        Limit("requests", "5/day"),
        Limit("failures", "3/60m", unit="failures"),
        Limit("others", "2/60m", unit="failures"),
    )
    for second in (0, 10):
        limits.settle({"key": "k", "timestamp": BASE + second, "status": 500})
    state = {state.name: state for state in limits.peek("k", timestamp=BASE + 20).limits}
    assert (state["failures"].remaining, state["others"].remaining) == (1, 0)
    assert state["failures"].reset_after == state["others"].reset_after == 3590


def test_p5_failures_live_for_as_long_as_the_latest_of_them(make_limiter, client):
    limits = make_limiter(Limit("failures", "9/minute", unit="failures"), max_skew=3600)
    now = time.time()
    for timestamp in (now + 3000, now):
        limits.settle({"key": "k", "timestamp": timestamp, "status": 500})
    assert client.pttl("rl1:{k}:k!failures") == pytest.approx(1000 * (3000 + 3600 + 60), abs=20_000)


def test_p5_a_shut_key_stays_shut_for_longer_than_failures_count(make_limiter, client):
    limits = make_limiter(Limit("failures", "1/second", unit="failures", block="1h"))
    for _ in range(2):
        limits.settle({"key": "k", "status": 500})
    assert client.pttl("rl1:{k}:k!failures") > 3_500_000


def test_p5_a_short_slot_does_not_shorten_the_life_of_a_long_one(make_limiter, client):
    limits = make_limiter(Limit("parallel", unit="concurrent", capacity=5, ttl="1h"))
    limits.check("k", reserve=True)
    limits.policy = Limit("parallel", unit="concurrent", capacity=5, ttl="5s")
    limits.check("k", reserve=True)
    assert client.pttl("rl1:{k}:k#parallel") > 3_500_000
