# Run it: uvicorn --app-dir examples/python fastapi_app:app --port 8000

import os

from fastapi import Depends, FastAPI

from ratelimit import AsyncLimiter, Policy
from ratelimit.fastapi import RESPONSES, rate_limit

policy = Policy.from_file("examples/policies/starter.yaml")
limiter = AsyncLimiter(os.environ.get("RATELIMIT_REDIS", "embedded://"), policy, deadline=1.0)
limit = rate_limit(limiter, key="X-Api-Key", pepper=os.environ["RATELIMIT_KEY_PEPPER"])
app = FastAPI(dependencies=[Depends(limit)], responses=RESPONSES)


@app.get("/")
async def hello() -> dict[str, str]:
    return {"hello": "world"}
