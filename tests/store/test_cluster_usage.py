"""Usage records and commands on a cluster: one stream for each shard, read as one."""

import json

import pytest
from typer.testing import CliRunner

from ratelimit import Limit, Limiter, Usage
from ratelimit.engine.keyspace import make_unread_store_key
from ratelimit.observers.activity import Activity
from service.cli.commands import app

from ..clusters import KEYSPACE, STREAMS

TOKENS = Limit("tokens", "1000000/day", unit="tokens")
POLICY = "plans: {free: {limits: {tokens: {unit: tokens, rate: 1000000/day}}}}\n"


@pytest.fixture
def run(cluster_url, open_client):
    open_client(cluster_url).flushall()

    def run(*arguments, exit_code=0):
        done = CliRunner().invoke(app, [*arguments, "--redis", cluster_url])
        assert (done.exit_code, done.stderr) == (exit_code, "")
        return done.stdout

    return run


@pytest.fixture
def settled(run, cluster_url):
    """Settle a record for each of 60 keys, in turn, three times."""
    with Limiter(cluster_url, TOKENS, deadline=20) as limiter:
        for number in range(180):
            limiter.settle(Usage(key=f"vk-{number % 60}", input_tokens=1, status=200))


@pytest.mark.usefixtures("settled")
def test_usage_sums_the_records_of_all_shards(run):
    rows = json.loads(run("usage", "--json"))
    assert sorted((row["key"], row["requests"]) for row in rows) == sorted(
        (f"vk-{number}", 3) for number in range(60)
    )
    assert sum(row["requests"] for row in json.loads(run("usage", "--json", "--last", "50"))) == 50
    assert json.loads(run("usage", "--json", "--since", "1h"))


@pytest.mark.usefixtures("settled")
def test_every_shard_has_its_records(cluster, run):
    counts = [
        sum(node.client.xlen(stream) for node in [cluster.find_shard_owner(_find_tenant(stream))])
        for stream in STREAMS
    ]
    assert sum(counts) == 180
    assert min(counts) > 0


def _find_tenant(stream):
    """Return a tenant whose records go to a stream."""
    prefix = stream.removesuffix(":usage")
    return next(
        tenant for tenant in map(str, range(10_000)) if KEYSPACE.make_prefix(tenant).startswith(f"{prefix}:")
    )


def test_each_stream_keeps_its_share_and_what_goes_unread_is_counted(cluster, run, cluster_url):
    length = 10 * len(STREAMS)
    with Limiter(cluster_url, TOKENS, deadline=20, usage_length=length) as limiter:
        for _ in range(112):
            limiter.settle(Usage(key="vk-1", input_tokens=1))
        assert limiter.count_trimmed_unread() == 101
        stream = KEYSPACE.make_usage_store_keys(KEYSPACE.make_prefix("vk-1"))[0]
        client = cluster.find_shard_owner("vk-1").client
        assert client.xlen(stream) == 11
        assert int(client.get(make_unread_store_key(stream))) == 101


def test_keys_and_top_work(run, tmp_path, cluster_url):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    run("check", "vk-1", "--policy", str(policy), "--cost", "tokens=512")
    shown = json.loads(run("keys", "show", "vk-1", "--policy", str(policy), "--json"))
    assert shown["limits"][0]["remaining"] == 1_000_000 - 512
    run("keys", "reset", "vk-1", "--policy", str(policy))
    shown = json.loads(run("keys", "show", "vk-1", "--policy", str(policy), "--json"))
    assert shown["limits"][0]["remaining"] == 1_000_000
    activity = Activity()
    with Limiter(cluster_url, TOKENS, deadline=20, observers=[activity]) as limiter:
        for number in range(5):
            limiter.check(f"vk-{number}")
        limiter.publish_activity(activity)
    assert json.loads(run("top", "--once", "--json"))["checks"] == 5
