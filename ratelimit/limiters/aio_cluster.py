"""Calls to the servers of a cluster, for asyncio.

Each server has its own connection, its own circuit breaker and its own queue of checks. The checks that wait
for a server go out together, in one write: a call for each slot.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, Final

from ratelimit.engine.parts import merge_replies, must_refund, plan_shared, split_check
from ratelimit.limiters.aio_server import LONG_DEADLINES, raise_first_error
from ratelimit.limiters.cluster_commands import (
    PlainCommand,
    ScriptCommand,
    collect_replies,
    make_check_commands,
)
from ratelimit.shortcuts.coalescing import Coalescer
from ratelimit.stores.breaker import PAUSED, PausedCalls
from ratelimit.stores.failures import CONNECTION_ERRORS
from ratelimit.stores.routing import route
from ratelimit.stores.scripts import SETTLE
from ratelimit.stores.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from ratelimit.engine.check_script import ScriptArgument
    from ratelimit.engine.parts import Parts
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.engine.settle_script import ScriptCall
    from ratelimit.limiters.server_watch import ServerWatch
    from ratelimit.shortcuts.coalescing import Reply
    from ratelimit.stores.async_transport import AsyncTransport
    from ratelimit.stores.routing import Batch, RoutedCommand
    from ratelimit.stores.scripts import Script
    from ratelimit.stores.transport import Command
    from ratelimit.stores.url import Address

MAX_WRITES: Final = 1
"""Writes to one server under way at the same time."""

MAX_LIMITS_PER_WRITE: Final = 256
"""The most limits in the calls of one write."""

MIN_REFRESH_INTERVAL: Final = 0.1
"""Seconds between two questions for the servers of the cluster."""


class AsyncCluster:
    """Calls to a cluster; see `AsyncCalls`.

    Args:
        open_transport: returns a transport to a server, with a deadline in seconds.
        seeds: servers of the cluster, to ask for the others.
        deadline: seconds that a call may take.
        make_watch: returns what will be known of a server.
        encode_checks: returns KEYS and ARGV of lua/check.lua for checks.
        encode_refund: returns the call of lua/settle.lua that gives back what a check took.
    """

    def __init__(
        self,
        open_transport: Callable[[float, Address], AsyncTransport],
        seeds: Sequence[Address],
        deadline: float,
        make_watch: Callable[[Address], ServerWatch],
        encode_checks: Callable[[Sequence[ResolvedCheck]], tuple[list[str], list[ScriptArgument]]],
        encode_refund: Callable[[ResolvedCheck, bytes], ScriptCall],
    ) -> None:
        self._topology = Topology(seeds)
        self._deadline = deadline
        self._encode_checks, self._encode_refund = encode_checks, encode_refund
        self._servers = _Servers(
            lambda address: _Server(open_transport, deadline, address, make_watch(address), self._run_checks)
        )
        self._tasks: set[asyncio.Task[Any]] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = -math.inf

    def submit(self, check: ResolvedCheck) -> asyncio.Future[Reply]:
        """Return a future for the reply to a check; see `AsyncCalls`."""
        subject = check.subject
        server = self._servers.by_address.get(self._topology.primaries[subject.cluster_slot])
        if server is None or subject.layout.has_shared:
            return self._start(self._decide(check, split_check(check)))
        return server.coalescer.submit(check)

    async def _decide(self, check: ResolvedCheck, parts: Parts | None) -> Reply:
        """Decide a check, in two parts if it has two."""
        if not self._topology.is_known:
            await self._refresh()
        if parts is None:
            return await self._find_server(check).coalescer.submit(check)
        if not parts.needs_own:
            return await self._find_server(parts.shared).coalescer.submit(parts.shared)
        own, size = await self._find_server(parts.own).coalescer.submit(parts.own)
        shared_check = plan_shared(parts, own)
        shared, _ = await self._find_server(shared_check).coalescer.submit(shared_check)
        if must_refund(parts, own, shared):
            call = self._encode_refund(parts.own, own)
            await self.run_script(SETTLE, call.keys, call.args)
        return merge_replies(check, parts, own, shared), size

    def _find_server(self, check: ResolvedCheck) -> _Server:
        return self._servers.find(self._topology.find_primary(check.subject.cluster_slot))

    async def _run_checks(self, checks: list[ResolvedCheck]) -> Sequence[bytes | Exception]:
        commands = make_check_commands(checks, self._encode_checks)
        await self._route(commands)
        replies = collect_replies(commands, len(checks))
        if all(isinstance(reply, TimeoutError) for reply in replies):
            raise_first_error(replies)  # So the checks that wait for this server fail, too.
        return replies

    async def run_script(self, script: Script, keys: list[str], args: list[ScriptArgument]) -> Any:  # noqa: ANN401 - replies have many types
        """Run a script and return its reply; see `AsyncCalls`."""
        command = ScriptCommand(script, keys, args)
        await self._route([command])
        raise_first_error([command.outcome])
        return command.outcome

    async def run_commands(self, commands: Sequence[Command], *, is_long: bool = False) -> list[Any]:
        """Run commands and return their replies; see `AsyncCalls`."""
        routed = [PlainCommand(command) for command in commands]
        await self._route(routed, is_long=is_long)
        outcomes = [command.outcome for command in routed]
        raise_first_error(outcomes)
        return outcomes

    async def _route(self, commands: Sequence[RoutedCommand], *, is_long: bool = False) -> None:
        """Send commands to where the cluster says, until each has its outcome."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._deadline * (LONG_DEADLINES if is_long else 1)
        if not self._topology.is_known:
            await self._refresh()
        routing = route(self._topology, commands)
        step = next(routing)
        while True:
            if step.pause:
                self._refresh_soon()
                await asyncio.sleep(step.pause)
            sent = [self._send(batch, is_long=is_long) for batch in step.batches]
            answers = [await sent[0]] if len(sent) == 1 else await asyncio.gather(*sent)
            try:
                step = routing.send(answers)
                if loop.time() > until:
                    step = routing.send(None)
            except StopIteration:
                return

    async def _send(self, batch: Batch, *, is_long: bool) -> list[Any]:
        """Send commands to one server, and return the reply to each of them, or the error of all."""
        server = self._servers.find(batch.address)
        watch, started = server.watch, time.monotonic_ns()
        if watch.breaker.is_open and (choice := watch.breaker.choose(started)) != "call":
            if choice == "probe":
                self._refresh_soon()
                self._start(server.probe())
            return [PausedCalls(PAUSED)] * len(batch.commands)
        try:
            answers = await (server.long_transport if is_long else server.transport).call_many(batch.commands)
        except CONNECTION_ERRORS as error:
            watch.note_failure(error, started)
            self._refresh_soon()
            return [error] * len(batch.commands)
        watch.note_calls(batch.check_counts, started)
        return answers

    def _refresh_soon(self) -> None:
        """Ask for the servers of the cluster in the background, unless that was just done."""
        if asyncio.get_running_loop().time() - self._refreshed_at > MIN_REFRESH_INTERVAL:
            self._start_refresh()

    async def _refresh(self) -> None:
        """Ask for the servers of the cluster, and wait for at most a deadline; not at all if none answered.

        If nobody knows the servers then, a seed is called: its breaker knows whether to wait.
        """
        if asyncio.get_running_loop().time() - self._refreshed_at > MIN_REFRESH_INTERVAL or self._is_asking:
            await asyncio.wait([self._start_refresh()], timeout=self._deadline)

    @property
    def _is_asking(self) -> bool:
        return self._refreshing is not None and not self._refreshing.done()

    def _start_refresh(self) -> asyncio.Future[None]:
        if self._refreshing is None or not self._is_asking:
            self._refreshed_at = asyncio.get_running_loop().time()
            self._refreshing = self._start(self._ask_for_servers())
        return self._refreshing

    async def _ask_for_servers(self) -> None:
        for address in self._topology.rotate_candidates():
            server, started = self._servers.find(address), time.monotonic_ns()
            if server.watch.breaker.is_open:
                continue
            try:
                reply = await server.transport.call("CLUSTER", "SLOTS")
            except CONNECTION_ERRORS as error:
                server.watch.note_failure(error, started)
                continue
            self._topology.read_slots(reply, address)
            await self._servers.close_all_but(self._topology.list_primaries())
            return

    async def ping(self) -> None:
        """Make sure that every primary answers."""
        if not self._topology.is_known:
            await self._refresh()
        addresses = self._topology.list_primaries() or self._topology.list_candidates()[:1]
        pings = [self._servers.find(address).transport.call("PING") for address in addresses]
        raise_first_error(await asyncio.gather(*pings, return_exceptions=True))

    async def ask(self) -> bool:
        """Try the servers again that do not answer; return whether any server answers."""
        servers = self._servers.list_all()
        await asyncio.gather(*(server.probe() for server in servers if server.watch.breaker.is_open))
        return not all(server.watch.breaker.is_open for server in servers)

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)
        return task

    def _end_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # Read here, or asyncio logs it if the task that waited was cancelled.

    async def drain(self) -> None:
        """Wait until every check submitted so far has its reply."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(server.coalescer.drain() for server in self._servers.list_all()))

    async def close(self) -> None:
        """Close all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._servers.close_all_but([])


class _Server:
    """One server: its connections, its breaker, and the checks that wait for it."""

    def __init__(
        self,
        open_transport: Callable[[float, Address], AsyncTransport],
        deadline: float,
        address: Address,
        watch: ServerWatch,
        run_checks: Callable[[list[ResolvedCheck]], Awaitable[Sequence[Any]]],
    ) -> None:
        self.transport = open_transport(deadline, address)
        self.long_transport = open_transport(LONG_DEADLINES * deadline, address)
        self.watch = watch
        self.coalescer = Coalescer(run_checks, MAX_WRITES, MAX_LIMITS_PER_WRITE)

    async def probe(self) -> None:
        """Try whether the server answers again."""
        started = time.monotonic_ns()
        try:
            await self.transport.call("PING")
        except CONNECTION_ERRORS as error:
            self.watch.note_failure(error, started)
        else:
            self.watch.note_call(0, started)

    async def close(self) -> None:
        """Close the connections."""
        await self.transport.close()
        await self.long_transport.close()


class _Servers:
    """The servers that were needed so far."""

    def __init__(self, make_server: Callable[[Address], _Server]) -> None:
        self._make_server = make_server
        self.by_address: dict[Address | None, _Server] = {}

    def find(self, address: Address) -> _Server:
        """Return a server."""
        server = self.by_address.get(address)
        if server is None:
            server = self.by_address[address] = self._make_server(address)
        return server

    def list_all(self) -> list[_Server]:
        """Return all servers."""
        return list(self.by_address.values())

    async def close_all_but(self, kept: Sequence[Address]) -> None:
        """Close and forget servers that are not needed and have no checks under way."""
        for address, server in [*self.by_address.items()]:
            if address not in kept and not (kept and server.coalescer.is_busy):
                del self.by_address[address]
                server.watch.close()
                await server.close()
