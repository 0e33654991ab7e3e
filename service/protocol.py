"""uvicorn's HTTP protocol, with one system call for each response instead of two."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class JoiningProtocol(HttpToolsProtocol):
    """uvicorn's protocol on a transport that sends the head and the body of a response together."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # asyncio allows any BaseTransport; uvicorn has this narrower type, too
        """Accept a connection."""
        super().connection_made(cast("asyncio.Transport", JoiningTransport(transport)))


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
