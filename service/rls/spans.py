"""The server span of a call of the rate-limit service, if traces are on."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_SERVICE: Final = "envoy.service.ratelimit.v3.RateLimitService"
_METHOD: Final = "ShouldRateLimit"

# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
_ATTRIBUTES: Final = {"rpc.system": "grpc", "rpc.service": _SERVICE, "rpc.method": _METHOD}
_CONTEXT_KEYS: Final = frozenset({"traceparent", "tracestate"})
_NO_SPAN: Final = contextlib.nullcontext()


def start_span(
    metadata: Iterable[tuple[str, str | bytes]] | None,
) -> contextlib.AbstractContextManager[Any]:
    """Return a context with a span that continues the trace of the caller; without traces an empty one.

    Args:
        metadata: of the call. Only the context of the trace is taken from it.
    """
    if "ratelimit.observers.tracing" not in sys.modules:  # service/tracing.py imports it if traces are on
        return _NO_SPAN
    from opentelemetry import propagate, trace  # noqa: PLC0415 - an extra

    carrier = {name: value for name, value in metadata or () if name in _CONTEXT_KEYS}
    return trace.get_tracer("ratelimit").start_as_current_span(
        f"{_SERVICE}/{_METHOD}",
        context=propagate.extract(carrier),
        kind=trace.SpanKind.SERVER,
        attributes=_ATTRIBUTES,
        record_exception=False,
    )
