"""`/metrics` of running sidecars."""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from ..counts import list_series, read_counts
from ..processes import find_free_port, wait_until
from ..rls_client import run_rls_sidecar
from .conftest import POLICY
from .test_lifecycle import find_workers

NAMES = {
    "ratelimit_breaker_open",
    "ratelimit_build_info",
    "ratelimit_checks_per_call",
    "ratelimit_checks",
    "ratelimit_clamped_timestamps",
    "ratelimit_denials",
    "ratelimit_leased_tokens",
    "ratelimit_near_limit",
    "ratelimit_policy_info",
    "ratelimit_policy_reloads",
    "ratelimit_reservations",
    "ratelimit_store_errors",
    "ratelimit_store_seconds",
    "ratelimit_store_up",
    "ratelimit_tokens",
    "ratelimit_unlimited_requests",
    "ratelimit_upstream_responses",
    "ratelimit_upstream_seconds",
    "ratelimit_usage_trimmed_unread_records",
}
"""The families, as the parser names them: without `_total`."""

BATCH = 250
METRICS_PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def scrape(sidecar):
    """Return the text of `/metrics`."""
    response = sidecar.client.get("/metrics")
    assert response.status_code == 200
    return response.text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_metrics_have_the_names_that_are_promised(start_sidecar, workers):
    text = scrape(start_sidecar("--workers", workers))
    families = {
        line.split()[2].removesuffix("_total") for line in text.splitlines() if line.startswith("# TYPE")
    }
    assert families == NAMES
    assert "_created" not in text


def test_the_documentation_lists_every_metric_with_its_labels(sidecar):
    rows = re.findall(r"^\| `(ratelimit_\w+)` \|([^|]*)\|", METRICS_PAGE.read_text(), re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", text)) for name, text in rows}
    sidecar.check("k")
    labels = {}
    for name, *pairs in list_series(scrape(sidecar)):
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        labels.setdefault(family, set()).update(label for label, _ in pairs if label != "le")
    assert documented == labels


@pytest.mark.parametrize("workers", ["1", "2"])
def test_promtool_finds_no_fault(start_sidecar, workers):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; Debian's package `prometheus` has it")
    sidecar = start_sidecar("--workers", workers)
    sidecar.check("k")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=scrape(sidecar), capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_openmetrics_is_served_to_who_asks_for_it(sidecar):
    accept = "application/openmetrics-text; version=1.0.0"
    response = sidecar.client.get("/metrics", headers={"Accept": accept})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ten_thousand_keys_models_and_plans_add_no_series(start_sidecar, workers):
    sidecar = start_sidecar("--workers", workers)
    before = list_series(scrape(sidecar))
    for start in range(0, 10_000, BATCH):
        checks = [
            {"key": f"vk_{number}", "tenant": f"tenant_{number}", "model": f"model_{number}"}
            for number in range(start, start + BATCH)
        ]
        assert sidecar.client.post("/v1/check/batch", json=checks).status_code == 200
        assert sidecar.check("k", plan=f"plan_{start}").status_code == 422
        settled = {"key": f"vk_{start}", "model": f"model_{start}", "input_tokens": 1, "status": 200}
        assert sidecar.client.post("/v1/settle", json=settled).status_code == 200
    after = scrape(sidecar)
    assert list_series(after) == before
    assert read_counts(after, "ratelimit_checks_total", model_class="other") == 10_000
    assert read_counts(after, "ratelimit_checks_total", result="invalid") == 10_000 / BATCH
    assert "vk_" not in after
    assert "model_1" not in after
    assert "tenant_" not in after


def test_every_way_to_be_refused_is_counted_once(start_sidecar):
    sidecar = start_sidecar("--gateway-token", "a-token-for-gateways")
    token = {"X-RateLimit-Gateway-Token": "a-token-for-gateways"}
    post = sidecar.client.post
    refused = [
        post("/v1/check", json={"key": "k"}),
        post("/v1/check", content=b"{", headers=token),
        post("/v1/check", json={"key": "k", "prompt": "x"}, headers=token),
        post("/v1/check", json={"key": "k", "plan": "none"}, headers=token),
        post("/v1/check", content=b" " * 70_000, headers=token),
        post("/v1/check/batch", json=[]),
        post("/v1/check/batch", json=[{"key": "k"}, {"key": ""}], headers=token),
        post("/v1/check/batch", json=[{"key": "k"}, {"key": "k", "plan": "none"}], headers=token),
        sidecar.client.get("/v1/authorize"),
        sidecar.client.get("/v1/authorize", headers={**token, "X-RateLimit-Cost": "(("}),
        sidecar.client.get(
            "/v1/authorize", headers={**token, "X-RateLimit-Key": "k", "X-RateLimit-Plan": "x"}
        ),
        sidecar.client.get("/v1/authorize?deny_status=500", headers=token),
    ]
    assert Counter(response.status_code for response in refused) == {401: 3, 400: 1, 413: 1, 422: 7}
    text = scrape(sidecar)
    assert read_counts(text, "ratelimit_checks_total", result="invalid") == len(refused)
    assert read_counts(text, "ratelimit_checks_total") == len(refused)


def test_what_is_no_check_is_not_counted(start_sidecar):
    sidecar = start_sidecar("--admin-token", "an-admin-token")
    admin = {"Authorization": "Bearer an-admin-token"}
    assert sidecar.client.get("/v1/keys/k", headers=admin).status_code == 200
    assert sidecar.client.get("/v1/keys/k?plan=none", headers=admin).status_code == 422
    assert sidecar.client.post("/v1/settle", json={"input_tokens": -1}).status_code == 422
    assert read_counts(scrape(sidecar), "ratelimit_checks_total") == 0


def test_reloads_are_counted_and_the_version_is_that_in_force(start_sidecar):
    sidecar = start_sidecar()
    sidecar.policy_file.write_text(POLICY.replace("rate: 2/hour", "rate: 3/hour"))
    sidecar.wait_for_output("policy reloaded")
    sidecar.policy_file.write_text("plans: {}")
    sidecar.wait_for_output("policy refused")
    text = scrape(sidecar)
    assert read_counts(text, "ratelimit_policy_reloads_total", result="loaded") == 1
    assert read_counts(text, "ratelimit_policy_reloads_total", result="refused") == 1
    version = sidecar.client.get("/readyz").json()["policy"]
    assert [name for name in list_series(text) if name[0] == "ratelimit_policy_info"] == [
        ("ratelimit_policy_info", ("version", version))
    ]


def test_requests_over_grpc_without_a_limit_are_counted_by_reason():
    with run_rls_sidecar("--grpc-domains", "tests", policy=POLICY) as (sidecar, client, _):
        client.ask({"key": "k"}, domain="another")
        client.ask({"path": "/"})
        client.ask({"key": "k"})
        client.ask({"key": "k", "plan": "none"})
        client.send_bytes(b"\xff")
        text = scrape(sidecar)
    assert read_counts(text, "ratelimit_unlimited_requests_total", reason="unknown-domain") == 1
    assert read_counts(text, "ratelimit_unlimited_requests_total", reason="no-key") == 1
    assert read_counts(text, "ratelimit_checks_total", result="allowed") == 1
    assert read_counts(text, "ratelimit_checks_total", result="invalid") == 2


class Load:
    """Threads that send checks and count the answers."""

    def __init__(self, sidecar):
        self._sidecar = sidecar
        self.answers = Counter()
        self.lost = (
            0  # requests whose connection ended before the answer: nobody knows whether they were decided
        )

    def send(self, thread, count):
        answers, lost = Counter(), 0
        # A connection for each request, so that all workers get some.
        headers = {"Connection": "close"}
        with httpx.Client(
            base_url=self._sidecar.address, trust_env=False, timeout=20, headers=headers
        ) as client:
            for number in range(count):
                try:
                    response = client.post("/v1/check", json={"key": f"vk_{thread}_{number % 20}"})
                    answers[response.status_code] += 1
                except httpx.TransportError:
                    lost += 1
        return answers, lost

    def run(self, count, while_running=lambda: None):
        with ThreadPoolExecutor(4) as pool:
            parts = [pool.submit(self.send, thread, count) for thread in range(4)]
            while_running()
            for part in parts:
                answers, lost = part.result()
                self.answers += answers
                self.lost += lost


def test_the_counts_of_two_workers_add_up_also_after_one_was_killed(start_sidecar):
    sidecar = start_sidecar("--workers", "2", "--deadline", "5s")
    load = Load(sidecar)
    load.run(150)

    def read_results():
        text = scrape(sidecar)
        return {
            200: read_counts(text, "ratelimit_checks_total", result="allowed"),
            429: read_counts(text, "ratelimit_checks_total", result="denied"),
        }

    assert read_results() == load.answers
    assert load.lost == 0

    first, second = find_workers(sidecar)
    load.run(150, while_running=lambda: os.kill(first, signal.SIGKILL))
    wait_until(lambda: len(set(find_workers(sidecar)) - {first}) == 2)
    load.run(150)
    counted = read_results()
    surplus = sum(counted.values()) - sum(load.answers.values())
    print(f"answers {dict(load.answers)}, counted {counted}, without an answer {load.lost}")  # noqa: T201
    # A worker that is killed may have decided what it could not answer any more. It lost no count.
    assert 0 <= surplus <= load.lost
    assert all(counted[status] >= load.answers[status] for status in (200, 429))
    assert second in find_workers(sidecar)
    assert read_counts(scrape(sidecar), "ratelimit_store_up") == 1


def test_the_gauge_of_the_circuit_breaker_follows_the_store(start_sidecar):
    sidecar = start_sidecar("--redis", f"redis://127.0.0.1:{find_free_port()}")
    assert sidecar.check("k").json()["source"] == "outage"
    wait_until(lambda: sidecar.check("k") and read_counts(scrape(sidecar), "ratelimit_breaker_open") == 1)
    assert read_counts(scrape(sidecar), "ratelimit_store_up") == 0
    errors = read_counts(scrape(sidecar), "ratelimit_store_errors_total", reason="connection")
    for _ in range(200):
        sidecar.check("k")
    more = read_counts(scrape(sidecar), "ratelimit_store_errors_total", reason="connection") - errors
    assert more < 200, "calls are paused"
    assert read_counts(scrape(sidecar), "ratelimit_checks_total", source="outage", result="allowed") > 200
