"""Errors of calls to the store, and what they mean."""

from __future__ import annotations

import re
from typing import Final, Literal

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ExecAbortError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from ratelimit.stores.refusals import explain_refusal

CONNECTION_ERRORS: Final = (RedisError, OSError, TimeoutError)
"""Every error that a command to the store may raise."""

_REFUSALS: Final = (AuthenticationError, AuthorizationError, NoPermissionError)

_QUOTED_PIPELINE: Final = re.compile(r"Command # \d+ \(.*\) of pipeline caused error: ", re.DOTALL)
_QUOTED_ARGUMENTS: Final = re.compile(r",? with args beginning with.*", re.DOTALL)
"""What errors quote of a command. It may contain a whole key."""

FailureReason = Literal["timeout", "connection", "refused", "error"]
"""Why a call to the store failed: no answer within the deadline, the connection, the store refuses this
client, or any other error that the store replied."""


def is_refusal(error: Exception) -> bool:
    """Whether the store answers but refuses this client, which waiting does not repair."""
    # The refusal of EXEC itself is an abort that quotes it.
    return isinstance(error, _REFUSALS) or (isinstance(error, ExecAbortError) and "NOPERM" in str(error))


def classify_error(error: Exception) -> FailureReason:
    """Return why a call to the store failed, as one of a few words."""
    if _is_timeout(error):
        return "timeout"
    if is_refusal(error):
        return "refused"
    # For redis-py, LOADING is an error of the connection.
    return "error" if isinstance(error, (ResponseError, BusyLoadingError)) else "connection"


def explain_error(error: Exception) -> str:
    """Return one line that says what went wrong between this process and the store.

    It names the command that an ACL does not allow, and never the arguments of a command.
    """
    if _is_timeout(error):
        return "no answer within the deadline"
    text = _QUOTED_PIPELINE.sub("", str(error))
    if is_refusal(error) and (explanation := explain_refusal(text)) is not None:
        return explanation
    if text.endswith("EXEC without MULTI"):  # redis-py raises this in place of the refusal of MULTI
        return "the store has refused the command MULTI"
    code = getattr(error, "status_code", None)
    if code not in {None, "ERR"}:  # redis-py cuts it off, and it is what people search for
        text = f"{code} {text}"
    return (" ".join(_QUOTED_ARGUMENTS.sub("", text).split()) or type(error).__name__).rstrip(".")


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, TimeoutError) or "Timeout" in type(error).__name__
