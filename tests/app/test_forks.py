"""Limiters that were made and used before a fork, as with `gunicorn --preload` and Celery's workers."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys

import httpx
import pytest

from ratelimit import AsyncLimiter, Limit

from ..conftest import DEADLINE
from ..processes import find_free_port, wait_until
from ..stored import used

# Python 3.12 warns of every fork of a process with threads. These limiters are made for that.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

FORK = multiprocessing.get_context("fork")
EACH, CHILDREN = 300, 3
SERVER = """
import os, sys
from wsgiref.simple_server import make_server
from ratelimit import Limit, Limiter
from ratelimit.wsgi import RateLimitMiddleware

limiter = Limiter(sys.argv[1], Limit("requests", "1000000/365d"), deadline=20)
limiter.check("before")

def app(environ, start_response):
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]

app = RateLimitMiddleware(app, limiter, key=lambda environ: environ["PATH_INFO"].strip("/"))
server = make_server("127.0.0.1", int(sys.argv[2]), app)
for _ in range(2):
    if os.fork() == 0:
        server.serve_forever()
server.serve_forever()
"""


def run_children(work, count=CHILDREN):
    """Run a function in forked children and here at the same time; return what the children say."""
    results = FORK.SimpleQueue()
    children = [FORK.Process(target=lambda: results.put(work())) for _ in range(count)]
    for child in children:
        child.start()
    work()
    for child in children:
        child.join(timeout=30)
        child.kill()
    assert [child.exitcode for child in children] == [0] * count
    return [results.get() for _ in children]


def test_p1_parent_and_children_never_read_each_others_replies(make_limits, open_client, url):
    limits = make_limits(Limit("requests", "1000000/365d"))
    limits.check("before")  # a connection is open

    together = FORK.Barrier(CHILDREN + 1)

    def check_own_key():
        together.wait()  # else one may be done before the next begins
        key = f"vk_{os.getpid()}"
        left = [limits.check(key).limits[0].remaining for _ in range(EACH)]
        return left == list(range(999_999, 999_999 - EACH, -1))

    assert run_children(check_own_key) == [True] * CHILDREN


def test_p9_a_child_does_not_spend_the_leases_of_its_parent(make_limits, open_client, url):
    limit = Limit("requests", "1000/365d", lease={"share": 0.5, "ttl": "60s"})
    limits = make_limits(limit)
    passed = 0
    while (decision := limits.check("k")).source != "lease":
        passed += bool(decision)
    passed += 1
    results = FORK.SimpleQueue()

    def spend():
        results.put(sum(bool(limits.check("k")) for _ in range(1000)))
        limits.close()

    children = [FORK.Process(target=spend) for _ in range(CHILDREN)]
    for child in children:
        child.start()
        child.join(timeout=60)
    passed += sum(results.get() for _ in children)
    passed += sum(bool(limits.check("k")) for _ in range(1000))
    assert passed == 1000


def test_an_asyncio_limiter_that_was_used_before_the_fork_works_in_the_child(url, open_client):
    limiter = AsyncLimiter(url, Limit("requests", "1000/365d"), deadline=DEADLINE)

    async def check():
        return [(await limiter.check("k")).source for _ in range(3)]

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        first = loop.run_until_complete(check())
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:  # Workers start an event loop of their own.
            os.write(writing, " ".join(asyncio.new_event_loop().run_until_complete(check())).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            in_child = pipe.read().split()
        os.waitpid(child, 0)
        after = loop.run_until_complete(check())
        loop.run_until_complete(limiter.close())
    assert (first, in_child, after) == (["store"] * 3,) * 3
    assert round(used(open_client(url))) == 9


def test_a_preloaded_server_with_forked_workers_limits_together(url, open_client):
    port = find_free_port()
    command = [sys.executable, "-c", SERVER, url, str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}/vk_shared"
        with httpx.Client(trust_env=False) as client:
            wait_until(lambda: _answers(client, address))
            workers, left = set(), []
            while len(workers) < 2 and len(left) < 2000:
                answer = client.get(address)
                workers.add(answer.text)
                left.append(int(answer.headers["RateLimit"].split("r=")[1].split(";")[0]))
        assert len(workers) >= 2
        assert left == sorted(left, reverse=True)
        assert len(set(left)) == len(left)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(client, address):
    try:
        return client.get(address).status_code == 200
    except httpx.TransportError:
        return False
