"""Calls to the servers of a cluster, for threads; `aio_cluster` is the same for asyncio."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

from ratelimit.engine.parts import merge_replies, must_refund, plan_shared, split_check
from ratelimit.limiters.aio_server import LONG_DEADLINES, raise_first_error
from ratelimit.limiters.cluster_commands import (
    PlainCommand,
    ScriptCommand,
    collect_replies,
    make_check_commands,
)
from ratelimit.stores.breaker import PAUSED, PausedCalls
from ratelimit.stores.failures import CONNECTION_ERRORS
from ratelimit.stores.routing import route
from ratelimit.stores.scripts import SETTLE
from ratelimit.stores.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimit.engine.check_script import ScriptArgument
    from ratelimit.engine.parts import Parts
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.engine.settle_script import ScriptCall
    from ratelimit.limiters.server_watch import ServerWatch
    from ratelimit.stores.routing import Batch, RoutedCommand
    from ratelimit.stores.scripts import Script
    from ratelimit.stores.transport import Command, Transport
    from ratelimit.stores.url import Address

MIN_REFRESH_INTERVAL = 0.1
"""Seconds between two questions for the servers of the cluster."""


class Cluster:
    """Calls to a cluster; see `Calls`. The arguments are those of `AsyncCluster`."""

    def __init__(
        self,
        open_transport: Callable[[float, Address], Transport],
        seeds: Sequence[Address],
        deadline: float,
        make_watch: Callable[[Address], ServerWatch],
        encode_checks: Callable[[Sequence[ResolvedCheck]], tuple[list[str], list[ScriptArgument]]],
        encode_refund: Callable[[ResolvedCheck, bytes], ScriptCall],
    ) -> None:
        self._open_transport, self._make_watch = open_transport, make_watch
        self._topology = Topology(seeds)
        self._deadline = deadline
        self._encode_checks, self._encode_refund = encode_checks, encode_refund
        self._lock = threading.Lock()  # held while servers are added or forgotten
        self._servers: dict[Address, _Server] = {}
        self._refreshed_at = -math.inf

    def run_checks(self, checks: Sequence[ResolvedCheck]) -> Sequence[bytes | Exception]:
        """Return the reply to each check, or its error; see `Calls`."""
        parts = [split_check(check) for check in checks]
        if not any(parts):
            return self._run_calls(checks)
        # Earlier checks of the list are decided first, also by the limits that everyone shares.
        return [self._decide(check, part) for check, part in zip(checks, parts, strict=True)]

    def _decide(self, check: ResolvedCheck, parts: Parts | None) -> bytes | Exception:
        """Decide a check, in two parts if it has two."""
        if parts is None:
            return self._run_calls([check])[0]
        if not parts.needs_own:
            return self._run_calls([parts.shared])[0]
        [own] = self._run_calls([parts.own])
        if isinstance(own, Exception):
            return own
        [shared] = self._run_calls([plan_shared(parts, own)])
        if isinstance(shared, Exception):
            return shared
        if must_refund(parts, own, shared):
            call = self._encode_refund(parts.own, own)
            try:
                self.run_script(SETTLE, call.keys, call.args)
            except CONNECTION_ERRORS as error:
                return error
        return merge_replies(check, parts, own, shared)

    def _run_calls(self, checks: Sequence[ResolvedCheck]) -> list[bytes | Exception]:
        commands = make_check_commands(checks, self._encode_checks)
        self._route(commands)
        return collect_replies(commands, len(checks))

    def run_script(self, script: Script, keys: list[str], args: list[ScriptArgument]) -> Any:  # noqa: ANN401 - replies have many types
        """Run a script and return its reply; see `Calls`."""
        command = ScriptCommand(script, keys, args)
        self._route([command])
        raise_first_error([command.outcome])
        return command.outcome

    def run_commands(self, commands: Sequence[Command], *, is_long: bool = False) -> list[Any]:
        """Run commands and return their replies; see `Calls`."""
        routed = [PlainCommand(command) for command in commands]
        self._route(routed, is_long=is_long)
        outcomes = [command.outcome for command in routed]
        raise_first_error(outcomes)
        return outcomes

    def _route(self, commands: Sequence[RoutedCommand], *, is_long: bool = False) -> None:
        """Send commands to where the cluster says, until each has its outcome."""
        until = time.monotonic() + self._deadline * (LONG_DEADLINES if is_long else 1)
        if not self._topology.is_known:
            self._refresh()
        routing = route(self._topology, commands)
        step = next(routing)
        while True:
            if step.pause:
                self._refresh()
                time.sleep(step.pause)  # No server can run the command now: its slot is being moved.
            answers = [self._send(batch, is_long=is_long) for batch in step.batches]
            try:
                step = routing.send(answers)
                if time.monotonic() > until:
                    step = routing.send(None)
            except StopIteration:
                return

    def _send(self, batch: Batch, *, is_long: bool) -> list[Any]:
        """Send commands to one server, and return the reply to each of them, or the error of all."""
        server = self._find_server(batch.address)
        watch, started = server.watch, time.monotonic_ns()
        if watch.breaker.is_open and watch.breaker.choose(started) == "pause":
            return [PausedCalls(PAUSED)] * len(batch.commands)
        try:
            answers = (server.long_transport if is_long else server.transport).call_many(batch.commands)
        except CONNECTION_ERRORS as error:
            watch.note_failure(error, started)
            self._refresh(but=batch.address)
            return [error] * len(batch.commands)
        watch.note_calls(batch.check_counts, started)
        return answers

    def _find_server(self, address: Address) -> _Server:
        server = self._servers.get(address)
        if server is None:
            with self._lock:
                server = self._servers.get(address)
                if server is None:
                    server = _Server(self._open_transport, self._deadline, address, self._make_watch(address))
                    self._servers[address] = server
        return server

    def _refresh(self, but: Address | None = None) -> None:
        """Ask for the servers of the cluster, unless that was just done. If none answers, those stay known.

        It takes one deadline and at most the rest of a call: other servers are then asked at the next time.

        Args:
            but: a server that has just failed.
        """
        if time.monotonic() - self._refreshed_at < MIN_REFRESH_INTERVAL:
            return
        self._refreshed_at = time.monotonic()
        for address in self._topology.rotate_candidates():
            server, started = self._find_server(address), time.monotonic_ns()
            if address == but or server.watch.breaker.is_open:
                continue
            if time.monotonic() - self._refreshed_at > self._deadline:
                return
            try:
                reply = server.transport.call("CLUSTER", "SLOTS")
            except CONNECTION_ERRORS as error:
                server.watch.note_failure(error, started)
                continue
            self._topology.read_slots(reply, address)
            self._close_all_but(self._topology.list_primaries())
            return

    def ping(self) -> None:
        """Make sure that every primary answers."""
        if not self._topology.is_known:
            self._refresh()
        for address in self._topology.list_primaries() or self._topology.list_candidates()[:1]:
            self._find_server(address).transport.call("PING")

    def ask(self) -> bool:
        """Try the servers again that do not answer; return whether any server answers."""
        servers = list(self._servers.values())
        for server in servers:
            if server.watch.breaker.is_open:
                server.probe()
        return not all(server.watch.breaker.is_open for server in servers)

    def _close_all_but(self, kept: Sequence[Address]) -> None:
        """Close and forget servers that are not needed. A call that is under way ends as usual."""
        with self._lock:
            removed = [self._servers.pop(address) for address in [*self._servers] if address not in kept]
        for server in removed:
            server.watch.close()
            server.transport.close()
            server.long_transport.close()

    def close(self) -> None:
        """Close all connections."""
        self._close_all_but([])


class _Server:
    """One server: its connections and its breaker."""

    def __init__(
        self,
        open_transport: Callable[[float, Address], Transport],
        deadline: float,
        address: Address,
        watch: ServerWatch,
    ) -> None:
        self.transport = open_transport(deadline, address)
        self.long_transport = open_transport(LONG_DEADLINES * deadline, address)
        self.watch = watch

    def probe(self) -> None:
        """Try whether the server answers again."""
        started = time.monotonic_ns()
        try:
            self.transport.call("PING")
        except CONNECTION_ERRORS as error:
            self.watch.note_failure(error, started)
        else:
            self.watch.note_call(0, started)
