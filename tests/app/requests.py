"""Policies and requests of these tests."""

import httpx

from ratelimit import Limit, Policy

PEPPER = "the pepper of the tests"
SECRET = {"X-Api-Key": "sk-test"}
KEYED = {"key": "X-Api-Key", "pepper": PEPPER}
THREE = Limit("requests", "3/365d")
"""Three requests; nothing is refilled during a test."""
METERED = (
    Limit("tokens", "1000/365d", unit="tokens"),
    Limit("parallel", unit="concurrent", capacity=2, ttl="10m"),
)
WITH_ANONYMOUS = Policy.from_text("""
default_plan: free
plans:
  free: {limits: {requests: {rate: 3/365d}}}
  anonymous: {limits: {requests: {rate: 1/365d}}}
""")


def find_key(request):
    """Return the key of a scope or of an environ, of all tests that look at a key's limits."""
    return "vk_test"


def read_left(limits, name="tokens", key="vk_test"):
    """Return what remains of a limit, from the limits that `peek` gives."""
    return next(state.remaining for state in limits.peek(key).limits if state.name == name)


async def read_left_async(limiter, name="tokens", key="vk_test"):
    """Do the same in asyncio."""
    return next(state.remaining for state in (await limiter.peek(key)).limits if state.name == name)


def open_browser(app, address="203.0.113.7"):
    """Return an HTTP client of an ASGI application."""
    transport = httpx.ASGITransport(app, client=(address, 4711), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://api.test")


async def play(app, *, client=None, state=None, received=(), fail_at=None, **scope):
    """Run an ASGI application by itself; return what it sent.

    Args:
        received: the messages that it receives; after these it waits for ever.
        fail_at: the index of a message that cannot be sent, as to a client that has gone away.
    """
    sent, waiting = [], list(received) or [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        return waiting.pop(0)

    async def send(message):
        if len(sent) == fail_at:
            raise OSError("the client went away")
        sent.append(message)

    base = {"type": "http", "path": "/", "method": "GET", "headers": [], "query_string": b""}
    await app({**base, "client": client, "state": {} if state is None else state, **scope}, receive, send)
    return sent
