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


def make_lines(*times, **fields):
    line = {"key": "k", "clock": "store", "allowed": True, "used": {}, **fields}
    texts = [json.dumps({**line, "timestamp": BASE + time}).encode() + b"\n" for time in times]
    return read_lines(texts, "history")


def list_times(*histories):
    return [numbered.line.timestamp / 1e6 - BASE for numbered in merge_lines(*histories)]


def test_lines_of_several_processes_are_put_in_the_order_of_their_times():
    assert list_times(make_lines(3, 1, 2, 40, 39, 80), make_lines(2.5, 0.5)) == [
        0.5,
        1,
        2,
        2.5,
        3,
        39,
        40,
        80,
    ]


def test_lines_after_the_clock_was_set_back_follow_those_before_and_are_sorted():
    times = [3, 2, 4, 2 - HOUR, 1 - HOUR, 3 - HOUR, 50 - HOUR, 49 - HOUR]
    expected = [2, 3, 4, 1 - HOUR, 2 - HOUR, 3 - HOUR, 49 - HOUR, 50 - HOUR]
    assert list_times(make_lines(*times)) == expected


def test_a_line_that_was_written_late_after_the_clock_was_set_forwards_is_put_before_it():
    assert list_times(make_lines(1, 2, HOUR, 3, HOUR + 2, HOUR + 1)) == [1, 2, 3, HOUR, HOUR + 1, HOUR + 2]


def test_old_answers_that_are_repeated_put_nothing_out_of_order():
    new = [HOUR + time for time in (2, 1, 4, 3, 6, 5)]
    lines = [line for one in new for line in (*make_lines(one), *make_lines(0, request_id="a"))]
    assert [time for time in list_times(lines) if time] == sorted(new)
