"""A proxy between a client and a server that can keep answers to itself."""

import contextlib
import socket
import threading


class Proxy:
    """Passes everything on; while `swallowing`, scripts run but their replies never arrive.

    While `dropping` too: in place of the reply, the connection ends.
    """

    def __init__(self, upstream):
        self.swallowing = False
        self.dropping = False
        self.scripts = 0
        self._upstream = upstream
        self._sockets = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._upstream)
            self._sockets += [client, server]
            muted = threading.Event()
            for source, target in ((client, server), (server, client)):
                thread = threading.Thread(target=self._pass, args=(source, target, source is client, muted))
                self._threads.append(thread)
                thread.start()

    def _pass(self, source, target, from_client, muted):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if from_client:
                    scripts = data.count(b"\r\nEVAL")
                    self.scripts += scripts
                    if scripts and self.swallowing:
                        muted.set()
                elif muted.is_set():
                    if self.dropping:
                        break
                    continue
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def close(self):
        for one in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(timeout=10)
