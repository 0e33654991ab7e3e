"""A small HTTP client for many requests: keep-alive connections, each with one request under way."""

import asyncio
import json
import time

_END = b"\r\n\r\n"


class Connection:
    """One connection to a sidecar. It is opened again if the sidecar closes it."""

    def __init__(self, port):
        self._port = port
        self._reader = self._writer = None

    async def request(self, method, path, fields=None, headers=None):
        """Send a request; return its status, its JSON body (None if it has none) and the seconds it took."""
        body = b"" if fields is None else json.dumps(fields).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: sidecar", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if self._writer is None or self._writer.is_closing():
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        started = time.perf_counter()
        self._writer.write("\r\n".join(lines).encode() + _END + body)
        head = (await self._reader.readuntil(_END)).lower()
        length = head.find(b"content-length:")
        size = 0 if length < 0 else int(head[length + 15 : head.index(b"\r\n", length)])
        text = await self._reader.readexactly(size)
        seconds = time.perf_counter() - started
        return int(head[9:12]), json.loads(text) if text else None, seconds

    def close(self):
        if self._writer is not None:
            self._writer.close()
