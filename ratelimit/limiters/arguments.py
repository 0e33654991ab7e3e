"""The arguments of limiters: their ranges, and what they become."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from ratelimit.engine.settle_script import SettleOptions
from ratelimit.errors import Fault, PolicyError
from ratelimit.policy import Limit, Policy
from ratelimit.request.check import invalid_field
from ratelimit.request.timestamp import MICROSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable

USAGE_LENGTH: Final = 100_000
"""How many usage records the stream keeps by default."""

USAGE_AGE: Final = 30 * 86_400.0
"""Seconds for which it keeps a usage record by default: 30 days."""

MAX_USAGE_LENGTH: Final = 10**9
MAX_USAGE_AGE: Final = 366 * 86_400


def make_policy(policy: Policy | Limit | Iterable[Limit]) -> Policy:
    """Return a policy as it is, or make a policy from limits.

    Raises:
        PolicyError: the argument is neither a policy nor limits.
    """
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, Limit):
        return Policy.of(policy)
    with contextlib.suppress(TypeError):  # It cannot be iterated.
        limits = tuple(policy)
        if all(isinstance(limit, Limit) for limit in limits):
            return Policy.of(*limits)
    message = "must be a Policy, a Limit or several limits; to read a file, use Policy.from_file(path)"
    raise PolicyError([Fault("", message)], "policy")


def make_settle_options(
    max_skew: float | None, remember: float, usage_length: int, usage_age: float
) -> SettleOptions:
    """Return the options of settlements, from arguments of a limiter.

    Raises:
        InvalidRequest: one of them is out of range.
    """
    return SettleOptions(
        _parse_max_skew(max_skew),
        _parse_remember(remember),
        _parse_usage_length(usage_length),
        _parse_usage_age(usage_age),
    )


def _parse_remember(remember: float) -> int:
    """Convert the seconds to remember to milliseconds.

    Raises:
        InvalidRequest: the value is not from 1 to 86400 seconds (a day).
    """
    if not 1 <= remember <= 86_400:  # noqa: PLR2004 - a day
        raise invalid_field("remember", "must be from 1 to 86400 seconds")
    return round(remember * 1000)


def _parse_max_skew(max_skew: float | None) -> int | None:
    """Convert seconds of skew to microseconds; None, which means to trust all timestamps, stays None.

    Raises:
        InvalidRequest: the value is not from 0 to 86400 seconds (a day).
    """
    if max_skew is None:
        return None
    if not 0 <= max_skew <= 86_400:  # noqa: PLR2004 - a day
        raise invalid_field("max_skew", "must be from 0 to 86400 seconds, or None to trust all timestamps")
    return round(max_skew * MICROSECONDS)


def _parse_usage_length(length: int) -> int:
    if not 0 <= length <= MAX_USAGE_LENGTH or length % 1:
        raise invalid_field("usage_length", f"must be a whole number from 0 to {MAX_USAGE_LENGTH}")
    return int(length)


def _parse_usage_age(age: float) -> int:
    """Convert seconds to milliseconds."""
    if not 1 <= age <= MAX_USAGE_AGE:
        raise invalid_field("usage_age", f"must be from 1 to {MAX_USAGE_AGE} seconds (366 days)")
    return round(age * 1000)
