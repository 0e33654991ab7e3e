"""Calls to a store that is one server, for asyncio."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from redis.exceptions import NoScriptError

from ratelimit.engine.check_script import split_replies
from ratelimit.shortcuts.coalescing import Coalescer
from ratelimit.stores.breaker import PAUSED, PausedCalls
from ratelimit.stores.failures import CONNECTION_ERRORS
from ratelimit.stores.scripts import CHECK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimit.engine.check_script import ScriptArgument
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.limiters.server_watch import ServerWatch
    from ratelimit.shortcuts.coalescing import Reply
    from ratelimit.stores.async_transport import AsyncTransport
    from ratelimit.stores.scripts import Script
    from ratelimit.stores.transport import Command

LONG_DEADLINES: Final = 20
"""Reading all assignments may take this many deadlines: there may be many keys, and no check waits for it."""


class AsyncCalls(Protocol):
    """Calls to a store: one server, or a cluster.

    The methods raise the errors of `CONNECTION_ERRORS`.
    """

    def submit(self, check: ResolvedCheck) -> asyncio.Future[Reply]:
        """Return a future for the reply to a check. If it is cancelled in time, the check is not sent."""
        ...

    async def run_script(self, script: Script, keys: list[str], args: list[ScriptArgument]) -> Any:  # noqa: ANN401 - replies have many types
        """Run a script and return its reply."""
        ...

    async def run_commands(self, commands: Sequence[Command], *, is_long: bool = False) -> list[Any]:
        """Run commands together and return their replies.

        Args:
            commands: the commands; the first argument of each is its store key.
            is_long: whether the replies may be long: then they do not delay checks, and may take longer.
        """
        ...

    async def ping(self) -> None:
        """Make sure that every server answers."""
        ...

    async def ask(self) -> bool:
        """Return whether the store answers, even while calls are paused."""
        ...

    async def drain(self) -> None:
        """Wait until every check submitted so far has its reply."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class AsyncServer:
    """Calls to one server; see `AsyncCalls`.

    Args:
        open_transport: returns a transport with this deadline in seconds.
        deadline: seconds that a call may take.
        watch: what is known of the server.
        encode_checks: returns KEYS and ARGV of lua/check.lua for checks.
    """

    def __init__(
        self,
        open_transport: Callable[[float], AsyncTransport],
        deadline: float,
        watch: ServerWatch,
        encode_checks: Callable[[Sequence[ResolvedCheck]], tuple[list[str], list[ScriptArgument]]],
    ) -> None:
        self._transport = open_transport(deadline)
        self._long_transport = open_transport(LONG_DEADLINES * deadline)
        self._watch = watch
        self._encode_checks = encode_checks
        self._coalescer = Coalescer(self._run_checks)
        self._tasks: set[asyncio.Task[bool]] = set()
        self.submit = self._coalescer.submit
        self.drain = self._coalescer.drain

    async def _run_checks(self, checks: list[ResolvedCheck]) -> list[bytes]:
        keys, args = self._encode_checks(checks)
        return split_replies(await self._run_script(CHECK, keys, args, len(checks)), len(checks))

    async def run_script(self, script: Script, keys: list[str], args: list[ScriptArgument]) -> Any:  # noqa: ANN401 - replies have many types
        """Run a script and return its reply; see `AsyncCalls`."""
        return await self._run_script(script, keys, args, 0)

    async def _run_script(
        self, script: Script, keys: list[str], args: list[ScriptArgument], checks: int
    ) -> Any:  # noqa: ANN401 - replies have many types
        call, breaker = self._transport.call, self._watch.breaker
        started = time.monotonic_ns()
        if breaker.is_open and (choice := breaker.choose(started)) != "call":
            if choice == "probe":
                self._probe()
            raise PausedCalls(PAUSED)
        try:
            try:
                reply = await call("EVALSHA", script.sha, len(keys), *keys, *args)
            except NoScriptError:  # The script did not run: the server was flushed, restarted or replaced.
                reply = await call("EVAL", script.source, len(keys), *keys, *args)
        except CONNECTION_ERRORS as error:
            self._watch.note_failure(error, started)
            raise
        self._watch.note_call(checks, started)
        return reply

    async def run_commands(self, commands: Sequence[Command], *, is_long: bool = False) -> list[Any]:
        """Run commands together and return their replies; see `AsyncCalls`."""
        transport = self._long_transport if is_long else self._transport
        started = time.monotonic_ns()
        try:
            replies = await transport.call_many(commands)
            raise_first_error(replies)
        except CONNECTION_ERRORS as error:
            self._watch.note_failure(error, started)
            raise
        self._watch.note_call(0, started)
        return replies

    async def ping(self) -> None:
        """Make sure that the server answers."""
        await self._transport.call("PING")

    async def ask(self) -> bool:
        """Return whether the server answers."""
        started = time.monotonic_ns()
        try:
            await self.ping()
        except CONNECTION_ERRORS as error:
            self._watch.note_failure(error, started)
            return False
        self._watch.note_call(0, started)
        return True

    def _probe(self) -> None:
        """Try the server in the background. No check waits for that."""
        task = asyncio.get_running_loop().create_task(self.ask())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*self._tasks)
        await self._transport.close()
        await self._long_transport.close()


def raise_first_error(replies: Sequence[Any]) -> None:
    """Raise the first of the replies that is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
