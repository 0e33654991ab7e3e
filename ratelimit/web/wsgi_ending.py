"""Passes the answer of a WSGI application on, and ends the reservation of its request, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratelimit.errors import RateLimitError
from ratelimit.web.answer import Answer, BodyTail, log_unsettled, read_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse

    from ratelimit.limiters.reservation import Reservation
    from ratelimit.web.rules import MiddlewareRules

    Environ = dict[str, Any]


class Ending:
    """Ends the reservation of a request, once."""

    def __init__(self, rules: MiddlewareRules[Environ], reservation: Reservation, environ: Environ) -> None:
        self._rules, self._reservation = rules, reservation
        self._answer = Answer(environ)
        self._tail = BodyTail(rules.body_tail)
        self._is_sent = self._ended = False

    def watch(self, start_response: StartResponse) -> StartResponse:
        """Return a `start_response` that notes the status and the headers."""

        def start(
            status: str,
            headers: list[tuple[str, str]],
            exc_info: Any = None,  # noqa: ANN401 - of the interface
            /,
        ) -> Callable[[bytes], object]:
            self._answer.status = int(status[:3])
            self._answer.headers = {name.lower(): value for name, value in headers}
            write = start_response(status, headers, exc_info)

            def write_and_keep(chunk: bytes) -> object:
                self.add(chunk)
                return write(chunk)

            return write_and_keep

        return start

    def add(self, chunk: bytes) -> None:
        """Note a chunk that is sent."""
        self._is_sent |= bool(chunk)
        self._tail.add(chunk)

    def end(self, error: BaseException | None = None, *, complete: bool = False) -> None:
        """Settle what was used and free the slots, unless that was done before.

        Args:
            error: what the application raised.
            complete: whether the whole answer was sent.
        """
        if self._ended:
            return
        self._ended = True
        if isinstance(error, Exception) and not self._is_sent:
            self._answer.status = 500  # which the server answers
        self._answer.complete, self._answer.body = complete, self._tail.read()
        usage = read_usage(self._rules.usage, self._answer)
        try:
            if usage is not None:
                self._reservation.settle(usage)
        except RateLimitError as unsettled:
            log_unsettled(unsettled)
        self._reservation.__exit__()  # frees the slots, unless the reservation has been settled


class Chunks:
    """The chunks of an answer, as they come; the reservation ends with them."""

    def __init__(self, chunks: Iterable[bytes], ending: Ending) -> None:
        self._chunks, self._ending = chunks, ending

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._chunks:
                self._ending.add(chunk)
                yield chunk
        except Exception as error:  # what stops the process is no failure of the application
            self._ending.end(error)
            raise
        self._ending.end(complete=True)

    def close(self) -> None:
        """Close the chunks of the application, as PEP 3333 says; the answer ends here at the latest."""
        try:
            close = getattr(self._chunks, "close", None)
            if close is not None:
                close()
        finally:
            self._ending.end()
