"""uvicorn's HTTP protocol, with one system call for each response instead of two, and with bounds.

uvicorn takes a head of any size, and counts the trailers that may follow a chunked body as headers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from http import HTTPStatus
from typing import Any, Final, cast

from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ratelimit.web.problems import MEDIA_TYPE

FIRST_REQUEST_WAIT: Final = 0.25
"""Seconds for which a connection without a request stays open when the server stops."""

MAX_HEAD: Final = 2 * 1024 * 1024
"""Bytes of a request's line and headers, not counting those that arrived together with its first byte.

More than any gateway passes on by default (Traefik's 1 MiB is the most): to a gateway, a connection that ends
while it is still sending would look like a sidecar that has failed.
"""


class _NoTrailers(list[tuple[bytes, bytes]]):
    """Takes the trailers of a request and keeps none: they are no headers (RFC 9110, section 6.5.1)."""

    def append(self, trailer: tuple[bytes, bytes]) -> None:
        """Keep nothing."""


_NO_TRAILERS: Final = _NoTrailers()


class JoiningProtocol(HttpToolsProtocol):
    """uvicorn's protocol on a transport that sends the head and the body of a response together."""

    _is_closing_late = False
    _is_reading_head = False
    _head_size = 0

    def data_received(self, data: bytes) -> None:
        """Read what has arrived. A head that has no end is refused before it takes much memory."""
        was_reading_head = self._is_reading_head
        super().data_received(data)
        if was_reading_head and self._is_reading_head:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD:
                self._refuse(431, f"the headers are over {MAX_HEAD // 1024 // 1024} MiB")

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._is_reading_head, self._head_size = True, 0

    def on_headers_complete(self) -> None:
        """Start to answer a request. Trailers that follow its body are not added to its headers."""
        self._is_reading_head = False
        super().on_headers_complete()
        self.headers = _NO_TRAILERS

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and close the connection."""
        self._refuse(400, msg)

    def _refuse(self, status: int, detail: str) -> None:
        title = HTTPStatus(status).phrase
        body = to_json({"type": "about:blank", "title": title, "status": status, "detail": detail})
        head = f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # asyncio allows any BaseTransport; uvicorn has this narrower type, too
        """Accept a connection."""
        super().connection_made(cast("asyncio.Transport", JoiningTransport(transport)))

    def shutdown(self) -> None:
        """Close the connection when it is idle. A request that has arrived on it is answered first.

        A new connection may have its first request under way, so it is closed a little later.
        """
        has_had_request = cast("object", self.cycle) is not None
        if not has_had_request and not self._is_closing_late:
            self._is_closing_late = True
            self.loop.call_later(FIRST_REQUEST_WAIT, self.shutdown)
        elif not self.transport.is_closing() and not _has_unread_bytes(self.transport):
            super().shutdown()


def _has_unread_bytes(transport: asyncio.Transport) -> bool:
    """Whether bytes have arrived that the event loop has not read yet."""
    descriptor = os.dup(transport.get_extra_info("socket").fileno())
    with contextlib.suppress(OSError), socket.socket(fileno=descriptor) as peer:
        return bool(peer.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    return False


class JoiningTransport:
    """A transport that holds the first piece of data until the second one, or until the loop's next turn.

    uvicorn writes the head of a response and then its body. Two separate calls of the system would take a
    tenth of the time of a check.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held: bytes | None = None

    def write(self, data: bytes) -> None:
        """Send data: with what is held already, or on the loop's next turn at the latest."""
        if self._held is None:
            self._held = data
            self._loop.call_soon(self._send_held)
        else:
            held, self._held = self._held, None
            self._transport.write(held + data)

    def close(self) -> None:
        """Send what is held, and close."""
        self._send_held()
        self._transport.close()

    def _send_held(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self._transport.write(held)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - attributes of the transport have any type
        return getattr(self._transport, name)
