"""A store's clock that is set back: lines are no longer in the order of their times."""

import json

from ratelimit import Policy
from ratelimit.history import merge_lines, read_lines, verify_history

POLICY = Policy.from_text("""
default_plan: small
plans:
  small:
    limits:
      requests: {rate: 1/minute, burst: 3}
""")
BASE = 1_700_000_000
HOUR = 3600


def verify(*lines):
    texts = [json.dumps({"key": "k", "clock": "store", **line}).encode() + b"\n" for line in lines]
    return verify_history(merge_lines(read_lines(texts, "history")), POLICY)


def check(seconds, *, used, allowed=True, **fields):
    return {"timestamp": BASE + seconds, "allowed": allowed, "used": {"requests": used}, **fields}


def test_denials_for_the_time_that_comes_again_have_a_reason():
    report = verify(check(0, used=1), check(0, used=2), check(-HOUR, used=62, allowed=False))
    assert report.is_sound
    assert report.windows_only == 1


def test_what_is_over_admitted_by_its_times_is_still_found():
    lines = [check(0, used=1), check(-HOUR, used=1), check(-HOUR, used=2), check(-HOUR, used=3)]
    assert verify(*lines).is_sound
    report = verify(*lines, check(-HOUR, used=1))
    assert [fault.kind for fault in report.faults] == ["over-admitted"]


def test_a_repeated_check_that_has_the_time_of_its_first_answer_sets_no_clock_back():
    first = check(0, used=1, request_id="a")
    report = verify(first, check(60, used=1), first)
    assert report.is_sound
    assert report.buckets == 1
