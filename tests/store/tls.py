"""A server with TLS in front of a store that has none."""

import asyncio
import contextlib
import threading


class TlsTerminator:
    """Accepts TLS connections and forwards what they carry to a server's Unix socket, without TLS.

    Attributes:
        connections: how many it has accepted.
        server_names: the names that clients have asked for (SNI), in order; None for none.
        port: where it listens, on 127.0.0.1.
    """

    def __init__(self, server_path, context):
        self._server_path, self._context = server_path, context
        self.connections = 0
        self.server_names = []
        context.sni_callback = lambda _, name, __: self.server_names.append(name)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start_server(), self._loop).result(10)

    async def _start_server(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer):
        self.connections += 1
        writers = [writer]
        try:
            # Not with `start_server(ssl=…)`: that would not report a handshake that fails.
            with contextlib.suppress(OSError):
                await writer.start_tls(self._context)
                server_reader, server_writer = await asyncio.open_unix_connection(self._server_path)
                writers.append(server_writer)
                await asyncio.gather(
                    self._forward(reader, server_writer), self._forward(server_reader, writer)
                )
        finally:
            for opened in writers:
                opened.transport.abort()

    async def _forward(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def _end_connections(self):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(4):  # transports close in a later iteration of the event loop
            await asyncio.sleep(0)

    @contextlib.contextmanager
    def freeze(self):
        is_released = threading.Event()
        self._loop.call_soon_threadsafe(is_released.wait, 60)
        try:
            yield
        finally:
            is_released.set()

    def end_connections(self):
        """End all connections."""
        asyncio.run_coroutine_threadsafe(self._end_connections(), self._loop).result(10)

    def close(self):
        self._loop.call_soon_threadsafe(self._server.close)
        self.end_connections()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
