"""Leases: the bound of P1 grows by what may be out on lease, and by nothing else."""

import asyncio
import json

import pytest

from ratelimit import AsyncLimiter, Policy
from ratelimit.history import HistoryRecorder, merge_lines, read_history, read_lines, verify_history

POLICY = Policy.from_text("""
default_plan: free
plans: {free: {limits: {requests: {rate: 100/365d, lease: {share: 0.05, ttl: 1s}}}}}
""")
LEASE = 5
BASE = 1_700_000_000


def admit(count, process):
    line = {"timestamp": BASE, "key": "vk_a", "allowed": True, "source": "lease", "clock": "store"}
    return [json.dumps({**line, "process": process}).encode() + b"\n" for _ in range(count)]


@pytest.mark.parametrize("over", [0, 1])
def test_p9_a_window_may_have_the_leases_of_each_process_more(over):
    lines = admit(50, "1") + admit(50 + 2 * LEASE + over, "2")
    report = verify_history(merge_lines(read_lines(lines, "h")), POLICY)
    assert [fault.kind for fault in report.faults] == ["over-admitted"] * over
    assert report.windows_only == 1


def test_p9_the_history_of_a_limiter_with_leases_is_sound(valkey_url, open_client, tmp_path):
    open_client(valkey_url).flushall()
    path = tmp_path / "h.jsonl"

    async def use():
        with HistoryRecorder(path) as recorder:
            async with AsyncLimiter(valkey_url, POLICY, deadline=20, observers=[recorder]) as limiter:
                return [await limiter.check("vk_a") for _ in range(150)]

    decisions = asyncio.run(use())
    assert sum(decision.allowed for decision in decisions) == 100
    report = verify_history(read_history([path]), POLICY)
    assert report.is_sound
    assert report.sources["lease"] > 50
