"""`python -m benchmarks.apps NAME PORT URL`: a FastAPI endpoint, limited by NAME on the store at URL.

Every limiter is used as its documentation shows, and limits by the same header. None denies anything here.
"""

import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final

import redis.asyncio
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi_limiter.depends import RateLimiter
from pyrate_limiter.buckets.redis_bucket import LuaScript
from slowapi import Limiter as SlowLimiter
from slowapi import _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded

from benchmarks.contestants import CONNECTIONS, pyrate
from benchmarks.workload import Quota
from ratelimit import AsyncLimiter, Decision, Limit
from ratelimit.asgi import RateLimitMiddleware
from ratelimit.fastapi import rate_limit
from ratelimit.request.privacy import identifier_of

PATH: Final = "/models"
CPU: Final = "/cpu"
MODELS: Final = {"models": ["small", "large"]}
PER_MINUTE: Final = 1_000_000
_PEPPER: Final = "the pepper of the benchmark"
_HEADER: Final = "X-Api-Key"


def bare(_url: str) -> FastAPI:
    app = FastAPI()

    @app.get(PATH)
    async def list_models() -> dict[str, list[str]]:
        return MODELS

    return app


def middleware(url: str) -> FastAPI:
    app = bare(url)
    app.add_middleware(RateLimitMiddleware, limiter=_limiter(url), key=_HEADER, pepper=_PEPPER, exclude=[CPU])
    return app


def dependency(url: str) -> FastAPI:
    app, limiter = FastAPI(), _limiter(url)
    checked = Depends(rate_limit(limiter, key=_HEADER, pepper=_PEPPER))

    @app.get(PATH)
    async def list_models(_: Annotated[Decision, checked]) -> dict[str, list[str]]:
        return MODELS

    return app


def by_hand(url: str) -> FastAPI:
    app, limiter = FastAPI(), _limiter(url)

    @app.get(PATH)
    async def list_models(request: Request, response: Response) -> dict[str, list[str]]:
        decision = await limiter.check(identifier_of(request.headers[_HEADER], _PEPPER))
        if not decision:
            raise HTTPException(429, headers=decision.headers())
        response.headers.update(decision.headers())
        return MODELS

    return app


def slowapi(url: str) -> FastAPI:
    app = FastAPI()
    limiter = SlowLimiter(key_func=lambda request: request.headers[_HEADER], storage_uri=url)
    app.state.limiter = limiter
    handler: Any = _rate_limit_exceeded_handler
    app.add_exception_handler(RateLimitExceeded, handler)

    @app.get(PATH)
    @limiter.limit(f"{PER_MINUTE}/minute")
    async def list_models(request: Request) -> dict[str, list[str]]:  # noqa: ARG001 - slowapi needs it
        return MODELS

    return app


def fastapi_limiter(url: str) -> FastAPI:
    limiters: list[RateLimiter] = []

    @contextlib.asynccontextmanager
    async def start(_: FastAPI) -> AsyncIterator[None]:
        client: Any = redis.asyncio.Redis.from_url(url, max_connections=CONNECTIONS)
        quota = Quota("requests", PER_MINUTE, 60)
        sha = await client.script_load(LuaScript.PUT_ITEM)
        [limiter] = pyrate.make_limiters(client, [quota], "token-bucket", sha)
        limiters.append(RateLimiter(limiter, identifier=identify))
        yield

    async def identify(request: Request) -> str:
        return request.headers[_HEADER]

    async def check(request: Request, response: Response) -> None:
        await limiters[0](request, response)

    app = FastAPI(lifespan=start)

    @app.get(PATH, dependencies=[Depends(check)])
    async def list_models() -> dict[str, list[str]]:
        return MODELS

    return app


def _limiter(url: str) -> AsyncLimiter:
    # The deadline is long: a busy machine is not an outage.
    return AsyncLimiter(url, Limit("requests", f"{PER_MINUTE}/minute"), deadline=5)


APPS: Final[dict[str, Callable[[str], FastAPI]]] = {
    "bare": bare,
    "middleware": middleware,
    "dependency": dependency,
    "by hand": by_hand,
    "slowapi": slowapi,
    "fastapi-limiter": fastapi_limiter,
}

if __name__ == "__main__":
    _, name, port, url = sys.argv
    options: dict[str, Any] = {"loop": "uvloop", "http": "httptools", "access_log": False}
    app = APPS[name](url)

    @app.get(CPU)
    async def read_cpu() -> float:
        return time.process_time()

    uvicorn.run(app, port=int(port), log_level="warning", **options)
