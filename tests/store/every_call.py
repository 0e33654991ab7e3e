"""Everything that a limiter and the commands ask of a store, one call at a time.

Each call makes a limiter of its own, and fails with the store's complaint if the store refuses anything.
"""

import asyncio
import contextlib
import logging
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ratelimit import AsyncLimiter, Limiter, Policy, RateLimited, RateLimitError, Usage
from ratelimit.engine.keyspace import ONE_SERVER
from ratelimit.observers.activity import Activity
from service.cli.commands import app
from service.cli.stream import open_stream

POLICY_TEXT = """
default_plan: free
plans:
  free:
    limits:
      requests: {rate: 1000/day}
      parallel: {unit: concurrent, capacity: 2, ttl: 10m}
      failures: {unit: failures, rate: 20/30s, block: 30s}
      tokens: {unit: tokens, rate: 1000000/day}
  pro: {limits: {requests: {rate: 5000/day}}}
"""
POLICY = Policy.from_text(POLICY_TEXT)

FAILED = {"key": "vk_a", "input_tokens": 3, "status": 500}


class RefusedError(Exception):
    """The store did not do what a call needs; the message is what a user of the limiter sees."""


@contextlib.contextmanager
def open_limiter(url, **options):
    """Open a limiter for a block; an outage or an error in it fails with what the limiter says of it."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = logging.getLogger("ratelimit")
    logger.addHandler(handler)
    try:
        with Limiter(url, POLICY, deadline=20, **options) as limiter:
            yield limiter
    except RateLimitError as error:
        raise RefusedError(str(error)) from None
    finally:
        logger.removeHandler(handler)
    if records:
        raise RefusedError("\n".join(records))


def check(url):
    with open_limiter(url) as limiter:
        limiter.check("vk_a", request_id="once")
        limiter.check("vk_a", request_id="once")
        limiter.check_many(["vk_a", "vk_b"])
        limiter.peek("vk_a")


def check_in_tasks(url):
    async def run():
        async with AsyncLimiter(url, POLICY, deadline=20) as limiter:
            await limiter.ping()
            decisions = await asyncio.gather(*(limiter.check("vk_a") for _ in range(20)))
            await limiter.refresh()
            await limiter.reset("vk_a")
        return {decision.source for decision in decisions}

    if asyncio.run(run()) != {"store"}:
        raise RefusedError


def reserve_and_settle(url):
    with open_limiter(url) as limiter:
        reservation = limiter.reserve("vk_a", cost={"tokens": 9})
        reservation.settle(Usage(input_tokens=3, status=200))


def reserve_and_cancel(url):
    with open_limiter(url) as limiter:
        limiter.reserve("vk_a", cost={"tokens": 9}).cancel()


def fill_every_slot(url):
    with open_limiter(url) as limiter, contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(limiter.reserve("vk_slots"))
        with contextlib.suppress(RateLimited):
            stack.enter_context(limiter.reserve("vk_slots"))


def settle_failures(url):
    with open_limiter(url) as limiter:
        limiter.settle(FAILED)
        limiter.settle(FAILED)


def trim_usage(url):
    """Trim the stream by its length, with and without a group that reads it; the test has made the group."""
    with open_limiter(url, usage_length=1) as limiter:
        for _ in range(103):
            limiter.settle(FAILED)
        limiter.count_trimmed_unread()


def assign(url):
    with open_limiter(url) as limiter:
        limiter.assign("vk_a", plan="pro")
        limiter.assign_tenant("acme", plan="pro")


def unassign(url):
    with open_limiter(url) as limiter:
        limiter.assign("vk_a")


def refresh(url):
    with open_limiter(url) as limiter:
        limiter.refresh()


def reset(url):
    with open_limiter(url) as limiter:
        limiter.reset("vk_a")


def publish_activity(url):
    activity = Activity()
    with open_limiter(url, observers=[activity]) as limiter:
        limiter.check("vk_a")
        limiter.publish_activity(activity)


def ping(url):
    with open_limiter(url) as limiter:
        limiter.ping()


def follow_usage(url):
    settle_failures(url)
    with run_command(), open_stream(url, waits=True) as (stream, _):
        stream.start_after("0-0")
        stream.wait_for_entry()


@contextlib.contextmanager
def run_command():
    """Turn the exit of a command into a failure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.cli.store.fail", _raise_refused)
        yield


def _raise_refused(message):
    raise RefusedError(message)


def make_command(*words, exit_code=0):
    def run(url):
        done = CliRunner().invoke(app, [*words, "--redis", url])
        if done.exit_code != exit_code:
            raise RefusedError(done.output)

    return run


def show_key(url):
    with tempfile.TemporaryDirectory() as folder:
        policy = f"{folder}/policy.yaml"
        Path(policy).write_text(POLICY_TEXT)
        make_command("keys", "show", "vk_a", "--policy", policy)(url)
        make_command("keys", "reset", "vk_a", "--policy", policy)(url)
        make_command("check", "vk_a", "--policy", policy)(url)


CALLS = {
    "check": check,
    "check in tasks": check_in_tasks,
    "reserve, settle": reserve_and_settle,
    "reserve, cancel": reserve_and_cancel,
    "no free slot": fill_every_slot,
    "settle failures": settle_failures,
    "trim usage": trim_usage,
    "assign": assign,
    "unassign": unassign,
    "refresh": refresh,
    "reset": reset,
    "publish activity": publish_activity,
    "ping": ping,
    "ratelimit usage": make_command("usage"),
    "ratelimit usage --last": make_command("usage", "--last", "1"),
    "ratelimit usage --since": make_command("usage", "--since", "1h"),
    "ratelimit usage --follow": follow_usage,
    "ratelimit top": make_command("top", "--once"),
    "ratelimit keys, check": show_key,
}


def prepare(client):
    """Empty a store, and make the group that reads its usage records."""
    client.flushall()
    client.xgroup_create(*ONE_SERVER.usage_streams, "billing", "0", mkstream=True)
