"""A load of checks over keep-alive connections that counts every answer, and how each connection ended."""

import asyncio
import json
from collections import Counter


class Load:
    """Sends checks over many connections, as a gateway does: to the next sidecar when one is gone.

    Attributes:
        answers: how many complete answers there were, by status.
        lost: requests on a connection that had been used before, and ended without an answer.
        unaccepted: requests on a new connection that ended without an answer, because nobody had accepted it.
            They are sent again.
        refused: connections that could not be made.
    """

    def __init__(self, *ports, connections=32, requests=20_000):
        self._ports = ports
        self._connections = connections
        self._left = requests
        self.answers = Counter()
        self.lost = self.unaccepted = self.refused = 0

    @property
    def sent(self):
        """How many requests have been answered so far."""
        return sum(self.answers.values())

    async def run(self):
        """Send everything; returns when all connections are done, or no sidecar is left."""
        await asyncio.gather(*(self._use_connections(number) for number in range(self._connections)))

    async def _use_connections(self, number):
        """Open a connection, and another one when it ends."""
        ports = list(self._ports)
        while self._left > 0 and ports:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
            except OSError:
                self.refused += 1
                del ports[0]
                continue
            try:
                await self._use_connection(reader, writer, number)
            finally:
                writer.close()

    async def _use_connection(self, reader, writer, number):
        is_new = True
        body = json.dumps({"key": f"vk_load_{number}"}).encode()
        head = f"POST /v1/check HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        while self._left > 0:
            self._left -= 1
            try:
                writer.write(head + body)
                status, closes = await _read_answer(reader)
            except (OSError, asyncio.IncompleteReadError):
                self.lost += not is_new
                self.unaccepted += is_new
                self._left += is_new
                return
            self.answers[status] += 1
            is_new = False
            if closes:
                return


async def _read_answer(reader):
    """Return the status of an answer, and whether its connection is closed after it."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    await reader.readexactly(int(headers["content-length"]))
    return int(head.split()[1]), headers.get("connection") == "close"
