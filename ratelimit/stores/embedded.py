"""A private Valkey server for `embedded://`. It needs no root, no Docker and no installation.

A supervisor (`supervisor.py`), a small process of its own, starts the server. Its only task is to stop the
server when this process has ended. The operating system closes the supervisor's standard input however this
process ends, so no server is left behind. And Ctrl-C does not reach the server before this process has
answered its last request.

All limiters of one process that name the same folder share one server. If another process already runs a
server for the folder, the limiters connect to that server and no second one is started.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ratelimit.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_SOCKET_PATH: Final = 100
"""Bytes. Paths of Unix sockets are limited to 104 bytes on macOS and 108 on Linux."""

_lock = threading.Lock()
_running: dict[str, _Server] = {}
"""The servers in use, by data folder; the server without one has the empty name."""


@dataclass(slots=True)
class _Server:
    """A running server.

    Attributes:
        socket: its Unix socket.
        supervisor: the process that stops it; None if another process has started the server.
        users: how many limiters of this process use it.
    """

    socket: Path
    supervisor: subprocess.Popen[bytes] | None
    users: int = 0


def acquire(path: str) -> Path:
    """Return the socket of the server for a data folder. Start the server if it does not run.

    Args:
        path: the folder that keeps the data; empty for a server whose data is deleted at the end.

    Raises:
        StoreUnavailable: the server does not start.
    """
    name = _find_name(path)
    with _lock:
        server = _running.get(name)
        if server is None:
            server = _running[name] = _start_server(name, Path(name or tempfile.mkdtemp(prefix="ratelimit-")))
        elif not _is_listening(server.socket):  # It was killed, or stopped by the process that started it.
            server.supervisor = _start_server(name, server.socket.parent).supervisor
        server.users += 1
        return server.socket


def release(path: str) -> None:
    """End one use that `acquire` began. The last use stops the server if this process started it."""
    name = _find_name(path)
    with _lock:
        server = _running[name]
        server.users -= 1
        if server.users:
            return
        del _running[name]
    if server.supervisor is not None and server.supervisor.stdin is not None:
        server.supervisor.stdin.close()
        server.supervisor.wait(timeout=10)


def _find_name(path: str) -> str:
    return str(Path(path).expanduser().resolve()) if path else ""


def _start_server(name: str, folder: Path) -> _Server:
    address = folder / "valkey.sock"
    if len(os.fsencode(address)) > _MAX_SOCKET_PATH:
        raise StoreUnavailable(
            f"embedded://{folder}: the path is too long for a Unix socket: with /valkey.sock at most"
            f" {_MAX_SOCKET_PATH} bytes are allowed"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock_folder(folder):
            if _is_listening(address):
                return _Server(address, None)
            return _Server(address, _start_supervisor(folder, keep_data=bool(name)))
    except OSError as error:
        raise StoreUnavailable(f"embedded://{folder}: {error.strerror or error}") from None


def _start_supervisor(folder: Path, *, keep_data: bool) -> subprocess.Popen[bytes]:
    supervisor = subprocess.Popen(  # noqa: S603 - runs a module of this package
        [sys.executable, "-m", "ratelimit.stores.supervisor", str(folder), "keep" if keep_data else "forget"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert supervisor.stdout is not None  # noqa: S101 - for mypy: `stdout=PIPE` sets it
    with supervisor.stdout:
        line = supervisor.stdout.readline().decode().strip()
    if line != "ready":
        supervisor.communicate()
        raise StoreUnavailable(f"embedded://{folder}: {line or 'the server did not start'}")
    return supervisor


@contextlib.contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from starting a server for the folder at the same time."""
    with (folder / "starting.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_listening(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(address))
        except OSError:
            return False
        return True
