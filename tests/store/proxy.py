"""A proxy between a client and a server that can lose, rewrite, delay or cut what passes."""

import contextlib
import socket
import threading


class Proxy:
    """Forwards everything in both directions, unless it is set to lose or rewrite replies.

    Attributes:
        is_dropping_replies: scripts still reach the server and run, but their replies are dropped.
        is_closing_connections: with `is_dropping_replies`, the connection is closed in place of the reply.
        script_count: how many scripts clients have sent.
        rewrite_reply: what to send instead of the bytes of a reply; they are sent as they are unless a test
            sets it.
        send_request: sends bytes to the server; a test may set another way. `OSError` ends the connection.
        send_reply: the same for bytes to the client.
        url: the URL at which the proxy listens.
    """

    def __init__(self, server_path):
        self.is_dropping_replies = False
        self.is_closing_connections = False
        self.script_count = 0
        self.rewrite_reply = lambda data: data
        self.send_request = self.send_reply = lambda opened, data: opened.sendall(data)
        self._server_path = server_path
        self._sockets = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept_clients)]
        self._threads[0].start()

    def _accept_clients(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server_path)
            self._sockets += [client, server]
            reply_is_lost = threading.Event()
            for target, *arguments in (
                (self._forward_requests, client, server, reply_is_lost),
                (self._forward_replies, server, client, reply_is_lost),
            ):
                thread = threading.Thread(target=target, args=arguments)
                self._threads.append(thread)
                thread.start()

    def _forward_requests(self, client, server, reply_is_lost):
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                scripts = data.count(b"\r\nEVAL")
                self.script_count += scripts
                if scripts and self.is_dropping_replies:
                    reply_is_lost.set()
                self.send_request(server, data)
        _shut_down(server)

    def _forward_replies(self, server, client, reply_is_lost):
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                if not reply_is_lost.is_set():
                    self.send_reply(client, self.rewrite_reply(data))
                elif self.is_closing_connections:
                    break
        _shut_down(client)

    def close(self):
        for opened in [self._listener, *self._sockets]:
            _shut_down(opened)
            opened.close()
        for thread in self._threads:
            thread.join(timeout=10)


def _shut_down(opened):
    with contextlib.suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
