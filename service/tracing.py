"""Traces by OpenTelemetry, if its SDK is installed and configured. Otherwise nothing of it is imported."""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

import structlog

from service.fast_path import FastPathAPI

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from ratelimit import Observer

log = structlog.get_logger("ratelimit")

_SETTINGS: Final = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)
"""Each of these environment variables turns traces on."""

_OTLP_EXPORTERS: Final = {
    "http/json": "otlp_json_http",
    "http/protobuf": "otlp_proto_http",
    "grpc": "otlp_proto_grpc",
}
"""The entry points of the exporters for `otlp`, by protocol. Only the first is in the extra `tracing`."""

_UNTRACED: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that are asked every few seconds."""

_ROUTES: Final = (
    ("/v1/authorize", "/v1/authorize"),
    ("/v1/keys/", "/v1/keys/{key}"),
    ("/v1/tenants/", "/v1/tenants/{tenant}"),
    ("/v1/reservations/", "/v1/reservations/{reservation}"),
)
"""The beginning of a path, and what a span shows of it. What follows may be a key, or be the client's."""

_SHOWN_PATHS: Final = frozenset(
    {"/v1/check", "/v1/check/batch", "/v1/settle", "/v1/policy", "/docs", "/redoc", "/openapi.json"}
)
_SHOWN_HEADERS: Final = frozenset({b"traceparent", b"tracestate", b"host", b"user-agent", b"content-length"})


def set_up() -> list[Observer]:
    """Return the observer that makes spans, or none where traces are off.

    Traces are on if a tracer provider has been set, by `opentelemetry-instrument` or by the program that
    mounts the application; or if the environment configures an exporter, which is then set up here.
    """
    if _is_disabled() or not (_has_provider() or _configure_provider()):
        return []
    from ratelimit.observers.tracing import Tracing  # noqa: PLC0415 - imports OpenTelemetry

    return [Tracing()]


def _is_disabled() -> bool:
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return is_off or os.environ.get("OTEL_TRACES_EXPORTER") == "none"


def _has_provider() -> bool:
    trace = sys.modules.get("opentelemetry.trace")
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _configure_provider() -> bool:
    """Set up the SDK as the environment says; return whether that was done."""
    if not any(os.environ.get(name) for name in _SETTINGS):
        return False
    try:
        _set_provider()
    except ModuleNotFoundError as error:
        advice = "pip install 'ratelimit-sidecar[tracing]'"
        log.error("traces are off: a package is missing", package=error.name, advice=advice)  # noqa: TRY400
        return False
    except Exception as error:  # noqa: BLE001 - exporters are plugins, which may raise anything
        reason = str(error)
        log.error("traces are off: they cannot be set up as configured", reason=reason)  # noqa: TRY400
        return False
    return True


def _set_provider() -> None:
    """Set a tracer provider with the exporters of the environment. The SDK reads all other settings."""
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.trace import set_tracer_provider  # noqa: PLC0415

    os.environ.setdefault("OTEL_SERVICE_NAME", "ratelimit")
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    packaged = {"otlp": _OTLP_EXPORTERS.get(protocol, protocol)}
    provider = TracerProvider()
    for name in (os.environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        entry = packaged.get(name.strip(), name.strip())
        exporters = [*entry_points(group="opentelemetry_traces_exporter", name=entry)]
        if not exporters:
            raise ValueError(
                f"OTEL_TRACES_EXPORTER: there is no exporter {name.strip()}; install its package"
            )
        provider.add_span_processor(BatchSpanProcessor(exporters[0].load()()))
    set_tracer_provider(provider)


def flush() -> None:
    """Send the spans that have not been sent yet. It may take seconds."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None and hasattr(provider := trace.get_tracer_provider(), "force_flush"):
        provider.force_flush()


class TracedAPI(FastPathAPI):
    """The application with a server span for each request, also on the fast path.

    OpenTelemetry's middleware sees a copy of each request without its secrets: no query, few headers, and of
    the path only its route.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - those of FastAPI
        super().__init__(**options)
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware  # noqa: PLC0415 - an extra

        async def serve(shown: Scope, receive: Receive, send: Send) -> None:
            await FastPathAPI.__call__(self, shown[_ORIGINAL], receive, send)

        self._traced: ASGIApp = OpenTelemetryMiddleware(
            serve, default_span_details=_name_span, exclude_spans=["receive", "send"]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, in a span."""
        if scope["type"] != "http" or scope["path"] in _UNTRACED:
            await super().__call__(scope, receive, send)
        else:
            await self._traced(_hide_secrets(scope), receive, send)


_ORIGINAL: Final = "ratelimit.scope"


def _hide_secrets(scope: Scope) -> Scope:
    route = _find_route(scope["path"])
    headers = [(name, value) for name, value in scope["headers"] if name in _SHOWN_HEADERS]
    hidden = {"path": route, "raw_path": route.encode(), "query_string": b"", "headers": headers}
    return {**scope, **hidden, _ORIGINAL: scope}


def _find_route(path: str) -> str:
    if path in _SHOWN_PATHS:
        return path
    return next((route for start, route in _ROUTES if path.startswith(start)), "/{path}")


def _name_span(scope: Scope) -> tuple[str, dict[str, str]]:
    return f"{scope['method']} {scope['path']}", {"http.route": scope["path"]}
