"""Calls that the store did not answer may have been charged: a sound history is not called wrong for it."""

import json

import pytest

from ratelimit import Policy
from ratelimit.history import read_lines, verify_history

POLICY = Policy.from_text("""
default_plan: small
plans:
  small:
    limits:
      requests: {rate: 4/365d}
      parallel: {unit: concurrent, capacity: 2, ttl: 10s}
""")
BASE = 1_700_000_000
REFILL = 4 / (365 * 86_400)


def verify(*lines):
    texts = [json.dumps({"key": "k", "clock": "store", **line}).encode() + b"\n" for line in lines]
    return verify_history(read_lines(texts, "history"), POLICY)


def check(seconds, *, used, **fields):
    return {"timestamp": BASE + seconds, "allowed": True, "used": {"requests": used}, **fields}


def unanswered(seconds):
    return {"timestamp": BASE + seconds, "allowed": False, "source": "outage"}


def test_a_call_may_be_charged_before_its_process_gives_up_waiting():
    """Its line has the time at which the process gave up; other checks see the charge before."""
    assert verify(check(0, used=1), check(1, used=3), unanswered(1.3)).is_sound


def test_a_charge_long_before_is_not_explained_by_it():
    report = verify(check(0, used=1), check(1, used=3), unanswered(10))
    assert [fault.kind for fault in report.faults] == ["charged-more"]


@pytest.mark.parametrize(("until", "is_sound"), [(14, True), (17, False)])
def test_a_call_may_have_taken_a_slot_for_its_ttl(until, is_sound):
    """The slot of an unanswered check is freed by its ttl, 10 s, at most 5 s after the line."""
    report = verify(
        check(0, used=1, reservation="a.1"),
        unanswered(1),
        {"timestamp": BASE + 5, "allowed": True, "reservation": "a.1", "settled": {}},
        check(until - 1, used=2, reservation="a.2"),
        {"timestamp": BASE + until, "allowed": False, "violated": ["parallel"]},
    )
    assert report.is_sound is is_sound


def reserve(seconds, reservation, *, used):
    return check(seconds, used=used, reservation=reservation)


def settle(seconds, reservation, settled, **fields):
    return {
        "timestamp": BASE + seconds,
        "allowed": True,
        "reservation": reservation,
        "settled": settled,
        **fields,
    }


@pytest.mark.parametrize("at", [1, 4, 8])
def test_p7_a_cancellation_that_was_not_answered_may_have_refunded(at):
    opened = reserve(0, "a.k", used=1)
    unanswered_end = settle(4, "a.k", {}, source="outage")
    report = verify(*sorted([opened, unanswered_end, check(at, used=1)], key=lambda line: line["timestamp"]))
    assert report.faults == []
    assert report.unanswered_settlements == 1
    report = verify(opened, check(at, used=1))
    assert [fault.kind for fault in report.faults] == ["lost"], "without the cancellation it is a fault"


def test_p1_a_cancellation_long_ago_explains_nothing_new():
    report = verify(
        reserve(0, "a.k", used=1),
        settle(1, "a.k", {}, source="outage"),
        *(check(second, used=used - second * REFILL) for second, used in [(20, 2), (21, 3), (22, 2)]),
    )
    assert [(fault.kind, fault.amount) for fault in report.faults] == [("lost", pytest.approx(2, abs=0.01))]


@pytest.mark.parametrize("last", [4, 2])
def test_two_checks_of_one_unanswered_call_may_be_repeated_in_any_order(last):
    """Both have the time of the call, and each line has the state right after its own charge."""
    report = verify(
        check(0, used=1),
        unanswered(1),
        unanswered(1),
        check(0.5, used=3, request_id="second"),
        check(0.5, used=2, request_id="first"),
        check(2, used=last),
    )
    assert [fault.kind for fault in report.faults] == ["lost"] * (last == 2)


def test_p7_a_record_of_usage_that_was_not_answered_may_have_been_charged():
    unanswered_record = {"timestamp": BASE, "allowed": True, "source": "outage", "settled": {"requests": 2}}
    report = verify(unanswered_record, check(1, used=3))
    assert report.faults == []
    assert report.unanswered_settlements == 1
    assert [fault.kind for fault in verify(check(1, used=3)).faults] == ["charged-more"]
