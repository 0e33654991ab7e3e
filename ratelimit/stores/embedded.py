"""A private Valkey server for `embedded://`: no root, no Docker, nothing to install.

The server is started by a keeper (keeper.py), a small process of its own whose only task
is to stop the server when we are gone. The operating system closes the keeper's standard
input however we end, so no server is ever left behind; and a Ctrl-C meant for us
does not reach the server before we have answered our last request.

All limiters of one process that name the same folder share one server. A folder
whose server already runs, started by another process, is joined, not started again.
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

_LONGEST_SOCKET: Final = 100
"""Unix socket paths are limited to 104 bytes on macOS and 108 on Linux."""

_lock = threading.Lock()
_running: dict[str, _Server] = {}


@dataclass(slots=True)
class _Server:
    socket: Path
    keeper: subprocess.Popen[bytes] | None
    users: int = 0


def acquire(path: str) -> Path:
    """Return the socket of the server for a data folder, starting it if need be.

    Args:
        path: the folder that keeps the data; empty for a server that forgets at the end.

    Raises:
        StoreUnavailable: the server does not start here.
    """
    name = str(Path(path).expanduser().resolve()) if path else ""
    with _lock:
        server = _running.get(name)
        if server is None:
            server = _running[name] = _start(name, Path(name or tempfile.mkdtemp(prefix="ratelimit-")))
        elif not _answers(server.socket):  # killed, or gone with the process that had started it
            server.keeper = _start(name, server.socket.parent).keeper
        server.users += 1
        return server.socket


def release(path: str) -> None:
    """Give back what `acquire` gave; the last one out stops a server that was started here."""
    name = str(Path(path).expanduser().resolve()) if path else ""
    with _lock:
        server = _running[name]
        server.users -= 1
        if server.users:
            return
        del _running[name]
    if server.keeper is not None and server.keeper.stdin is not None:
        server.keeper.stdin.close()
        server.keeper.wait(timeout=10)


def _start(name: str, folder: Path) -> _Server:
    address = folder / "valkey.sock"
    if len(os.fsencode(address)) > _LONGEST_SOCKET:
        raise StoreUnavailable(
            f"embedded://{folder}: the path is too long for a socket; choose a shorter one"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if _answers(address):
                return _Server(address, None)
            return _Server(address, _spawn(folder, keep=bool(name)))
    except OSError as error:
        raise StoreUnavailable(f"embedded://{folder}: {error.strerror or error}") from None


def _spawn(folder: Path, *, keep: bool) -> subprocess.Popen[bytes]:
    keeper = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "ratelimit.stores.supervisor", str(folder), "keep" if keep else "forget"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert keeper.stdout is not None  # noqa: S101 - it was asked for above
    with keeper.stdout:
        said = keeper.stdout.readline().decode().strip()
    if said != "ready":
        keeper.communicate()
        raise StoreUnavailable(f"embedded://{folder}: {said or 'the server did not start'}")
    return keeper


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "starting.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _answers(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(address))
        except OSError:
            return False
        return True
