"""Observers are told of every decision, call and failure, and of nothing else."""

import asyncio

import pytest

from ratelimit import AsyncLimiter, InvalidRequest, Limit, Limiter, Observer, Policy, StoreUnavailable

from ..processes import find_free_port

FIVE = Limit("requests", "5/day")


class Recorder(Observer):
    """Keeps everything that it is told."""

    def __init__(self):
        self.decisions, self.calls, self.failures, self.policies = [], [], [], []
        self.invalid = 0

    def note_decision(self, check, decision, started, call_size):
        assert started > 0
        self.decisions.append((check.subject.key, decision.allowed, decision.source, call_size))

    def note_invalid(self):
        self.invalid += 1

    def note_call(self, checks, seconds):
        assert seconds > 0
        self.calls.append(checks)

    def note_failure(self, reason):
        self.failures.append(reason)

    def note_policy(self, policy):
        self.policies.append(policy.version)


@pytest.fixture
def recorder():
    return Recorder()


def test_each_decision_is_noted_with_the_size_of_its_call(make_limiter, recorder):
    limits = make_limiter(FIVE, observers=[recorder])
    limits.check("a")
    limits.check_many(["b", "c", {"key": "d", "cost": {"requests": 9}}])
    limits.check("d", cost={"requests": 9})
    limits.acquire("e")
    assert recorder.decisions == [
        ("a", True, "store", 1),
        ("b", True, "store", 3),
        ("c", True, "store", 3),
        ("d", False, "store", 3),
        ("d", False, "denial-memory", 0),
        ("e", True, "store", 1),
    ]
    assert recorder.calls == [1, 3, 1]


def test_the_asyncio_limiter_notes_the_same(make_async_limiter, recorder):
    async def run_checks():
        async with make_async_limiter(FIVE, observers=[recorder]) as limits:
            await asyncio.gather(*(limits.check(key) for key in "abc"))
            await limits.check("d", cost={"requests": 9})
            await limits.check("d", cost={"requests": 9})
            await limits.check_many(["e", "f"])

    asyncio.run(run_checks())
    assert recorder.decisions == [
        *((key, True, "store", 3) for key in "abc"),
        ("d", False, "store", 1),
        ("d", False, "denial-memory", 0),
        ("e", True, "store", 2),
        ("f", True, "store", 2),
    ]
    assert recorder.calls == [3, 1, 2]


def test_a_peek_is_not_noted_as_a_decision(make_limiter, make_async_limiter, recorder):
    make_limiter(FIVE, observers=[recorder]).peek("a")

    async def look():
        async with make_async_limiter(FIVE, observers=[recorder]) as limits:
            await limits.peek("a")

    asyncio.run(look())
    assert recorder.decisions == []


@pytest.mark.parametrize(
    "refused",
    [
        lambda limits: limits.check("k", plan="none"),
        lambda limits: limits.check(""),
        lambda limits: limits.check({"key": "k", "prompt": "x"}),
        lambda limits: limits.check({"key": "k"}, model="m"),
        lambda limits: limits.check_many(["k", {"key": ""}]),
        lambda limits: limits.check_many("k"),
        lambda limits: limits.check_many(["k"] * 257),
        lambda limits: limits.reserve("k", cost={"none": 1}),
        lambda limits: limits.acquire({"key": ""}),
    ],
)
def test_a_refused_check_is_noted_once(make_limiter, recorder, refused):
    with pytest.raises(InvalidRequest):
        refused(make_limiter(FIVE, observers=[recorder]))
    assert recorder.invalid == 1
    assert recorder.decisions == []


def test_a_refused_peek_is_not_noted(make_limiter, recorder):
    with pytest.raises(InvalidRequest):
        make_limiter(FIVE, observers=[recorder]).peek("")
    assert recorder.invalid == 0


def test_a_failed_call_is_noted_once_for_all_its_checks(recorder):
    url = f"redis://127.0.0.1:{find_free_port()}"
    with Limiter(url, FIVE, deadline=5, observers=[recorder]) as limits:
        limits.check_many(["a", "b"])
        with pytest.raises(StoreUnavailable):
            limits.refresh()
    assert recorder.failures == ["connection", "connection"]
    assert recorder.decisions == [("a", True, "outage", 0), ("b", True, "outage", 0)]

    async def check():
        async with AsyncLimiter(url, FIVE, deadline=5, observers=[recorder]) as limits:
            await asyncio.gather(limits.check("a"), limits.check("b"))

    asyncio.run(check())
    assert recorder.failures == ["connection"] * 3
    assert recorder.calls == []


def test_the_policy_in_force_is_noted(make_limiter, recorder):
    limits = make_limiter(FIVE, observers=[recorder])
    limits.policy = Limit("requests", "6/day")
    versions = [Policy.of(limit).version for limit in (FIVE, Limit("requests", "6/day"))]
    assert recorder.policies == versions


def test_several_observers_are_told_in_their_order(make_limiter):
    told = []

    class Teller(Observer):
        def __init__(self, name):
            self.name = name

        def note_decision(self, check, decision, started, call_size):  # noqa: ARG002 - the interface
            told.append(self.name)

    make_limiter(FIVE, observers=[Teller("a"), Observer(), Teller("b")]).check("k")
    assert told == ["a", "b"]
