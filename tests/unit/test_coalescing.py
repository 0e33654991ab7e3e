"""The courier, without a store: what becomes of a call that is answered wrongly."""

import asyncio

import pytest

from ratelimit import Limit, Policy
from ratelimit.engine.resolver import Resolver
from ratelimit.request.check import make_check
from ratelimit.shortcuts.coalescing import Coalescer


@pytest.mark.parametrize("replies", [[], [b"1"]])
def test_p8_a_call_with_too_few_replies_fails_and_does_not_hang(replies):
    resolver = Resolver(Policy.of(Limit("requests", "10/minute")))

    async def run(_):
        return replies

    async def ask():
        coalescer = Coalescer(run)
        landed = [coalescer.submit(resolver.resolve(make_check({"key": key}), take=True)) for key in "ab"]
        told = await asyncio.wait_for(asyncio.gather(*landed, return_exceptions=True), 10)
        await coalescer.drain()
        return told

    assert isinstance(asyncio.run(ask())[-1], ValueError)
