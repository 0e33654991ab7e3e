"""What is special about a cluster: calls of one slot, limits that all share, servers that fail alone."""

import asyncio
import contextlib
import os
import signal
import socket

import pytest

from ratelimit import AsyncLimiter, Limit, Limiter, Observer, StoreUnavailable, Usage
from ratelimit.engine.keyspace import EVERYONE, find_slot, find_tag

from ..clusters import KEYSPACE, run_cluster
from ..processes import wait_until
from ..stored import used

BASE = 1_700_000_000
MINE = Limit("requests", "5/day", denial_memory=False)
SHARED = Limit("everyone", "8/day", per=[], denial_memory=False)
TENANTS = [f"t{number}" for number in range(400)]


class Failures(Observer):
    """Notes why calls failed. A call that was not made does not count."""

    def __init__(self, reasons):
        self._reasons = reasons

    def note_failure(self, reason):
        self._reasons.append(reason)


@pytest.fixture
def client(cluster_url, open_client):
    client = open_client(cluster_url)
    client.flushall()
    return client


@pytest.fixture
def limits(cluster_url, client):
    with Limiter(cluster_url, [MINE, SHARED], deadline=20) as limiter:
        yield limiter


def count_calls(cluster):
    stats = [node.client.info("commandstats") for node in cluster.nodes]
    return sum(stat.get("cmdstat_evalsha", {"calls": 0})["calls"] for stat in stats)


def test_checks_of_many_tenants_share_calls(cluster, cluster_url, client):
    async def run():
        async with AsyncLimiter(cluster_url, MINE, deadline=20) as limiter:
            await asyncio.gather(*(limiter.check(tenant) for tenant in TENANTS))
            before = count_calls(cluster)
            decisions = await asyncio.gather(*(limiter.check(tenant) for tenant in TENANTS))
            return decisions, count_calls(cluster) - before

    decisions, calls = asyncio.run(run())
    assert all(decisions)
    assert KEYSPACE.shards <= calls <= 3 * KEYSPACE.shards
    with Limiter(cluster_url, MINE, deadline=20) as limiter:
        before = count_calls(cluster)
        assert all(limiter.check_many(TENANTS[:200]))
        assert count_calls(cluster) - before <= 3 * KEYSPACE.shards


def test_p2_what_a_shared_limit_denies_leaves_the_tenant_as_it_was(limits, client):
    assert sum(bool(limits.check("a")) for _ in range(3)) == 3
    before = client.get("rl1:{a}:k")
    denied = limits.check("a", cost={"requests": 2}) and limits.check("b", cost={"requests": 5})
    assert not denied
    assert denied.violated == ("everyone",)
    assert [state.remaining for state in denied.limits] == [5, 3]
    assert used(client, "requests", "rl1:{b}:k") == 0
    assert used(client, "everyone", EVERYONE) == pytest.approx(5, abs=1e-3)
    assert used(client, "requests", "rl1:{a}:k") == pytest.approx(5, abs=1e-3)
    assert before != client.get("rl1:{a}:k")


@pytest.mark.parametrize("fields", [{}, {"reserve": True}, {"request_id": "r"}])
def test_p6_a_denied_check_may_be_repeated_and_is_then_decided_anew(limits, client, fields):
    assert limits.check("a", cost={"requests": 5})
    denied = limits.check("b", cost={"requests": 4}, **fields)
    assert denied.violated == ("everyone",)
    assert denied.reservation is None
    assert used(client, "requests", "rl1:{b}:k") == 0
    client.delete(EVERYONE)
    assert limits.check("b", cost={"requests": 4}, **fields)
    if "request_id" in fields:
        assert limits.check("b", cost={"requests": 4}, **fields)
    assert used(client, "requests", "rl1:{b}:k") == pytest.approx(4, abs=1e-3)
    assert used(client, "everyone", EVERYONE) == pytest.approx(4, abs=1e-3)


def test_p1_tasks_that_race_for_a_shared_limit_take_what_they_were_given(cluster_url, client):
    async def run():
        async with AsyncLimiter(cluster_url, [MINE, SHARED], deadline=20) as limiter:
            return await asyncio.gather(*(limiter.check(f"t{number % 40}") for number in range(160)))

    decisions = asyncio.run(run())
    assert sum(map(bool, decisions)) == 8
    taken = sum(used(client, "requests", f"rl1:{{t{number}}}:k") for number in range(40))
    assert taken == pytest.approx(8, abs=1e-2)
    assert used(client, "everyone", EVERYONE) == pytest.approx(8, abs=1e-2)


def test_p6_p7_a_settlement_charges_both_parts_once(cluster_url, client):
    tokens = [
        Limit("tokens", "1000/365d", unit="tokens"),
        Limit("all", "5000/365d", unit="tokens", per=[]),
        Limit("slots", unit="concurrent", capacity=1, ttl="1h", per=[]),
    ]
    with Limiter(cluster_url, tokens, deadline=20) as limiter:
        held = limiter.reserve("a", cost={"tokens": 100})
        assert not limiter.check("b", reserve=True), "the slot is taken"
        usage = Usage(input_tokens=30, output_tokens=10, status=200)
        first, again = (limiter.settle(usage, reservation=held.id) for _ in range(2))
        assert {state.name: state.remaining for state in first.limits} == {
            "tokens": 960,
            "all": 4960,
            "slots": 1,
        }
        assert (again.limits, again.replayed) == (first.limits, True)
        limiter.cancel(limiter.reserve("b", cost={"tokens": 7}).id)
        limiter.settle(Usage(key="c", input_tokens=40))
    assert used(client, "all", EVERYONE) == pytest.approx(80, abs=1e-3)
    assert len(client.xrange("rl1:usage")) == 2


def test_p5_everything_expires_by_itself(cluster, cluster_url, client):
    limits = [MINE, SHARED, Limit("failures", "9/30s", unit="failures", per=[])]
    with Limiter(cluster_url, limits, deadline=20) as limiter:
        limiter.check("a", request_id="r")
        limiter.reserve("a").settle(Usage(status=500))
        limiter.settle(Usage(key="b", status=500))
    names = [(node, name) for node in cluster.nodes for name in node.client.scan_iter()]
    assert len(names) >= 8
    assert all(node.client.pttl(name) > 0 for node, name in names)


def test_two_limiters_see_each_other(cluster_url, client):
    with Limiter(cluster_url, MINE, deadline=20) as one, Limiter(cluster_url, MINE, deadline=20) as other:
        assert [bool(limiter.check("a")) for limiter in (one, other) * 3] == [True] * 5 + [False]
        one.assign("a", blocked=True)
        other.refresh()
        assert other.check("a").violated == ("blocked",)


def test_a_seed_that_does_not_answer_is_passed_over(cluster_url, client):
    url = cluster_url.replace("redis+cluster://", "redis+cluster://127.0.0.1:1,")
    with Limiter(url, MINE, deadline=2) as limiter:
        assert limiter.check("a").source == "store"
        limiter.ping()

    async def run():
        async with AsyncLimiter(url, MINE, deadline=2) as limiter:
            await limiter.ping()
            return await limiter.check("a")

    assert asyncio.run(run()).source == "store"


def test_p8_without_any_server_on_outage_applies():
    url = "redis+cluster://127.0.0.1:1,127.0.0.1:2"
    with Limiter(url, MINE, deadline=1) as limiter:
        assert limiter.check("a").source == "outage"
        with pytest.raises(StoreUnavailable):
            limiter.ping()

    async def run():
        async with AsyncLimiter(url, MINE, deadline=1) as limiter:
            with pytest.raises(StoreUnavailable):
                await limiter.ping()
            return await limiter.check("a")

    assert asyncio.run(run()).source == "outage"


@pytest.fixture(scope="module")
def own_cluster(short_dir):
    with run_cluster(short_dir / "frozen", **{"cluster-require-full-coverage": "no"}) as cluster:
        yield cluster


def test_p8_a_frozen_server_does_not_slow_the_tenants_of_others(own_cluster):
    frozen = own_cluster.find_shard_owner(TENANTS[0])
    process = frozen.pid
    owners = {tenant: own_cluster.find_shard_owner(tenant) for tenant in TENANTS}
    others = [tenant for tenant in TENANTS if owners[tenant] is not frozen]
    theirs = [tenant for tenant in TENANTS if owners[tenant] is frozen]
    limit = Limit("requests", "100000/day", denial_memory=False)

    async def run():
        failures = []
        observer = Failures(failures)
        async with AsyncLimiter(own_cluster.url, limit, deadline=0.5, observers=[observer]) as limiter:
            await asyncio.gather(*(limiter.check(tenant) for tenant in TENANTS))
            os.kill(process, signal.SIGSTOP)
            try:
                await asyncio.gather(*(limiter.check(tenant) for tenant in theirs[:8]))
                while not limiter._open_breakers:
                    await limiter.check(theirs[0])
                failures.clear()
                paused = await asyncio.gather(*(limiter.check(tenant) for tenant in theirs))
                answered = await asyncio.gather(*(limiter.check(tenant) for tenant in others))
                waited = len(failures)
            finally:
                os.kill(process, signal.SIGCONT)
            while (await limiter.check(theirs[0])).source != "store":  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0.01)
            return paused, answered, waited

    paused, answered, waited = asyncio.run(run())
    assert {decision.source for decision in answered} == {"store"}
    assert {decision.source for decision in paused} == {"outage"}
    assert waited <= 1, "no check has waited for a deadline; a probe may have"
    wait_until(own_cluster.is_agreed)


def test_p8_servers_that_have_hung_up_meanwhile_are_no_outage(own_cluster):
    with Limiter(own_cluster.url, MINE, deadline=5) as limiter:
        limiter.check("a")
        for node in own_cluster.nodes:
            node.client.client_kill_filter(_type="normal", skipme=True)
        assert limiter.check("a").source == "store"


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_p8_a_cluster_that_is_frozen_from_the_start_is_not_waited_for_by_each_check(kind):
    failures = []
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        hosts = ",".join(f"127.0.0.1:{listener.getsockname()[1]}" for listener in listeners)
        options = {"deadline": 0.05, "observers": [Failures(failures)]}

        async def run():
            async with AsyncLimiter(f"redis+cluster://{hosts}", MINE, **options) as limiter:
                return [await limiter.check("k") for _ in range(300)]

        if kind == "asyncio":
            decisions = asyncio.run(run())
        else:
            with Limiter(f"redis+cluster://{hosts}", MINE, **options) as limiter:
                decisions = [limiter.check("k") for _ in range(300)]
    assert {decision.source for decision in decisions} == {"outage"}
    assert len(failures) < 30, "most checks were decided without a call"


@contextlib.contextmanager
def half_moved(cluster, tenant, *names):
    """For a block, be in the middle of moving a tenant's slot: these store keys are on the other server."""
    source = cluster.find_shard_owner(tenant)
    target = next(node for node in cluster.nodes if node is not source)
    slot = find_slot(find_tag(KEYSPACE.make_prefix(tenant)))
    source_id, target_id = source.id, target.id
    target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
    source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
    migrate = ("MIGRATE", "127.0.0.1")
    source.client.execute_command(*migrate, target.port, "", 0, 5000, "KEYS", *names)
    try:
        yield
    finally:
        while names := source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.client.execute_command(*migrate, target.port, "", 0, 5000, "KEYS", *names)
        for node in (target, source, *cluster.nodes):
            node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target_id)


def test_p6_a_settlement_in_the_middle_of_a_move_charges_nothing_or_everything(own_cluster):
    wait_until(own_cluster.is_agreed)
    limits = [
        Limit("mine", "1000/365d", unit="tokens"),
        Limit("ours", "1000/365d", unit="tokens", per=["tenant"]),
    ]
    with Limiter(own_cluster.url, limits, deadline=0.3) as limiter:
        held = limiter.reserve("vk", tenant="acme", cost={"tokens": 10})
        # With the stream and its count all KEYS are there, and the script begins.
        limiter.settle(Usage(key="another", tenant="acme"))
        prefix = KEYSPACE.make_prefix("acme")
        own_cluster.find_shard_owner("acme").client.set(KEYSPACE.make_usage_store_keys(prefix)[1], 0)
        usage = Usage(input_tokens=100, status=200)
        with half_moved(own_cluster, "acme", f"{prefix}:t"):
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    limiter.settle(usage, reservation=held.id)
        settled = limiter.settle(usage, reservation=held.id)
        assert (settled.replayed, [state.remaining for state in settled.limits]) == (False, [900, 900])
        looked = limiter.peek("vk", tenant="acme")
    assert [state.remaining for state in looked.limits] == [900, 900]


def test_p6_checks_in_the_middle_of_a_move_are_decided_where_their_state_is(own_cluster):
    """One call carries checks whose state is on both servers: it is split, and each is decided once."""
    wait_until(own_cluster.is_agreed)
    tag = find_tag(KEYSPACE.make_prefix("t0"))
    tenants = [tenant for tenant in TENANTS if find_tag(KEYSPACE.make_prefix(tenant)) == tag][:3]
    names = [f"{KEYSPACE.make_prefix(tenant)}:k" for tenant in tenants[1:]]
    limit = Limit("requests", "5/365d", denial_memory=False)
    with Limiter(own_cluster.url, limit, deadline=2) as limiter:
        for tenant in tenants:
            limiter.reset(tenant)
        assert all(limiter.check_many(tenants))
        with half_moved(own_cluster, "t0", *names):
            decisions = limiter.check_many(tenants)
            assert {decision.source for decision in decisions} == {"store"}
        assert [limiter.peek(tenant).limits[0].remaining for tenant in tenants] == [3, 3, 3]
