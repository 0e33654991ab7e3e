# Run it: uvicorn --app-dir examples/python starlette_app:app --port 8000

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ratelimit import AsyncLimiter, Policy
from ratelimit.asgi import RateLimitMiddleware

policy = Policy.from_file("examples/policies/starter.yaml")
limiter = AsyncLimiter(os.environ.get("RATELIMIT_REDIS", "embedded://"), policy, deadline=1.0)


async def hello(request: Request) -> JSONResponse:
    return JSONResponse({"remaining": request.state.rate_limit.limits[0].remaining})


async def health(_: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


rate_limit = Middleware(
    RateLimitMiddleware,
    limiter=limiter,
    key="X-Api-Key",
    pepper=os.environ["RATELIMIT_KEY_PEPPER"],
    exclude=["/health"],
)
app = Starlette(routes=[Route("/", hello), Route("/health", health)], middleware=[rate_limit])
