"""`python -m benchmarks.noop PORT`: a FastAPI endpoint, written in the usual way, that decides nothing.

It has the server, the flags and the models of the sidecar, so it shows what the framework alone costs.
"""

import sys
from typing import Final

import uvicorn
from fastapi import FastAPI

from ratelimit import Check, Decision, Limit, Limiter
from service.cli.serve import UVICORN_OPTIONS, freeze_startup_objects

PATH: Final = "/noop"
with Limiter("memory://", Limit("requests", "1000000000/minute")) as limiter:
    _ANSWER: Final = limiter.check("vk_bench_0000001")

app: Final = FastAPI()


@app.post(PATH)
async def noop(_: Check) -> Decision:
    return _ANSWER


if __name__ == "__main__":
    freeze_startup_objects()
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", **UVICORN_OPTIONS)
