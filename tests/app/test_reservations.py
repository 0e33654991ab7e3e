"""Reservations of the ASGI middleware: settled once when the answer ends, however it ends."""

import asyncio
import contextlib

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from ratelimit import Limit, StoreUnavailable, Usage
from ratelimit.asgi import RateLimitMiddleware

from .requests import METERED, find_key, open_browser, play, read_left_async

ESTIMATE = {"key": find_key, "cost": {"tokens": 100}, "reserve": True}
START = {"type": "http.response.start", "status": 200, "headers": [(b"x-tokens", b"30")]}


def use_thirty(answer):
    return {"output_tokens": 30}


def run_with(open_limiter, app, **options):
    """Run an application once with the middleware; return what tokens and slots are left, and the error."""

    async def run():
        async with open_limiter(*METERED) as limiter:
            try:
                await play(
                    RateLimitMiddleware(app, limiter, **ESTIMATE, **options.pop("options", {})), **options
                )
                error = None
            except (OSError, ValueError, asyncio.CancelledError) as raised:
                error = raised
            return await read_left_async(limiter), await read_left_async(limiter, "parallel"), error

    return asyncio.run(run())


async def answer(scope, receive, send):
    await send(START)
    await send({"type": "http.response.body", "body": b"a", "more_body": True})
    await send({"type": "http.response.body", "body": b"b"})


async def fail_at_once(scope, receive, send):
    raise ValueError


async def fail_halfway(scope, receive, send):
    await send(START)
    await send({"type": "http.response.body", "body": b"a", "more_body": True})
    raise ValueError


async def stop_halfway(scope, receive, send):
    """End as Starlette ends a stream whose client has gone away."""
    await send(START)
    await send({"type": "http.response.body", "body": b"a", "more_body": True})


def test_p7_the_usage_is_read_from_the_answer_and_settled(open_limiter):
    seen = []

    def read(answer):
        seen.append(answer)
        return Usage(output_tokens=int(answer.headers["x-tokens"]))

    left = run_with(open_limiter, answer, options={"usage": read, "body_tail": 1})
    assert left == (970, 2, None)
    [answered] = seen
    assert (answered.status, answered.body, answered.complete) == (200, b"b", True)


def test_p7_without_usage_the_estimate_stays_charged_and_the_slot_is_freed(open_limiter):
    assert run_with(open_limiter, answer) == (900, 2, None)
    assert run_with(open_limiter, answer, options={"usage": lambda _: None}) == (800, 2, None)


@pytest.mark.parametrize("found", [{"no_such_field": 1}, {"output_tokens": -1}, 7])
def test_a_usage_that_is_wrong_is_logged_and_the_estimate_stays(open_limiter, caplog, found):
    assert run_with(open_limiter, answer, options={"usage": lambda _: found}) == (900, 2, None)
    assert "its estimate stays charged" in caplog.text


def test_an_error_of_the_usage_function_is_logged_and_the_estimate_stays(open_limiter, caplog):
    assert run_with(open_limiter, answer, options={"usage": lambda answer: answer.missing}) == (900, 2, None)
    assert "its estimate stays charged" in caplog.text


@pytest.mark.parametrize(
    ("app", "error"), [(fail_at_once, ValueError), (fail_halfway, ValueError), (stop_halfway, type(None))]
)
@pytest.mark.parametrize(("usage", "left"), [(None, 900), (use_thirty, 970)])
def test_p7_an_answer_that_does_not_end_settles_what_is_known(open_limiter, app, error, usage, left):
    asked = []

    def read(answer):
        asked.append(answer.complete)
        return usage(answer)

    options = {"usage": read} if usage else {}
    tokens, slots, raised = run_with(open_limiter, app, options=options)
    assert (tokens, slots, type(raised)) == (left, 2, error)
    assert asked == ([False] if usage else [])


def test_p6_a_client_that_has_gone_away_settles_once(open_limiter):
    asked = []

    def read(answer):
        asked.append(answer.complete)
        return {"output_tokens": 30}

    tokens, slots, error = run_with(open_limiter, answer, options={"usage": read}, fail_at=2)
    assert (tokens, slots, asked) == (970, 2, [False])
    assert isinstance(error, OSError)


def test_a_cancelled_request_still_ends_its_reservation(open_limiter):
    async def run():
        async with open_limiter(*METERED) as limiter:
            started = asyncio.Event()

            async def wait(scope, receive, send):
                await send(START)
                started.set()
                await asyncio.Event().wait()

            middleware = RateLimitMiddleware(wait, limiter, **ESTIMATE, usage=use_thirty)
            task = asyncio.create_task(play(middleware))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await read_left_async(limiter), await read_left_async(limiter, "parallel")

    assert asyncio.run(run()) == (970, 2)


def test_p6_a_request_whose_stream_is_cancelled_after_its_last_chunk_waits_until_it_is_settled(
    open_limiter, monkeypatch
):
    async def run():
        async with open_limiter(*METERED) as limiter:

            async def stream_and_listen(scope, receive, send):
                """Do what Starlette does: cancel the stream as soon as the client has all of it."""
                has_all = asyncio.Event()

                async def stream():
                    await send(START)
                    asyncio.get_running_loop().call_soon(has_all.set)
                    await send({"type": "http.response.body", "body": b"a"})

                streaming = asyncio.create_task(stream())
                await has_all.wait()
                streaming.cancel()
                await asyncio.wait([streaming])

            settle, settled = limiter.settle, []

            async def settle_slowly(*arguments, **options):
                for _ in range(20):  # turns of the event loop
                    await asyncio.sleep(0)
                settled.append(await settle(*arguments, **options))

            monkeypatch.setattr(limiter, "settle", settle_slowly)
            await play(RateLimitMiddleware(stream_and_listen, limiter, **ESTIMATE, usage=use_thirty))
            return len(settled), await read_left_async(limiter)

    assert asyncio.run(run()) == (1, 970)


def test_p6_an_endpoint_may_settle_and_the_middleware_does_not_settle_again(open_limiter, open_client, url):
    async def settle(scope, receive, send):
        await scope["state"]["reservation"].settle(Usage(output_tokens=50))
        await answer(scope, receive, send)

    assert run_with(open_limiter, settle, options={"usage": use_thirty}) == (950, 2, None)
    assert open_client(url).xlen("rl1:usage") == 1


def test_the_reservation_ends_before_background_tasks_which_may_settle_later(open_limiter):
    async def run():
        async with open_limiter(*METERED) as limiter:
            seen = []

            async def settle_later(reservation):
                seen.append(await read_left_async(limiter, "parallel"))
                await reservation.settle(Usage(output_tokens=40))

            async def endpoint(request):
                task = BackgroundTask(settle_later, request.state.reservation)
                return PlainTextResponse("done", background=task)

            app = Starlette(routes=[Route("/", endpoint)])
            app.add_middleware(RateLimitMiddleware, limiter=limiter, **ESTIMATE)
            async with open_browser(app) as browser:
                assert (await browser.get("/")).status_code == 200
            return seen, await read_left_async(limiter)

    assert asyncio.run(run()) == ([2], 960)


def test_ten_thousand_chunks_pass_one_by_one_as_they_come(open_limiter):
    async def run():
        async with open_limiter(*METERED) as limiter:
            produced, lead = 0, []

            async def chunks():
                nonlocal produced
                for number in range(10_000):
                    produced = number + 1
                    yield b"%04d" % number

            read = []

            def use(answer):
                read.append(answer.body)
                return {"output_tokens": 30}

            received = []

            async def send(message):
                received.append(message)
                lead.append(produced - (len(received) - 1))

            options = {**ESTIMATE, "usage": use, "body_tail": 6}
            middleware = RateLimitMiddleware(StreamingResponse(chunks()), limiter, **options)
            scope = {"type": "http", "path": "/", "headers": [], "asgi": {"spec_version": "2.4"}}
            await middleware(scope, None, send)
            return received, max(lead), read, await read_left_async(limiter)

    received, lead, read, left = asyncio.run(run())
    assert [message.get("body") for message in received[1:-1]] == [b"%04d" % n for n in range(10_000)]
    assert lead == 0  # each chunk was sent before the next one was made
    assert (read, left) == ([b"989999"], 970)


def test_a_denied_reservation_is_a_problem_and_keeps_nothing(open_limiter):
    async def run():
        async with open_limiter(*METERED) as limiter:
            middleware = RateLimitMiddleware(
                answer, limiter, key=find_key, cost={"tokens": 1001}, reserve=True
            )
            status = (await play(middleware))[0]["status"]
            return status, await read_left_async(limiter), await read_left_async(limiter, "parallel")

    assert asyncio.run(run()) == (429, 1000, 2)


def test_a_settlement_that_the_store_does_not_answer_changes_no_answer(open_limiter, monkeypatch, caplog):
    async def run():
        async with open_limiter(*METERED) as limiter:

            async def refuse(*_, **__):
                raise StoreUnavailable("no answer")

            monkeypatch.setattr(limiter, "settle", refuse)
            return await play(RateLimitMiddleware(answer, limiter, **ESTIMATE, usage=use_thirty))

    assert [message["type"] for message in asyncio.run(run())] == [START["type"], *["http.response.body"] * 2]
    assert "no answer" in caplog.text


FAILURES = Limit("failures", "2/365d", unit="failures")


async def end_without_an_answer(scope, receive, send):
    pass


async def read_and_fail(scope, receive, send):
    """Fail as Starlette does when the client goes away while the body is read."""
    await receive()
    raise ValueError


@pytest.mark.parametrize(
    ("app", "received", "charged", "status"),
    [
        (fail_at_once, (), 1, 500),
        (fail_halfway, (), 0, 200),
        (read_and_fail, [{"type": "http.disconnect"}], 0, None),
        (end_without_an_answer, (), 0, None),
    ],
)
def test_p7_an_error_before_the_answer_counts_as_a_500(open_limiter, app, received, charged, status):
    seen = []

    def read(answer):
        seen.append((answer.status, answer.complete))
        return Usage()

    async def run():
        async with open_limiter(*METERED, FAILURES) as limiter:
            with contextlib.suppress(ValueError):
                middleware = RateLimitMiddleware(app, limiter, **ESTIMATE, usage=read)
                await play(middleware, received=received)
            return await read_left_async(limiter, "failures")

    assert asyncio.run(run()) == 2 - charged
    assert seen == [(status, False)]


def test_headers_that_can_be_read_once_are_sent_all_the_same(open_limiter):
    async def run():
        async def answer_with_iterator(scope, receive, send):
            await send({**START, "headers": iter(START["headers"])})
            await send({"type": "http.response.body", "body": b"a"})

        async with open_limiter(*METERED) as limiter:
            return await play(RateLimitMiddleware(answer_with_iterator, limiter, **ESTIMATE))

    start, _ = asyncio.run(run())
    names = [name for name, _ in start["headers"]]
    assert names[: len(START["headers"])] == [name for name, _ in START["headers"]]
    assert b"ratelimit" in names


@pytest.mark.parametrize(
    "last",
    [{"type": "http.response.pathsend", "path": "/x"}, {"type": "http.response.zerocopysend", "file": 3}],
)
def test_p7_a_file_that_the_server_sends_ends_the_answer(open_limiter, last):
    seen = []

    async def send_file(scope, receive, send):
        await send(START)
        await send(last)
        seen.append("after")

    def read(answer):
        seen.append(answer.complete)

    run_with(open_limiter, send_file, options={"usage": read})
    assert seen == [True, "after"]


def test_an_answer_that_ends_after_its_limiter_was_closed_is_sent_and_logged_as_unsettled(
    open_limiter, caplog
):
    limiter = open_limiter(*METERED)

    async def close_in_the_middle(scope, receive, send):
        await send(START)
        await limiter.close()
        await send({"type": "http.response.body", "body": b"b"})

    asyncio.run(play(RateLimitMiddleware(close_in_the_middle, limiter, **ESTIMATE, usage=use_thirty)))
    assert "its estimate stays charged: this limiter is closed" in caplog.text
