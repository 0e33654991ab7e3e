"""How a request of a web application becomes a check: its key, cost, plan, model and tenant."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

from ratelimit.policy.spec import ANONYMOUS
from ratelimit.request.check import invalid_field
from ratelimit.web.identity import (
    Identity,
    find_client_address,
    identify_address,
    identify_secret,
    key_of_address,
    read_bearer,
    refuse_anonymous,
)
from ratelimit.web.options import (
    CheckRuleOptions,
    MiddlewareOptions,
    collect_texts,
    parse_dialects,
    parse_header,
    parse_network,
    parse_refresh,
    refuse_async,
    refuse_unknown_options,
    require_fields,
)
from ratelimit.web.problems import Problem

if TYPE_CHECKING:
    from ratelimit.limiters.base import BaseLimiter
    from ratelimit.request.check import CheckOptions

R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)

MAX_BODY_TAIL: Final = 2**20
DEFAULT_REFRESH: Final = 1.0  # seconds
_FIELDS: Final = ("plan", "model", "tenant", "cost")


class RequestReader(Protocol[R_contra]):
    """Reads what the rules need from a framework's request."""

    def list_headers(self, request: R_contra, name: str) -> list[str]:
        """Return every value of a header, by its lower-case name."""

    def find_peer(self, request: R_contra) -> str | None:
        """Return the address that the connection came from; None for a Unix socket."""


class _Fields:
    """The fields of checks that the options give: those that never change, and functions for others."""

    __slots__ = ("computed", "constant")

    def __init__(self, fields: dict[str, Any]) -> None:
        # It is cast here and not for each request, where the call would cost a quarter of the time.
        self.constant: CheckOptions = cast(
            "CheckOptions", {name: value for name, value in fields.items() if not callable(value)}
        )
        self.computed = {name: value for name, value in fields.items() if callable(value)}


class CheckRules(Generic[R]):
    """Turns requests into checks.

    Args:
        reader: reads the framework's requests.
        options: see `CheckRuleOptions`.
        allow_async: whether functions of the options may be coroutine functions, except `key`.

    Raises:
        TypeError: there is no such option.
        InvalidRequest: an option is wrong; the message says what is allowed.
    """

    def __init__(
        self, reader: RequestReader[R], options: CheckRuleOptions[R, Any, Any], *, allow_async: bool = False
    ) -> None:
        refuse_unknown_options(options, CheckRuleOptions)
        key, self._pepper = options.get("key"), options.get("pepper")
        self._reader = reader
        self._find_key = key if callable(key) else None
        self._header = None if key is None or callable(key) else parse_header(key)
        self._is_bearer = self._header == "authorization"
        if not (self._find_key or self._pepper):
            raise invalid_field(
                "pepper",
                "required: a secret text, the same in every process, that turns secrets and addresses into "
                "keys; only a function as `key` needs none",
            )
        fields = {name: options[name] for name in _FIELDS if options.get(name) is not None}
        self._known = _Fields(fields)
        self._anonymous = _Fields({**fields, "plan": ANONYMOUS})
        require_fields(self._known.constant)
        refuse_async({"key": key} if allow_async else {"key": key, **self._known.computed})
        self._trusted = tuple(parse_network(text) for text in collect_texts(options, "trusted_proxies"))
        self.dialects = parse_dialects(options.get("dialects", ("ietf",)))
        self.refresh = parse_refresh(options.get("refresh", DEFAULT_REFRESH))

    def identify(self, request: R, limiter: BaseLimiter) -> Identity:
        """Return the key of a request.

        Raises:
            Problem: 400 if the header with the secret was sent twice; 401 where the policy admits no such
                request; 503 where it is not known yet whether it does.
        """
        if self._header is not None:
            values = self._reader.list_headers(request, self._header)
            if values:
                if len(values) > 1:  # The application might take the other one.
                    raise Problem(400, f"the header {self._header} was sent more than once")
                secret = read_bearer(values[0]) if self._is_bearer else values[0].strip()
                if secret and (identity := identify_secret(secret, self._pepper or "", limiter)):
                    return identity
        elif self._find_key is not None and (key := self._find_key(request)) is not None:
            return key, False
        return self._identify_address(request, limiter)

    def make_options(self, request: R, *, is_anonymous: bool) -> CheckOptions:
        """Return the other fields of a request's check."""
        fields = self._anonymous if is_anonymous else self._known
        if not fields.computed:
            return fields.constant
        options: dict[str, Any] = {**fields.constant}
        for name, compute in fields.computed.items():
            if (value := compute(request)) is not None:
                options[name] = value
        return cast("CheckOptions", options)

    async def make_options_async(self, request: R, *, is_anonymous: bool) -> CheckOptions:
        """Do the same where functions may be coroutine functions.

        Each is awaited before the next is called: if it fails, no coroutine is left that nobody awaits.
        """
        fields = self._anonymous if is_anonymous else self._known
        options: dict[str, Any] = {**fields.constant}
        for name, compute in fields.computed.items():
            value = compute(request)
            if inspect.isawaitable(value):
                value = await value
            if value is not None:
                options[name] = value
        return cast("CheckOptions", options)

    def _identify_address(self, request: R, limiter: BaseLimiter) -> Identity:
        peer = self._reader.find_peer(request)
        forwarded = self._reader.list_headers(request, "x-forwarded-for") if self._trusted else ()
        address = find_client_address(peer, forwarded, self._trusted)
        everyone = self._find_key is None and self._header is None
        if everyone and ANONYMOUS not in limiter.policy.plans:
            return key_of_address(address, self._pepper or ""), False
        if not self._pepper:
            raise refuse_anonymous("the request carries no key")
        return identify_address(address, self._pepper, limiter)


class MiddlewareRules(CheckRules[R]):
    """The rules of a middleware.

    Attributes:
        reserve: whether each check makes a reservation.
        usage: reads the usage of an answer.
        body_tail: how many bytes of the end of a body it needs.
    """

    def __init__(self, reader: RequestReader[R], options: MiddlewareOptions[R]) -> None:
        refuse_unknown_options(options, MiddlewareOptions)
        own = MiddlewareOptions.__annotations__.keys() - CheckRuleOptions.__annotations__.keys()
        shared = {name: value for name, value in options.items() if name not in own}
        super().__init__(reader, cast("CheckRuleOptions[R, Any, Any]", shared))
        exclude = collect_texts(options, "exclude")
        self._excluded_paths = frozenset(path for path in exclude if not path.endswith("/"))
        self._excluded_folders = tuple(path for path in exclude if path.endswith("/"))
        self.reserve, self.usage = options.get("reserve", False), options.get("usage")
        self.body_tail = options.get("body_tail", 0)
        refuse_async({"usage": self.usage})
        if not self.reserve and (self.usage is not None or self.body_tail):
            raise invalid_field("usage", "needs reserve=True: only a reservation can be settled")
        if self.body_tail not in range(MAX_BODY_TAIL + 1):
            raise invalid_field("body_tail", f"must be a whole number of bytes from 0 to {MAX_BODY_TAIL}")

    def excludes(self, path: str, root: str | None = None) -> bool:
        """Return whether requests of a path are not limited.

        Args:
            path: the whole path.
            root: where the application is mounted, if `path` includes that: the path below it counts, too.
        """
        folders = self._excluded_folders
        if path in self._excluded_paths or (folders and path.startswith(folders)):
            return True
        if root and path.startswith(f"{root}/"):
            return self.excludes(path[len(root) :])
        return False
