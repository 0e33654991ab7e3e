"""Replies with which a store refuses a client, or a command to the client's user (ACL)."""

from __future__ import annotations

import re
from typing import Final

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from ratelimit.stores.scripts import CHECK, REPORT, SETTLE

_WRONG_LOGIN: Final = ("NOAUTH", "WRONGPASS")

_NO_PERMISSION: Final = re.compile(
    r"NOPERM\b|ERR ACL failure in script\b"
    r"|ERR (?:Error running script.*: )?The user executing the script can't ",
    re.DOTALL,
)
"""How refusals begin: of a command; of one in a script on Valkey and Redis 7.2, and on Redis 6.2 and 7.0."""

_NAMED_COMMAND: Final = re.compile(r"run the '([^' ]+)' command")
_SCRIPT_LINE: Final = re.compile(r"(?:f_|script: )([0-9a-f]{40})\S* (?:on )?@user_script:(\d+)")
_CALL: Final = re.compile(r"call\('([A-Z]+)'(?:, '(GROUPS)')?")
_STORE_KEYS: Final = re.compile(r"access (?:a key|one of the keys|at least one of the keys)")


def find_refusal(text: str) -> RedisError | None:
    """Return the exception for an error reply that refuses; None for any other error."""
    if text.startswith(_WRONG_LOGIN):
        return AuthenticationError(text)
    return NoPermissionError(text) if _NO_PERMISSION.match(text) else None


def explain_refusal(text: str) -> str | None:
    """Return what the store's ACL does not allow, from the text of a refusal; None if that is not known."""
    if _STORE_KEYS.search(text):
        return "the store's ACL does not allow this user a store key: it needs ~rl1:*"
    command = _find_command(text)
    return command and f"the store's ACL does not allow this user the command {command}"


def _find_command(text: str) -> str | None:
    """Return the command that was refused, as an ACL names it."""
    if (named := _NAMED_COMMAND.search(text)) is not None:
        return named[1].upper()
    # Redis 6.2 and 7.0 say only which line of which script was refused.
    if (place := _SCRIPT_LINE.search(text)) is None:
        return None
    for script in (CHECK, SETTLE, REPORT):
        [line] = script.source.splitlines()[int(place[2]) - 1 :][:1] or [""]
        if script.sha == place[1] and (call := _CALL.search(line)):
            return "|".join(filter(None, call.groups()))
    return None
