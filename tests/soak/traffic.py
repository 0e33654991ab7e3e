"""What the clients of a soak do: a mix of every call, at a fixed rate or as fast as they can."""

import asyncio
import itertools
import random
import time
from collections import Counter

from .client import Connection

ADMIN_TOKEN = "soak-admin"
KEYS = 2_000
CONNECTIONS = 16
ALLOWED = {200, 204, 404, 429}
"""Statuses that an answer may have. 404: a reservation that is cancelled when it is no longer remembered."""
UNAVAILABLE = 503
NEEDS_STORE = {"settle", "cancel", "assign", "show"}
"""Calls that answer 503 if the store does not answer, and can be repeated. `on_outage` decides checks."""

_ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
_MIX = [
    ("check", 50),
    ("repeat", 8),
    ("reserve", 16),
    ("settle", 12),
    ("cancel", 3),
    ("authorize", 6),
    ("show", 3),
    ("assign", 2),
]
_ACTIONS = [action for action, _ in _MIX]
_WEIGHTS = list(itertools.accumulate(weight for _, weight in _MIX))
_MOST_OPEN = 50


class Traffic:
    """Clients that use one sidecar.

    Attributes:
        latencies: seconds to each answer since they were last taken.
        statuses: how often each call got each status.
        unexpected: what was answered otherwise than it may be, with the time.
    """

    def __init__(self, port, seed=1):
        self._port = port
        self._chance = random.Random(seed)
        self.latencies = []
        self.statuses = Counter()
        self.unexpected = []

    async def touch_keys(self):
        """Check every key once, so that whatever is kept for each key is there."""
        connection = Connection(self._port)
        for number in range(KEYS):
            await connection.request("POST", "/v1/check", {"key": _make_key(number)})
        connection.close()

    async def run(self, seconds, rate=None):
        """Send requests for some seconds; return how many were answered a second.

        Args:
            seconds: how long.
            rate: requests a second, on a schedule; None for as many as can be.
        """
        started = time.perf_counter()
        numbers = itertools.count()
        clients = [self._use(numbers, started, seconds, rate) for _ in range(CONNECTIONS)]
        before = sum(self.statuses.values())
        await asyncio.gather(*clients)
        return (sum(self.statuses.values()) - before) / (time.perf_counter() - started)

    async def _use(self, numbers, started, seconds, rate):
        connection, held = Connection(self._port), []
        try:
            for number in numbers:
                due = started + number / rate if rate else time.perf_counter()
                if due > started + seconds:
                    return
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                await self._act(connection, held)
        finally:
            connection.close()

    async def _act(self, connection, held):
        """Do one thing, chosen at random."""
        [action] = self._chance.choices(_ACTIONS, cum_weights=_WEIGHTS)
        if action in {"settle", "cancel"} and not held:
            action = "reserve"
        if action == "reserve" and len(held) >= _MOST_OPEN:
            action = "settle"
        status, body, seconds = await self._request(connection, action, held)
        self.latencies.append(seconds)
        self.statuses[action, status] += 1
        if status not in ALLOWED and not (status == UNAVAILABLE and action in NEEDS_STORE):
            self.unexpected.append((time.time(), action, status, body))
        if action == "reserve" and status == 200 and body["reservation"]:
            held.append(body["reservation"])

    def _request(self, connection, action, held):
        """Begin a request of some kind."""
        chance = self._chance
        key = _make_key(int(KEYS * chance.random() ** 3))  # a few keys are busy, most are not
        tokens = chance.randrange(1, 900)
        check = {"key": key, "cost": {"tokens": tokens}}
        used = {"input_tokens": tokens // 3, "output_tokens": tokens // 2, "status": 200, "latency_ms": 120.5}
        assigned = {"plan": chance.choice(["free", "pro"])}
        taken = held.pop(0) if action in {"settle", "cancel"} else None
        headers = {"X-RateLimit-Key": key, "X-RateLimit-Cost": f"tokens={tokens}"}
        request_id = f"id-{chance.randrange(500)}"
        arguments = {
            "check": ("POST", "/v1/check", check),
            "repeat": ("POST", "/v1/check", {**check, "request_id": request_id}),
            "reserve": ("POST", "/v1/check", {**check, "reserve": True}),
            "settle": ("POST", "/v1/settle", {"reservation": taken, **used}),
            "cancel": ("DELETE", f"/v1/reservations/{taken}"),
            "authorize": ("GET", "/v1/authorize/chat", None, headers),
            "show": ("GET", f"/v1/keys/{key}", None, _ADMIN),
            "assign": ("PUT", f"/v1/keys/vk_assigned_{chance.randrange(100)}", assigned, _ADMIN),
        }
        return connection.request(*arguments[action])


def _make_key(number):
    return f"vk_soak_{number:06d}"
