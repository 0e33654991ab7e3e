"""The response headers that tell a client its limits, in several dialects.

`ietf`    RateLimit-Policy and RateLimit, draft-ietf-httpapi-ratelimit-headers-10: structured-field
          lists (RFC 9651) of limit names with `q` (units per window), `w` (the window in seconds),
          `qu` (the unit, if it is not requests); `r` (units left) and `t` (seconds until full).
`openai`  x-ratelimit-{limit,remaining,reset}-{requests,tokens}; resets are durations like `6m0s`.
`venice`  the same names; the reset of requests is a Unix time, that of tokens is in seconds.

In each dialect a denial has Retry-After (RFC 9110, section 10.2.3), in whole seconds, rounded up so
that a client that obeys it does not retry too early. Headers do not show limits in shadow mode.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Final, Literal, Protocol, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from ratelimit.decision.limit_state import LimitState

_MAX_INTEGER: Final = 999_999_999_999_999
"""Largest integer in a structured field (RFC 9651, section 3.3.1)."""

_UNIT_NAMES: Final = {"concurrent": "concurrent-requests"}
"""Units that have another name in the draft's registry."""

Dialect = Literal["ietf", "openai", "venice"]

DIALECTS: Final[tuple[Dialect, ...]] = get_args(Dialect)

WrittenHeaders = tuple[str, tuple[bytes, bytes], str]
"""The headers of the dialect `ietf`: RateLimit-Policy, the same as ASGI sends it, and RateLimit.

RateLimit is empty if no limit is shown; then there is neither header."""


class HeaderInput(Protocol):
    """The members of a decision that the headers are made from; see `Decision`."""

    @property
    def allowed(self) -> bool:
        """Whether the request may pass."""

    @property
    def timestamp(self) -> datetime:
        """The time that the decision is for."""

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the same check passes; None if it can never pass."""

    @property
    def limits(self) -> Sequence[LimitState]:
        """The state of each limit that applies."""


def make_headers(decision: HeaderInput, dialects: Sequence[Dialect] = ("ietf",)) -> dict[str, str]:
    """Return the headers for a decision, in all given dialects.

    Raises:
        ValueError: a dialect does not exist.
    """
    headers: dict[str, str] = {}
    for dialect in dialects:
        if dialect not in _MAKER_BY_DIALECT:
            raise ValueError(f"there is no dialect {dialect!r}; allowed: {', '.join(_MAKER_BY_DIALECT)}")
        headers.update(_MAKER_BY_DIALECT[dialect](decision))
    if not decision.allowed and decision.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(decision.retry_after)))
    return headers


def _list_enforced(decision: HeaderInput) -> list[LimitState]:
    return [state for state in decision.limits if state.mode == "enforce"]


def _make_ietf_headers(decision: HeaderInput) -> dict[str, str]:
    states = _list_enforced(decision)
    if not states:
        return {}
    return {
        "RateLimit-Policy": ", ".join(
            [write_quota(state.name, state.limit, state.period, state.unit) for state in states]
        ),
        "RateLimit": ", ".join(
            [write_entry(state.name, state.remaining, state.reset_after) for state in states]
        ),
    }


def write_entry(name: str, remaining: int, reset_after: float) -> str:
    """Write a limit's entry in RateLimit; `reset_after` is in seconds."""
    return f'"{name}";r={remaining};t={min(math.ceil(reset_after), _MAX_INTEGER)}'


@functools.lru_cache(maxsize=4096)
def write_quota(name: str, limit: int, period: float, unit: str) -> str:
    """Write a limit's entry in RateLimit-Policy. It is cached: it is the same until the policy changes."""
    window = f";w={period:.0f}" if period else ""
    units = "" if unit == "requests" else f';qu="{_UNIT_NAMES.get(unit, unit)}"'
    return f'"{name}";q={limit}{window}{units}'


def _find_tightest(decision: HeaderInput, unit: str) -> LimitState | None:
    """Return the limit on a unit with the least remaining. These dialects can show one limit per unit."""
    states = [state for state in _list_enforced(decision) if state.unit == unit]
    return min(states, key=lambda state: state.remaining, default=None)


def _make_headers_by_unit(
    decision: HeaderInput, writers: dict[str, Callable[[HeaderInput, LimitState], str]]
) -> dict[str, str]:
    headers: dict[str, str] = {}
    for unit, write_reset in writers.items():
        state = _find_tightest(decision, unit)
        if state is not None:
            headers[f"x-ratelimit-limit-{unit}"] = str(state.limit)
            headers[f"x-ratelimit-remaining-{unit}"] = str(state.remaining)
            headers[f"x-ratelimit-reset-{unit}"] = write_reset(decision, state)
    return headers


def write_duration(seconds: float) -> str:
    """Write seconds like OpenAI: `1s`, `6m0s`, `1h0m5s`, `90ms`. Milliseconds are rounded up."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:  # noqa: PLR2004 - a second
        return f"{milliseconds}ms" if milliseconds else "0s"
    whole, milliseconds = divmod(milliseconds, 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    fraction = f".{milliseconds:03d}".rstrip("0") if milliseconds else ""
    return (f"{hours}h" if hours else "") + (f"{minute}m" if minutes else "") + f"{second}{fraction}s"


def _make_openai_headers(decision: HeaderInput) -> dict[str, str]:
    def write_reset(_: HeaderInput, state: LimitState) -> str:
        return write_duration(state.reset_after)

    return _make_headers_by_unit(decision, {"requests": write_reset, "tokens": write_reset})


def _make_venice_headers(decision: HeaderInput) -> dict[str, str]:
    def write_unix_time(decision: HeaderInput, state: LimitState) -> str:
        return str(math.ceil(decision.timestamp.timestamp() + state.reset_after))

    def write_seconds(_: HeaderInput, state: LimitState) -> str:
        return str(math.ceil(state.reset_after))

    return _make_headers_by_unit(decision, {"requests": write_unix_time, "tokens": write_seconds})


_MAKER_BY_DIALECT: Final[dict[Dialect, Callable[[HeaderInput], dict[str, str]]]] = {
    "ietf": _make_ietf_headers,
    "openai": _make_openai_headers,
    "venice": _make_venice_headers,
}
