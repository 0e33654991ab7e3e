"""The sidecar as an ASGI application."""

from __future__ import annotations

import contextlib
from importlib import metadata
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ratelimit import AsyncLimiter
from service import assignments, problems, reload
from service.fast_path import AUTHORIZE, ShortcutAPI
from service.routes import check, health, operators, settle
from service.settings import Settings
from service.sidecar import Sidecar, pepper_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make the sidecar.

    Args:
        settings: what to serve; read from `RATELIMIT_*` in the environment unless given.

    Raises:
        PolicyError: the policy file cannot be run.
        pydantic.ValidationError: a setting is wrong or missing.
    """
    settings = settings or Settings()
    policy = reload.first(settings.policy, settings.last_policy)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        limiter = AsyncLimiter(
            settings.redis,
            policy,
            max_skew=settings.max_skew,
            deadline=settings.deadline,
            remember=settings.remember,
        )
        app.state.sidecar = Sidecar(limiter, settings, pepper_of(settings))
        async with (
            limiter,
            reload.follow(settings.policy, limiter, settings.last_policy),
            assignments.follow(limiter),
        ):
            yield

    app = ShortcutAPI(
        title="ratelimit",
        version=metadata.version("ratelimit-sidecar"),
        summary="Asked by gateways before they forward a request.",
        lifespan=lifespan,
    )
    problems.install(app)
    for path in ("/v1/authorize", "/v1/authorize/{rest:path}"):
        app.router.routes.append(Route(path, AUTHORIZE))
    app.add_api_route("/v1/authorize", _authorize, tags=["checks"], responses=_AUTHORIZE_RESPONSES)
    app.include_router(check.router)
    app.include_router(settle.router)
    app.include_router(operators.router)
    app.include_router(health.router)
    return app


_AUTHORIZE_RESPONSES: dict[int | str, dict[str, str]] = {
    200: {"description": "allowed; RateLimit headers and X-RateLimit-Key, no body"},
    429: {"description": "denied; a problem, with Retry-After"},
    503: {"description": "denied because the store does not answer"},
}


async def _authorize(_: Request) -> Response:
    """Ask by headers alone, with any method and any path below this one.

    `X-RateLimit-Key`, else `Authorization: Bearer` or `X-Api-Key` (a secret, hashed), else the
    anonymous plan on the client's address; `X-RateLimit-Plan`, `-Model`, `-Tenant`, `-Timestamp`;
    `X-RateLimit-Cost: tokens=512`; `X-RateLimit-Request-Id` makes it repeatable.
    `?deny_status=403` for gateways that know no 429.
    """
    raise AssertionError("shown in /docs only: the route before this one answers")
