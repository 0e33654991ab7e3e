"""Stops and reloads lose nothing: not one request that a sidecar has accepted, also under load."""

import asyncio
import contextlib
import os
import re
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from ratelimit import Limiter, Policy

from ..keep_alive_load import Load
from ..processes import wait_until
from .test_lifecycle import find_workers

POLICY = """
default_plan: free
plans: {free: {limits: {requests: {rate: 1000/day, burst: 1000000, per: []}}}}
"""
DENYING = "plans: {free: {limits: {requests: {rate: 10/day}}}}"


class BackgroundLoad:
    """A load in a thread of its own."""

    def __init__(self, *sidecars):
        self.load = Load(*(sidecar.port for sidecar in sidecars))
        self._thread = threading.Thread(target=lambda: asyncio.run(self.load.run()))

    def __enter__(self):
        self._thread.start()
        return self.load

    def __exit__(self, *_):
        self._thread.join()


def count_taken(url):
    """Return how many requests the store's one bucket has admitted; hardly any token comes back meanwhile."""
    with Limiter(url, Policy.from_text(POLICY), deadline=5) as limits:
        [state] = limits.peek("k").limits
        return 1_000_000 - state.remaining


def describe(load):
    return (
        f"answers {dict(load.answers)}, lost {load.lost}, not accepted {load.unaccepted},"
        f" refused {load.refused}"
    )


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("drain", ["0s", "1s"])
def test_sigterm_under_load_loses_nothing(start_sidecar, valkey_url, open_client, workers, drain):
    open_client(valkey_url).flushall()
    flags = ("--workers", workers, "--drain", drain, "--redis", valkey_url, "--deadline", "5s")
    sidecar, other = (start_sidecar(*flags, policy=POLICY) for _ in range(2))
    with BackgroundLoad(sidecar, other) as load:
        wait_until(lambda: load.sent > 2_000)
        sidecar.process.send_signal(signal.SIGTERM)
        assert sidecar.process.wait(20) == 0
    print(f"SIGTERM, {workers} workers, drain {drain}: {describe(load)}")  # noqa: T201
    assert load.refused == 32, "the load ended before the sidecar did"
    assert dict(load.answers) == {200: 20_000}
    assert load.lost == 0
    # What was not accepted was not charged either: it was sent again, and charged once.
    assert count_taken(valkey_url) == 20_000


@pytest.mark.parametrize("workers", ["1", "2"])
def test_reloads_under_load_lose_nothing(start_sidecar, valkey_url, open_client, workers):
    open_client(valkey_url).flushall()
    flags = ("--workers", workers, "--redis", valkey_url, "--deadline", "5s")
    sidecar = start_sidecar(*flags, policy=POLICY)
    reloads = 0
    with BackgroundLoad(sidecar) as load:
        while load.sent < 19_000:
            reloads += 1
            sidecar.policy_file.write_text(f"models: {{class{reloads}: [a-model]}}\n{POLICY}")
            sidecar.process.send_signal(signal.SIGHUP)
            seen = load.sent
            wait_until(lambda seen=seen: load.sent > seen + 1_000 or load.sent >= 19_000)
    print(f"{reloads} reloads, {workers} workers: {describe(load)}")  # noqa: T201
    assert reloads >= 10
    wait_until(lambda: sidecar.output.count("policy reloaded") >= 2)
    assert dict(load.answers) == {200: 20_000}
    assert (load.lost, load.unaccepted, load.refused) == (0, 0, 0)
    assert count_taken(valkey_url) == 20_000


def _handles_sighup(pid):
    """Whether a process has a handler for SIGHUP: a worker has one when it has read the policy."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16)
    return bool(caught & 1 << signal.SIGHUP - 1)


def test_sighup_reaches_every_worker_and_replaces_none(start_sidecar):
    sidecar = start_sidecar("--workers", "2", policy=DENYING)
    wait_until(lambda: sidecar.client.get("/readyz").status_code == 200)
    wait_until(lambda: len(find_workers(sidecar)) == 2)
    workers = find_workers(sidecar)
    wait_until(lambda: all(_handles_sighup(worker) for worker in workers))
    sidecar.policy_file.write_text(DENYING.replace("10/day", "11/day"))
    sidecar.process.send_signal(signal.SIGHUP)
    wait_until(lambda: sidecar.output.count("policy reloaded") == 2)
    assert find_workers(sidecar) == workers


def count_serving(pid):
    """Count the processes of a sidecar that serve: its workers, or itself if it has none."""
    count = 0
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            count += b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    return count or 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_readiness_fails_first_while_checks_are_still_answered(start_sidecar, workers):
    sidecar = start_sidecar("--workers", workers, "--drain", "60s")
    assert sidecar.client.get("/readyz").status_code == 200
    assert "connection" not in sidecar.check("k").headers
    sidecar.process.send_signal(signal.SIGTERM)

    def answer():
        with httpx.Client(base_url=sidecar.address, trust_env=False) as client:
            return client.get("/readyz")

    wait_until(lambda: answer().status_code == 503)
    # A worker that was still starting has nothing to drain: it ends at once.
    wait_until(lambda: sidecar.output.count("draining") == count_serving(sidecar.process.pid))
    refusal = answer()
    assert refusal.headers["content-type"] == "application/problem+json"
    assert "about to stop" in refusal.json()["detail"]
    with httpx.Client(base_url=sidecar.address, trust_env=False) as client:
        for response in (client.post("/v1/check", json={"key": "k"}), client.get("/healthz")):
            assert response.status_code == 200
            assert response.headers["connection"] == "close"
    sidecar.process.send_signal(signal.SIGTERM)  # the second one ends the drain
    started = time.monotonic()
    assert sidecar.process.wait(20) == 0
    assert time.monotonic() - started < 20


def test_ctrl_c_does_not_drain(start_sidecar):
    sidecar = start_sidecar("--drain", "60s")
    sidecar.process.send_signal(signal.SIGINT)
    assert sidecar.process.wait(20) == 0
    assert "draining" not in sidecar.output


def test_a_worker_that_is_killed_or_stopped_is_replaced(start_sidecar):
    sidecar = start_sidecar("--workers", "2")
    for number in (signal.SIGKILL, signal.SIGTERM):
        before = find_workers(sidecar)
        os.kill(before[0], number)
        wait_until(lambda before=before: len(set(find_workers(sidecar)) - {before[0]}) == 2)
        for _ in range(10):
            with httpx.Client(base_url=sidecar.address, trust_env=False, timeout=20) as client:
                assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("drain", ["11m", "-1s", "soon"])
def test_a_drain_that_is_none_is_refused(start_sidecar, drain):
    with pytest.raises(pytest.fail.Exception, match="--drain"):
        start_sidecar("--drain", drain)
