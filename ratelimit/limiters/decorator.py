"""`limited`: a decorator that checks each call of a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from ratelimit.errors import RateLimited
from ratelimit.limiters.aio import AsyncLimiter
from ratelimit.limiters.limiter import Limiter
from ratelimit.request.check import invalid_field

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Generator

P = ParamSpec("P")
T = TypeVar("T")


def limited(
    limiter: Limiter | AsyncLimiter,
    *,
    key: str | Callable[..., str],
    cost: Mapping[str, float] | Callable[..., Mapping[str, float]] | None = None,
    timeout: float | None = None,
    plan: str | None = None,
    model: str | None = None,
    tenant: str | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Check each call of a function before it runs.

    ```python
    @limited(limiter, key="user_id", cost=lambda user_id, prompt: {"tokens": len(prompt) / 4})
    def complete(user_id: str, prompt: str) -> str: ...
    ```

    A generator function, async or not, is checked when its first item is asked for.

    Args:
        limiter: an `AsyncLimiter` for an `async def` function, a `Limiter` for any other.
        key: the name of the argument that is the key's identifier (text, or a whole number), or a function
            that returns the identifier. Functions are called with the arguments of the call.
        cost: how much of each unit a call takes, from 0 to 10^12, or a function that returns it; 1 request
            by default.
        timeout: seconds to wait at most until the call may pass; None does not wait.
        plan: the plan to apply; by default that of the key.
        model: the model of the calls.
        tenant: the account that owns the key.

    Returns:
        The decorator. It keeps the function's name, signature and types. Calls of the decorated function
        raise `RateLimited` if they are denied, or cannot pass before the timeout; and `InvalidRequest` if
        the key or the cost is invalid.

    Raises:
        InvalidRequest: an argument is wrong: the function has no such argument, or the limiter is not of
            the function's kind.
    """
    if not isinstance(limiter, Limiter | AsyncLimiter):
        raise invalid_field("limiter", f"must be a Limiter or an AsyncLimiter, not {type(limiter).__name__}")
    if not isinstance(key, str) and not callable(key):
        raise invalid_field("key", "must be the name of an argument or a function")
    if cost is not None and not isinstance(cost, Mapping) and not callable(cost):
        raise invalid_field("cost", "must be amounts by unit, such as {'tokens': 850}, or a function")
    if timeout is not None and not timeout >= 0:
        raise invalid_field("timeout", "must be 0 seconds or more, or None to raise at once")
    options = {"plan": plan, "model": model, "tenant": tenant}

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        find_key = _read_argument(function, key) if isinstance(key, str) else key

        def make_check(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
            amounts = cost(*args, **kwargs) if callable(cost) else cost
            check: dict[str, Any] = {**options, "key": find_key(*args, **kwargs)}
            return check if amounts is None else {**check, "cost": amounts}

        if isinstance(limiter, AsyncLimiter):
            return _wrap_async(function, limiter, make_check, timeout)
        return _wrap(function, limiter, make_check, timeout)

    return decorate


def _wrap(
    function: Callable[P, T],
    limiter: Limiter,
    make_check: Callable[P, dict[str, Any]],
    timeout: float | None,
) -> Callable[P, T]:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise invalid_field("limiter", "must be an AsyncLimiter for an async function, not a Limiter")

    def admit(*args: P.args, **kwargs: P.kwargs) -> None:
        check = make_check(*args, **kwargs)
        if timeout is not None:
            limiter.acquire(check, timeout=timeout)
        elif not (decision := limiter.check(check)):
            raise RateLimited(decision)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        admit(*args, **kwargs)
        return function(*args, **kwargs)

    @functools.wraps(function)
    def iterate(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, Any]:
        admit(*args, **kwargs)
        return (yield from cast("Generator[Any, Any, Any]", function(*args, **kwargs)))

    return cast("Callable[P, T]", iterate) if inspect.isgeneratorfunction(function) else run


def _wrap_async(
    function: Callable[P, T],
    limiter: AsyncLimiter,
    make_check: Callable[P, dict[str, Any]],
    timeout: float | None,
) -> Callable[P, T]:
    is_generator = inspect.isasyncgenfunction(function)
    if not is_generator and not inspect.iscoroutinefunction(function):
        raise invalid_field("limiter", "must be a Limiter for a function that is not async")

    async def admit(*args: P.args, **kwargs: P.kwargs) -> None:
        check = make_check(*args, **kwargs)
        if timeout is not None:
            await limiter.acquire(check, timeout=timeout)
        elif not (decision := await limiter.check(check)):
            raise RateLimited(decision)

    @functools.wraps(function)
    async def run(*args: P.args, **kwargs: P.kwargs) -> object:
        await admit(*args, **kwargs)
        return await cast("Awaitable[object]", function(*args, **kwargs))

    return cast("Callable[P, T]", _wrap_async_generator(function, admit) if is_generator else run)


def _wrap_async_generator(
    function: Callable[P, object], admit: Callable[P, Awaitable[None]]
) -> Callable[P, AsyncGenerator[Any, Any]]:
    @functools.wraps(function)
    async def iterate(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, Any]:
        await admit(*args, **kwargs)
        # What `yield from` does in a generator that is not async.
        async with aclosing(cast("AsyncGenerator[Any, Any]", function(*args, **kwargs))) as items:
            step = items.asend(None)
            while True:
                try:
                    item = await step
                except StopAsyncIteration:
                    return
                try:
                    step = items.asend((yield item))
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown in from outside, for the function
                    step = items.athrow(error)

    return iterate


def _read_argument(function: Callable[..., object], name: str) -> Callable[..., str]:
    """Return a function that finds an argument of a call by its name."""
    signature = inspect.signature(function)
    if name not in signature.parameters:
        names = ", ".join(signature.parameters)
        where = getattr(function, "__qualname__", "the function")
        raise invalid_field("key", f"{where} has no argument {name!r}; it has: {names or 'none'}")

    def read(*args: object, **kwargs: object) -> str:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        value = bound.arguments[name]
        return str(value) if isinstance(value, int) else cast("str", value)  # the check refuses other types

    return read
