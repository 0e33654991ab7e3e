"""Clusters and Sentinels replace a primary, or move slots: each decision is judged by the history checker."""

import os
import signal

import pytest

from ratelimit.engine.keyspace import find_slot, find_tag

from ..clusters import KEYSPACE, run_cluster
from ..processes import wait_until
from ..sentinels import SERVICE, run_sentinels
from ..sidecars import run_sidecar
from .judgement import assert_only_forgotten, assert_sound
from .load import POLICY

DEADLINE = ("--deadline", "250ms")


@pytest.fixture(scope="module")
def cluster(short_dir):
    with run_cluster(short_dir / "faults-cluster", replicas=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def sidecar(cluster, history):
    flags = ("--redis", cluster.url, "--history", str(history), *DEADLINE)
    with run_sidecar(*flags, policy=POLICY) as sidecar:
        yield sidecar


@pytest.fixture
def load(cluster, sidecar, make_load):
    wait_until(cluster.is_agreed)
    wait_until(lambda: sidecar.check("probe").json()["source"] == "store")
    with make_load([sidecar.port]) as load:
        load.wait_for_decisions()
        yield load


def test_p1_p6_slots_that_move_break_nothing(cluster, load, history, judge):
    slot = find_slot(find_tag(KEYSPACE.make_prefix(load.tenant)))
    owner = cluster.find_owner(slot)
    other = next(node for node in cluster.primaries if node is not owner)
    for target in (other, owner) * 2:
        cluster.move_slot(slot, target, batch=1)
        load.wait_for_decisions(30)
    load.finish()
    assert_sound(judge(load, [history], "the tenant's slot moved four times", "nothing", "cluster"))


def test_p1_a_failover_by_command_breaks_nothing(cluster, load, history, judge):
    primary = cluster.find_shard_owner(load.tenant)
    replica = find_replica(cluster, primary)
    replica.client.execute_command("CLUSTER", "FAILOVER")
    wait_until(lambda: replica.client.info("replication")["role"] == "master")
    load.finish()
    assert_sound(judge(load, [history], "failover by command", "nothing", "cluster"))


def test_p1_p8_what_a_killed_primary_had_not_replicated_is_forgotten(cluster, sidecar, load, history, judge):
    primary = cluster.find_shard_owner(load.tenant)
    replica = find_replica(cluster, primary)
    lose_writes(primary.client, primary.pid, replica.pid, sidecar, load)
    wait_until(lambda: replica.client.info("replication")["role"] == "master")
    load.wait_for_decisions()
    assert take_most(sidecar, load), "nothing was lost"
    load.end()
    fault = "primary killed before it had replicated"
    report = judge(load, [history], fault, "what was not replicated is forgotten", "cluster")
    assert_only_forgotten(report)
    assert report.select_faults("over-admitted")


def find_replica(cluster, primary):
    for node in cluster.nodes:
        info = node.client.info("replication") if node.is_running else {}
        if info.get("role") == "slave" and info["master_port"] == primary.port:
            return node
    raise AssertionError(primary.address)


def lose_writes(client, primary, replica, sidecar, load):
    """Kill a primary whose last writes have not reached its replica. One of them nearly empties a bucket.

    Args:
        client: of the primary.
        primary: its process.
        replica: the replica's process.
        sidecar: asks the primary.
        load: goes on meanwhile.
    """
    os.kill(replica, signal.SIGSTOP)
    client.client_kill_filter(_type="replica")
    load.wait_for_decisions(100)
    assert take_most(sidecar, load)
    os.kill(primary, signal.SIGKILL)
    os.kill(replica, signal.SIGCONT)


def take_most(sidecar, load):
    """Take most of a bucket that the load does not use; return whether it was there."""
    return sidecar.check("lost", tenant=load.tenant, cost={"requests": 39}).json()["allowed"]


@pytest.fixture
def group(short_dir, request):
    with run_sentinels(short_dir / request.node.name[-20:]) as group:
        yield group


@pytest.fixture
def group_sidecar(group, tmp_path):
    flags = ("--redis", group.url, "--history", str(tmp_path / "history"), *DEADLINE)
    with run_sidecar(*flags, policy=POLICY) as sidecar:
        yield sidecar


def test_p1_p8_sentinels_replace_a_primary_by_command_and_then_one_that_is_killed(
    group, group_sidecar, tmp_path, make_load, judge
):
    """The first loses nothing; what the killed one had not replicated is forgotten."""
    first = group.primary_port
    with make_load([group_sidecar.port]) as load:
        load.wait_for_decisions()
        group.sentinels[0].execute_command("SENTINEL", "FAILOVER", SERVICE, "COORDINATED")
        wait_until(lambda: group.primary_port != first)
        second = group.primary_port
        wait_until(lambda: group.clients[first].info("replication").get("master_link_status") == "up")
        load.wait_for_decisions()
        store_now = group.clients[second].time()
        pids = [group.clients[port].info("server")["process_id"] for port in (second, first)]
        lose_writes(group.clients[second], *pids, group_sidecar, load)
        wait_until(lambda: group.primary_port == first)
        load.wait_for_decisions()
        assert take_most(group_sidecar, load), "nothing was lost"
        load.end()
    fault = "failover by command, then the new primary killed before it had replicated"
    report = judge(load, [tmp_path / "history"], fault, "what was not replicated is forgotten", "Sentinels")
    assert_only_forgotten(report)
    killed_at = store_now[0] * 1_000_000 + store_now[1]
    assert all(fault.end >= killed_at for fault in report.faults), "nothing is lost by command"
    assert report.select_faults("over-admitted")
