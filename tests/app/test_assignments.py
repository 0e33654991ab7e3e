"""What operators assign holds in an application as in a sidecar, from its first request on."""

import asyncio
import itertools
import threading
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from werkzeug.test import Client

from ratelimit import Decision, InvalidRequest, Policy
from ratelimit.asgi import RateLimitMiddleware
from ratelimit.fastapi import rate_limit
from ratelimit.request.privacy import identifier_of
from ratelimit.web import refresh
from ratelimit.web.refresh import AsyncRefresher, Refresher
from ratelimit.wsgi import RateLimitMiddleware as WSGIMiddleware

from .requests import KEYED, PEPPER, SECRET, open_browser

POLICY = Policy.from_text("""
default_plan: free
unknown_keys: anonymous
plans:
  anonymous: {limits: {requests: {rate: 1/365d}}}
  free: {limits: {requests: {rate: 3/365d}}}
  pro: {limits: {requests: {rate: 100/365d}}}
""")
KEY = identifier_of(SECRET["X-Api-Key"], PEPPER)


async def answer(scope, receive, send):
    plan = scope["state"]["rate_limit"].plan
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": plan.encode()})


def answer_wsgi(environ, start_response):
    start_response("200 OK", [])
    return [environ["ratelimit.decision"].plan.encode()]


@pytest.fixture
def pass_time(monkeypatch):
    """Let time pass for the schedule of reading, and for nothing else."""
    now = itertools.count(1_000, 0)

    class Time:
        monotonic = staticmethod(lambda: next(now))

    def pass_seconds(seconds):
        nonlocal now
        now = itertools.count(next(now) + seconds, 0)

    monkeypatch.setattr(refresh, "time", Time)
    return pass_seconds


def test_the_first_request_has_its_assigned_plan_and_a_block_is_seen_when_a_read_is_due(
    open_limiter, make_limits, pass_time
):
    operator = make_limits(POLICY)
    operator.assign(KEY, plan="pro")

    async def run():
        async with open_limiter(POLICY) as limiter:
            middleware = RateLimitMiddleware(answer, limiter, **KEYED)
            async with open_browser(middleware) as browser:

                async def ask():
                    answer = await browser.get("/", headers=SECRET)
                    if (reading := middleware._refresher._task) is not None:
                        await reading
                    return answer.status_code, answer.text[:3]

                seen = [await ask()]
                operator.assign(KEY, blocked=True)
                seen.append(await ask())  # not due
                pass_time(1.01)
                await ask()  # begins to read
                seen.append((await ask())[0])
                return seen

    assert asyncio.run(run()) == [(200, "pro"), (200, "pro"), 429]


def test_the_same_holds_for_wsgi(make_limits, pass_time):
    operator = make_limits(POLICY)
    operator.assign(KEY, plan="pro")
    middleware = WSGIMiddleware(answer_wsgi, make_limits(POLICY), **KEYED)
    client = Client(middleware)

    def ask():
        answer = client.get("/", headers=SECRET)
        if (reading := middleware._refresher._thread) is not None:
            reading.join()
        return answer.status_code, answer.text[:3]

    seen = [ask()]
    operator.assign(KEY, blocked=True)
    seen.append(ask())
    pass_time(1.01)
    ask()
    seen.append(ask()[0])
    assert seen == [(200, "pro"), (200, "pro"), 429]


def test_the_dependency_reads_assignments_before_its_first_check(open_limiter, make_limits):
    make_limits(POLICY).assign(KEY, plan="pro")

    async def run():
        async with open_limiter(POLICY) as limiter:
            app = FastAPI()
            checked = Depends(rate_limit(limiter, **KEYED))

            @app.get("/")
            async def show_plan(decision: Annotated[Decision, checked]) -> str:
                return decision.plan

            async with open_browser(app) as browser:
                return (await browser.get("/", headers=SECRET)).json()

    assert asyncio.run(run()) == "pro"


def test_requests_that_come_together_wait_for_one_first_read():
    class Limiter:
        reads = 0
        has_read_assignments = False

        async def refresh(self):
            self.reads += 1
            await asyncio.sleep(0)
            self.has_read_assignments = True

    async def run():
        limiter, refresher = Limiter(), AsyncRefresher(1.0)
        waiting = [refresher.refresh_if_due(limiter) for _ in range(5)]
        await asyncio.wait({*waiting})
        assert refresher.refresh_if_due(limiter) is None
        return limiter.reads, len({*waiting})

    assert asyncio.run(run()) == (1, 1)


def test_threads_that_come_together_wait_for_one_first_read():
    class Limiter:
        reads = 0
        has_read_assignments = False

        def refresh(self):
            self.reads += 1
            self.has_read_assignments = True

    limiter, refresher = Limiter(), Refresher(60.0)
    seen = []

    def ask():
        refresher.refresh_if_due(limiter)
        seen.append(limiter.has_read_assignments)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (limiter.reads, seen) == (1, [True] * 8)


def test_a_store_that_does_not_answer_holds_up_no_later_request(make_limits, short_dir, caplog):
    limits = make_limits(POLICY, store=f"unix://{short_dir}/nothing-listens.sock")
    client = Client(WSGIMiddleware(answer_wsgi, limits, **KEYED))
    assert [client.get("/", headers=SECRET).status_code for _ in range(3)] == [200] * 3  # on_outage: allow
    assert "assignments could not be read" not in caplog.text


def test_an_error_is_logged_and_the_requests_go_on(caplog):
    class Limiter:
        has_read_assignments = False

        def refresh(self):
            raise ValueError("not JSON")

    Refresher(1.0).refresh_if_due(Limiter())
    assert "assignments could not be read" in caplog.text


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), True, "1"])
def test_a_wrong_time_says_what_is_allowed(make_limits, seconds):
    with pytest.raises(InvalidRequest, match="refresh: must be a number of seconds above 0, or None"):
        WSGIMiddleware(answer_wsgi, make_limits(POLICY), refresh=seconds, **KEYED)
