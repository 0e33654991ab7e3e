"""A store that a test may freeze, kill and start again, at the same port."""

import signal
import subprocess

import redis

from ..processes import find_free_port, wait_until
from ..store.servers import BINARIES


class OwnServer:
    """One server.

    Args:
        kind: `valkey` or `redis6`.
        folder: for its files.
        lines: of its configuration file.
        variables: of its environment.
    """

    def __init__(self, kind, folder, *lines, **variables):
        self.port = find_free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.client = redis.Redis(port=self.port, decode_responses=True)
        self.socket = folder / "s"
        configuration = folder / "server.conf"
        configuration.write_text(
            "\n".join(
                [f"port {self.port}", f"unixsocket {self.socket}", 'save ""', f"dir {folder}", *lines, ""]
            )
        )
        self._command = [BINARIES[kind](), str(configuration)]
        self._variables = variables or None
        self._process = None

    def start(self):
        """Start it, empty, and wait until it answers."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self._variables
        )
        wait_until(self._is_up)

    def _is_up(self):
        try:
            return self.client.ping()
        except redis.ConnectionError:
            return False

    def kill(self):
        """End it without a chance to write anything."""
        self._process.kill()
        self._process.wait()

    def freeze(self):
        """Let it keep its connections and answer nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self._process.send_signal(signal.SIGCONT)

    def close(self):
        self.client.close()
        if self._process is not None and self._process.poll() is None:
            self.kill()
