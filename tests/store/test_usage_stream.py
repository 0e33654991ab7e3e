"""The usage stream is bounded by length and by age, and what goes unread is counted exactly."""

import asyncio

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ratelimit import InvalidRequest, Limit, StoreUnavailable
from ratelimit.engine.keyspace import ONE_SERVER, make_unread_store_key

[USAGE] = ONE_SERVER.usage_streams
UNREAD = make_unread_store_key(USAGE)
TOKENS = Limit("tokens", "1000000/day", unit="tokens")
AGE = 100
"""The age of the tests, in seconds."""

BATCH = 100
"""How many records more than its length the stream may have, as docs/metering.md says."""


@pytest.fixture
def make_usage_limiter(make_limiter):
    def make(**options):
        return make_limiter(TOKENS, **{"usage_age": AGE, **options})

    return make


def settle(limits, count=1):
    for _ in range(count):
        limits.settle({"key": "k", "input_tokens": 1, "status": 200})


def read_ids(client):
    return [entry for entry, _ in client.xrange(USAGE)]


def fill(client, ages, size=1):
    """Add entries of these ages, in seconds by the store's clock, oldest first."""
    seconds, microseconds = client.time()
    now = seconds * 1000 + microseconds // 1000
    pipeline = client.pipeline()
    oldest_first = enumerate(sorted(ages, reverse=True))
    names = [f"{now - int(age * 1000)}-{number}" for number, age in oldest_first]
    for name in names:
        pipeline.xadd(USAGE, {"key": "k" * size}, id=name)
    pipeline.execute()
    return names


def test_without_a_consumer_group_every_trimmed_record_is_unread(make_usage_limiter, client):
    limits = make_usage_limiter(usage_length=10)
    settle(limits, 10 + BATCH)
    assert (client.xlen(USAGE), limits.count_trimmed_unread()) == (110, 0)
    settle(limits)
    assert (client.xlen(USAGE), limits.count_trimmed_unread()) == (10, 101)


def test_what_all_groups_have_read_is_trimmed_without_being_counted(make_usage_limiter, client):
    limits = make_usage_limiter(usage_length=100)
    for group in ("billing", "audit"):
        client.xgroup_create(USAGE, group, "0", mkstream=True)
    for _ in range(8):
        settle(limits, 50)
        for group in ("billing", "audit"):
            client.xreadgroup(group, "reader", {USAGE: ">"}, noack=True)
    assert client.xlen(USAGE) <= 100 + BATCH
    assert limits.count_trimmed_unread() == 0


def test_only_what_the_slowest_group_has_not_read_is_counted(make_usage_limiter, client):
    limits = make_usage_limiter(usage_length=10)
    for group in ("billing", "audit"):
        client.xgroup_create(USAGE, group, "0", mkstream=True)
    settle(limits, 10 + BATCH)
    client.xreadgroup("billing", "reader", {USAGE: ">"}, noack=True)
    client.xreadgroup("audit", "reader", {USAGE: ">"}, count=30, noack=True)
    settle(limits)
    assert (client.xlen(USAGE), limits.count_trimmed_unread()) == (10, 101 - 30)


def test_records_that_are_too_old_go_and_count_when_they_are_unread(make_usage_limiter, client):
    limits = make_usage_limiter()
    names = fill(client, [1.5 * AGE] * 3 + [1.2 * AGE] * 4 + [0.5 * AGE] * 2)
    client.xgroup_create(USAGE, "billing", names[2])
    settle(limits, 2)
    assert read_ids(client)[:-2] == names[-2:]
    assert limits.count_trimmed_unread() == 4


def test_a_record_may_be_a_hundredth_older_than_its_age(make_usage_limiter, client):
    names = fill(client, [1.005 * AGE])
    settle(make_usage_limiter())
    assert read_ids(client)[0] == names[0]


def test_without_a_length_there_is_no_stream(make_usage_limiter, client):
    limits = make_usage_limiter(usage_length=0)
    limits.reserve("k", cost={"tokens": 5}).settle({"input_tokens": 2})
    settle(limits)
    assert not client.exists(USAGE)
    assert limits.peek("k").limits[0].remaining == 999_997


def test_p5_the_stream_lives_as_long_as_its_last_record_and_the_count_longer(make_usage_limiter, client):
    limits = make_usage_limiter(usage_length=1)
    settle(limits, 2 + BATCH)
    assert AGE * 1000 - 20_000 < client.pttl(USAGE) <= AGE * 1000
    # Another limiter may have added entries just before, so the count needs more than the stream's age.
    assert 3 * AGE * 1000 - 20_000 < client.pttl(UNREAD) <= 3 * AGE * 1000


def test_a_group_that_was_deleted_is_not_waited_for(make_usage_limiter, client):
    limits = make_usage_limiter(usage_length=10)
    client.xgroup_create(USAGE, "gone", "0", mkstream=True)
    client.xgroup_create(USAGE, "billing", "0")
    settle(limits, 10 + BATCH)
    client.xgroup_destroy(USAGE, "gone")
    client.xreadgroup("billing", "reader", {USAGE: ">"}, noack=True)
    settle(limits)
    assert limits.count_trimmed_unread() == 0


def test_tasks_read_the_same_count(make_usage_limiter, make_async_limiter):
    settle(make_usage_limiter(usage_length=1), 2 + BATCH)

    async def count():
        async with make_async_limiter(TOKENS) as limits:
            return await limits.count_trimmed_unread()

    assert asyncio.run(count()) == 101


def test_the_count_needs_the_store(make_limiter_on, dead_url):
    with pytest.raises(StoreUnavailable):
        make_limiter_on(dead_url, TOKENS, deadline=0.05).count_trimmed_unread()


@pytest.mark.parametrize(
    "option",
    [
        *({"usage_length": length} for length in (-1, 10**9 + 1, 1.5)),
        *({"usage_age": age} for age in (0.5, 367 * 86_400, float("nan"))),
    ],
)
def test_a_length_or_age_out_of_range_is_refused(make_usage_limiter, option):
    [name] = option
    with pytest.raises(InvalidRequest, match=f"{name}: must be"):
        make_usage_limiter(**option)


ages = st.lists(st.floats(0, 2 * AGE) | st.sampled_from([0.5, 0.9, 1.0, 1.5]), max_size=60)
positions = st.lists(st.floats(0, 1), max_size=3)


@settings(max_examples=40)
@given(
    ages=ages,
    repeats=st.integers(1, 8),
    positions=positions,
    length=st.integers(1, 200),
    size=st.sampled_from([1, 300]),
)
def test_p5_the_count_is_exact_and_the_bounds_hold(
    make_usage_limiter, client, ages, repeats, positions, length, size
):
    client.flushall()
    limits = make_usage_limiter(usage_length=length)
    names = fill(client, ages * repeats, size)
    last_read = [names[int(position * (len(names) - 1))] if names else "0-0" for position in positions]
    for number, name in enumerate(last_read):
        client.xgroup_create(USAGE, f"group-{number}", name, mkstream=True)
    expected = 0
    slowest = min(map(parse_id, last_read), default=(0, 0))
    for _ in range(8):
        before = read_ids(client)
        started = client.time()
        settle(limits)
        after = read_ids(client)
        removed = before[: len(before) + 1 - len(after)]
        assert after[:-1] == before[len(removed) :]
        expected += sum(parse_id(name) > slowest for name in removed)
        assert limits.count_trimmed_unread() == expected
        too_old = [name for name in removed if is_older(name, client.time(), AGE)]
        assert len(too_old) == len(removed) or len(after) >= length
    assert len(after) <= length + BATCH
    assert not is_older(after[0], started, 1.01 * AGE)


def parse_id(name):
    return tuple(map(int, name.split("-")))


def is_older(name, time, age):
    return parse_id(name)[0] < time[0] * 1000 + time[1] // 1000 - age * 1000
