"""The log of denials: every denial is in a line or in a count, and a flood of denials is not one of lines."""

import logging
import random

import pytest

from ratelimit import Limit, Limiter, Policy
from ratelimit.observers.denial_log import BURST, SECOND, DenialLog

POLICY = """
default_plan: free
plans:
  free:
    limits:
      requests: {rate: 1/hour}
      daily: {rate: 1/day}
"""
KEY = "vk_0123456789abcdef"


@pytest.fixture
def lines(caplog):
    """Return the log records so far."""
    caplog.set_level(logging.INFO, "ratelimit")
    return lambda: [record for record in caplog.records if record.name == "ratelimit"]


@pytest.fixture
def denial():
    """A check and its denial, from a real limiter."""
    noted = []
    log = DenialLog()
    log.note_decision = lambda *arguments: noted.append(arguments)
    with Limiter("memory://", Policy.from_text(POLICY), observers=[log]) as limits:
        limits.check(KEY)
        limits.check(KEY, request_id="request-7")
    check, decision, *_ = noted[-1]
    return check, decision


def _of_key(check, key):
    return check._replace(subject=check.subject._replace(key=key))


def _count_denials(lines):
    """Return how many denials the lines stand for: one each, and what was left out."""
    return sum((line.getMessage() == "denied") + line.left_out for line in lines)


def test_p10_a_line_has_what_an_operator_needs_and_no_whole_key(lines, denial):
    DenialLog().note_decision(*denial, started=SECOND, call_size=1)
    [line] = lines()
    assert (line.levelname, line.getMessage()) == ("INFO", "denied")
    assert (line.key, line.plan, line.request_id) == ("vk_012…def", "free", "request-7")
    assert (line.limit, line.violated) == ("daily", ["requests", "daily"])
    assert line.retry_after == pytest.approx(86_400, abs=5)
    assert (line.source, line.left_out) == ("store", 0)


def test_what_is_allowed_is_not_logged(lines):
    with Limiter("memory://", Limit("requests", "9/day"), observers=[DenialLog()]) as limits:
        limits.check(KEY)
    assert lines() == []


def test_one_key_has_a_line_a_second_that_counts_the_others(lines, denial):
    log = DenialLog()
    for tenth in range(25):
        log.note_decision(*denial, started=SECOND + tenth * SECOND // 10, call_size=0)
    assert [line.left_out for line in lines()] == [0, 9, 9]


def test_other_keys_have_lines_of_their_own(lines, denial):
    log = DenialLog()
    check, decision = denial
    for key in "abab":
        log.note_decision(_of_key(check, key * 20), decision, started=SECOND, call_size=0)
    assert [line.key for line in lines()] == ["aaaaaa…aaa", "bbbbbb…bbb"]


def test_a_flood_by_many_keys_has_a_burst_of_lines_and_then_one_a_second(lines, denial):
    log = DenialLog()
    check, decision = denial
    for number in range(1_000_000):  # 20,000 a second for 50 seconds
        key = f"vk_{number % 9_973:010}"
        log.note_decision(_of_key(check, key), decision, started=SECOND + number * 50_000, call_size=0)
    assert BURST <= len(lines()) < 100
    log.flush(now=SECOND + 51 * SECOND)
    assert _count_denials(lines()) == 1_000_000


def test_a_flood_by_one_key_is_below_a_hundred_lines(lines):
    with Limiter("memory://", Limit("requests", "1/day"), observers=[DenialLog()]) as limits:
        limits.check(KEY)
        for _ in range(1_000_000):
            limits.check(KEY)
    assert 1 <= len(lines()) < 100


@pytest.mark.parametrize("seed", range(20))
def test_every_denial_is_in_a_line_or_in_a_count(lines, denial, seed):
    chosen, log = random.Random(seed), DenialLog()
    check, decision = denial
    now = SECOND
    for _ in range(2_000):
        now += chosen.choice([0, 1_000_000, SECOND // 3])
        key = str(chosen.randrange(60)) * 10
        log.note_decision(_of_key(check, key), decision, started=now, call_size=0)
        if chosen.random() < 0.05:
            log.flush(now)
    log.flush(now + SECOND)
    assert _count_denials(lines()) == 2_000
    assert sum(line.getMessage() == "denied" for line in lines()) <= BURST + 1 + (now - SECOND) // SECOND


def test_the_end_of_a_flood_is_logged_once(lines, denial):
    log = DenialLog()
    for _ in range(5):
        log.note_decision(*denial, started=SECOND, call_size=0)
    log.flush(now=SECOND + SECOND // 2)  # the flood may go on
    assert len(lines()) == 1
    log.flush(now=3 * SECOND)
    log.flush(now=4 * SECOND)
    assert [line.getMessage() for line in lines()] == ["denied", "denials left out of the log"]
    assert lines()[-1].left_out == 4


def test_the_memory_of_keys_is_bounded(lines, denial):
    log = DenialLog()
    check, decision = denial
    for number in range(50_000):
        log.note_decision(_of_key(check, f"vk_{number:010}"), decision, started=SECOND, call_size=0)
    assert len(log._left_out) <= 10_001
    log.flush(now=3 * SECOND)
    assert _count_denials(lines()) == 50_000
