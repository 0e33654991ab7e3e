"""Which checks are valid, and that the error for an invalid check does not repeat what was sent."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ratelimit import Check, InvalidRequest, Limit, Limiter

SECRET = "Dear diary, my key is sk-123"


@pytest.fixture(scope="module")
def limiter():
    with Limiter(
        "memory://", [Limit("requests", "5/minute"), Limit("tokens", "9/day", unit="tokens")]
    ) as limiter:
        yield limiter


def catch_refusal(limiter, fields):
    with pytest.raises(InvalidRequest) as raised:
        limiter.check_many([fields])
    with pytest.raises(ValueError, match=r".+"):
        limiter.check_many([fields])
    return raised.value


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "key"),
        ({"key": None}, "key"),
        ({"key": 5}, "key"),
        ({"key": b"k"}, "key"),
        ({"key": ["k"]}, "key"),
        ({"key": ""}, "key"),
        ({"key": "k" * 257}, "key"),
        ({"key": "k" * 300}, "key"),
        ({"key": "a b"}, "key"),
        ({"key": "k\n"}, "key"),
        ({"key": "k\x00"}, "key"),
        ({"key": "k\x7f"}, "key"),
        ({"key": "ключ"}, "key"),
        ({"key": "k", "plan": ""}, "plan"),
        ({"key": "k", "plan": 5}, "plan"),
        ({"key": "k", "plan": "not-in-the-policy"}, "plan"),
        ({"key": "k", "plan": "p" * 65}, "plan"),
        ({"key": "k", "model": ""}, "model"),
        ({"key": "k", "model": "m" * 257}, "model"),
        ({"key": "k", "model": "mödel"}, "model"),
        ({"key": "k", "model": ["m"]}, "model"),
        ({"key": "k", "tenant": "t t"}, "tenant"),
        ({"key": "k", "tenant": 7}, "tenant"),
        ({"key": "k", "cost": 5}, "cost"),
        ({"key": "k", "cost": None}, "cost"),
        ({"key": "k", "cost": [["tokens", 1]]}, "cost"),
        ({"key": "k", "cost": {"pages": 1}}, "cost.pages"),
        ({"key": "k", "cost": {"tokens": -1}}, "cost.tokens"),
        ({"key": "k", "cost": {"tokens": -1e-300}}, "cost.tokens"),
        ({"key": "k", "cost": {"tokens": float("nan")}}, "cost.tokens"),
        ({"key": "k", "cost": {"tokens": float("inf")}}, "cost.tokens"),
        ({"key": "k", "cost": {"tokens": float("-inf")}}, "cost.tokens"),
        ({"key": "k", "cost": {"tokens": 1e13}}, "cost.tokens"),
        ({"key": "k", "cost": {"tokens": 10**400}}, "cost.tokens"),
        ({"key": "k", "cost": {"tokens": True}}, "cost.tokens"),
        ({"key": "k", "cost": {"tokens": "5"}}, "cost.tokens"),
        ({"key": "k", "cost": {"tokens": None}}, "cost.tokens"),
        ({"key": "k", "cost": {"tokens": [5]}}, "cost.tokens"),
        ({"key": "k", "cost": {f"u{n}": 1 for n in range(65)}}, "cost"),
        ({"key": "k", "prompt": "hello"}, "prompt"),
        ({"key": "k", "kost": {}}, "kost"),
    ],
)
def test_a_fault_names_its_field(limiter, fields, path):
    error = catch_refusal(limiter, fields)
    assert any(fault.path.removeprefix("0.") == path for fault in error.faults)
    assert path in str(error)


@pytest.mark.parametrize(
    "timestamp",
    [
        datetime(2026, 1, 1),  # noqa: DTZ001 - the test is about naive datetimes
        "2026-01-01T00:00:00",
        "2026-01-01",
        "yesterday",
        "",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01T25:00:00Z",
        "2026-01-01T00:00:00+99:99",
        "2026-01-01T00:00Z",
        "1e9",
        "-1",
        "+1700000000",
        " 1700000000",
        "1700000000\n",
        "٣",
        "9" * 5_000,
        -1,
        -0.001,
        7_258_118_401,
        1_700_000_000_000,
        1_700_000_000_000_000,
        float("nan"),
        float("inf"),
        1e300,
        10**400,
        -(10**400),
        True,
        b"1700000000",
        [1_700_000_000],
        {"seconds": 1},
        timedelta(seconds=1),
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_invalid_timestamp_is_refused(limiter, timestamp):
    [fault] = catch_refusal(limiter, {"key": "k", "timestamp": timestamp}).faults
    assert fault.path.removeprefix("0.") == "timestamp"


@pytest.mark.parametrize("timestamp", [1_700_000_000_000, "1700000000000"[:12], 1_700_000_000_000_000])
def test_a_timestamp_in_milliseconds_is_refused_with_a_hint(limiter, timestamp):
    assert "1970 and 2200" in str(catch_refusal(limiter, {"key": "k", "timestamp": timestamp}))
    if timestamp == 1_700_000_000_000:
        assert "milliseconds" in str(catch_refusal(limiter, {"key": "k", "timestamp": timestamp}))


@pytest.mark.parametrize(
    ("text", "micro"),
    [("00.1234564", 123_456), ("00.1234566", 123_456), ("00.1", 100_000), ("00.999999999999", 999_999)],
)
def test_digits_beyond_microseconds_are_cut_off(text, micro):
    stamp = Check(key="k", timestamp=f"2026-02-20T15:30:{text}Z").timestamp
    assert stamp == 1_771_601_400_000_000 + micro


@pytest.mark.parametrize(
    "fields",
    [
        {"key": SECRET},
        {"key": "k", "prompt": SECRET},
        {"key": "k", "model": SECRET},
        {"key": "k", "plan": SECRET},
        {"key": "k", "plan": "sk-123"},
        {"key": "k", "tenant": SECRET},
        {"key": "k", "timestamp": SECRET},
        {"key": "k", "timestamp": "2026-02-20T15:30:00+24:sk-123"},
        {"key": "k", "cost": SECRET},
        {"key": "k", "cost": {"tokens": SECRET}},
        {"key": "k", "cost": {SECRET: 1}},
        {"key": "k", f"a prompt with {SECRET}": 1},
        {"key": SECRET, "model": [SECRET], "cost": [SECRET]},
        SECRET,
        [SECRET],
    ],
)
def test_p10_nothing_that_was_sent_is_repeated(limiter, fields):
    error = catch_refusal(limiter, fields)
    assert "sk-123" not in str(error)
    assert "sk-123" not in repr(error.faults)
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_p10_the_error_of_the_check_class_repeats_nothing_either():
    with pytest.raises(ValueError, match="key") as raised:
        Check(key=SECRET)
    assert "sk-123" not in str(raised.value)


def test_a_misspelt_field_is_refused_with_the_allowed_fields(limiter):
    message = str(catch_refusal(limiter, {"key": "k", "modle": "m"}))
    assert "model" in message
    assert "tenant" in message


def test_all_faults_are_listed_at_once(limiter):
    error = catch_refusal(limiter, {"key": "", "cost": {"tokens": -1}, "prompt": "x"})
    assert {fault.path.removeprefix("0.") for fault in error.faults} == {"key", "cost.tokens", "prompt"}


@pytest.mark.parametrize("key", ["k", "k" * 256, "!~{}:*%@/\\\"'", "vk_9f3a"])
def test_any_visible_ascii_is_a_key(limiter, key):
    assert limiter.check(key)


@pytest.mark.parametrize("amount", [0, 0.0, 0.5, 5e-324, 10**12, 1e12])
def test_any_amount_from_0_to_10_to_the_12_is_a_valid_cost(limiter, amount):
    assert limiter.peek("amounts", cost={"tokens": amount}).limits


@pytest.mark.parametrize(
    "timestamp", [0, 7_258_118_400, "0", "1969-12-31T23:00:00-01:00", "2026-02-20t15:30:00z"]
)
def test_the_earliest_and_latest_times_are_valid(limiter, timestamp):
    assert limiter.peek("never-used", timestamp=timestamp)


@pytest.mark.parametrize("checks", [[None], [5], [b"k"], [object()]])
def test_a_batch_of_anything_but_checks_is_refused(limiter, checks):
    with pytest.raises(InvalidRequest):
        limiter.check_many(checks)
