# Run it: flask --app examples/python/flask_app run --port 8000

import os

from flask import Flask, request

from ratelimit import Limiter, Policy
from ratelimit.wsgi import RateLimitMiddleware

policy = Policy.from_file("examples/policies/starter.yaml")
limiter = Limiter(os.environ.get("RATELIMIT_REDIS", "embedded://"), policy, deadline=1.0)
pepper = os.environ["RATELIMIT_KEY_PEPPER"]

app = Flask(__name__)
app.wsgi_app = RateLimitMiddleware(app.wsgi_app, limiter, key="X-Api-Key", pepper=pepper, exclude=["/health"])


@app.get("/")
def hello() -> dict[str, int]:
    return {"remaining": request.environ["ratelimit.decision"].limits[0].remaining}


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}
