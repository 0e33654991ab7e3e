"""An HTTP server that records requests and sends the answer that a test sets.

It takes the place of an API, or of the sidecar.
"""

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


@dataclass(frozen=True)
class RecordedRequest:
    method: str
    path: str
    headers: httpx.Headers
    body: bytes
    client_port: int


class RecordingServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # gateways keep connections open after a test

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _RecordingHandler)
        self.requests: list[RecordedRequest] = []
        self.set_answer(200)

    def set_answer(self, status, headers=None, body=b""):
        """Set the answer to every request; a body that is not bytes is iterated and sent chunk by chunk."""
        self.answer = status, headers or {}, body

    @property
    def port(self):
        return self.server_address[1]

    def handle_error(self, request, client_address):
        """Print nothing: some tests make gateways close the connection on a slow answer."""


class _RecordingHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for each answer: a delayed acknowledgement would look like a slow sidecar
    disable_nagle_algorithm = True

    def do_GET(self):
        request = RecordedRequest(
            self.command,
            self.path,
            httpx.Headers(self.headers.items()),
            self._read_body(),
            self.client_address[1],
        )
        self.server.requests.append(request)
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if isinstance(body, bytes):
            self._send_whole(body)
        else:
            self._send_chunks(body)

    do_HEAD = do_POST = do_GET  # noqa: N815 - the names that http.server calls

    def _read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send_whole(self, body):
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_chunks(self, chunks):
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *args):
        pass


@contextmanager
def run_recording_server():
    """Run a recording server until the end of the block."""
    with RecordingServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
