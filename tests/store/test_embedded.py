"""The private server of `embedded://`: started on demand, stopped when the last limiter closes."""

import asyncio
import gc
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ratelimit import AsyncLimiter, Limit, Limiter, PolicyError, StoreUnavailable
from ratelimit.stores import embedded

from ..processes import wait_until

BASE = 1_700_000_000
LIMIT = Limit("requests", "5/day")


@pytest.fixture
def folder(short_dir, request):
    return short_dir / f"e{abs(hash(request.node.name)) % 10_000}"


def read_remaining(limiter):
    return limiter.peek("k").limits[0].remaining


def test_limiters_of_one_process_share_one_server_and_it_goes_with_the_last():
    first, second = (Limiter("embedded://", LIMIT, deadline=20) for _ in range(2))
    socket = embedded._running[""].socket
    first.check("k")
    assert read_remaining(second) == 4
    first.close()
    second.ping()
    second.close()
    assert not socket.exists()
    assert not socket.parent.exists()


def test_closing_twice_takes_the_server_from_nobody():
    with Limiter("embedded://", LIMIT, deadline=20) as other:
        with Limiter("embedded://", LIMIT, deadline=20) as limiter:
            limiter.close()
        other.ping()


def test_asyncio_starts_and_stops_it_too():
    async def run_check():
        async with AsyncLimiter("embedded://", LIMIT, deadline=20) as limits:
            return await limits.check("k"), embedded._running[""].socket

    decision, socket = asyncio.run(run_check())
    assert decision.source == "store"
    assert not socket.exists()


def test_a_folder_keeps_what_was_used(folder):
    for used in range(3):
        with Limiter(f"embedded://{folder}", LIMIT, deadline=20) as limiter:
            assert read_remaining(limiter) == 5 - used
            limiter.check("k")


def test_a_folder_whose_server_runs_is_joined_by_other_processes(folder):
    program = f"""
from ratelimit import Limit, Limiter
with Limiter("embedded://{folder}", Limit("requests", "5/day"), deadline=20) as limiter:
    limiter.check("k")
"""
    with Limiter(f"embedded://{folder}", LIMIT, deadline=20) as limiter:
        limiter.check("k")
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
        assert read_remaining(limiter) == 3


def test_p5_a_killed_process_leaves_no_server_behind():
    program = """
import sys
from ratelimit import Limit, Limiter
from ratelimit.stores import embedded
limiter = Limiter("embedded://", Limit("requests", "5/day"))
print(embedded._running[""].socket, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        socket = Path(process.stdout.readline().strip())
        assert socket.exists()
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not socket.parent.exists())


def test_a_bad_policy_leaves_no_server_running():
    with pytest.raises(PolicyError):
        Limiter("embedded://", "not a policy")
    running = list(embedded._running)
    # If it does run, this test must not leave it running.
    while "" in embedded._running:
        embedded.release("")
    gc.collect()
    assert running == []


def test_a_path_too_long_for_a_socket_is_told():
    with pytest.raises(StoreUnavailable, match="too long"):
        Limiter(f"embedded:///{'x' * 120}", LIMIT)


def test_a_folder_that_cannot_be_is_told(folder):
    folder.write_text("a file")
    with pytest.raises(StoreUnavailable, match=str(folder)):
        Limiter(f"embedded://{folder}/in-it", LIMIT)
