"""Log lines for people (`console`) or for programs (`json`), those of the sidecar and of uvicorn alike."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING, Literal

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor


def configure(log_format: Literal["console", "json"]) -> None:
    """Write every log line to standard error, in one format."""
    common: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace_ids,
    ]
    structlog.configure(
        processors=[*common, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer: list[Processor] = (
        [_name_as_opentelemetry, structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [
            _escape_unprintable,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    # An access log would repeat every path that a gateway forwards, and the gateway has its own log.
    logging.getLogger("uvicorn.access").disabled = True
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def _add_trace_ids(_: object, __: str, line: EventDict) -> EventDict:
    """Add the ids of the current span to a log line, if there is one."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line["trace_id"] = trace.format_trace_id(context.trace_id)
            line["span_id"] = trace.format_span_id(context.span_id)
    return line


def _escape_unprintable(_: object, __: str, line: EventDict) -> EventDict:
    """Escape what would end a line or change what a terminal shows, such as a name in a policy."""
    return {name: _escape(value) if isinstance(value, str) else value for name, value in line.items()}


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def _name_as_opentelemetry(_: object, __: str, line: EventDict) -> EventDict:
    """Name the members of a line as OpenTelemetry does.

    The names are those of its log data model (`timestamp`, `severity_text`, `body`) and of its semantic
    conventions for exceptions. A traceback never shows the values of variables, which may be keys or secrets.
    """
    named: EventDict = {
        "timestamp": line.pop("timestamp"),
        "severity_text": line.pop("level").upper(),
        "body": line.pop("event"),
    }
    if exc_info := line.pop("exc_info", None):
        error = _find_exception(exc_info)
        if error is not None:
            named["exception.type"] = type(error).__qualname__
            named["exception.message"] = str(error)
            named["exception.stacktrace"] = "".join(traceback.format_exception(error))
    return {**named, **line}


def _find_exception(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    return exc_info[1] if isinstance(exc_info, tuple) else sys.exc_info()[1]
