"""Coalescing without a store: what happens to a call whose reply is wrong."""

import asyncio

import pytest

from ratelimit import Limit, Policy
from ratelimit.engine.resolver import Resolver
from ratelimit.request.check import make_check
from ratelimit.shortcuts.coalescing import Coalescer


@pytest.mark.parametrize("replies", [[], [b"1"]])
def test_p8_a_call_with_too_few_replies_fails_and_does_not_hang(replies):
    resolver = Resolver(Policy.of(Limit("requests", "10/minute")))

    async def run_call(_):
        return replies

    async def submit_two():
        coalescer = Coalescer(run_call)
        checks = [resolver.resolve(make_check({"key": key}), take=True) for key in "ab"]
        futures = [coalescer.submit(check) for check in checks]
        results = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 10)
        await coalescer.drain()
        return results

    assert isinstance(asyncio.run(submit_two())[-1], ValueError)
