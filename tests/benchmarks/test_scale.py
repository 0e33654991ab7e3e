"""The simulation of many sidecars decides as real ones do, and its ledger finds every token too many."""

import asyncio
import json
import random
from collections import Counter

import pytest

from benchmarks import cli
from benchmarks.contestants import OURS
from benchmarks.figures import Cell, Found
from benchmarks.report import DOCS, MARKED
from benchmarks.scale import failures, page, regions
from benchmarks.scale.clock import VirtualLoop, virtual_time
from benchmarks.scale.ledger import Ledger
from benchmarks.scale.sizing import HTTP_US, LEASED_US, Costs, fit_costs, size
from benchmarks.scale.store import SimulatedStore
from benchmarks.scale.world import Tenants, make_limit, measure_traffic, run
from benchmarks.suite import scale
from ratelimit import AsyncLimiter, Limit
from ratelimit.engine.keyspace import SHARDS, Keyspace
from ratelimit.policy.shape import Shape
from ratelimit.shortcuts.leases import Leases

from ..properties.model import find_worst_window
from ..stored import used

SECOND = 1_000_000
SLOW = Limit("requests", "60/365d", lease={"share": 0.2, "ttl": "60s"})  # nothing is refilled in a test
KEYS = ("vk_1", "vk_2", "vk_3")
STEPS = 400


def list_steps():
    rng = random.Random(7)
    return [(rng.randrange(3), rng.choice((*KEYS * 8, "expire"))) for _ in range(STEPS)]


async def follow_steps(limiters, decide):
    decisions = []
    for number, key in list_steps():
        if key == "expire":
            await limiters[number]._return_leases(limiters[number]._leases.pop_expired())
        else:
            decision = await decide(limiters[number], key)
            decisions.append((decision.allowed, decision.source == "lease"))
    return decisions


def simulate_steps():
    """Return the decisions of simulated sidecars, and what each key has used at the end."""

    async def play(world):
        decisions = await follow_steps(world.sidecars, lambda sidecar, key: sidecar.decide(key))
        for sidecar in world.sidecars:
            await sidecar.stop()
        stored = {}
        for node in world.store.nodes:
            stored |= node.buckets.buckets
        assert world.ledger.find_excess() == 0
        names = {key: (f"{Keyspace(SHARDS).make_prefix(key)}:k", "requests") for key in KEYS}
        return decisions, {key: round(stored[name].used, 2) for key, name in names.items()}

    return run(play, SLOW, sidecars=3, nodes=3)


async def ask_a_cluster(url):
    limiters = [AsyncLimiter(url, SLOW, deadline=20) for _ in range(3)]
    try:
        return await follow_steps(limiters, lambda limiter, key: limiter.check(key))
    finally:
        for limiter in limiters:
            await limiter.close()


def test_the_simulation_decides_as_a_real_cluster_does(cluster_url, open_client):
    client = open_client(cluster_url)
    client.flushall()

    simulated, missing = simulate_steps()
    real = asyncio.run(ask_a_cluster(cluster_url))

    assert simulated == real
    assert Counter(allowed for allowed, _ in real).keys() == {True, False}
    assert sum(leased for _, leased in real) > 20
    assert missing == {key: round(used(client, "requests", f"rl1:{{{key}}}:k"), 2) for key in KEYS}


def measure_hot(**options):
    limit = make_limit(200, lease=0.1)
    return measure_traffic(limit, sidecars=8, nodes=2, rate=800, seconds=2, tenants=3, **options)


def test_nothing_is_admitted_above_the_bound_with_leases():
    found = measure_hot()
    assert found["over_admitted"] == 0
    assert 0.1 < found["leased_share"] < 1
    assert found["calls_per_check"] < 1
    assert found["needless"] > 0
    assert measure_hot() == found, "the same seed gives the same figures"


def test_a_lease_that_is_not_charged_is_found(monkeypatch):
    decide = SimulatedStore._decide

    def give_leases_away(self, checks, sidecar, node):
        before = dict(node.buckets.buckets)
        is_lease = any(id(check) in self.lease_takes for check in checks)
        replies = decide(self, checks, sidecar, node)
        if is_lease:
            node.buckets.buckets = before
        return replies

    monkeypatch.setattr(SimulatedStore, "_decide", give_leases_away)
    assert measure_hot()["over_admitted"] > 10


def test_a_lease_whose_tokens_are_spent_twice_is_found(monkeypatch):
    spend = Leases.spend

    def forget_every_other(self, check, now):
        decision = spend(self, check, now)
        lease = self._leases.get((check.subject.layout, check.subject.store_keys))
        if decision is not None and lease.spent_checks % 2:
            lease.spent_checks -= 1
            lease.max_checks -= 0.5
        return decision

    monkeypatch.setattr(Leases, "spend", forget_every_other)
    assert measure_hot()["over_admitted"] > 10


def test_a_denial_counts_as_needless_only_while_a_lease_holds_the_token():
    async def play(world):
        first, second = world.sidecars
        for _ in range(5):
            await first.decide("vk_1")  # and the fifth takes a lease of 12
        for _ in range(43):
            await second._run_settle_calls(second._encode_charge(second._resolve("vk_1")))
        assert not await second.decide("vk_1")
        needless = [sidecar.sources["needless"] for sidecar in world.sidecars]
        while await first.decide("vk_1"):
            pass
        assert not await second.decide("vk_1")
        return needless, [sidecar.sources["needless"] for sidecar in world.sidecars]

    assert run(play, SLOW, sidecars=2) == ([0, 1], [0, 1])


def find_worst_window_slowly(shape, events):
    worst = -float("inf")
    for first, (a, *_) in enumerate(events):
        leased = sum(cost for _, kind, cost in events[:first] if kind == "lease")
        spent = 0
        for t, kind, cost in events[first:]:
            spent += cost if kind == "spend" else 0
            worst = max(worst, spent - shape.burst - (t - a) * shape.count / shape.period - leased)
    return worst


@pytest.mark.parametrize("seed", range(30))
def test_the_ledger_finds_the_worst_of_all_windows(seed):
    rng, shape = random.Random(seed), Shape(3.0, float(SECOND), 5.0)
    ledger, events, t, leased = Ledger(), [], 0, 0
    for _ in range(40):
        t += rng.choice([0, 1_000, 200_000])
        cost = rng.randint(1, 3)
        if rng.random() < 0.6:
            events.append((t, "spend", cost))
            ledger.note_spent(("k", "l"), shape, cost, t)
        else:
            cost = cost if rng.random() < 0.5 else -min(leased, cost)
            leased += cost
            events.append((t, "lease", cost))
            ledger.note_lease(0, ("k", "l"), shape, cost, t)
    [account] = ledger.accounts.values()
    assert account.worst / shape.period == pytest.approx(find_worst_window_slowly(shape, events))
    plain, _ = find_worst_window(shape, [(t, cost) for t, kind, cost in events if kind == "spend"])
    assert account.worst_plain / shape.period == pytest.approx(float(plain))


def test_a_token_above_the_bound_is_an_excess_and_the_last_one_below_is_not():
    shape = Shape(1.0, float(SECOND), 2.0)
    for spent, leased, excess in ((2, 0, 0), (3, 0, 1), (3, 1, 0)):
        ledger = Ledger()
        ledger.note_lease(0, ("k", "l"), shape, leased, 0)
        for _ in range(spent):
            ledger.note_spent(("k", "l"), shape, 1, 2 * SECOND)
        assert (ledger.find_excess(), ledger.find_excess(plain=True)) == (excess, spent - 2)


def test_a_sidecar_that_dies_loses_what_it_had_on_lease_and_nothing_else():
    stops, dies = (failures.measure_death(dies=dies) for dies in (False, True))
    assert (stops["lost"], dies["lost"]) == (0, dies["held"])
    assert dies["held"] >= 270
    assert stops["admitted_afterwards"] - dies["admitted_afterwards"] == pytest.approx(dies["lost"], abs=2)
    assert stops["over_admitted"] == dies["over_admitted"] == 0


@pytest.mark.parametrize("outage", ["deny", "local"])
def test_a_lost_node_concerns_its_own_tenants_and_gives_them_a_burst_at_most(outage):
    found = failures.measure_loss(outage, rate=1_000)
    assert found["others_without_store"] == 0
    assert found["checks_while_down"] > 100
    assert (found["admitted_share_while_down"] > 0.5) == (outage == "local")
    assert found["above_bound"] <= found["burst"]
    assert found["recovered_after_ms"] < 600


def test_regions_together_ask_for_the_same_all_day():
    for t in (0, 3.5, 10, 29):
        parts = [regions.find_demand(region, t, 30) for region in range(regions.REGIONS)]
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(1)


def test_regions_with_shares_make_no_calls_to_others_and_waste_some_of_the_limit():
    whole, third = (
        regions._measure_day(regions.WAYS[name], 0.9, 8) for name in ("one store", "a third each")
    )
    assert (third["far_calls_per_check"], third["far_wait_share"]) == (0, 0)
    assert whole["far_wait_ms"] >= 80
    assert third["admitted_share"] < 0.95 < whole["admitted_share"]
    assert whole["over_admitted"] == third["over_admitted"] == 0
    assert third["above_bound"] == 0


def test_virtual_time_passes_at_once_and_never_waits_for_ever():
    with virtual_time() as loop:
        before = loop.read_nanoseconds()
        loop.run_until_complete(asyncio.sleep(86_400))
        assert loop.read_nanoseconds() - before == 86_400 * 10**9
        with pytest.raises(RuntimeError, match="never comes"):
            loop.run_until_complete(loop.create_future())
    assert isinstance(loop, VirtualLoop)


def test_the_hot_tenant_is_the_first():
    rng, tenants = random.Random(1), Tenants(100)
    counts = Counter(tenants.choose(rng) for _ in range(5_000))
    assert [name for name, _ in counts.most_common(2)] == ["vk_1", "vk_2"]
    assert counts["vk_1"] / 5_000 == pytest.approx(1 / 5.187, abs=0.03)


def test_costs_are_fitted_and_a_size_follows_from_them():
    costs = fit_costs([1, 4, 16], [13, 5.5, 3.625], [20, 8, 5])
    assert (costs.call, costs.check) == (pytest.approx(10), pytest.approx(3))
    found = {"calls_per_check": 0.5, "to_store_share": 1.0, "hottest_node": 2.0}
    needed = size(1.5e6, found, Costs(10, 3, 16, 4), http_us=60)
    assert needed.node_us == 8
    assert needed.store_cores == 12
    assert needed.nodes == 20
    assert needed.busiest == 2
    assert needed.http_cores == 150


def test_costs_that_are_not_measured_here_are_those_of_the_page_of_benchmarks():
    text = (DOCS / "benchmarks.md").read_text()
    assert "A check takes 50 to 60 µs." in text
    assert HTTP_US == 55
    assert f"- **Leases.** A decision takes {LEASED_US:g} µs" in text


def test_the_benchmark_writes_figures_and_pictures(monkeypatch, tmp_path, run_command):
    monkeypatch.setitem(cli.FULL, "scale", scale.Scale((5,), (100,), (2,), (5,), (0.05,), (1, 8), 0.005))
    assert run_command("scale") == 0
    written = json.loads((tmp_path / "scale.json").read_text())
    assert written["faults"] == []
    assert {figure["median"] for figure in written["figures"] if figure["figure"] == "over_admitted"} == {0}
    assert {*page.make_tables(page.read_frame(written))} == {*page._TABLES}
    for name in ("scale", "scale-regions"):
        assert (tmp_path / f"{name}.svg").stat().st_size > 5_000
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000


def test_over_admission_is_a_fault():
    found, cell = Found(), Cell("sidecars", at=10)
    for at in (1, 8):
        costs = {"checks_per_call": at, "node_us": 10 / at, "client_us": 20 / at}
        for _ in range(3):
            found.note(Cell(scale.COSTS, at=at), OURS, costs)
    assert [*scale.Scale(tasks=(1, 8)).conclude(found)] == []
    found.note(cell, "with leases", {"over_admitted": 2.5})
    found.note(scale.LOSS, "deny", {"others_without_store": 1, "above_bound": 9})
    assert [*scale.Scale(tasks=(1, 8)).conclude(found)] == [
        "scale: over_admitted is 2.5 (sidecars 10, with leases)",
        "scale: others_without_store is 1 (a node is lost and comes back empty, deny)",
    ]


def test_the_tables_of_the_page_are_made_of_the_figures_beside_it():
    written, text = json.loads((page.FIGURES / "scale.json").read_text()), page.PAGE.read_text()
    frame = page.read_frame(written)
    assert page.fill(text, frame) == text
    assert {found["name"] for found in MARKED.finditer(text)} == {*page.make_tables(frame)}
    assert written["faults"] == []
    over = [entry["max"] for entry in written["figures"] if entry["figure"] == "over_admitted"]
    assert len(over) > 40
    assert set(over) == {0}
