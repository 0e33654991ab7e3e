"""P1 and P7 across processes: however many check one key, together they get what the bound allows."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKING_PROCESS = Path(__file__).with_name("checking_process.py")
RESERVING_PROCESS = Path(__file__).with_name("reserving_process.py")
PROCESSES, CHECKS = 4, 2_000
BASE = 1_700_000_000


@pytest.fixture
def check_in_processes(real_url):
    """Run processes that check one key at the same time; return how many checks passed in each.

    Each process has its own first timestamp and its own distance from one timestamp to the next.
    """

    def run(rate, burst, timelines, batch_size):
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    CHECKING_PROCESS,
                    real_url,
                    rate,
                    *map(str, (burst, start, stride, CHECKS, batch_size)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for start, stride in timelines
        ]
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=120)[0] for process in processes]
        assert all(process.returncode == 0 for process in processes)
        return [int(number) for number in outputs]

    return run


def test_p1_processes_at_one_instant_share_exactly_the_burst(check_in_processes):
    admitted = check_in_processes("1000/minute", 777, [(BASE, 0)] * PROCESSES, batch_size=1)
    assert sum(admitted) == 777


def test_p1_processes_that_send_batches_share_exactly_the_burst(check_in_processes):
    admitted = check_in_processes("7/minute", 4_001, [(BASE, 0)] * PROCESSES, batch_size=50)
    assert sum(admitted) == 4_001


def test_p1_processes_that_walk_through_time_get_exactly_what_the_bound_allows(check_in_processes):
    """Exactly the bound is admitted, not less.

    The checks cost four times what is refilled, so some process is denied. From then on that process finds
    the bucket exactly empty after each of its checks, up to the last one, whatever the others do.
    """
    burst, seconds = 10, CHECKS - 1
    admitted = check_in_processes("60/minute", burst, [(BASE, 1)] * PROCESSES, batch_size=1)
    assert sum(admitted) == burst + seconds


def test_p1_processes_at_different_paces_never_pass_the_bound(check_in_processes):
    strides = [0.25, 0.5, 1, 2]
    admitted = check_in_processes("120/minute", 20, [(BASE, stride) for stride in strides], batch_size=64)
    last = max(strides) * (CHECKS - 1)
    assert 0 < sum(admitted) <= 20 + 2 * last


@pytest.fixture
def command_processes(real_url):
    """Send a command to processes that reserve and settle; return the sum of their results."""
    program = [sys.executable, RESERVING_PROCESS, real_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*program, str(seed)], **pipes) for seed in range(PROCESSES)]

    def send_command(command):
        for process in processes:
            process.stdin.write(f"{command}\n")
            process.stdin.flush()
        return sum(int(process.stdout.readline()) for process in processes)

    yield send_command
    for process in processes:
        process.communicate(timeout=60)


def test_p7_parallel_reservations_of_unknown_size_never_admit_more_than_is_left(command_processes):
    """52 at once for 100 tokens, again and again: only what was used counts, debt included."""
    used = 0
    while used < 100:
        expected = max(0, 100 - used) // 10
        assert command_processes("reserve 13") == expected
        if not expected:
            break
        used += command_processes("settle")
    assert used > 90
    assert command_processes("reserve 13") == 0
