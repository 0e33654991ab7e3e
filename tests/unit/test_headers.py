"""What clients are told, in each of the dialects they speak."""

from dataclasses import replace
from datetime import UTC, datetime
from math import ceil

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Decision, Limit, Limiter, LimitState
from ratelimit.decision.headers import duration

REQUESTS = LimitState("requests", "requests", 20, 60.0, 5, 4, 3.0, 0.0, "enforce")
TOKENS = LimitState("tokens", "tokens", 30_000, 60.0, 30_000, 29_150, 1.7, 0.0, "enforce")
SHADOW = LimitState("trial", "requests", 1, 60.0, 1, 0, 60.0, 60.0, "shadow")
ALLOWED = Decision(
    allowed=True,
    key="vk_9f3…c21",
    plan="free",
    model_class=None,
    timestamp=datetime(2026, 2, 20, 15, 30, tzinfo=UTC),
    clamped=False,
    retry_after=0.0,
    violated=(),
    reservation=None,
    source="store",
    limits=(REQUESTS, TOKENS, SHADOW),
)
DENIED = replace(ALLOWED, allowed=False, retry_after=2.001, violated=("requests",))


def parsed(value):
    return http_sf.parse(value.encode(), tltype="list")


def test_the_ietf_headers_are_structured_field_lists():
    headers = ALLOWED.headers()
    assert parsed(headers["RateLimit-Policy"]) == [
        ("requests", {"q": 20, "w": 60}),
        ("tokens", {"q": 30_000, "w": 60, "qu": "tokens"}),
    ]
    assert parsed(headers["RateLimit"]) == [
        ("requests", {"r": 4, "t": 3}),
        ("tokens", {"r": 29_150, "t": 2}),
    ]
    assert set(headers) == {"RateLimit-Policy", "RateLimit"}


names = st.from_regex("[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)
states = st.builds(
    LimitState,
    name=names,
    unit=names,
    limit=st.integers(1, 10**12),
    period=st.integers(1, 366 * 86_400).map(float),
    burst=st.integers(1, 10**12),
    remaining=st.integers(0, 10**12),
    reset_after=st.floats(0, 10 * 366 * 86_400),
    retry_after=st.none() | st.floats(0, 1e9),
    mode=st.sampled_from(["enforce", "shadow"]),
)


@given(st.lists(states, max_size=6))
def test_any_limit_can_be_written_and_read_back(limits):
    headers = replace(ALLOWED, limits=tuple(limits)).headers()
    shown = [state for state in limits if state.mode == "enforce"]
    if not shown:
        assert headers == {}
        return
    policy, current = parsed(headers["RateLimit-Policy"]), parsed(headers["RateLimit"])
    assert [name for name, _ in policy] == [name for name, _ in current] == [state.name for state in shown]
    for state, (_, told), (_, now) in zip(shown, policy, current, strict=True):
        assert (told["q"], told["w"], told.get("qu", "requests")) == (state.limit, state.period, state.unit)
        assert now["r"] == state.remaining
        assert now["t"] == ceil(state.reset_after)


@pytest.mark.parametrize(
    ("wait", "told"),
    [(0.000001, "1"), (0.503, "1"), (1.0, "1"), (1.000001, "2"), (2.001, "3"), (86_399.5, "86400")],
)
def test_retry_after_is_whole_seconds_rounded_up(wait, told):
    assert replace(DENIED, retry_after=wait).headers()["Retry-After"] == told


@given(st.floats(0, 1e9))
def test_whoever_obeys_retry_after_is_never_early(wait):
    told = replace(DENIED, retry_after=wait).headers(())["Retry-After"]
    assert told.isdecimal()
    assert int(told) >= max(wait, 1)


def test_there_is_no_retry_after_for_never_or_for_the_admitted():
    assert "Retry-After" not in replace(DENIED, retry_after=None).headers(["ietf", "openai", "venice"])
    assert "Retry-After" not in ALLOWED.headers(["ietf", "openai", "venice"])


@pytest.mark.parametrize("dialect", ["ietf", "openai", "venice"])
def test_every_dialect_tells_when_to_come_back(dialect):
    assert DENIED.headers([dialect])["Retry-After"] == "3"


def test_openais_dialect():
    limits = (replace(REQUESTS, reset_after=360.0), TOKENS, SHADOW)
    assert replace(ALLOWED, limits=limits).headers(["openai"]) == {
        "x-ratelimit-limit-requests": "20",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "6m0s",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "29150",
        "x-ratelimit-reset-tokens": "1.7s",
    }


def test_venices_dialect():
    headers = ALLOWED.headers(["venice"])
    assert headers["x-ratelimit-reset-requests"] == str(int(ALLOWED.timestamp.timestamp()) + 3)
    assert headers["x-ratelimit-reset-tokens"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "4"


def test_where_there_is_room_for_one_limit_it_is_the_tightest():
    daily = replace(REQUESTS, name="daily", limit=1_000, remaining=2)
    headers = replace(ALLOWED, limits=(REQUESTS, daily, TOKENS)).headers(["openai"])
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("1000", "2")


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0s"), (0.09, "90ms"), (0.0001, "1ms"), (0.9999, "1s"), (1, "1s"), (1.7, "1.7s"),
        (59.9999, "1m0s"), (60, "1m0s"), (360, "6m0s"), (3_600, "1h0m0s"), (3_605, "1h0m5s"),
        (86_400, "24h0m0s"),
    ],
)  # fmt: skip
def test_durations_are_written_as_openai_does(seconds, written):
    assert duration(seconds) == written


def test_limits_in_the_shadow_stay_hidden():
    told = replace(ALLOWED, limits=(SHADOW,)).headers(["ietf", "openai", "venice"])
    assert told == {}


def test_dialects_can_be_spoken_together():
    assert len(ALLOWED.headers(["ietf", "openai"])) == 2 + 6


def test_a_dialect_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"klingon.*ietf, openai, venice"):
        ALLOWED.headers(["klingon"])


def test_a_real_denial_can_be_obeyed():
    with Limiter("memory://", Limit("requests", "7/minute", burst=1)) as limiter:
        limiter.check("k", timestamp=1_700_000_000)
        headers = limiter.check("k", timestamp=1_700_000_000).headers()
        assert headers["Retry-After"] == "9"
        assert limiter.check("k", timestamp=1_700_000_009)
