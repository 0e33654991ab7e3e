"""P9 across processes that lease tokens of one key, up to one that is killed with what it holds.

A year's rate gives nothing back meanwhile: what all of them get together is the burst, to the last token.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from ratelimit import Limit

from ..stored import used

LEASER = Path(__file__).with_name("leaser.py")
PROCESSES, BURST, SHARE = 4, 5_000, 0.02
RATE = "5000/365d"
LEASE = int(SHARE * BURST)


@pytest.fixture
def leasers(real_url):
    """Processes that ask as they are told, all at once."""
    command = [sys.executable, LEASER, real_url, RATE, str(BURST), str(SHARE)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(PROCESSES)]
    yield processes
    for process in processes:
        process.kill()
        process.communicate(timeout=60)


def ask(processes, number, key="k"):
    """Let all of them ask so often at once; return what each got."""
    for process in processes:
        process.stdin.write(f"check {number} {key}\n")
        process.stdin.flush()
    return [int(process.stdout.readline()) for process in processes]


def close(processes):
    for process in processes:
        process.communicate("close\n", timeout=60)
        assert process.returncode == 0


def what_is_left(limiter_of, real_url):
    """Take the rest, one by one and without a lease."""
    limits = limiter_of(real_url, Limit("requests", RATE, burst=BURST))
    return sum(1 for _ in iter(lambda: bool(limits.check("k")), False))


def test_p1_p9_processes_that_lease_never_get_more_than_the_burst_and_leave_the_rest(
    leasers, limiter_of, real_url
):
    admitted = sum(ask(leasers, 1_000)) + sum(ask(leasers, 77))
    assert admitted == 4 * 1_077
    close(leasers)
    assert what_is_left(limiter_of, real_url) == BURST - admitted


def test_p1_p9_processes_that_ask_for_more_get_the_burst(leasers, limiter_of, real_url):
    admitted = sum(ask(leasers, 2_000))
    assert BURST - PROCESSES * LEASE <= admitted <= BURST
    close(leasers)
    assert what_is_left(limiter_of, real_url) == BURST - admitted


def test_p9_a_process_that_is_killed_loses_no_more_than_its_lease(leasers, limiter_of, real_url):
    admitted = sum(ask(leasers, 333))
    killed, *others = leasers
    killed.kill()
    killed.wait(60)
    admitted += sum(ask(others, 1_000))
    close(others)
    admitted += what_is_left(limiter_of, real_url)
    assert BURST - LEASE <= admitted < BURST


def test_p9_a_process_that_is_killed_amid_its_checks_gets_nothing_twice(
    leasers, limiter_of, real_url, client_of, eventually
):
    """What it got it cannot tell any more. The others and the rest are what it has not taken."""
    killed, *others = leasers
    killed.stdin.write("check 1000000 k\n")
    killed.stdin.flush()
    eventually(lambda: client_of(real_url).exists("rl1:{k}:k"))
    killed.kill()
    killed.wait(60)
    taken = round(used(client_of(real_url)), 1)
    admitted = sum(ask(others, 400))
    close(others)
    assert admitted + what_is_left(limiter_of, real_url) == BURST - taken
