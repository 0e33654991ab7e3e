"""A cluster over TLS, with a password from a file, and with the rights of docs/operations/stores.md."""

import asyncio
import re
import ssl
from pathlib import Path

import pytest
import trustme
from typer.testing import CliRunner

from ratelimit import AsyncLimiter, Limit, Limiter, Usage
from service.cli.commands import app

from ..clusters import run_cluster
from ..processes import wait_until
from .tls import TlsTerminator

TEXT = (Path(__file__).parents[2] / "docs" / "operations" / "stores.md").read_text()
[LINE] = re.findall(r"^ACL SETUSER ratelimit .*$", TEXT, re.MULTILINE)
[MORE] = re.findall(
    r"^On a cluster the user needs .*: (.*); behind Sentinels one more: (.*)\.$", TEXT, re.MULTILINE
)
CLUSTER_RIGHTS, SENTINEL_RIGHTS = (re.findall(r"`(\+[^`]+)`", words) for words in MORE)
LIMITS = [
    Limit("requests", "100/day"),
    Limit("everyone", "2/day", per=[]),
    Limit("slots", unit="concurrent", capacity=9, ttl="1h"),
]


@pytest.fixture(scope="module")
def own_cluster(short_dir):
    with run_cluster(short_dir / "secured") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def tls_url(own_cluster, authority, tmp_path):
    """The URL of the cluster behind TLS servers, whose ports the cluster announces."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("store.example").configure_cert(context)
    terminators = [TlsTerminator(str(node.socket), context) for node in own_cluster.nodes]
    for node, terminator in zip(own_cluster.nodes, terminators, strict=True):
        node.client.config_set("cluster-announce-port", terminator.port)
    wait_until(lambda: all(_knows(node, terminators) for node in own_cluster.nodes))
    yield (
        f"rediss+cluster://ratelimit@127.0.0.1:{terminators[0].port}"
        f"?ca={tmp_path}/ca.pem&server_name=store.example&password_file={tmp_path}/password"
    )
    for node, terminator in zip(own_cluster.nodes, terminators, strict=True):
        node.client.config_set("cluster-announce-port", 0)
        terminator.close()


def _knows(node, terminators):
    slots = node.client.execute_command("CLUSTER", "SLOTS")
    return {port for _, _, (_, port, *_) in slots} == {terminator.port for terminator in terminators}


def set_user(cluster, password):
    words = [word.replace("PASSWORD", password) for word in LINE.split()[2:]]
    for node in cluster.nodes:
        node.client.execute_command("ACL", "SETUSER", *words, *CLUSTER_RIGHTS)
        node.client.flushall()
        node.client.script_flush()


def test_a_cluster_with_tls_a_password_file_and_the_least_rights(own_cluster, tls_url, tmp_path):
    (tmp_path / "password").write_text("first\n")
    set_user(own_cluster, "first")
    with Limiter(tls_url, LIMITS, deadline=20) as limiter:
        assert use(limiter) == ["store"] * 40
        assert not limiter.check("t3"), "a shared limit denies, and the tenant's tokens are given back"
        # A new password needs no restart.
        (tmp_path / "password").write_text("second\n")
        set_user(own_cluster, "second")
        for node in own_cluster.nodes:
            node.client.client_kill_filter(_type="normal", skipme=True)
        assert use(limiter) == ["store"] * 40

    for words in (["usage", "--json"], ["top", "--once"]):
        done = CliRunner().invoke(app, [*words, "--redis", tls_url])
        assert (done.exit_code, done.stderr) == (0, "")

    async def run():
        async with AsyncLimiter(tls_url, LIMITS, deadline=20) as limiter:
            decisions = await asyncio.gather(*(limiter.peek(f"t{number}") for number in range(40)))
            await limiter.ping()
            return {decision.source for decision in decisions}

    assert asyncio.run(run()) == {"store"}


def use(limiter):
    """Use everything of a limiter; return the sources of its decisions."""
    with limiter.reserve("t1", request_id="r") as reservation:
        reservation.settle(Usage(input_tokens=1, status=200))
    limiter.check("t1", request_id="q")
    limiter.assign("t2", blocked=True)
    limiter.assign("t2")
    limiter.reset("t1")
    limiter.ping()
    limiter.count_trimmed_unread()
    return [limiter.peek(f"t{number}").source for number in range(40)]


def test_behind_sentinels_the_user_needs_one_right_more(sentinels):
    client = sentinels.primary
    words = LINE.split()[2:]
    url = sentinels.url.replace("://", "://ratelimit:PASSWORD@")
    client.execute_command("ACL", "SETUSER", *words, *SENTINEL_RIGHTS)
    try:
        with Limiter(url, LIMITS[0], deadline=20) as limiter:
            assert limiter.check("k").source == "store"
        client.execute_command("ACL", "SETUSER", *words)
        with Limiter(url, LIMITS[0], deadline=20) as limiter:
            assert limiter.check("k").source == "outage"
    finally:
        client.execute_command("ACL", "DELUSER", "ratelimit")
