"""`python -m benchmarks.noop`: what the sidecar is held against, and what its framework alone costs.

A FastAPI endpoint that reads a check and answers with a decision as anyone would write it, but
decides nothing. Same server, same flags, same models as the sidecar.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from fastapi import FastAPI

from benchmarks.sidecar import ROOT, SidecarError
from ratelimit import Check, Decision
from ratelimit.decision.limit_state import LimitState
from service.cli.serve import UVICORN_OPTIONS, freeze_startup_objects

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH: Final = "/noop"
_ANSWER: Final = Decision(
    allowed=True,
    key="vk_ben…001",
    plan="one",
    model_class=None,
    timestamp=datetime(2026, 2, 20, 15, 30, tzinfo=UTC),
    clamped=False,
    retry_after=0.0,
    violated=(),
    reservation=None,
    source="store",
    limits=(
        LimitState(
            "requests", "requests", 1_000_000_000, 60.0, 1_000_000_000, 999_999_999, 1e-6, 0.0, "enforce"
        ),
    ),
)

app: Final = FastAPI()


@app.post(PATH)
async def noop(_: Check) -> Decision:
    """Answer every check alike."""
    return _ANSWER


@contextlib.contextmanager
def running() -> Iterator[tuple[str, int]]:
    """Serve it in a process of its own, and return its address.

    Raises:
        SidecarError: it did not start.
    """
    command = [sys.executable, "-m", "benchmarks.noop"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - it was asked for
            port = process.stdout.readline()
            if not port:
                raise SidecarError("the no-op server did not start")
            yield "127.0.0.1", int(port)
        finally:
            process.terminate()


def _main() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        freeze_startup_objects()
        options: dict[str, Any] = {**UVICORN_OPTIONS, "log_level": "warning"}
        uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[listener])


if __name__ == "__main__":
    _main()
