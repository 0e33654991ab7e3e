"""`python -m benchmarks.noop PORT`: a FastAPI endpoint, written in the usual way, that decides nothing.

It has the server, the flags and the models of the sidecar, so it shows what the framework alone costs.
"""

import sys
from datetime import UTC, datetime
from typing import Final

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
    limits=(LimitState("requests", "requests", 10**9, 60.0, 10**9, 10**9 - 1, 1e-6, 0.0, "enforce"),),
)

app: Final = FastAPI()


@app.post(PATH)
async def noop(_: Check) -> Decision:
    return _ANSWER


if __name__ == "__main__":
    freeze_startup_objects()
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", **UVICORN_OPTIONS)
