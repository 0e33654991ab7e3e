"""The options of the middleware and the dependency: what they mean, and what is allowed."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from ratelimit.decision.headers import DIALECTS, Dialect
from ratelimit.request.check import invalid_field

if TYPE_CHECKING:
    from ratelimit.limiters.base import BaseLimiter
    from ratelimit.request.usage import Usage
    from ratelimit.web.answer import Answer
    from ratelimit.web.identity import Network

Amounts = Mapping[str, float] | None
Name = str | None

R = TypeVar("R")
C = TypeVar("C")
N = TypeVar("N")


class CheckRuleOptions(TypedDict, Generic[R, C, N], total=False):
    """How a request becomes a check, and how its decision is told.

    It is generic in what functions get (a request), in what they return as `cost` (`Amounts`), and in what
    they return as `plan`, `model` and `tenant` (a `Name`): for the FastAPI dependency these may be awaitable.
    A function that returns None leaves its field out.

    Attributes:
        key: whose request it is. The name of a header that holds a secret, such as `X-Api-Key` or
            `Authorization` (scheme Bearer): the key is the secret's identifier, as in the sidecar. Or a
            function that returns the key's identifier, or None for a request without one. Requests without
            a key are limited by the client's address on the plan `anonymous`; without such a plan, or without
            a pepper, they are answered with 401. If `key` is not given, every request is limited by the
            client's address, on the plan `anonymous` or else on the default plan.
        pepper: the secret key of the hash that turns secrets and addresses into keys. Required wherever
            these are used; the same in every process, and the same as the sidecar's `key_pepper` if both
            should count together.
        cost: how much of each unit a request takes, or a function that returns it; 1 request by default.
        plan: the plan, or a function that returns it; None for the key's own plan. Requests on the plan
            `anonymous` stay there.
        model: a function that returns the model.
        tenant: a function that returns the tenant.
        dialects: the headers of answers: any of `ietf`, `openai`, `venice`; `ietf` by default, none if empty.
        trusted_proxies: addresses or networks of proxies whose X-Forwarded-For is believed; by default none.
        refresh: seconds between two reads of what operators have assigned (plans, tenants, blocks), while
            requests come; 1 by default. None reads nothing; then call the limiter's `refresh` yourself.
    """

    key: str | Callable[[R], str | None] | None
    pepper: str | None
    cost: Mapping[str, float] | Callable[[R], C] | None
    plan: str | Callable[[R], N] | None
    model: Callable[[R], N] | None
    tenant: Callable[[R], N] | None
    dialects: Sequence[Dialect]
    trusted_proxies: Collection[str]
    refresh: float | None


class MiddlewareOptions(CheckRuleOptions[R, Amounts, Name], Generic[R], total=False):
    """The options of `CheckRuleOptions`, and those of a middleware.

    Attributes:
        exclude: paths that are not limited: exactly this path, or every path below it if it ends with `/`.
        reserve: whether the cost is an estimate. The reservation is settled once, when the answer has ended.
        usage: with `reserve`, a function that returns what the request really used: a `Usage`, its fields, or
            None to keep the estimate charged. It is called with an `Answer` when the answer has ended, also
            by an error.
        body_tail: how many bytes of the end of the body `usage` needs, from 0 (the default) to 1048576.
    """

    exclude: Collection[str]
    reserve: bool
    usage: Callable[[Answer[R]], Usage | Mapping[str, Any] | None] | None
    body_tail: int


def require_limiter(limiter: object, expected: type[BaseLimiter], where: str) -> None:
    """Refuse a limiter of the wrong kind.

    Raises:
        InvalidRequest: it is not of the expected class.
    """
    if not isinstance(limiter, expected):
        raise invalid_field("limiter", f"{where} needs an {expected.__name__}, not {type(limiter).__name__}")


def refuse_unknown_options(options: Mapping[str, object], allowed: Any) -> None:  # noqa: ANN401 - a TypedDict's class
    """Refuse an option that does not exist; TypeError, as Python does for arguments."""
    names = sorted(allowed.__annotations__)
    for name in options.keys() - set(names):
        similar = difflib.get_close_matches(name, names, n=1)
        hint = f" did you mean {similar[0]!r}?" if similar else ""
        raise TypeError(f"there is no option {name!r};{hint} allowed: {', '.join(names)}")


def parse_header(name: object) -> str:
    """Return the lower-case name of a header."""
    if not isinstance(name, str) or not name.replace("-", "").isalnum() or not name.isascii():
        raise invalid_field("key", "must be the name of a header, a function, or None for the address")
    return name.lower()


def parse_network(text: str) -> Network:
    """Parse an address or a network."""
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise invalid_field("trusted_proxies", "must be addresses or networks such as 10.0.0.0/8") from None


def parse_refresh(seconds: object) -> float | None:
    """Return the seconds between two reads of assignments; None for never."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise invalid_field("refresh", "must be a number of seconds above 0, or None")
    return float(seconds)


def parse_dialects(dialects: Sequence[Dialect]) -> tuple[Dialect, ...]:
    """Return dialects, each of which exists."""
    if isinstance(dialects, str) or not set(dialects) <= set(DIALECTS):
        raise invalid_field("dialects", f"must be a list of any of: {', '.join(DIALECTS)}")
    return tuple(dialects)


def collect_texts(options: Mapping[str, Any], name: str) -> Sequence[str]:
    """Return an option that is several texts."""
    texts = options.get(name, ())
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise invalid_field(name, "must be a list of texts")
    return tuple(texts)


def require_fields(constant: Mapping[str, object]) -> None:
    """Refuse an option that is neither a function nor what a check takes."""
    for name, value in constant.items():
        if name == "cost" and not isinstance(value, Mapping):
            raise invalid_field("cost", "must be amounts by unit, such as {'tokens': 850}, or a function")
        if name == "plan" and not isinstance(value, str):
            raise invalid_field("plan", "must be a name or a function")
        if name in {"model", "tenant"}:
            raise invalid_field(name, "must be a function")


def refuse_async(functions: Mapping[str, object]) -> None:
    """Refuse coroutine functions where nobody would await them."""
    for name, function in functions.items():
        if inspect.iscoroutinefunction(function):
            raise invalid_field(name, "must be a plain function here, not a coroutine function")
