"""A cluster under load, while servers fail over and slots move: nothing is over-admitted or raised."""

import os
import signal

import pytest

from ratelimit.engine.keyspace import EVERYONE, find_slot, find_tag

from ..clusters import KEYSPACE, open_cluster_client, run_cluster
from ..processes import wait_until
from ..stored import used
from .loads import BURST, LIMITS, SHARED, TENANTS, Load


@pytest.fixture(scope="module")
def own_cluster(short_dir):
    with run_cluster(short_dir / "failover", replicas=1) as cluster:
        yield cluster


@pytest.fixture
def client(own_cluster):
    wait_until(own_cluster.is_agreed)
    client = open_cluster_client(own_cluster.url, decode_responses=True, encoding="latin-1")
    client.flushall()
    yield client
    client.close()


def read_used(client):
    return {tenant: used(client, "requests", f"rl1:{{{tenant}}}:k") for tenant in TENANTS}


def assert_nothing_was_lost(load, client):
    """What was admitted was charged; what was charged without an answer is less than a call for each task."""
    charged = read_used(client)
    for tenant in TENANTS:
        assert load.admitted[tenant] <= charged[tenant] + 1e-3 <= BURST + 1e-2
    assert sum(load.admitted.values()) > 0


def test_p1_p6_slots_that_move_back_and_forth_lose_and_double_nothing(own_cluster, client, report):
    slots = [find_slot(find_tag(KEYSPACE.make_prefix(tenant))) for tenant in TENANTS]
    owners = {slot: own_cluster.find_owner(slot) for slot in slots}

    def move():
        for _ in range(2):
            for slot, owner in list(owners.items())[:6]:
                other = next(node for node in own_cluster.primaries if node is not owner)
                own_cluster.move_slot(slot, other, batch=1)
            for slot, owner in list(owners.items())[:6]:
                own_cluster.move_slot(slot, owner, batch=1)

    load = Load(own_cluster.url)
    load.run(move)
    report(load.describe("slots moved"))
    assert_nothing_was_lost(load, client)
    unknown = sum(read_used(client).values()) - sum(load.admitted.values())
    assert unknown <= load.outages


def test_p1_p6_the_slot_that_everyone_shares_moves(own_cluster, client, report):
    slot = find_slot(find_tag(EVERYONE))
    owner = own_cluster.find_owner(slot)
    other = next(node for node in own_cluster.primaries if node is not owner)

    def move():
        own_cluster.move_slot(slot, other, batch=1)
        own_cluster.move_slot(slot, owner, batch=1)

    load = Load(own_cluster.url, *LIMITS, SHARED)
    load.run(move)
    report(load.describe("shared slot moved"))
    assert_nothing_was_lost(load, client)
    refilled = 1  # in more than a minute
    assert sum(load.admitted.values()) <= used(client, "everyone", EVERYONE) + refilled


def test_p1_a_graceful_failover_loses_nothing(own_cluster, client, report):
    primary = own_cluster.find_shard_owner(TENANTS[0])
    replica = find_replica(own_cluster, primary)

    def fail_over():
        replica.client.execute_command("CLUSTER", "FAILOVER")
        wait_until(lambda: replica.client.info("replication")["role"] == "master")

    load = Load(own_cluster.url)
    load.run(fail_over)
    report(load.describe("graceful failover"))
    assert_nothing_was_lost(load, client)
    primary.client.execute_command("CLUSTER", "FAILOVER")
    wait_until(lambda: primary.client.info("replication")["role"] == "master")


def test_p1_p8_a_primary_that_is_killed_is_replaced(own_cluster, client, report):
    """What the replica had not yet received is lost: at most that is admitted a second time."""
    primary = own_cluster.find_shard_owner(TENANTS[0])
    replica = find_replica(own_cluster, primary)

    def kill():
        os.kill(primary.pid, signal.SIGKILL)
        wait_until(lambda: replica.client.info("replication")["role"] == "master")
        wait_until(lambda: "cluster_state:ok" in replica.client.execute_command("CLUSTER", "INFO"))

    load = Load(own_cluster.url)
    load.run(kill, seconds_after=1.5)
    report(load.describe("primary killed"))
    lost = sum(load.admitted.values()) - sum(read_used(client).values())
    report(f"writes lost: {max(lost, 0):.0f}")
    assert lost <= 24 * 2
    assert load.decided > 0
    later = Load(own_cluster.url)
    later.run(lambda: None, seconds_after=0.3)
    assert later.outages == 0


def find_replica(cluster, primary):
    for node in cluster.nodes:
        info = node.client.info("replication")
        if info["role"] == "slave" and info["master_port"] == primary.port:
            return node
    raise AssertionError(primary.address)
