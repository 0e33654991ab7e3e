"""The sidecar as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

try:
    from fastapi import FastAPI
except ModuleNotFoundError as error:
    advice = "fastapi is missing: pip install 'ratelimit-sidecar[service]'"
    raise ModuleNotFoundError(advice, name=error.name) from None
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ratelimit import AsyncLimiter, __version__
from ratelimit.history import HistoryRecorder
from ratelimit.observers.activity import Activity
from ratelimit.observers.denial_log import DenialLog
from ratelimit.web import openapi as web
from service import assignments, monitoring, openapi, problems, reload, rls, tracing
from service.drain import drain_on_sigterm
from service.fast_path import AuthorizeEndpoint, FastPathAPI
from service.metrics import SidecarMetrics
from service.routes import check, health, metrics, operators, settle
from service.settings import Settings
from service.sidecar import Sidecar, choose_pepper
from service.tracing import TracedAPI

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make the sidecar.

    Args:
        settings: the settings; without them, those of the environment (`RATELIMIT_*`).

    Raises:
        PolicyError: the policy file is not valid.
        pydantic.ValidationError: a setting is wrong or missing.
    """
    settings = settings or Settings()
    policy = reload.load_initial_policy(settings.policy, settings.last_policy)
    spans = tracing.set_up()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastPathAPI) -> AsyncIterator[None]:
        with contextlib.ExitStack() as files:
            recorders = [files.enter_context(HistoryRecorder(settings.history))] if settings.history else []
            counted, denial_log, activity = SidecarMetrics(), DenialLog(), Activity()
            limiter = AsyncLimiter(
                settings.store_url,
                policy,
                max_skew=settings.max_skew,
                deadline=settings.deadline,
                remember=settings.remember,
                usage_length=settings.usage_length,
                usage_age=settings.usage_age,
                observers=[counted, activity, denial_log, *spans, *recorders],
            )
            sidecar = Sidecar(
                limiter, settings, choose_pepper(settings), counted, denial_log, activity, app.drain
            )
            app.sidecar = sidecar
            async with (
                limiter,
                reload.watch_policy(sidecar),
                assignments.watch_assignments(limiter),
                monitoring.run_monitoring(sidecar),
                _run_rls(sidecar),
                drain_on_sigterm(app.drain, settings.drain),
            ):
                yield
        if spans:
            await asyncio.to_thread(tracing.flush)

    app = (TracedAPI if spans else FastPathAPI)(
        title="ratelimit",
        version=__version__,
        summary="Decides for gateways whether a request passes.",
        docs_url=None,
        redoc_url=None,
        # FastAPI's own spans have the whole path and query, which may hold a key or a secret of the client.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        lifespan=lifespan,
    )
    problems.install_handlers(app)
    openapi.add_pages(app)
    for path in ("/v1/authorize", "/v1/authorize/{rest:path}"):
        app.router.routes.append(Route(path, AuthorizeEndpoint()))
    for method in _METHODS:
        app.add_api_route(
            "/v1/authorize",
            _document_authorize,
            methods=[method],
            name="authorize",
            operation_id=f"authorize_{method.lower()}",
            summary="Check one request by its headers",
            tags=["checks"],
            response_class=Response,
            responses=_AUTHORIZE_RESPONSES,
        )
    app.include_router(check.router)
    app.include_router(settle.router)
    app.include_router(operators.router)
    app.include_router(health.router)
    app.include_router(metrics.router)
    return app


def _run_rls(sidecar: Sidecar) -> contextlib.AbstractAsyncContextManager[None]:
    """Serve Envoy's rate-limit service beside HTTP, unless it is off or not installed."""
    if sidecar.settings.grpc_port == 0 or not rls.is_installed():
        return contextlib.nullcontext()
    from service.rls.server import run_server  # noqa: PLC0415 - needs an extra

    return run_server(sidecar)


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
"""The methods that OpenAPI can name. `/v1/authorize` answers any other method, too."""

_DENIAL_HEADERS = openapi.KEY_HEADERS | web.RETRY_AFTER
_AUTHORIZE_RESPONSES: web.Responses = {
    200: {"description": "allowed; the body is empty", "headers": openapi.KEY_HEADERS},
    401: web.describe_problem(
        "the gateway token is missing or wrong, the policy denies the key, or denied with `?deny_status=401`",
        _DENIAL_HEADERS | openapi.WWW_AUTHENTICATE,
    ),
    403: web.describe_problem("denied, with `?deny_status=403`", _DENIAL_HEADERS),
    429: web.describe_problem("denied", _DENIAL_HEADERS),
    503: web.describe_problem("denied because the store does not answer", _DENIAL_HEADERS),
    **openapi.describe_problems(400, 422),
}


async def _document_authorize(_: Request) -> Response:
    """Check one request by its headers. Any method and any path below this one work, too.

    The key is `X-RateLimit-Key`, else the hash of a secret (`Authorization: Bearer` or `X-Api-Key`),
    else the client's address on the plan `anonymous`. `X-RateLimit-Plan`, `-Model`, `-Tenant` and
    `-Timestamp` are the fields of a check, and `X-RateLimit-Cost: tokens=512` is its cost.
    `X-RateLimit-Reserve: ?1` makes a reservation. A check with `X-RateLimit-Request-Id` can be repeated.
    `?deny_status=403` is for gateways that do not understand 429.
    """
    raise AssertionError("this route exists only for /docs: the route before it answers every request")
