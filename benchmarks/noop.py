"""`python -m benchmarks.noop PORT`: what the sidecar is compared with, and what its framework alone costs.

A FastAPI endpoint that reads a check and answers with a decision as anyone would write it, but
decides nothing. Same server, same flags, same models as the sidecar.
"""

import socket
import sys
from datetime import UTC, datetime
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from ratelimit import Check, Decision, LimitState
from service.cli.serve import UVICORN_OPTIONS, freeze_startup_objects

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


def _main(port: int) -> None:
    with socket.create_server(("127.0.0.1", port), backlog=2048) as listener:
        freeze_startup_objects()
        options: dict[str, Any] = {**UVICORN_OPTIONS, "log_level": "warning"}
        uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[listener])


if __name__ == "__main__":
    _main(int(sys.argv[1]))
