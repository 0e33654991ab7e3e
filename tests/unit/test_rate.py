"""Reading and writing rates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Rate

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "count", "seconds"),
    [
        ("1/second", 1, 1),
        ("20/minute", 20, 60),
        ("7/hour", 7, 3_600),
        ("1000/day", 1_000, 86_400),
        ("20/30s", 20, 30),
        ("3/5m", 3, 300),
        ("1/2h", 1, 7_200),
        ("11/7d", 11, 604_800),
        ("1000000000000/366d", 10**12, 366 * 86_400),
        ("007/1s", 7, 1),
    ],
)
def test_a_rate_is_read(text, count, seconds):
    assert Rate.parse(text) == Rate(count, seconds * SECOND)


@pytest.mark.parametrize(
    "text",
    [
        "", "20", "/minute", "20/", "20 / minute", " 20/minute", "20/minute\n", "20/minutes",
        "20/Minute", "20/month", "20/30", "20/s", "20/30ms", "20/1.5s", "1.5/minute", "-1/minute",
        "+1/minute",
        "1e3/minute", "1_000/minute", "1,000/minute", "٣/minute", "20/30S", "20 per minute",
        None, 20, 20.5, True, ["1/day"],
    ],
)  # fmt: skip
def test_text_that_is_not_a_rate_is_refused_with_what_is_allowed(text):
    with pytest.raises(ValueError, match="N/minute"):
        Rate.parse(text)


@pytest.mark.parametrize("text", ["0/minute", "1000000000001/minute", "1/0s", "1/367d", "1/999999999d"])
def test_a_rate_out_of_range_is_refused_with_the_range(text):
    with pytest.raises(ValueError, match="out of range"):
        Rate.parse(text)


@pytest.mark.parametrize(
    ("count", "period"), [(0, SECOND), (-1, SECOND), (5, 0), (5, -SECOND), (10**13, SECOND)]
)
def test_a_rate_made_from_numbers_has_the_same_range(count, period):
    with pytest.raises(ValueError, match="range"):
        Rate(count, period)


@given(st.integers(1, 10**12), st.integers(1, 366 * 86_400))
def test_a_rate_reads_back_as_it_was_written(count, seconds):
    rate = Rate(count, seconds * SECOND)
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize(
    "text", ["20/minute", "1/second", "5/hour", "3/day", "20/30s", "3/5m", "1/2h", "11/7d"]
)
def test_a_rate_is_written_as_it_was_read(text):
    assert str(Rate.parse(text)) == text
