"""P1 across processes: however many ask for one key, together they get what the bound allows."""

import subprocess
import sys
from pathlib import Path

import pytest

HAMMER = Path(__file__).with_name("hammer.py")
RESERVER = Path(__file__).with_name("reserver.py")
PROCESSES, CHECKS = 4, 2_000
BASE = 1_700_000_000


@pytest.fixture
def hammer(real_url):
    """Let processes loose on one key, each with a start and a stride of its own; return what each got."""

    def run(rate, burst, walks, together):
        processes = [
            subprocess.Popen(
                [sys.executable, HAMMER, real_url, rate, *map(str, (burst, start, stride, CHECKS, together))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for start, stride in walks
        ]
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate(timeout=120)[0] for process in processes]
        assert all(process.returncode == 0 for process in processes)
        return [int(number) for number in said]

    return run


def test_p1_processes_at_one_instant_share_exactly_the_burst(hammer):
    admitted = hammer("1000/minute", 777, [(BASE, 0)] * PROCESSES, together=1)
    assert sum(admitted) == 777


def test_p1_processes_that_send_batches_share_exactly_the_burst(hammer):
    admitted = hammer("7/minute", 4_001, [(BASE, 0)] * PROCESSES, together=50)
    assert sum(admitted) == 4_001


def test_p1_processes_that_walk_through_time_get_exactly_what_the_bound_allows(hammer):
    """They ask for four times what comes back, so somebody is denied; from then on that one finds the
    bucket exactly empty after each of its checks, up to the last, whatever the others do.
    """
    burst, seconds = 10, CHECKS - 1
    admitted = hammer("60/minute", burst, [(BASE, 1)] * PROCESSES, together=1)
    assert sum(admitted) == burst + seconds


def test_p1_processes_at_different_paces_never_pass_the_bound(hammer):
    strides = [0.25, 0.5, 1, 2]
    admitted = hammer("120/minute", 20, [(BASE, stride) for stride in strides], together=64)
    last = max(strides) * (CHECKS - 1)
    assert 0 < sum(admitted) <= 20 + 2 * last


@pytest.fixture
def reservers(real_url):
    """Processes that reserve and settle as they are told, all at once."""
    command = [sys.executable, RESERVER, real_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(seed)], **pipes) for seed in range(PROCESSES)]

    def tell(line):
        for process in processes:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
        return sum(int(process.stdout.readline()) for process in processes)

    yield tell
    for process in processes:
        process.communicate(timeout=60)


def test_p7_parallel_reservations_of_unknown_size_never_admit_more_than_is_left(reservers):
    """Fifty at once against 100 tokens, again and again: what was used, debt included, is all that counts."""
    used = 0
    while used < 100:
        left = max(0, 100 - used) // 10
        assert reservers("reserve 13") == left
        if not left:
            break
        used += reservers("settle")
    assert used > 90
    assert reservers("reserve 13") == 0
