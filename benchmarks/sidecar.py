"""A sidecar of its own process, as an operator would run it, for as long as a `with` lasts."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parent.parent
_PATIENCE: Final = 30.0
_POLL: Final = 0.02


class SidecarError(RuntimeError):
    """The sidecar did not start."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A running sidecar.

    Attributes:
        host: where it listens.
        port: likewise.
        pid: its process.
    """

    host: str
    port: int
    pid: int


@contextlib.contextmanager
def running(policy: Path, **settings: str) -> Iterator[Sidecar]:
    """Start a sidecar on a free port, wait until it is ready, and stop it at the end.

    Args:
        policy: the policy file.
        settings: flags of `ratelimit serve`, such as `max_skew="none"`; `redis` is a real
            embedded server unless given.

    Raises:
        SidecarError: it ended, or was not ready within half a minute; with what it logged.
    """
    flags = {"redis": "embedded://", "port": "0", "log_format": "json", "policy": str(policy), **settings}
    command = [sys.executable, "-m", "service", "serve"]
    for name, value in flags.items():
        command += [f"--{name.replace('_', '-')}", value]
    # The settings of the caller's own sidecar must not leak into the one that is measured.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RATELIMIT_")}
    with (
        tempfile.NamedTemporaryFile(prefix="sidecar-", suffix=".log") as log,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            yield _when_ready(process, Path(log.name))
        finally:
            _stop(process)


def _when_ready(process: subprocess.Popen[bytes], log: Path) -> Sidecar:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and process.poll() is None:
        address = _address(log)
        if address is not None and _ready(*address):
            return Sidecar(*address, process.pid)
        time.sleep(_POLL)
    outcome = "was not ready in time" if process.poll() is None else f"ended with {process.returncode}"
    raise SidecarError(f"the sidecar {outcome}; it said:\n{log.read_text(errors='replace')[-2000:]}")


def _address(log: Path) -> tuple[str, int] | None:
    """Return where the sidecar says that it listens."""
    for line in log.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):  # not every line is JSON, and the last may be half written
            url = urlsplit(json.loads(line).get("address", ""))
            if url.hostname and url.port:
                return url.hostname, url.port
    return None


def _ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
