"""A primary that Sentinels watch is replaced under load: no error is seen, and replicas are never asked."""

import pytest

from ratelimit import Limit, Limiter

from ..processes import wait_until
from ..sentinels import SERVICE, run_sentinels
from ..stored import used
from .loads import BURST, TENANTS, Load


@pytest.fixture
def group(short_dir, request):
    with run_sentinels(short_dir / request.node.name[-20:]) as group:
        yield group


def test_p1_a_graceful_failover_loses_nothing(group, report):
    before = group.primary_port

    def fail_over():
        # Without COORDINATED the old primary takes writes for seconds that nobody keeps.
        group.sentinels[0].execute_command("SENTINEL", "FAILOVER", SERVICE, "COORDINATED")
        wait_until(lambda: group.primary_port != before)
        wait_until(lambda: group.clients[before].info("replication")["role"] == "slave")

    load = Load(group.url)
    load.run(fail_over)
    report(load.describe("graceful failover by Sentinels"))
    client = group.primary
    for tenant in TENANTS:
        charged = used(client, "requests", f"rl1:{{{tenant}}}:k")
        assert load.admitted[tenant] <= charged + 1e-3 <= BURST + 1e-2
    assert_recovered(group)


def test_p1_p8_a_primary_that_is_killed_is_replaced(group, report):
    before = group.primary_port

    def kill():
        group.kill(before)
        wait_until(lambda: group.primary_port != before)

    load = Load(group.url)
    load.run(kill, seconds_after=1.5)
    report(load.describe("primary killed, replaced by Sentinels"))
    client = group.primary
    charged = {tenant: used(client, "requests", f"rl1:{{{tenant}}}:k") for tenant in TENANTS}
    lost = sum(max(load.admitted[tenant] - charged[tenant], 0) for tenant in TENANTS)
    report(f"writes lost: {lost:.0f}")
    assert lost <= 24 * 2  # what was on its way to the replica: no more than a call or two of each task
    assert_recovered(group)


def assert_recovered(group):
    later = Load(group.url)
    later.run(lambda: None, seconds_after=0.3)
    assert later.outages == 0
    assert later.decided > 0


def test_a_replica_is_never_asked(group):
    """Not even if a Sentinel names it: that is the state just before it becomes the primary."""
    [replica] = [port for port in group.ports if port != group.primary_port]
    with Limiter(group.url, Limit("requests", "5/day"), deadline=5) as limiter:
        for _ in range(5):
            assert limiter.check("k").source == "store"
            group.primary.client_kill_filter(_type="normal", skipme=True)
    stats = group.clients[replica].info("commandstats")
    assert not [name for name in stats if name.startswith(("cmdstat_eval", "cmdstat_get"))]


def test_a_service_that_no_sentinel_watches_is_an_outage_with_a_clear_reason(group, caplog):
    url = group.url.replace(f"/{SERVICE}/", "/another/")
    with Limiter(url, Limit("requests", "5/day"), deadline=5) as limiter:
        assert limiter.check("k").source == "outage"
    assert "no Sentinel names a primary of the service 'another'" in caplog.text
    assert caplog.text.count("does not watch it") == 3
