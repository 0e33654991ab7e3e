"""OpenTelemetry spans for checks and settlements, in the traces of the requests that they belong to.

The names are those of OpenTelemetry's semantic conventions 1.37 where these have one: `db.*` for the call to
the store, `gen_ai.*` for models and tokens. The others begin with `ratelimit.`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ratelimit.observers.observer import Observer
from ratelimit.request.privacy import mask

try:
    from opentelemetry.trace import SpanKind, get_current_span, get_tracer
except ModuleNotFoundError as error:
    advice = "opentelemetry is missing: pip install 'ratelimit-sidecar[tracing]'"
    raise ModuleNotFoundError(advice, name=error.name) from None

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import TracerProvider

    from ratelimit.decision.decision import Decision
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.observers.observer import End

_Attributes = dict[str, str | int | float | bool | list[str]]


class Tracing(Observer):
    """Makes a span for each check and each settlement, below the current span.

    Where the current trace is not sampled, this costs the look at the current span and nothing else.

    Args:
        provider: makes the spans; None for the global provider.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = get_tracer("ratelimit", tracer_provider=provider)

    def note_decision(self, check: ResolvedCheck, decision: Decision, started: int, call_size: int) -> None:
        """Make the span of a check; see `Observer.note_decision`."""
        if not _is_wanted():
            return
        attributes: _Attributes = {
            "ratelimit.result": _name_result(decision),
            "ratelimit.source": decision.source,
            "ratelimit.key": mask(check.subject.key),
            "ratelimit.plan": check.subject.plan,
        }
        if check.subject.model_class is not None:
            attributes["ratelimit.model_class"] = check.subject.model_class
        if check.model is not None:
            attributes["gen_ai.request.model"] = check.model
        if not decision.allowed:
            attributes["ratelimit.limit"] = [*decision.violated]
            if decision.retry_after is not None:
                attributes["ratelimit.retry_after"] = decision.retry_after
        if call_size:
            attributes["db.system.name"] = "redis"
            attributes["db.operation.batch.size"] = call_size
        kind = SpanKind.CLIENT if call_size else SpanKind.INTERNAL
        self._make_span("ratelimit check", kind, attributes, started)

    def note_end(self, end: End) -> None:
        """Make the span of a settlement or a cancellation; see `Observer.note_end`."""
        if not _is_wanted():
            return
        attributes: _Attributes = {
            "ratelimit.outcome": end.outcome,
            "ratelimit.key": mask(end.key),
            "ratelimit.plan": end.plan,
            "db.system.name": "redis",
        }
        if end.model is not None:
            attributes["gen_ai.response.model"] = end.model
        if end.usage is not None:
            for name in ("input_tokens", "output_tokens"):
                if (tokens := getattr(end.usage, name)) is not None:
                    attributes[f"gen_ai.usage.{name}"] = tokens
            if end.usage.status is not None:
                attributes["http.response.status_code"] = end.usage.status
        name = "ratelimit cancel" if end.usage is None else "ratelimit settle"
        self._make_span(name, SpanKind.CLIENT, attributes, end.started)

    def _make_span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, str | int | float | bool | list[str]],
        started: int,
    ) -> None:
        """Make a span that began at `started` (monotonic nanoseconds) and ends now."""
        now = time.time_ns()
        start_time = now - (time.monotonic_ns() - started)
        self._tracer.start_span(name, kind=kind, attributes=attributes, start_time=start_time).end(now)


def _is_wanted() -> bool:
    """Whether the current trace is recorded, or there is none and a new one may begin."""
    span = get_current_span()
    return span.is_recording() or not span.get_span_context().is_valid


def _name_result(decision: Decision) -> str:
    if decision.allowed:
        return "allowed"
    return "unavailable" if decision.is_unavailable else "denied"
