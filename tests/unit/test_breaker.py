"""The circuit breaker, on a clock that the tests move."""

import pytest

from ratelimit.stores.breaker import MAX_FAILURES, PROBE_INTERVAL, QUIET_TIME, Breaker

MS = 1_000_000


@pytest.fixture
def changes():
    return []


@pytest.fixture
def breaker(changes):
    return Breaker(changes.append)


def fail(breaker, times=MAX_FAILURES, at=0):
    """Let calls of 50 ms fail one after the other; return when the last one failed."""
    for _ in range(times):
        breaker.note_failure(at, at + 50 * MS)
        at += 50 * MS
    return at


def test_p8_it_opens_after_failures_in_a_row(breaker, changes):
    at = fail(breaker, MAX_FAILURES - 1)
    assert breaker.choose(at) == "call"
    fail(breaker, 1, at)
    assert breaker.choose(at + 51 * MS) == "pause"
    assert changes == [True]


def test_p8_an_answer_in_between_starts_the_count_again(breaker):
    at = fail(breaker, MAX_FAILURES - 1)
    breaker.note_success()
    at = fail(breaker, MAX_FAILURES - 1, at)
    assert not breaker.is_open


def test_p8_calls_that_fail_together_are_one_failure(breaker):
    for _ in range(10):
        breaker.note_failure(0, 50 * MS)
    assert not breaker.is_open


def test_p8_one_probe_at_a_time_while_it_is_open(breaker):
    opened = fail(breaker)
    choices = [breaker.choose(opened + ms * MS) for ms in range(1, 1001)]
    assert choices.count("probe") == 4
    assert choices.count("pause") == 996
    assert choices.index("probe") == PROBE_INTERVAL // MS - 1


def test_p8_after_a_quiet_time_the_next_check_is_the_probe(breaker):
    opened = fail(breaker)
    assert breaker.choose(opened + QUIET_TIME + 1) == "call"
    assert breaker.choose(opened + QUIET_TIME + 2) == "pause"


def test_p8_the_first_answer_closes_it(breaker, changes):
    opened = fail(breaker)
    breaker.note_failure(opened + 300 * MS, opened + 350 * MS)
    assert breaker.is_open
    breaker.note_success()
    assert breaker.choose(opened + 400 * MS) == "call"
    assert changes == [True, False]
