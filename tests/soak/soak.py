"""A soak: everything mixed on one sidecar whose store fails over, and what was seen each second."""

import asyncio
import contextlib
import statistics
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ratelimit import Policy
from ratelimit.history import read_history, verify_history

from ..sentinels import SERVICE, run_sentinels
from ..sidecars import run_sidecar
from .traffic import ADMIN_TOKEN, Traffic

SHARE_OF_MAXIMUM = 0.8
SECONDS_TO_WARM_UP = 15
"""After this time every key has been used and everything that is remembered has been forgotten once."""

POLICY = """
default_plan: free
plans:
  free:
    limits:
      requests: {rate: 60/minute, burst: 30}
      tokens: {unit: tokens, rate: 40000/minute, burst: 20000}
      parallel: {unit: concurrent, capacity: 40, ttl: 10s}
  pro:
    limits:
      requests: {rate: 600/minute}
"""
EDITS = ["", "  other:\n    limits: {requests: {rate: 5/minute}}\n"]
"""What is added to the policy in turn."""

REMEMBER = 10
FLAGS = ("--admin-token", ADMIN_TOKEN, "--key-pepper", "soak", "--remember", f"{REMEMBER}s")
FLAGS += ("--usage-length", "2000")


@dataclass
class Sample:
    """What was seen in one second.

    Attributes:
        at: seconds since the load began.
        answers: how many requests were answered.
        p50, p99: milliseconds to an answer.
        sidecar: the sidecar's memory, MB.
        store: the primary's memory for its data, MB.
        descriptors: how many the sidecar has open.
    """

    at: float
    answers: int
    p50: float
    p99: float
    sidecar: float
    store: float
    descriptors: int


@dataclass
class SoakResult:
    """What a soak showed.

    Attributes:
        maximum: requests a second that this machine can do.
        rate: requests a second that were made.
        samples: what was seen, second by second.
        failovers: the seconds at which a failover began.
        reloads: how often the policy was edited.
        statuses: how often each status was answered.
        unexpected: answers that may not be.
        history: what the checker says of the history.
    """

    maximum: float = 0.0
    rate: float = 0.0
    samples: list = field(default_factory=list)
    failovers: list = field(default_factory=list)
    reloads: int = 0
    statuses: dict = field(default_factory=dict)
    unexpected: list = field(default_factory=list)
    history: dict = field(default_factory=dict)

    def find_medians(self, name):
        """Return the median of a figure in the first third after the warm-up, and in the last third."""
        values = [getattr(sample, name) for sample in self.samples if sample.at > SECONDS_TO_WARM_UP]
        third = max(1, len(values) // 3)
        return statistics.median(values[:third]), statistics.median(values[-third:])

    def find_difference(self, name):
        """Return by how much a figure grew from the first third to the last."""
        first, last = self.find_medians(name)
        return last - first

    def find_growth(self, name):
        """Return the same as a share."""
        return self.find_difference(name) / self.find_medians(name)[0]

    def as_dict(self):
        """Return everything for JSON."""
        return {**asdict(self), "growth": {name: self.find_growth(name) for name in GROWING}}


GROWING = ("sidecar", "store", "descriptors", "p50", "p99")


def run_soak(folder, seconds, *, failover_every, note=lambda _: None):
    """Run a soak and return its result.

    Args:
        folder: an empty folder for the store, the policy and the history.
        seconds: how long the load lasts.
        failover_every: seconds between two failovers.
        note: is called with each sample.
    """
    history = Path(folder, "history.jsonl")
    with run_sentinels(Path(folder, "store")) as group:
        for sentinel in group.sentinels:
            # A busy machine is no failure: only the failovers of the soak itself lose nothing.
            sentinel.sentinel_set(SERVICE, "down-after-milliseconds", 60_000)
        with run_sidecar("--redis", group.url, "--history", str(history), *FLAGS, policy=POLICY) as sidecar:
            soak = _Soak(group, sidecar, note)
            result = asyncio.run(soak.run(seconds, failover_every))
    result.history = verify_history(
        read_history([history]), Policy.from_text(POLICY), remember=REMEMBER
    ).as_dict(20)
    return result


class _Soak:
    def __init__(self, group, sidecar, note):
        self._group, self._sidecar, self._note = group, sidecar, note
        self._traffic = Traffic(sidecar.port)
        self._result = SoakResult()
        self._started = 0.0

    async def run(self, seconds, failover_every):
        result = self._result
        await self._traffic.touch_keys()
        result.maximum = await self._traffic.run(5)
        result.rate = SHARE_OF_MAXIMUM * result.maximum
        self._traffic.latencies.clear()
        self._started = time.monotonic()
        others = [self._sample(), self._edit_policy(), self._fail_over(failover_every, seconds)]
        tasks = [asyncio.create_task(other) for other in others]
        await self._traffic.run(seconds, result.rate)
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        statuses = Counter()
        for (_, status), count in self._traffic.statuses.items():
            statuses[str(status)] += count
        result.statuses = dict(sorted(statuses.items()))
        result.unexpected = self._traffic.unexpected
        return result

    async def _sample(self):
        while True:
            await asyncio.sleep(1)
            latencies, self._traffic.latencies = sorted(self._traffic.latencies), []
            if not latencies:
                continue
            memory, descriptors = self._read_process()
            sample = Sample(
                round(time.monotonic() - self._started, 1),
                len(latencies),
                1000 * latencies[len(latencies) // 2],
                1000 * latencies[len(latencies) * 99 // 100],
                memory,
                await asyncio.to_thread(self._read_store_memory),
                descriptors,
            )
            self._result.samples.append(sample)
            self._note(sample)

    def _read_process(self):
        """Return the sidecar's memory in MB and the number of its open descriptors."""
        process = Path(f"/proc/{self._sidecar.pid}")
        memory = int((process / "status").read_text().split("VmRSS:")[1].split()[0]) / 1024
        return memory, len(list((process / "fd").iterdir()))

    def _read_store_memory(self):
        """Return the primary's memory for its data in MB, without the activity of the last minute."""
        primary = self._group.primary
        activity = [
            primary.memory_usage(name) or 0 for name in primary.scan_iter("rl1:{\\*}:top:*", count=1_000)
        ]
        return (primary.info("memory")["used_memory_dataset"] - sum(activity)) / 2**20

    async def _edit_policy(self):
        while True:
            await asyncio.sleep(2)
            self._result.reloads += 1
            self._sidecar.policy_file.write_text(POLICY + EDITS[self._result.reloads % 2])

    async def _fail_over(self, every, seconds):
        """Change the primary for its replica, without loss, again and again; not in the last seconds."""
        while time.monotonic() - self._started + every < seconds - 5:
            await asyncio.sleep(every)
            self._result.failovers.append(round(time.monotonic() - self._started, 1))
            await asyncio.to_thread(self._change_primary)

    def _change_primary(self):
        before = self._group.primary_port
        with contextlib.suppress(Exception):  # one is under way still: the next one comes soon enough
            self._group.sentinels[0].execute_command("SENTINEL", "FAILOVER", SERVICE, "COORDINATED")
            until = time.monotonic() + 20
            while self._group.primary_port == before and time.monotonic() < until:
                time.sleep(0.1)
