"""Load on sidecars while something fails: checks, reservations, settlements, cancellations and repeats.

Half of the checks are of the same few keys, whose buckets are soon empty. The other half is of keys that
change all the time, whose bursts are being spent whenever the fault comes.
"""

import asyncio
import itertools
import json
import random
import threading
import time
from collections import Counter

from ..processes import wait_until
from .http_client import Connection

POLICY = """
default_plan: small
plans:
  small:
    limits:
      requests: {rate: 2/second, burst: 40, on_outage: deny}
      tokens: {unit: tokens, rate: 100/second, burst: 2000, per: [tenant], on_outage: deny}
      parallel: {unit: concurrent, capacity: 4, ttl: 2s, on_outage: deny}
"""
BURSTS = {"requests": 40, "tokens": 2000, "parallel": 4}

TASKS = 10
MAX_REPEATED_COST = 16
"""Of a check that is repeated with its request id, tokens."""

PAUSE = 0.004
RETRY = 0.03
"""Seconds."""
SECONDS_PER_KEY = 0.4


class Load:
    """Runs in a thread of its own from the begin of a block to its end.

    Args:
        ports: the ports of the sidecars.
        tenant: whom all keys belong to: of one test only.
        make_fields: returns what is added to a check of a key.

    Attributes:
        answers: how many answers there were, by status.
        outages: how many checks the store did not decide.
        decided: how many checks the store decided.
        broken: how many requests ended with their connection.
        hung: how many got no answer.
        wrong: answers that nothing explains: the request, the status and the body.
        forgotten: how many settlements and cancellations were of a reservation that was no longer known.
    """

    def __init__(self, ports, tenant, make_fields=lambda _: {}):
        self.ports, self.tenant, self._make_fields = list(ports), tenant, make_fields
        self.answers = Counter()
        self.outages = self.decided = self.broken = self.hung = self.forgotten = 0
        self.wrong = []
        self._is_over = False
        self._random = random.Random(1)
        self._started = time.monotonic()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        """End what has begun: settle what is open, and wait for every answer."""
        self._is_over = True
        self._thread.join()

    def finish(self, number=250):
        """Wait until the store has decided so many more checks, and end."""
        self.wait_for_decisions(number)
        self.end()

    def wait_for_decisions(self, number=250):
        """Wait until the store has decided so many more checks."""
        enough = self.decided + number
        wait_until(lambda: self.decided >= enough or self.wrong, describe=lambda: vars(self))

    def wait_for_outages(self, number=50):
        """Wait until so many more checks were not decided by the store."""
        enough = self.outages + number
        wait_until(lambda: self.outages >= enough or self.wrong, describe=lambda: vars(self))

    async def _run(self):
        async with asyncio.TaskGroup() as tasks:
            for number in range(TASKS):
                tasks.create_task(self._send(number))

    async def _send(self, number):
        connection = Connection(self.ports, number)
        ways = (self._check, self._repeat, self._settle, self._check_batch, self._settle, self._cancel)
        for turn in itertools.count(number):
            if self._is_over:
                break
            try:
                await ways[turn % len(ways)](connection, self._choose_key(), turn)
            except ConnectionError:
                self.broken += 1
            except TimeoutError:
                self.hung += 1
            await asyncio.sleep(PAUSE)
        connection.close()

    def _choose_key(self):
        number = self._random.randrange(2)
        if self._random.randrange(2):
            number = 2 + int((time.monotonic() - self._started) / SECONDS_PER_KEY)
        return f"k{number:04}-{self.tenant}-{number:03}"  # masked keys differ, too

    def _make_check(self, key, **fields):
        return {"key": key, "tenant": self.tenant, **self._make_fields(key), **fields}

    async def _decide(self, connection, check):
        status, body = await connection.ask("POST", "/v1/check", check)
        return self._note(check, status, body)

    def _note(self, check, status, body):
        """Count the answer to a check and return the decision; None if it is none."""
        self.answers[status] += 1
        decision = json.loads(body) if status in {200, 429, 503} else {}
        source = decision.get("source")
        if source is None or (status == 503) != (source == "outage" and not decision["allowed"]):
            self.wrong.append((check, status, body))
            return None
        self.outages += source == "outage"
        self.decided += source != "outage"
        return decision

    async def _check(self, connection, key, turn):
        await self._decide(connection, self._make_check(key, cost={"tokens": turn % 23}))

    async def _check_batch(self, connection, key, turn):
        checks = [self._make_check(key, cost={"tokens": number}) for number in range(turn % 4 + 1)]
        status, body = await connection.ask("POST", "/v1/check/batch", checks)
        if status != 200:
            self.wrong.append((checks, status, body))
            return
        for decision in json.loads(body):
            self.outages += decision["source"] == "outage"
            self.decided += decision["source"] != "outage"

    async def _repeat(self, connection, key, turn):
        """Check with the same request id until the store has answered twice."""
        request_id = f"{self.tenant[-20:]}-{id(connection)}-{turn}"
        check = self._make_check(key, cost={"tokens": turn % (MAX_REPEATED_COST + 1)}, request_id=request_id)
        answered = 0
        for attempt in itertools.count():
            if answered == 2 or self.wrong:
                break
            if attempt > 500:
                self.wrong.append((check, "the store does not answer", attempt))
                break
            decision = await self._decide(connection, check)
            if decision and decision["source"] == "store":
                answered += 1
            else:
                await asyncio.sleep(RETRY)

    async def _settle(self, connection, key, turn):
        """Reserve, and settle for less or for more than the estimate, half of the time twice."""
        decision = await self._decide(connection, self._make_check(key, cost={"tokens": 20}, reserve=True))
        if decision and decision["reservation"]:
            usage = {"reservation": decision["reservation"], "input_tokens": 2, "output_tokens": turn % 31}
            for _ in range(self._random.randint(1, 2)):
                await self._end(connection, "POST", "/v1/settle", usage)

    async def _cancel(self, connection, key, turn):
        """Reserve and cancel, half of the time twice."""
        decision = await self._decide(
            connection, self._make_check(key, cost={"tokens": turn % 19}, reserve=True)
        )
        if decision and decision["reservation"]:
            for _ in range(self._random.randint(1, 2)):
                await self._end(connection, "DELETE", f"/v1/reservations/{decision['reservation']}")

    async def _end(self, connection, method, path, document=None):
        """End a reservation; while the store does not answer, half of the callers try again and again."""
        is_patient = self._random.randrange(2)
        for attempt in itertools.count():
            status, body = await connection.ask(method, path, document)
            self.answers[status] += 1
            if status in {200, 204}:
                return
            if status == 503 and not is_patient:
                return
            if status == 404:
                self.forgotten += 1
                return
            if status != 503 or attempt > 500:
                self.wrong.append((path, status, body))
                return
            await asyncio.sleep(RETRY)
