"""What a request with a reservation was answered, and the usage record that follows from it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from ratelimit.request.usage import Usage, make_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

R = TypeVar("R")

_log: Final = logging.getLogger("ratelimit")


@dataclass(slots=True)
class Answer(Generic[R]):
    """What a request with a reservation was answered: what the option `usage` is called with.

    Attributes:
        request: the ASGI scope, or the WSGI environ. What the endpoint has stored there can be read here.
        status: the HTTP status; None if there was no answer, and for a WebSocket.
        headers: the headers of the answer, by lower-case name.
        body: the last bytes of the body, as many as the option `body_tail` says.
        complete: whether the whole answer was sent: false after an error, or if the client went away.
    """

    request: R
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False


class BodyTail:
    """The last bytes of a body that passes in chunks.

    Args:
        size: how many bytes to keep.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept = bytearray()

    def add(self, chunk: bytes) -> None:
        """Take a chunk."""
        if self._size:
            self._kept += chunk[-self._size :]
            if len(self._kept) > 2 * self._size:
                del self._kept[: -self._size]

    def read(self) -> bytes:
        """Return the last bytes."""
        return bytes(self._kept[-self._size :]) if self._size else b""


def read_usage(
    read: Callable[[Answer[R]], Usage | Mapping[str, Any] | None] | None, answer: Answer[R]
) -> Usage | None:
    """Return the usage record of an answer; None if it is not known, and the estimate stays charged.

    A record without a status gets that of the answer. An error in `read` is logged, and nothing else: the
    client has its answer already.
    """
    if read is None:
        return None
    try:
        found = read(answer)
        if found is None:
            return None
        usage = make_usage(found, {})
    except Exception:  # noqa: BLE001 - it is logged
        _log.exception("the usage of a request could not be read, so its estimate stays charged")
        return None
    if usage.status is None and answer.status is not None:
        return usage.model_copy(update={"status": answer.status})
    return usage


def log_unsettled(error: Exception) -> None:
    """Log why a reservation was not settled. Its estimate stays charged."""
    _log.warning("a request was not settled, so its estimate stays charged: %s", error)
