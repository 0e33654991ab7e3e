"""P9 across processes that lease tokens of one key, some of which are killed while they hold a lease.

The rate is so slow that nothing is refilled during a test: all processes together get exactly the burst.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from ratelimit import Limit

from ..processes import wait_until
from ..stored import used
from .leases import SLOW, make_key_hot

LEASING_PROCESS = Path(__file__).with_name("leasing_process.py")
PROCESSES, BURST, SHARE = 4, 5_000, 0.02
RATE = "5000/365d"
LEASED_TOKENS = int(SHARE * BURST)


@pytest.fixture
def leasing_processes(real_url):
    """Processes that check on command, all at the same time."""
    command = [sys.executable, LEASING_PROCESS, real_url, RATE, str(BURST), str(SHARE)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(PROCESSES)]
    yield processes
    for process in processes:
        process.kill()
        process.communicate(timeout=60)


def send_checks(processes, checks, key="k"):
    """Send a number of checks to every process at the same time; return how many passed in each."""
    for process in processes:
        process.stdin.write(f"check {checks} {key}\n")
        process.stdin.flush()
    return [int(process.stdout.readline()) for process in processes]


def close_processes(processes):
    for process in processes:
        process.communicate("close\n", timeout=60)
        assert process.returncode == 0


def take_remaining_tokens(make_limiter_on, real_url):
    """Take all tokens that are left, one by one and without a lease; return how many."""
    limits = make_limiter_on(real_url, Limit("requests", RATE, burst=BURST))
    return sum(1 for _ in iter(lambda: bool(limits.check("k")), False))


def test_p1_p9_processes_that_lease_never_get_more_than_the_burst_and_leave_the_rest(
    leasing_processes, make_limiter_on, real_url
):
    admitted = sum(send_checks(leasing_processes, 1_000)) + sum(send_checks(leasing_processes, 77))
    assert admitted == 4 * 1_077
    close_processes(leasing_processes)
    assert take_remaining_tokens(make_limiter_on, real_url) == BURST - admitted


def test_p1_p9_processes_that_ask_for_more_get_the_burst(leasing_processes, make_limiter_on, real_url):
    admitted = sum(send_checks(leasing_processes, 2_000))
    assert BURST - PROCESSES * LEASED_TOKENS <= admitted <= BURST
    close_processes(leasing_processes)
    assert take_remaining_tokens(make_limiter_on, real_url) == BURST - admitted


def test_p9_a_process_that_is_killed_loses_no_more_than_its_lease(
    leasing_processes, make_limiter_on, real_url
):
    admitted = sum(send_checks(leasing_processes, 333))
    killed, *others = leasing_processes
    killed.kill()
    killed.wait(60)
    admitted += sum(send_checks(others, 1_000))
    close_processes(others)
    admitted += take_remaining_tokens(make_limiter_on, real_url)
    assert BURST - LEASED_TOKENS <= admitted < BURST


def test_p9_a_process_that_is_killed_amid_its_checks_gets_nothing_twice(
    leasing_processes, make_limiter_on, real_url, open_client
):
    """Nobody knows how many checks of the killed process passed; the others must get all it has not taken."""
    killed, *others = leasing_processes
    killed.stdin.write("check 1000000 k\n")
    killed.stdin.flush()
    wait_until(lambda: open_client(real_url).exists("rl1:{k}:k"))
    killed.kill()
    killed.wait(60)
    taken = round(used(open_client(real_url)), 1)
    admitted = sum(send_checks(others, 400))
    close_processes(others)
    assert admitted + take_remaining_tokens(make_limiter_on, real_url) == BURST - taken


def test_p9_a_child_after_a_fork_gives_nothing_back_that_is_its_parents(
    make_limiter_on, real_url, open_client, monkeypatch
):
    limits = make_limiter_on(real_url, SLOW)
    make_key_hot(limits)
    before = used(open_client(real_url))
    assert before >= 50  # the lease
    monkeypatch.setattr(limits, "_process", -1)  # as if this were another process
    limits.close()
    assert used(open_client(real_url)) == before
