"""Observers are told of every settlement and cancellation, once, and of nothing else."""

import asyncio
import time

import pytest

from ratelimit import InvalidRequest, Limit, Observer, Policy, UnknownReservation, Usage
from ratelimit.observers.observer import End

POLICY = Policy.from_text("""
default_plan: free
models: {small: [m1], large: [m2]}
plans:
  free: {limits: {tokens: {rate: 1000/day, unit: tokens}, parallel: {unit: concurrent, capacity: 5, ttl: 1h}}}
  pro: {limits: {tokens: {rate: 5000/day, unit: tokens}}}
""")
BASE = 1_700_000_000
USAGE = Usage(input_tokens=3, output_tokens=4, latency_ms=12.5, status=200)


class EndRecorder(Observer):
    """Keeps the ends that it is told."""

    def __init__(self):
        self.ends = []
        self.charges = []

    def note_end(self, end):
        assert 0 < end.started <= time.monotonic_ns()
        self.charges.append((end.reservation, end.t, end.limits))
        self.ends.append(end._replace(started=0, reservation=None, t=0, limits=()))


@pytest.fixture
def recorder():
    return EndRecorder()


def with_reservation(usage, reservation):
    return usage.model_copy(update={"reservation": reservation})


def test_a_settlement_is_noted_with_what_the_record_knows(make_limiter, recorder):
    limits = make_limiter(POLICY, observers=[recorder])
    held = limits.reserve("vk_1", tenant="acme", plan="pro", model="m1")
    held.settle(USAGE)
    limits.settle(Usage(input_tokens=9), reservation=held.id)
    first, again = recorder.ends
    usage = with_reservation(USAGE, held.id)
    assert first == End("settled", usage, "vk_1", "acme", "pro", "m1", "small", 0)
    assert again[2:] == first[2:]
    assert (again.outcome, again.usage.input_tokens) == ("replayed", 9)


def test_an_end_says_what_was_charged_when(make_limiter, recorder):
    limits = make_limiter(POLICY, observers=[recorder])
    held = limits.reserve("vk_1", cost={"tokens": 50}, timestamp=BASE)
    settled = held.settle(USAGE)
    limits.settle(USAGE, reservation=held.id)
    limits.settle({"key": "vk_1", "input_tokens": 3, "timestamp": BASE})
    first, again, charged = recorder.charges
    assert first[0] == again[0] == held.id
    assert first[1] == again[1] >= BASE * 1_000_000
    assert first[2] == again[2] == settled.limits
    assert charged[:2] == (None, BASE * 1_000_000)
    assert [state.name for state in charged[2]] == ["tokens", "parallel"]


def test_the_model_that_answered_goes_before_the_one_that_was_asked(make_limiter, recorder):
    limits = make_limiter(POLICY, observers=[recorder])
    limits.reserve("vk_1", model="m1").settle(USAGE.model_copy(update={"model": "m2"}))
    limits.reserve("vk_1").settle(USAGE.model_copy(update={"model": "m3"}))
    limits.reserve("vk_1").settle(USAGE)
    assert [end[5:7] for end in recorder.ends] == [("m2", "large"), ("m3", "other"), (None, None)]


def test_a_cancellation_is_noted_without_a_usage(make_limiter, recorder):
    limits = make_limiter(POLICY, observers=[recorder])
    held = limits.reserve("vk_1", model="m2")
    held.cancel()
    held.cancel()
    ends = [
        End(outcome, None, "vk_1", "vk_1", "free", "m2", "large", 0) for outcome in ("cancelled", "replayed")
    ]
    assert recorder.ends == ends


def test_a_usage_record_without_a_reservation_is_charged(make_limiter, recorder):
    limits = make_limiter(POLICY, observers=[recorder])
    usage = Usage(key="vk_1", tenant="acme", model="m1", input_tokens=3)
    limits.settle(usage)
    assert recorder.ends == [End("charged", usage, "vk_1", "acme", "free", "m1", "small", 0)]


def test_nothing_else_is_an_end(make_limiter, recorder):
    limits = make_limiter(POLICY, observers=[recorder])
    with limits.reserve("vk_1") as held:
        pass  # its slot is released
    with pytest.raises(UnknownReservation):
        limits.settle(USAGE, reservation="A" * 16 + ".dms")
    with pytest.raises(InvalidRequest, match="key"):
        limits.settle(USAGE.model_copy(update={"key": "another"}), reservation=held.id)
    assert recorder.ends == []
    held.settle(USAGE)
    assert [end.outcome for end in recorder.ends] == ["settled"]


def test_the_return_of_a_lease_is_no_end(make_limiter_on, store_url, recorder):
    leased = Limit("tokens", "1000/day", unit="tokens", lease={"share": 0.5, "ttl": "60s"})
    limits = make_limiter_on(store_url, leased, observers=[recorder])
    while limits.check("k", cost={"tokens": 1}).source != "lease":
        pass
    limits.close()
    assert recorder.ends == []


def test_the_asyncio_limiter_notes_the_same(make_async_limiter, recorder):
    async def run_requests():
        async with make_async_limiter(POLICY, observers=[recorder]) as limits:
            async with limits.reserve("vk_1", tenant="acme", model="m1") as held:
                await held.settle(USAGE)
                await held.settle(USAGE)
            async with limits.reserve("vk_2") as cancelled:
                await cancelled.cancel()
            async with limits.reserve("vk_3"):
                pass
            await limits.settle({"key": "vk_4", "input_tokens": 1})
            return held.id

    usage = with_reservation(USAGE, asyncio.run(run_requests()))
    assert recorder.ends[:3] == [
        End("settled", usage, "vk_1", "acme", "free", "m1", "small", 0),
        End("replayed", usage, "vk_1", "acme", "free", "m1", "small", 0),
        End("cancelled", None, "vk_2", "vk_2", "free", None, None, 0),
    ]
    [charged] = recorder.ends[3:]
    assert (charged.outcome, charged.key) == ("charged", "vk_4")
