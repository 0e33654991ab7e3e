"""A client for one sidecar after another, which notices every answer that is missing."""

import asyncio
import contextlib
import json

LIMIT = 20.0
"""Seconds after which a request counts as hung: far more than any deadline."""


class Connection:
    """A connection to one of several sidecars; to the next one if it breaks.

    Args:
        ports: the sidecars' ports, read for each new connection.
        number: which of them to start with.
    """

    def __init__(self, ports, number=0):
        self._ports, self._number = ports, number
        self._reader = self._writer = None

    async def ask(self, method, path, document=None, **headers):
        """Send a request and return the status and the body.

        Raises:
            ConnectionError: the sidecar closed the connection, or there is none.
            TimeoutError: no answer came.
        """
        body = b"" if document is None else json.dumps(document).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: sidecar", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            async with asyncio.timeout(LIMIT):
                if self._writer is None:
                    port = self._ports[self._number % len(self._ports)]
                    self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
                self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
                return await self._read_answer()
        except (OSError, EOFError, TimeoutError) as error:
            self.close()
            self._number += 1
            if isinstance(error, TimeoutError):
                raise
            raise ConnectionError(str(error)) from error

    async def _read_answer(self):
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(head[9:12])
        _, has_body, rest = head.partition("content-length:")
        body = await self._reader.readexactly(int(rest.partition("\r\n")[0])) if has_body else b""
        return status, body

    def close(self):
        if self._writer is not None:
            with contextlib.suppress(Exception):
                self._writer.close()
        self._reader = self._writer = None
