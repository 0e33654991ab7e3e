"""Calls to a store that is one server, for threads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from redis.exceptions import NoScriptError

from ratelimit.engine.check_script import split_replies
from ratelimit.limiters.aio_server import LONG_DEADLINES, raise_first_error
from ratelimit.stores.breaker import PAUSED, PausedCalls
from ratelimit.stores.failures import CONNECTION_ERRORS
from ratelimit.stores.scripts import CHECK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimit.engine.check_script import ScriptArgument
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.limiters.server_watch import ServerWatch
    from ratelimit.stores.scripts import Script
    from ratelimit.stores.transport import Command, Transport


class Calls(Protocol):
    """Calls to a store: one server, or a cluster. Threads may share it.

    `run_checks` raises nothing; the other methods raise the errors of `CONNECTION_ERRORS`.
    """

    def run_checks(self, checks: Sequence[ResolvedCheck]) -> Sequence[bytes | Exception]:
        """Return the reply to each check, or its error. At most `MAX_LIMITS_PER_CALL` limits are allowed."""
        ...

    def run_script(self, script: Script, keys: list[str], args: list[ScriptArgument]) -> Any:  # noqa: ANN401 - replies have many types
        """Run a script and return its reply."""
        ...

    def run_commands(self, commands: Sequence[Command], *, is_long: bool = False) -> list[Any]:
        """Run commands together and return their replies.

        Args:
            commands: the commands; the first argument of each is its store key.
            is_long: whether the replies may be long, and take longer.
        """
        ...

    def ping(self) -> None:
        """Make sure that every server answers."""
        ...

    def ask(self) -> bool:
        """Return whether the store answers, even while calls are paused."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class Server:
    """Calls to one server; see `Calls`.

    Args:
        open_transport: returns a transport with this deadline in seconds.
        deadline: seconds that a call may take.
        watch: what is known of the server.
        encode_checks: returns KEYS and ARGV of lua/check.lua for checks.
    """

    def __init__(
        self,
        open_transport: Callable[[float], Transport],
        deadline: float,
        watch: ServerWatch,
        encode_checks: Callable[[Sequence[ResolvedCheck]], tuple[list[str], list[ScriptArgument]]],
    ) -> None:
        self._transport = open_transport(deadline)
        self._long_transport = open_transport(LONG_DEADLINES * deadline)
        self._watch = watch
        self._encode_checks = encode_checks

    def run_checks(self, checks: Sequence[ResolvedCheck]) -> Sequence[bytes | Exception]:
        """Return the reply to each check, or its error; see `Calls`."""
        keys, args = self._encode_checks(checks)
        try:
            return split_replies(self._run_script(CHECK, keys, args, len(checks)), len(checks))
        except CONNECTION_ERRORS as error:
            return [error] * len(checks)

    def run_script(self, script: Script, keys: list[str], args: list[ScriptArgument]) -> Any:  # noqa: ANN401 - replies have many types
        """Run a script and return its reply; see `Calls`."""
        return self._run_script(script, keys, args, 0)

    def _run_script(self, script: Script, keys: list[str], args: list[ScriptArgument], checks: int) -> Any:  # noqa: ANN401 - replies have many types
        call, breaker = self._transport.call, self._watch.breaker
        started = time.monotonic_ns()
        if breaker.is_open and breaker.choose(started) == "pause":
            raise PausedCalls(PAUSED)
        try:
            try:
                reply = call("EVALSHA", script.sha, len(keys), *keys, *args)
            except NoScriptError:  # The script did not run: the server was flushed, restarted or replaced.
                reply = call("EVAL", script.source, len(keys), *keys, *args)
        except CONNECTION_ERRORS as error:
            self._watch.note_failure(error, started)
            raise
        self._watch.note_call(checks, started)
        return reply

    def run_commands(self, commands: Sequence[Command], *, is_long: bool = False) -> list[Any]:
        """Run commands together and return their replies; see `Calls`."""
        transport = self._long_transport if is_long else self._transport
        started = time.monotonic_ns()
        try:
            replies = transport.call_many(commands)
            raise_first_error(replies)
        except CONNECTION_ERRORS as error:
            self._watch.note_failure(error, started)
            raise
        self._watch.note_call(0, started)
        return replies

    def ping(self) -> None:
        """Make sure that the server answers."""
        self._transport.call("PING")

    def ask(self) -> bool:
        """Return whether the server answers."""
        started = time.monotonic_ns()
        try:
            self.ping()
        except CONNECTION_ERRORS as error:
            self._watch.note_failure(error, started)
            return False
        self._watch.note_call(0, started)
        return True

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()
        self._long_transport.close()
