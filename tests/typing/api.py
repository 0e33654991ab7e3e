"""The public API as a typed program uses it. Type checkers read this file; nobody runs it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, assert_type

import httpx
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.requests import HTTPConnection
from flask import Flask

from ratelimit import (
    AsyncLimiter,
    AsyncReservation,
    Decision,
    Limit,
    Limiter,
    Policy,
    RateLimited,
    Reservation,
    Settlement,
    Usage,
    limited,
)
from ratelimit.asgi import RateLimitMiddleware
from ratelimit.fastapi import RESPONSES, rate_limit
from ratelimit.httpx import AsyncRateLimitTransport, RateLimitTransport
from ratelimit.wsgi import RateLimitMiddleware as WsgiMiddleware

limiter = Limiter("memory://", Limit("requests", "60/minute", burst=20))
async_limiter = AsyncLimiter("memory://", Policy.from_file("policy.yaml"), deadline=0.1)


def use_threads() -> None:
    decision = limiter.check("vk_9f3", plan="pro", model="qwen3-4b", cost={"tokens": 850}, request_id="r1")
    assert_type(decision, Decision)
    assert_type(decision.retry_after, float | None)
    assert_type(decision.headers(["ietf", "openai"]), dict[str, str])
    assert_type(limiter.check_many(["vk_9f3", {"key": "vk_c21"}]), list[Decision])
    assert_type(limiter.acquire("vk_9f3", timeout=5), Decision)
    with limiter.reserve("vk_9f3", cost={"tokens": 2000}) as reservation:
        assert_type(reservation, Reservation)
        assert_type(reservation.settle(Usage(input_tokens=310, output_tokens=502)), Settlement | None)
    try:
        limiter.acquire("vk_9f3")
    except RateLimited as denied:
        assert_type(denied.decision, Decision)


async def use_asyncio() -> None:
    assert_type(await async_limiter.check("vk_9f3", reserve=True), Decision)
    async with async_limiter.reserve("vk_9f3") as reservation:
        assert_type(reservation, AsyncReservation)
        assert_type(await reservation.settle(Usage(status=200)), Settlement | None)


@limited(limiter, key="user", cost={"tokens": 3}, timeout=5)
def greet(user: str, *, loud: bool = False) -> str:
    return user.upper() if loud else user


def find_user(number: int) -> str:
    return f"user-{number}"


@limited(async_limiter, key=find_user)
async def double(number: int) -> int:
    return 2 * number


@limited(limiter, key="user")
def count(user: str) -> Iterator[int]:
    yield len(user)


@limited(async_limiter, key=find_user)
async def stream(number: int) -> AsyncIterator[str]:
    yield str(number)


async def use_decorated() -> None:
    assert_type(list(count("ada")), list[int])
    assert_type([item async for item in stream(4)], list[str])
    assert_type(greet("ada", loud=True), str)
    assert_type(await double(4), int)
    same: Callable[[int], Awaitable[int]] = double
    _ = same


async def estimate(request: Request) -> dict[str, float]:
    return {"tokens": len(await request.body()) / 4}


async def find_cost(request: Request) -> dict[str, float] | None:
    return await estimate(request) if request.method == "POST" else None


def find_cost_of_socket(socket: WebSocket) -> dict[str, int]:
    return {"requests": len(socket.headers)}


async def find_plan(request: HTTPConnection) -> str | None:
    return request.headers.get("x-plan")


async def find_model(request: Request) -> str:
    return str(await request.json())


def find_tenant(request: HTTPConnection) -> str:
    return str(request.path_params["tenant"])


app = FastAPI(responses=RESPONSES)
app.add_middleware(
    RateLimitMiddleware,
    limiter=async_limiter,
    key="X-Api-Key",
    pepper="secret",
    exclude=["/healthz"],
    reserve=True,
    usage=lambda answer: Usage(output_tokens=int(answer.headers["x-tokens"]), status=answer.status),
)
check_request = rate_limit(key="X-Api-Key", pepper="secret", cost=estimate)
Checked = Annotated[Decision, Depends(check_request)]
rate_limit(key="X-Api-Key", cost=find_cost, plan=find_plan, model=find_model, tenant=find_tenant)
rate_limit(async_limiter, key=find_tenant, cost=find_cost_of_socket, plan=find_plan, tenant=find_plan)
rate_limit(key=lambda request: request.headers.get("x-key"), cost={"tokens": 1}, plan="pro", model=find_plan)


@app.get("/models")
async def list_models(decision: Checked) -> int:
    return decision.limits[0].remaining


flask = Flask(__name__)
flask.wsgi_app = WsgiMiddleware(  # type: ignore[method-assign]
    flask.wsgi_app, limiter, key=lambda environ: str(environ["REMOTE_USER"]), dialects=("openai",)
)
client = httpx.Client(transport=RateLimitTransport(limiter, key="api.example.com", retries=3))
async_client = httpx.AsyncClient(transport=AsyncRateLimitTransport(async_limiter, key=lambda r: r.url.host))
