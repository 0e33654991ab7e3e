"""`limited`: functions, coroutine functions and generator functions that are checked at each call."""

import asyncio
import contextlib
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


def test_a_generator_function_is_checked_at_its_first_item(make_limits):
    limits, begun = make_limits(THREE), []

    @limited(limits, key="user")
    def stream(user):
        begun.append(user)
        sent = yield 1
        return sent

    assert inspect.isgeneratorfunction(stream)
    for _ in range(5):
        stream("ada")
    assert read_left(limits, "requests", "ada") == 3
    assert [list(stream("ada")) for _ in range(3)] == [[1]] * 3
    with pytest.raises(RateLimited):
        next(stream("ada"))
    assert len(begun) == 3

    items = stream("grace")
    next(items)
    with pytest.raises(StopIteration) as ended:
        items.send("an answer")
    assert ended.value.value == "an answer"


def test_an_async_generator_function_is_checked_at_its_first_item(open_limiter, make_limits):
    begun = []

    async def run():
        async with open_limiter(THREE) as limiter:

            @limited(limiter, key="user")
            async def stream(user):
                begun.append(user)
                yield 1
                yield 2

            assert inspect.isasyncgenfunction(stream)
            for _ in range(5):
                stream("ada")
            assert read_left(make_limits(THREE), "requests", "ada") == 3
            items = [[item async for item in stream("ada")] for _ in range(3)]
            with pytest.raises(RateLimited):
                await anext(stream("ada"))
            return items

    assert asyncio.run(run()) == [[1, 2]] * 3
    assert len(begun) == 3


def test_an_async_generator_gets_what_is_sent_and_thrown_and_is_closed_at_once(open_limiter):
    told = []

    async def run():
        async with open_limiter(THREE) as limiter:

            @limited(limiter, key=lambda: "k")
            async def stream():
                try:
                    told.append((yield 1))
                    yield 2
                except asyncio.CancelledError as error:
                    told.append(str(error))
                    yield 3
                finally:
                    told.append("closed")

            items = stream()
            assert [await anext(items), await items.asend("sent")] == [1, 2]
            assert await items.athrow(asyncio.CancelledError("thrown")) == 3
            with pytest.raises(StopAsyncIteration):
                await anext(items)
            items = stream()
            await anext(items)
            await items.aclose()
            assert told == ["sent", "thrown", "closed", "closed"]
            with pytest.raises(KeyError):
                async with contextlib.asynccontextmanager(stream)():
                    raise KeyError

    asyncio.run(run())
    assert told[4:] == ["closed"]


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

    async def async_stream(user):
        yield 1

    def stream(user):
        yield 1

    for function in (work, async_stream):
        with pytest.raises(InvalidRequest, match="must be an AsyncLimiter for an async function"):
            limited(make_limits(THREE), key="user")(function)
    for function in (len, stream):
        with pytest.raises(InvalidRequest, match="must be a Limiter for a function that is not async"):
            limited(open_limiter(THREE), key=lambda user: user)(function)


def test_a_key_of_another_type_is_refused_and_nothing_is_charged(make_limits):
    limits = make_limits(THREE)

    @limited(limits, key="user")
    def work(user):
        pass

    with pytest.raises(InvalidRequest, match="key: must be a valid string"):
        work(["ada"])
