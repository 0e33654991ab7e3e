"""`limited`: a decorator that checks each call of a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from ratelimit.errors import RateLimited
from ratelimit.limiters.aio import AsyncLimiter
from ratelimit.limiters.limiter import Limiter
from ratelimit.request.check import invalid_field

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

    Args:
        limiter: a `Limiter` for a function, an `AsyncLimiter` for a coroutine function.
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
        raise invalid_field("limiter", "must be an AsyncLimiter for a coroutine function, not a Limiter")

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        check = make_check(*args, **kwargs)
        if timeout is not None:
            limiter.acquire(check, timeout=timeout)
        elif not (decision := limiter.check(check)):
            raise RateLimited(decision)
        return function(*args, **kwargs)

    return run


def _wrap_async(
    function: Callable[P, T],
    limiter: AsyncLimiter,
    make_check: Callable[P, dict[str, Any]],
    timeout: float | None,
) -> Callable[P, T]:
    if not inspect.iscoroutinefunction(function):
        raise invalid_field("limiter", "must be a Limiter for a function that is no coroutine function")

    @functools.wraps(function)
    async def run(*args: P.args, **kwargs: P.kwargs) -> object:
        check = make_check(*args, **kwargs)
        if timeout is not None:
            await limiter.acquire(check, timeout=timeout)
        elif not (decision := await limiter.check(check)):
            raise RateLimited(decision)
        return await function(*args, **kwargs)

    return cast("Callable[P, T]", run)


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
