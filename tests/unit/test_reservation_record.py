"""Numbers in records are exact and short."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Limit, Policy
from ratelimit.engine.reservation_record import _write_number, encode_record
from ratelimit.engine.resolver import Resolver
from ratelimit.request.check import make_check


@given(st.floats(0, 1e18, allow_subnormal=True) | st.integers(0, 10**12) | st.integers(0, 10**6).map(float))
def test_no_digit_of_a_number_is_lost(number):
    assert float(_write_number(number)) == number
    assert len(_write_number(number)) <= len(repr(float(number)))


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (1, "1"), (20.0, "20"), (1200.0, "1200"), (3000.0, "3e3"), (60e6, "6e7"), (0.5, "0.5")],
)
def test_numbers_take_few_characters(number, text):
    assert _write_number(number) == text


def test_the_text_is_what_the_script_describes():
    policy = Policy.of(
        Limit("requests", "20/minute", burst=5),
        Limit("daily", "30000/day", unit="tokens", per=["tenant", "model"], mode="shadow"),
        Limit("parallel", unit="concurrent", capacity=10, ttl="10m"),
        Limit("failures", "20/30s", unit="failures", per=[]),
    )
    check = make_check({"key": "k", "tenant": "acme", "model": "m", "reserve": True, "cost": {"tokens": 2.5}})
    assert encode_record(Resolver(policy).resolve(check, take=True), "1111") == (
        "1111 k default m bk requests 20 6e7 5  1;Bt/other daily 3e4 864e8  tokens 2.5;"
        "sk parallel 1 6e8 10 concurrent 1;f* failures 20 3e7 3e7  0;"
    )
    own = make_check({"key": "k"})
    assert encode_record(Resolver(Policy.of(Limit("a", "1/second"))).resolve(own, take=True)) == (
        "  default  bk a 1 1e6  requests 1;"
    )
