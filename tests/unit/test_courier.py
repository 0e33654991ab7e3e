"""The courier, without a store: what becomes of a call that is answered wrongly."""

import asyncio

import pytest

from ratelimit import Limit, Policy
from ratelimit.ask import Asker
from ratelimit.courier import Courier
from ratelimit.request import make_check


@pytest.mark.parametrize("replies", [[], [b"1"]])
def test_p8_a_call_with_too_few_replies_fails_and_does_not_hang(replies):
    asker = Asker(Policy.of(Limit("requests", "10/minute")), {})

    async def run(_):
        return replies

    async def ask():
        courier = Courier(run)
        landed = [courier.ask(asker.ask(make_check({"key": key}), take=True)) for key in "ab"]
        told = await asyncio.wait_for(asyncio.gather(*landed, return_exceptions=True), 10)
        await courier.rest()
        return told

    assert isinstance(asyncio.run(ask())[-1], ValueError)
