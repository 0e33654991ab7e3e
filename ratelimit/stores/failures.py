"""Errors of calls to the store, and what they mean."""

from __future__ import annotations

from typing import Final, Literal

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

CONNECTION_ERRORS: Final = (RedisError, OSError, TimeoutError)
"""Every error that a command to the store may raise."""

_REFUSALS: Final = (AuthenticationError, AuthorizationError, NoPermissionError)

FailureReason = Literal["timeout", "connection", "refused", "error"]
"""Why a call to the store failed: no answer within the deadline, the connection, the store refuses this
client, or any other error that the store replied."""


def is_refusal(error: Exception) -> bool:
    """Whether the store answers but refuses this client, which waiting does not repair."""
    return isinstance(error, _REFUSALS)


def classify_error(error: Exception) -> FailureReason:
    """Return why a call to the store failed, as one of a few words."""
    if _is_timeout(error):
        return "timeout"
    if is_refusal(error):
        return "refused"
    return "error" if isinstance(error, ResponseError) else "connection"


def explain_error(error: Exception) -> str:
    """Return one line that says what went wrong between this process and the store."""
    if _is_timeout(error):
        return "no answer within the deadline"
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, TimeoutError) or "Timeout" in type(error).__name__
