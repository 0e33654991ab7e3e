"""Mistakes that type checkers must find: each line that ends with `# wrong` and no other."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from ratelimit import AsyncLimiter, Limit, Limiter, limited
from ratelimit.asgi import RateLimitMiddleware as AsgiMiddleware
from ratelimit.fastapi import rate_limit
from ratelimit.httpx import RateLimitTransport
from ratelimit.wsgi import RateLimitMiddleware as WsgiMiddleware

limiter = Limiter("memory://", Limit("requests", "60/minute"))
async_limiter = AsyncLimiter("memory://", Limit("requests", "60/minute"))


@limited(limiter, key="user")
def greet(user: str) -> str:
    return user


async def find_key(request: Request) -> str | None:
    return request.headers.get("x-key")


def count_letters(text: str) -> str:
    return str(len(text))


async def find_plan_later(request: Mapping[str, Any]) -> str | None:
    return str(request["plan"])


async def estimate_later(request: Mapping[str, Any]) -> dict[str, float]:
    return {"tokens": len(request)}


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    return [str(environ).encode(), str(start_response).encode()]


greet(7)  # wrong
limiter.check("vk_9f3", cost=7)  # wrong
limiter.check("vk_9f3", modell="m")  # wrong
RateLimitTransport(async_limiter, key="k")  # wrong
RateLimitTransport(limiter, key="k", retries="two")  # wrong
rate_limit(pepper=7)  # wrong
rate_limit(key=find_key)  # wrong
rate_limit(cost=find_key)  # wrong
rate_limit(plan=count_letters)  # wrong
WsgiMiddleware(wsgi, limiter, plan=find_plan_later)  # wrong
AsgiMiddleware(asgi, async_limiter, model=find_plan_later)  # wrong
AsgiMiddleware(asgi, async_limiter, cost=estimate_later)  # wrong


async def use_asyncio() -> None:
    assert (await async_limiter.check("vk_9f3")).remaining  # wrong
