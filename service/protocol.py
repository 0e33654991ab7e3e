"""HTTP as uvicorn speaks it, with one call of the system for each answer instead of two."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Protocol(HttpToolsProtocol):
    """uvicorn's own, on a transport that waits a moment with the head of an answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # narrower than asyncio has it, as is uvicorn's own
        """Take a connection."""
        super().connection_made(cast("asyncio.Transport", Joined(transport)))


class Joined:
    """A transport that holds what is written first until the next piece, or the loop's next turn.

    uvicorn writes the head of an answer and then its body, and each would leave by itself: a tenth of the
    time that a check takes.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held: bytes | None = None

    def write(self, data: bytes) -> None:
        """Send something, soon."""
        if self._held is None:
            self._held = data
            self._loop.call_soon(self._leave)
        else:
            held, self._held = self._held, None
            self._transport.write(held + data)

    def close(self) -> None:
        """Send what is held, and close."""
        self._leave()
        self._transport.close()

    def _leave(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self._transport.write(held)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the transport has
        return getattr(self._transport, name)
