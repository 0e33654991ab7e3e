"""A settlement that is not answered may have taken effect: its history is sound either way."""

import asyncio

import pytest

from ratelimit import AsyncLimiter, Limit, Limiter, Policy, StoreUnavailable, Usage
from ratelimit.history import HistoryRecorder, read_history, verify_history

from .proxy import Proxy

TOKENS = Limit("tokens", "100/365d", unit="tokens", denial_memory=False)
ESTIMATE = {"tokens": 60}


@pytest.fixture
def proxy(valkey_url, open_client):
    open_client(valkey_url).flushall()
    proxy = Proxy(valkey_url.removeprefix("unix://"))
    yield proxy
    proxy.close()


@pytest.fixture
def history(tmp_path):
    return tmp_path / "history"


def verify(history):
    return verify_history(read_history([history]), Policy.of(TOKENS))


@pytest.mark.parametrize("is_repeated", [False, True])
@pytest.mark.parametrize("used", [10, 90, None], ids=["refunds", "charges", "cancels"])
def test_p1_p6_a_settlement_without_an_answer_is_no_fault(proxy, history, used, is_repeated):
    def end():
        if used is None:
            limiter.cancel(reservation.id)
        else:
            limiter.settle(Usage(reservation=reservation.id, input_tokens=used))

    with (
        HistoryRecorder(history) as recorder,
        Limiter(proxy.url, TOKENS, deadline=5, observers=[recorder]) as limiter,
    ):
        reservation = limiter.reserve("k", cost=ESTIMATE)
        proxy.is_dropping_replies = proxy.is_closing_connections = True
        with pytest.raises(StoreUnavailable):
            end()
        proxy.is_dropping_replies = False
        while limiter.check("k", cost={"tokens": 8}).source != "store":
            pass
        if is_repeated:
            end()
        while limiter.check("k", cost={"tokens": 8}):
            pass
    report = verify(history)
    assert report.is_sound, report.faults
    assert (report.buckets, report.windows_only) == (1, 0)


def test_p1_more_than_such_a_settlement_explains_is_a_fault(proxy, history, open_client, valkey_url):
    async def run():
        limiter = AsyncLimiter(proxy.url, TOKENS, deadline=5, observers=[recorder])
        async with limiter:
            reservation = await limiter.reserve("k", cost=ESTIMATE)
            proxy.is_dropping_replies = proxy.is_closing_connections = True
            with pytest.raises(StoreUnavailable):
                await limiter.settle(Usage(reservation=reservation.id, input_tokens=10))
            proxy.is_dropping_replies = False
            open_client(valkey_url).flushall()
            while (await limiter.check("k", cost={"tokens": 1})).source != "store":
                pass

    with HistoryRecorder(history) as recorder:
        asyncio.run(run())
    assert [fault.kind for fault in verify(history).faults] == ["lost"]
