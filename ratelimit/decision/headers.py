"""The response headers that tell a client its limits, in the dialects that clients speak.

`ietf`    RateLimit-Policy and RateLimit, draft-ietf-httpapi-ratelimit-headers-10: structured-field
          lists (RFC 9651) of limit names with `q` (units a window), `w` (the window, seconds), `qu`
          (the unit, where it is not requests); `r` (units left) and `t` (seconds until full).
`openai`  x-ratelimit-{limit,remaining,reset}-{requests,tokens}; resets as durations, `6m0s`.
`venice`  the same names; requests reset at a Unix time, tokens after so many seconds.

Every dialect carries Retry-After (RFC 9110, section 10.2.3) on denials, in whole seconds rounded
up, so that whoever obeys it is not a moment too early. Limits in shadow mode stay hidden.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from ratelimit.decision.limit_state import LimitState

_MOST: Final = 999_999_999_999_999
"""Largest Integer of a structured field (RFC 9651, section 3.3.1)."""

_UNITS: Final = {"concurrent": "concurrent-requests"}
"""Units that the draft's registry has under another name."""

Dialect = Literal["ietf", "openai", "venice"]


class Verdict(Protocol):
    """The members of a decision that headers are made from; see `Decision`."""

    @property
    def allowed(self) -> bool:
        """Whether the request may pass."""

    @property
    def timestamp(self) -> datetime:
        """The time of the decision."""

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the same check passes; None for never."""

    @property
    def limits(self) -> Sequence[LimitState]:
        """Every limit that was looked at."""


def make_headers(decision: Verdict, dialects: Sequence[Dialect] = ("ietf",)) -> dict[str, str]:
    """Return the headers for a decision in every dialect named.

    Raises:
        ValueError: there is no such dialect.
    """
    headers: dict[str, str] = {}
    for dialect in dialects:
        if dialect not in _DIALECTS:
            raise ValueError(f"there is no dialect {dialect!r}; any of {', '.join(_DIALECTS)}")
        headers.update(_DIALECTS[dialect](decision))
    if not decision.allowed and decision.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(decision.retry_after)))
    return headers


def _shown(decision: Verdict) -> list[LimitState]:
    return [state for state in decision.limits if state.mode == "enforce"]


def _ietf(decision: Verdict) -> dict[str, str]:
    states = _shown(decision)
    if not states:
        return {}
    return {
        "RateLimit-Policy": ", ".join(
            [_quota(state.name, state.limit, state.period, state.unit) for state in states]
        ),
        "RateLimit": ", ".join(
            [
                f'"{state.name}";r={state.remaining};t={min(math.ceil(state.reset_after), _MOST)}'
                for state in states
            ]
        ),
    }


@functools.lru_cache(maxsize=4096)
def _quota(name: str, limit: int, period: float, unit: str) -> str:
    """Write what a policy says of one limit: the same for every check until the policy changes."""
    window = f";w={period:.0f}" if period else ""
    units = "" if unit == "requests" else f';qu="{_UNITS.get(unit, unit)}"'
    return f'"{name}";q={limit}{window}{units}'


def _tightest(decision: Verdict, unit: str) -> LimitState | None:
    """These dialects have room for one limit of a unit: the one with the least left."""
    states = [state for state in _shown(decision) if state.unit == unit]
    return min(states, key=lambda state: state.remaining, default=None)


def _one_per_unit(
    decision: Verdict, reset: dict[str, Callable[[Verdict, LimitState], str]]
) -> dict[str, str]:
    headers: dict[str, str] = {}
    for unit, text_of in reset.items():
        state = _tightest(decision, unit)
        if state is not None:
            headers[f"x-ratelimit-limit-{unit}"] = str(state.limit)
            headers[f"x-ratelimit-remaining-{unit}"] = str(state.remaining)
            headers[f"x-ratelimit-reset-{unit}"] = text_of(decision, state)
    return headers


def duration(seconds: float) -> str:
    """Write seconds as OpenAI does: `1s`, `6m0s`, `1h0m5s`, `90ms`; fractions are rounded up."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:  # noqa: PLR2004 - a second
        return f"{milliseconds}ms" if milliseconds else "0s"
    whole, milliseconds = divmod(milliseconds, 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    fraction = f".{milliseconds:03d}".rstrip("0") if milliseconds else ""
    return (f"{hours}h" if hours else "") + (f"{minute}m" if minutes else "") + f"{second}{fraction}s"


def _openai(decision: Verdict) -> dict[str, str]:
    def reset(_: Verdict, state: LimitState) -> str:
        return duration(state.reset_after)

    return _one_per_unit(decision, {"requests": reset, "tokens": reset})


def _venice(decision: Verdict) -> dict[str, str]:
    def unix(decision: Verdict, state: LimitState) -> str:
        return str(math.ceil(decision.timestamp.timestamp() + state.reset_after))

    def seconds(_: Verdict, state: LimitState) -> str:
        return str(math.ceil(state.reset_after))

    return _one_per_unit(decision, {"requests": unix, "tokens": seconds})


_DIALECTS: Final[dict[Dialect, Callable[[Verdict], dict[str, str]]]] = {
    "ietf": _ietf,
    "openai": _openai,
    "venice": _venice,
}
