"""What processes tell the store of keys, tenants, models and plans, and what `ratelimit top` reads of it."""

import asyncio

import pytest

from ratelimit import Limit, Policy, Usage
from ratelimit.engine.keyspace import ONE_SERVER
from ratelimit.metering.activity import (
    CAPACITY,
    INTERVAL_SECONDS,
    MAX_WINDOW,
    IntervalCounts,
    encode_report,
    list_intervals,
    make_interval_store_key,
    summarise_reports,
    write_report,
)
from ratelimit.observers.activity import MAX_PENDING, Activity
from ratelimit.stores.scripts import REPORT

NOW = 1_700_000_000.0
POLICY = Policy.from_text("""
default_plan: free
plans:
  free: {limits: {requests: {rate: 3/day}, tokens: {unit: tokens, rate: 1000000/day}}}
  pro: {limits: {requests: {rate: 1000/day}, tokens: {unit: tokens, rate: 1000000/day}}}
""")


class Clock:
    """A clock that a test moves."""

    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def publish(client, activity):
    for call in activity.encode_report(ONE_SERVER):
        run_report(client, *call)


def run_report(client, keys, args):
    client.eval(REPORT.source, len(keys), *keys, *args)


def put_report(client, process, counts):
    run_report(
        client, *encode_report(ONE_SERVER, process, int(NOW // INTERVAL_SECONDS), write_report(counts))
    )


def read(client, now=NOW, window=10):
    intervals = list_intervals(now, window)
    return summarise_reports(
        [client.hgetall(make_interval_store_key(ONE_SERVER, interval)) for interval in intervals], window
    )


def rows_of(summary, dimension):
    return {row.name: (row.checks, row.denied, row.tokens) for row in summary.rows[dimension]}


def test_checks_denials_and_tokens_are_counted_by_every_dimension(make_limiter, client, clock):
    activity = Activity(clock)
    limits = make_limiter(POLICY, observers=[activity])
    for _ in range(5):
        limits.check("a", model="small")
    limits.check("b", plan="pro", tenant="acme", model="large")
    limits.settle({"key": "b", "plan": "pro", "tenant": "acme", "model": "large", "input_tokens": 40})
    with limits.reserve("c", cost={"tokens": 9}) as reservation:
        reservation.settle(Usage(input_tokens=3, output_tokens=4))
    limits.settle({"reservation": reservation.id, "input_tokens": 3})  # a repetition counts nothing
    limits.peek("d")
    publish(client, activity)
    summary = read(client)
    assert summary.totals == {"checks": 7, "denied": 2, "tokens": 47}
    assert summary.processes == 1
    assert rows_of(summary, "key") == {"a": (5, 2, 0), "b": (1, 0, 40), "c": (1, 0, 7)}
    assert rows_of(summary, "tenant") == {"a": (5, 2, 0), "acme": (1, 0, 40), "c": (1, 0, 7)}
    assert rows_of(summary, "model") == {"small": (5, 2, 0), "large": (1, 0, 40), "": (1, 0, 7)}
    assert rows_of(summary, "plan") == {"free": (6, 2, 7), "pro": (1, 0, 40)}
    assert all(error == 0 for errors in summary.errors.values() for error in errors.values())


def test_several_processes_add_up(make_limiter, client, clock):
    for _ in range(3):
        activity = Activity(clock)
        limits = make_limiter(POLICY, observers=[activity])
        limits.check("a")
        publish(client, activity)
    summary = read(client)
    assert summary.processes == 3
    assert rows_of(summary, "key") == {"a": (3, 0, 0)}


def test_limiters_publish_to_their_store(make_limiter, make_async_limiter, client):
    activity = Activity()
    limits = make_limiter(POLICY, observers=[activity])
    limits.check("a")
    limits.publish_activity(activity)

    async def check():
        async with make_async_limiter(POLICY, observers=[activity]) as limits:
            await limits.check("b")
            await limits.publish_activity(activity)

    asyncio.run(check())
    seconds, _ = client.time()
    assert read(client, now=seconds + 1).totals["checks"] == 2


def test_nothing_new_is_not_told(make_limiter, clock):
    activity = Activity(clock)
    limits = make_limiter(POLICY, observers=[activity])
    assert activity.encode_report(ONE_SERVER) == []
    for _ in range(2):
        limits.check("a")
        assert len(activity.encode_report(ONE_SERVER)) == 1
        assert activity.encode_report(ONE_SERVER) == []
        clock.now += INTERVAL_SECONDS


def test_what_was_counted_before_an_interval_ended_is_told_for_that_interval(make_limiter, client, clock):
    activity = Activity(clock)
    limits = make_limiter(POLICY, observers=[activity])
    for number in range(MAX_PENDING + 1):  # so many that they are counted before the first report
        limits.check(f"vk_{number}")
    clock.now += INTERVAL_SECONDS
    publish(client, activity)
    assert read(client, NOW, window=5).totals["checks"] == MAX_PENDING
    assert read(client, clock.now, window=10).totals["checks"] == MAX_PENDING + 1


def test_the_window_slides(make_limiter, client, clock):
    activity = Activity(clock)
    limits = make_limiter(POLICY, observers=[activity])
    for second in range(0, 100, INTERVAL_SECONDS):
        clock.now = NOW + second
        limits.check("a", plan="pro")
        publish(client, activity)
    last = NOW + 95
    assert read(client, last, window=10).totals["checks"] == 2
    assert read(client, last, window=MAX_WINDOW).totals["checks"] == MAX_WINDOW // INTERVAL_SECONDS
    assert read(client, last + 5, window=10).totals["checks"] == 1
    assert read(client, last + 10, window=10).totals["checks"] == 0


def test_p5_every_report_expires_by_itself(make_limiter, client, clock):
    activity = Activity(clock)
    limits = make_limiter(Limit("requests", "100/second"), observers=[activity])
    limits.check("a")
    publish(client, activity)
    [store_key] = client.keys("rl1:top:*")
    assert MAX_WINDOW * 1000 < client.pttl(store_key) <= (MAX_WINDOW + 2 * INTERVAL_SECONDS) * 1000


def test_a_flood_of_names_is_told_in_bounded_size(make_limiter, client, clock):
    activity = Activity(clock)
    limits = make_limiter(POLICY, observers=[activity])
    for number in range(20_000):
        limits.check("flooder" if number % 2 else f"vk_{number:020}", model=f"model-{number}")
        assert len(activity._pending) <= MAX_PENDING
    [(_, [_, _, text, _])] = activity.encode_report(ONE_SERVER)
    assert len(text) < 30_000
    client.hset(make_interval_store_key(ONE_SERVER, int(NOW // INTERVAL_SECONDS)), "p", text)
    summary = read(client)
    assert summary.totals["checks"] == 20_000
    error = summary.errors["key"]["checks"]
    checks, denied, _ = rows_of(summary, "key")["flooder"]
    assert checks <= 10_000 <= checks + error
    assert denied <= 9_997 <= denied + summary.errors["key"]["denied"]
    assert error <= 20_000 / CAPACITY


@pytest.mark.parametrize("name", ['"quotes"', "{*}", "a:b/c|d,e", "x" * 256, "\\u0000"])
def test_any_name_comes_back_as_it_was(client, name):
    counts = IntervalCounts()
    counts.add({(name, name, name, "free"): [2.0, 1.0, 0.0]})
    put_report(client, "process", counts)
    summary = read(client)
    assert rows_of(summary, "key") == rows_of(summary, "model") == {name: (2, 1, 0)}


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"checks": []}', "\xff"])
def test_a_report_that_cannot_be_read_is_left_out(client, text):
    store_key = make_interval_store_key(ONE_SERVER, int(NOW // INTERVAL_SECONDS))
    client.hset(store_key, "broken", text)
    counts = IntervalCounts()
    counts.add({("a", "a", "", "free"): [1.0, 0.0, 0.0]})
    put_report(client, "whole", counts)
    assert read(client).totals["checks"] == 1


def test_a_broken_list_in_a_report_does_not_hide_the_others(client):
    store_key = make_interval_store_key(ONE_SERVER, int(NOW // INTERVAL_SECONDS))
    client.hset(store_key, "broken", '{"checks": 1, "key": {"checks": 5}}')
    counts = IntervalCounts()
    counts.add({("a", "a", "", "free"): [1.0, 0.0, 0.0]})
    put_report(client, "whole", counts)
    assert rows_of(read(client), "key") == {"a": (1, 0, 0)}
