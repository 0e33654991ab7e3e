"""A simulated cluster: real routing ends at a transport that takes time and asks the engine's simulator."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from struct import Struct
from typing import Any, Final, Protocol

from redis.exceptions import ConnectionError as LostConnection

from benchmarks.scale.clock import VirtualLoop
from benchmarks.scale.ledger import Ledger
from ratelimit.engine.keyspace import SHARDS, SLOTS, Keyspace, find_slot, find_tag
from ratelimit.engine.reservation_record import read_record
from ratelimit.engine.resolver import ResolvedCheck, Resolver
from ratelimit.engine.simulation import SimulatedBuckets
from ratelimit.stores.scripts import CHECK
from ratelimit.stores.transport import Command
from ratelimit.stores.url import Address

MAX_SKEW: Final = 5_000_000
_NUMBERS: Final = Struct("<2d")


@dataclass
class Node:
    """A primary of the store, and what it was asked."""

    buckets: SimulatedBuckets = field(default_factory=SimulatedBuckets)
    is_up: bool = True
    calls: int = 0  # check calls
    checks: int = 0  # of users; takes of leases are not among them
    takes: int = 0  # of leases
    returns: int = 0


class SimulatedStore:
    """Nodes with equally many cluster slots each."""

    def __init__(self, loop: VirtualLoop, nodes: int, ledger: Ledger) -> None:
        self.loop, self.ledger = loop, ledger
        self.resolver: Resolver | None = None  # of the first sidecar, for all: it only computes
        self.nodes = [Node() for _ in range(nodes)]
        # Checks that take a lease, by id: they are held by the limiter until they are decided.
        self.lease_takes: set[int] = set()
        ends = [SLOTS * number // nodes for number in range(nodes + 1)]
        self.slots: list[tuple[int, int, tuple[str, int, str]]] = [
            (first, end - 1, (f"node-{number}", 6379, ""))
            for number, (first, end) in enumerate(pairwise(ends))
        ]

    @property
    def hosts(self) -> list[Address]:
        return [("node-0", 6379)]

    def find_node(self, tenant: str) -> int:
        """Return the number of the node that has a tenant's buckets."""
        slot = find_slot(find_tag(Keyspace(SHARDS).make_prefix(tenant)))
        return next(number for number, (_, last, _) in enumerate(self.slots) if slot <= last)

    def lose_node(self, number: int) -> None:
        """Take a node down with all its state."""
        self.nodes[number].is_up = False
        self.nodes[number].buckets = SimulatedBuckets()

    def restore_node(self, number: int) -> None:
        self.nodes[number].is_up = True

    def run(self, command: Command, sidecar: int, number: int) -> Any:
        """Run one command of a sidecar on a node and return the reply."""
        name, *rest = command
        if name == "CLUSTER":
            return self.slots
        if name == "PING":
            return b"PONG"
        args: list[Any] = list(rest)
        node = self.nodes[number]
        if args[0] == CHECK.sha or args[0] == CHECK.source:
            return self._decide(args[2], sidecar, node)
        keys = int(args[1])
        return self._settle(args[2 + keys :], sidecar, node)

    def _decide(self, checks: list[ResolvedCheck], sidecar: int, node: Node) -> list[bytes]:
        now = self.loop.read_microseconds()
        replies = node.buckets.decide(checks, now=now, max_skew=MAX_SKEW)
        node.calls += 1
        for check, reply in zip(checks, replies, strict=True):
            is_take = id(check) in self.lease_takes
            self.lease_takes.discard(id(check))
            node.takes += is_take
            node.checks += not is_take
            if not (check.take and reply.startswith(b"1")):
                continue
            for placed, store_key, cost in check.limit_costs:
                bucket_id = store_key, placed.limit.name
                if is_take:
                    self.ledger.note_lease(sidecar, bucket_id, placed.shape, cost, now)
                else:
                    self.ledger.note_spent(bucket_id, placed.shape, cost, now)
        return replies

    def _settle(self, args: list[Any], sidecar: int, node: Node) -> list[bytes | str]:
        """Do what lua/settle.lua does to buckets when a lease is returned or an outage is charged."""
        now, text, tenant, prefix = self.loop.read_microseconds(), args[5], args[8], args[9]
        limits: list[str] = text.rpartition(" ")[0] and text.split(" ", 4)[4].split(";")[:-1]
        costs = [float(limit.rpartition(" ")[2]) for limit in limits]
        head = b"c" + _NUMBERS.pack(now, len(costs) * _NUMBERS.size)
        record = read_record(head + bytes(len(costs) * _NUMBERS.size) + text.encode(), tenant, prefix)
        states = b""
        for limit, cost in zip(record.limits, costs, strict=True):
            bucket_id = limit.store_key, limit.name
            states += _NUMBERS.pack(*node.buckets.adjust(bucket_id, limit.shape, now=now, amount=-cost))
            if cost > 0:
                node.returns += 1
                self.ledger.note_lease(sidecar, bucket_id, limit.shape, -cost, now)
        return [b"cancelled", b"0", head + states + text.encode()]


class Caller(Protocol):
    """A sidecar, as a transport sees it."""

    simulated: SimulatedStore
    number: int
    calls: int


class SimulatedTransport:
    """A sidecar's connection to one node; see `AsyncTransport`."""

    def __init__(self, caller: Caller, number: int, delay: float, deadline: float) -> None:
        self._caller, self._number = caller, number
        self._delay, self._deadline = delay, deadline

    async def call(self, *command: Any) -> Any:
        [reply] = await self.call_many([command])
        return reply

    async def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies after a round trip; the node runs the commands half-way."""
        self._caller.calls += len(commands)
        if 2 * self._delay > self._deadline:  # charged or not: as with a real store nobody knows
            await asyncio.sleep(self._delay)
            self._run(commands)
            await asyncio.sleep(max(0.0, self._deadline - self._delay))
            raise TimeoutError
        await asyncio.sleep(self._delay)
        replies = self._run(commands)
        await asyncio.sleep(self._delay)
        return replies

    def _run(self, commands: Sequence[Command]) -> list[Any]:
        store, caller = self._caller.simulated, self._caller
        if not store.nodes[self._number].is_up:
            raise LostConnection("connection refused")
        return [store.run(command, caller.number, self._number) for command in commands]

    async def close(self) -> None:
        """Close nothing."""
