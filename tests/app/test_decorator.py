"""`limited`: functions and coroutine functions that are checked at each call."""

import asyncio
import inspect

import pytest

from ratelimit import InvalidRequest, Limit, RateLimited, limited

from .requests import THREE, read_left

TOKENS = Limit("tokens", "100/365d", unit="tokens")
QUICK = Limit("requests", "100/second", burst=1)


def test_a_function_is_checked_at_each_call(make_limits):
    @limited(make_limits(THREE), key="user")
    def greet(user: str, *, loud: bool = False) -> str:
        """Greet a user."""
        return f"hello {user}" + "!" * loud

    assert [greet("ada"), greet(user="ada"), greet("ada", loud=True)] == [
        "hello ada",
        "hello ada",
        "hello ada!",
    ]
    with pytest.raises(RateLimited) as denied:
        greet("ada")
    assert denied.value.decision.violated == ("requests",)
    assert greet("grace") == "hello grace"
    assert greet.__name__ == "greet"
    assert greet.__doc__ == "Greet a user."
    assert list(inspect.signature(greet).parameters) == ["user", "loud"]


def test_a_coroutine_function_is_checked_at_each_call(open_limiter):
    async def run():
        async with open_limiter(THREE) as limiter:

            @limited(limiter, key=lambda number: f"user-{number}")
            async def double(number: int) -> int:
                return 2 * number

            assert inspect.iscoroutinefunction(double)
            answers = [await double(4) for _ in range(3)]
            with pytest.raises(RateLimited):
                await double(4)
            return answers

    assert asyncio.run(run()) == [8, 8, 8]


def test_the_cost_is_computed_from_the_arguments_and_numbers_and_defaults_may_be_keys(make_limits):
    limits = make_limits(TOKENS)

    def count_tokens(_self, prompt, **_):
        return {"tokens": len(prompt)}

    class Model:
        @limited(limits, key="user", cost=count_tokens)
        def complete(self, prompt, user=7):
            return user, prompt

    Model().complete("twelve chars")
    assert read_left(limits, key="7") == 88


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_with_a_timeout_it_waits(make_limits, open_limiter, kind):
    def call_twice():
        @limited(make_limits(QUICK), key=lambda: "k", timeout=30)
        def work():
            return 1

        return work() + work()

    async def call_twice_async():
        async with open_limiter(QUICK) as limiter:

            @limited(limiter, key=lambda: "k", timeout=30)
            async def work():
                return 1

            return await work() + await work()

    assert (call_twice() if kind == "threads" else asyncio.run(call_twice_async())) == 2


def test_a_timeout_that_is_too_short_raises_at_once(make_limits):
    @limited(make_limits(Limit("requests", "1/365d")), key=lambda: "k", timeout=5)
    def work():
        return 1

    work()
    with pytest.raises(RateLimited):
        work()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"key": "account"}, "work has no argument 'account'; it has: user"),
        ({"key": 7}, "key: must be the name of an argument or a function"),
        ({"key": "user", "cost": 7}, "cost: must be amounts by unit"),
        ({"key": "user", "timeout": -1}, "timeout: must be 0 seconds or more"),
        ({"key": "user", "limiter": "redis://"}, "limiter: must be a Limiter or an AsyncLimiter, not str"),
    ],
)
def test_a_wrong_argument_says_what_is_allowed(make_limits, arguments, told):
    def work(user):
        pass

    with pytest.raises(InvalidRequest) as caught:
        limited(**{"limiter": make_limits(THREE), **arguments})(work)
    assert told in str(caught.value)


def test_the_limiter_must_be_of_the_functions_kind(make_limits, open_limiter):
    async def work(user):
        pass

    def stream(user):
        yield 1

    with pytest.raises(InvalidRequest, match="must be an AsyncLimiter for a coroutine function"):
        limited(make_limits(THREE), key="user")(work)
    with pytest.raises(InvalidRequest, match="must be a Limiter for a function"):
        limited(open_limiter(THREE), key="user")(stream)


def test_a_key_of_another_type_is_refused_and_nothing_is_charged(make_limits):
    limits = make_limits(THREE)

    @limited(limits, key="user")
    def work(user):
        pass

    with pytest.raises(InvalidRequest, match="key: must be a valid string"):
        work(["ada"])
