"""Mistakes that type checkers must find: each line that ends with `# wrong` and no other."""

from ratelimit import AsyncLimiter, Limit, Limiter, limited
from ratelimit.fastapi import rate_limit
from ratelimit.httpx import RateLimitTransport

limiter = Limiter("memory://", Limit("requests", "60/minute"))
async_limiter = AsyncLimiter("memory://", Limit("requests", "60/minute"))


@limited(limiter, key="user")
def greet(user: str) -> str:
    return user


greet(7)  # wrong
limiter.check("vk_9f3", cost=7)  # wrong
limiter.check("vk_9f3", modell="m")  # wrong
RateLimitTransport(async_limiter, key="k")  # wrong
RateLimitTransport(limiter, key="k", retries="two")  # wrong
rate_limit(pepper=7)  # wrong


async def use_asyncio() -> None:
    assert (await async_limiter.check("vk_9f3")).remaining  # wrong
