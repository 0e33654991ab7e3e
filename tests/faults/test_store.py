"""The store fails. Each decision before, while and after it does is judged by the history checker."""

import pytest

from ..processes import find_free_port, wait_until
from ..sidecars import run_sidecar
from .judgement import assert_only_forgotten, assert_sound
from .load import POLICY
from .own_server import OwnServer


@pytest.fixture(scope="module")
def store(short_dir):
    folder = short_dir / "faults"
    folder.mkdir()
    server = OwnServer("valkey", folder)
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def sidecar(store, history):
    flags = ("--redis", store.url, "--workers", "2", "--history", str(history), "--deadline", "250ms")
    with run_sidecar(*flags, policy=POLICY) as sidecar:
        yield sidecar


@pytest.fixture
def load(sidecar, store, make_load):
    """A load that runs, on a store that answers."""
    wait_until(lambda: sidecar.check("probe").json()["source"] == "store")
    with make_load([sidecar.port]) as load:
        load.wait_for_decisions()
        yield load


def test_p1_a_store_that_is_killed_and_starts_empty_admits_one_burst_again(load, store, history, judge):
    store.kill()
    load.wait_for_outages()
    store.start()
    load.finish()
    report = judge(load, [history], "kill -9, and started again empty", "each bucket forgotten once")
    assert_only_forgotten(report)
    assert report.select_faults("over-admitted"), "buckets that were empty were full again"


def test_p1_p6_p8_a_frozen_store_breaks_nothing(load, store, history, judge):
    store.freeze()
    load.wait_for_outages(300)
    store.go_on()
    load.finish()
    assert_sound(judge(load, [history], "SIGSTOP, then SIGCONT", "nothing"))


def test_p6_scripts_that_are_flushed_are_loaded_again(load, store, history, judge):
    for _ in range(5):
        store.client.script_flush()
        load.wait_for_decisions(50)
    load.finish()
    assert load.outages == 0
    assert_sound(judge(load, [history], "SCRIPT FLUSH, five times", "nothing"))


def test_p1_a_store_that_is_emptied_admits_one_burst_again(load, store, history, judge):
    store.client.flushall()
    load.finish()
    assert load.outages == 0
    report = judge(load, [history], "FLUSHALL", "each bucket forgotten once")
    assert_only_forgotten(report)
    assert report.select_faults("over-admitted"), "buckets that were empty were full again"


def test_p1_p6_p8_connections_that_the_store_closes_break_nothing(load, store, history, judge):
    for _ in range(5):
        store.client.client_kill_filter(_type="normal", skipme=True)
        load.wait_for_decisions(50)
    load.finish()
    assert_sound(judge(load, [history], "CLIENT KILL of every connection, five times", "nothing"))


def test_p1_p2_p8_a_store_without_memory_that_refuses_writes_breaks_nothing(load, store, history, judge):
    store.client.config_set("maxmemory", 1)
    load.wait_for_outages()
    store.client.config_set("maxmemory", 0)
    load.finish()
    assert_sound(judge(load, [history], "maxmemory reached, noeviction", "nothing"))


def test_p1_a_store_that_evicts_forgets_no_more_than_it_evicts(load, store, history, judge):
    client = store.client
    before, enough = client.info("stats")["evicted_keys"], client.dbsize() + 5
    client.config_set("maxmemory-policy", "allkeys-lru")

    def evict():
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 5_000)
        evicted = client.info("stats")["evicted_keys"] - before
        client.config_set("maxmemory", 0)  # so that the load makes new keys
        return evicted >= enough

    try:
        wait_until(evict)
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
    evicted = client.info("stats")["evicted_keys"] - before
    load.finish()
    report = judge(load, [history], "maxmemory reached, allkeys-lru", "what was evicted is forgotten")
    assert_only_forgotten(report, evicted)
    assert report.select_faults("over-admitted"), "buckets that were empty were full again"


def test_p1_p2_p8_a_store_that_becomes_a_replica_breaks_nothing(load, store, history, judge):
    store.client.replicaof("127.0.0.1", find_free_port())
    load.wait_for_outages()
    store.client.replicaof("no", "one")
    load.finish()
    assert_sound(judge(load, [history], "READONLY: made a replica, then a primary again", "nothing"))
