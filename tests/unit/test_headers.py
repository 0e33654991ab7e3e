"""Response headers in each dialect."""

from dataclasses import replace
from datetime import UTC, datetime
from math import ceil

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Decision, Limit, Limiter, LimitState
from ratelimit.decision.headers import write_duration

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


def parse_list(value):
    return http_sf.parse(value.encode(), tltype="list")


def test_the_ietf_headers_are_structured_field_lists():
    headers = ALLOWED.headers()
    assert parse_list(headers["RateLimit-Policy"]) == [
        ("requests", {"q": 20, "w": 60}),
        ("tokens", {"q": 30_000, "w": 60, "qu": "tokens"}),
    ]
    assert parse_list(headers["RateLimit"]) == [
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
def test_headers_of_any_limits_read_back_as_they_were_written(limits):
    headers = replace(ALLOWED, limits=tuple(limits)).headers()
    shown = [state for state in limits if state.mode == "enforce"]
    if not shown:
        assert headers == {}
        return
    policy, current = parse_list(headers["RateLimit-Policy"]), parse_list(headers["RateLimit"])
    assert [name for name, _ in policy] == [name for name, _ in current] == [state.name for state in shown]
    for state, (_, quota), (_, now) in zip(shown, policy, current, strict=True):
        assert (quota["q"], quota["w"], quota.get("qu", "requests")) == (
            state.limit,
            state.period,
            state.unit,
        )
        assert now["r"] == state.remaining
        assert now["t"] == ceil(state.reset_after)


@pytest.mark.parametrize(
    ("wait", "expected"),
    [(0.000001, "1"), (0.503, "1"), (1.0, "1"), (1.000001, "2"), (2.001, "3"), (86_399.5, "86400")],
)
def test_p3_retry_after_is_whole_seconds_rounded_up(wait, expected):
    assert replace(DENIED, retry_after=wait).headers()["Retry-After"] == expected


@given(st.floats(0, 1e9))
def test_p3_a_client_that_obeys_retry_after_is_never_early(wait):
    retry_after = replace(DENIED, retry_after=wait).headers(())["Retry-After"]
    assert retry_after.isdecimal()
    assert int(retry_after) >= max(wait, 1)


def test_there_is_no_retry_after_if_a_check_can_never_pass_or_is_allowed():
    assert "Retry-After" not in replace(DENIED, retry_after=None).headers(["ietf", "openai", "venice"])
    assert "Retry-After" not in ALLOWED.headers(["ietf", "openai", "venice"])


@pytest.mark.parametrize("dialect", ["ietf", "openai", "venice"])
def test_every_dialect_has_retry_after(dialect):
    assert DENIED.headers([dialect])["Retry-After"] == "3"


def test_the_openai_dialect():
    limits = (replace(REQUESTS, reset_after=360.0), TOKENS, SHADOW)
    assert replace(ALLOWED, limits=limits).headers(["openai"]) == {
        "x-ratelimit-limit-requests": "20",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "6m0s",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "29150",
        "x-ratelimit-reset-tokens": "1.7s",
    }


def test_the_venice_dialect():
    headers = ALLOWED.headers(["venice"])
    assert headers["x-ratelimit-reset-requests"] == str(int(ALLOWED.timestamp.timestamp()) + 3)
    assert headers["x-ratelimit-reset-tokens"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "4"


def test_a_dialect_with_one_limit_per_unit_shows_the_one_with_the_least_remaining():
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
def test_durations_are_written_like_openai(seconds, written):
    assert write_duration(seconds) == written


def test_limits_in_shadow_mode_are_not_shown():
    assert replace(ALLOWED, limits=(SHADOW,)).headers(["ietf", "openai", "venice"]) == {}


def test_dialects_can_be_combined():
    assert len(ALLOWED.headers(["ietf", "openai"])) == 2 + 6


def test_an_unknown_dialect_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"klingon.*allowed: ietf, openai, venice"):
        ALLOWED.headers(["klingon"])


def test_p3_a_check_after_retry_after_is_allowed():
    with Limiter("memory://", Limit("requests", "7/minute", burst=1)) as limiter:
        limiter.check("k", timestamp=1_700_000_000)
        headers = limiter.check("k", timestamp=1_700_000_000).headers()
        assert headers["Retry-After"] == "9"
        assert limiter.check("k", timestamp=1_700_000_009)
