"""WebSockets through the ASGI middleware: denied before they open, and their reservations."""

import asyncio
import contextlib

import pytest

from ratelimit import Limit
from ratelimit.asgi import RateLimitMiddleware

from .requests import METERED, find_key, play, read_left_async

CONNECT = {"type": "websocket.connect"}
SOCKET = {"type": "websocket", "received": [CONNECT]}
ONE = Limit("requests", "1/365d")


async def echo(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept", "headers": [(b"x-own", b"1")]})
    await send({"type": "websocket.send", "text": "hello"})
    await send({"type": "websocket.close", "code": 1000})


def connect_twice(open_limiter, **scope):
    """Connect twice where one connection is admitted; return what each was sent."""

    async def run():
        async with open_limiter(ONE) as limiter:
            middleware = RateLimitMiddleware(echo, limiter, key=find_key)
            return [await play(middleware, **SOCKET, **scope) for _ in range(2)]

    return asyncio.run(run())


def test_an_admitted_websocket_gets_the_headers_with_its_handshake(open_limiter):
    accepted = connect_twice(open_limiter)[0]
    assert [message["type"] for message in accepted] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]
    assert [name for name, _ in accepted[0]["headers"]] == [b"x-own", b"ratelimit-policy", b"ratelimit"]


def test_a_denied_websocket_is_closed_before_it_opens(open_limiter):
    assert connect_twice(open_limiter)[1] == [{"type": "websocket.close", "code": 1008, "reason": ""}]


def test_a_denied_websocket_gets_the_problem_where_the_server_can_send_one(open_limiter):
    start, body = connect_twice(open_limiter, extensions={"websocket.http.response": {}})[1]
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 429)
    assert b"quota-exceeded" in body["body"]


@pytest.mark.parametrize("fails", [False, True])
def test_the_reservation_of_a_websocket_ends_with_it(open_limiter, fails):
    seen = []

    def read(answer):
        seen.append((answer.status, answer.complete))
        return {"output_tokens": answer.request["state"]["used"]}

    async def run():
        async with open_limiter(*METERED) as limiter:

            async def talk(scope, receive, send):
                await echo(scope, receive, send)
                seen.append(await read_left_async(limiter, "parallel"))
                scope["state"]["used"] = 30
                if fails:
                    raise ValueError

            options = {"key": find_key, "cost": {"tokens": 100}, "reserve": True, "usage": read}
            with contextlib.suppress(ValueError):
                await play(RateLimitMiddleware(talk, limiter, **options), **SOCKET)
            return await read_left_async(limiter), await read_left_async(limiter, "parallel")

    assert asyncio.run(run()) == (970, 2)
    assert seen == [1, (None, not fails)]
