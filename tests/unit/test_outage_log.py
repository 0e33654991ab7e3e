"""The log of outages: each is logged when it begins and ends, and a store that flaps is one line a second."""

import logging

import pytest

from ratelimit.stores.outage_log import OutageLog


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def outage(clock):
    return OutageLog("redis://store", clock)


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "ratelimit")
    return lambda: [(record.getMessage(), record.left_out) for record in caplog.records]


FAILS = "store redis://store does not answer; each limit's on_outage applies: it is gone"
ANSWERS = "store redis://store answers again"


def test_an_outage_is_logged_once_at_its_start_and_once_at_its_end(outage, clock, lines):
    outage.note_success()
    for _ in range(3):
        outage.note_failure("it is gone")
    clock.now += 5
    for _ in range(3):
        outage.note_success()
    assert lines() == [(FAILS, 0), (ANSWERS, 0)]


def test_a_short_outage_is_logged_whole_a_second_later_at_most(outage, clock, lines):
    outage.note_failure("it is gone")
    clock.now += 0.01
    outage.note_success()
    assert lines() == [(FAILS, 0)]
    clock.now += 1
    outage.note_success()
    assert lines() == [(FAILS, 0), (ANSWERS, 0)]


def test_a_store_that_flaps_is_one_line_a_second_with_a_count(outage, clock, lines):
    for _ in range(1_000):  # ten seconds
        outage.note_failure("it is gone")
        clock.now += 0.005
        outage.note_success()
        clock.now += 0.005
    clock.now += 1
    outage.note_success()
    assert 5 <= len(lines()) <= 12
    # Every change is a line or is counted in one.
    assert len(lines()) + sum(left_out for _, left_out in lines()) == 2_000
    assert lines()[-1][0] == ANSWERS
