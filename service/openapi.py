"""What the OpenAPI document says about answers and parameters: problems, headers, and what a key may be.

Routes make their answers themselves, so FastAPI cannot know these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import FastAPI, Path, Query
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.staticfiles import StaticFiles

from ratelimit.web.openapi import LIMIT_HEADERS, RETRY_AFTER, Responses, describe_problem, make_header

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

ASSETS: Final = "/docs/assets"

_DESCRIPTIONS: Final = {
    400: "the body is not JSON, or a header was sent twice",
    401: "the token is missing or wrong",
    404: "there is no such thing; for operators also: no admin_token is set",
    413: "the body is over 64 KiB",
    422: "a field is wrong or not listed",
    503: "the store does not answer",
}


KEY_HEADERS: Final = {
    **LIMIT_HEADERS,
    "X-RateLimit-Key": make_header("the identifier of the key that was used"),
    "X-RateLimit-Reservation": make_header("the id of the reservation, if the check asked for one"),
}
WWW_AUTHENTICATE: Final = {
    "WWW-Authenticate": make_header("`Bearer`; absent if the gateway token is what is missing or wrong")
}

_HEADERS: Final[dict[int, dict[str, Any]]] = {401: WWW_AUTHENTICATE, 503: RETRY_AFTER}


def describe_problems(*statuses: int) -> Responses:
    """Return the descriptions of the usual problems with these statuses."""
    return {status: describe_problem(_DESCRIPTIONS[status], _HEADERS.get(status)) for status in statuses}


def _visible(length: int) -> str:
    return f"^[!-~]{{1,{length}}}$"


KeyPath = Annotated[str, Path(description="the API key's identifier", pattern=_visible(256))]
TenantPath = Annotated[str, Path(description="the account that owns keys", pattern=_visible(256))]
ReservationPath = Annotated[str, Path(description="the id of a reservation", pattern=_visible(512))]
PlanQuery = Annotated[str | None, Query(description="the plan to apply", pattern=_visible(64))]
ModelQuery = Annotated[str | None, Query(description="the model of the request", pattern=_visible(256))]
TenantQuery = Annotated[str | None, Query(description="the account that owns the key", pattern=_visible(256))]


def add_pages(app: FastAPI) -> None:
    """Add /docs and /redoc with assets of a package: the pages work in a network without other hosts."""
    app.mount(ASSETS, StaticFiles(packages=[("fastapi_offline", "static")]), name="docs-assets")

    async def show_docs(request: Request) -> Response:
        assets = _find_prefix(request) + ASSETS
        return get_swagger_ui_html(
            openapi_url=f"{_find_prefix(request)}/openapi.json",
            title=app.title,
            swagger_js_url=f"{assets}/swagger-ui-bundle.js",
            swagger_css_url=f"{assets}/swagger-ui.css",
            swagger_favicon_url=f"{assets}/favicon.png",
        )

    async def show_redoc(request: Request) -> Response:
        assets = _find_prefix(request) + ASSETS
        return get_redoc_html(
            openapi_url=f"{_find_prefix(request)}/openapi.json",
            title=app.title,
            redoc_js_url=f"{assets}/redoc.standalone.js",
            redoc_favicon_url=f"{assets}/favicon.png",
            with_google_fonts=False,
        )

    app.add_route("/docs", show_docs)
    app.add_route("/redoc", show_redoc)


def _find_prefix(request: Request) -> str:
    """Return the path under which another application has mounted this one; empty if none has."""
    return str(request.scope.get("root_path", "")).rstrip("/")
