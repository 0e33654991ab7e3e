"""What the OpenAPI document says about answers and parameters: problems, headers, and what a key may be.

Routes make their answers themselves, so FastAPI cannot know these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import FastAPI, Path, Query
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.staticfiles import StaticFiles

from service.problems import MEDIA_TYPE

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

ASSETS: Final = "/docs/assets"

Responses = dict[int | str, dict[str, Any]]

_PROBLEM: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "RFC 9457; other members say more about the type",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "errors": {
            "description": "every wrong field",
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "detail"],
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "violated-policies": {
            "description": "the limits that denied the check",
            "type": "array",
            "items": {"type": "string"},
        },
    },
}

_DESCRIPTIONS: Final = {
    400: "the body is not JSON, or a header was sent twice",
    401: "the token is missing or wrong",
    404: "there is no such thing; for operators also: no admin_token is set",
    413: "the body is over 64 KiB",
    422: "a field is wrong or not listed",
    503: "the store does not answer",
}


def _header(description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"description": description, "schema": schema or {"type": "string"}}


LIMIT_HEADERS: Final = {
    "RateLimit": _header("what remains of each limit: `r` units, and `t` seconds until it is full"),
    "RateLimit-Policy": _header("each limit: `q` units in `w` seconds, and the unit `qu`"),
}
KEY_HEADERS: Final = {
    **LIMIT_HEADERS,
    "X-RateLimit-Key": _header("the identifier of the key that was used"),
    "X-RateLimit-Reservation": _header("the id of the reservation, if the check asked for one"),
}
RETRY_AFTER: Final = {
    "Retry-After": _header("whole seconds to wait; absent if waiting does not help", {"type": "integer"})
}
WWW_AUTHENTICATE: Final = {
    "WWW-Authenticate": _header("`Bearer`; absent if the gateway token is what is missing or wrong")
}

_HEADERS: Final[dict[int, dict[str, Any]]] = {401: WWW_AUTHENTICATE, 503: RETRY_AFTER}


def describe_problem(description: str, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the OpenAPI description of an answer that is a problem."""
    described = {"description": description, "content": {MEDIA_TYPE: {"schema": _PROBLEM}}}
    return {**described, "headers": headers} if headers else described


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
