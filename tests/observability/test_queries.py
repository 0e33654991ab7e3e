"""Rules and dashboard ask only for what a sidecar reports, and a real Prometheus answers each query."""

import json
import re
import shutil
import subprocess

import httpx
import pytest
import yaml

from ..processes import find_free_port, run_program, wait_until
from .conftest import PROMETHEUS, RULE_FILES, find_queries, read_dashboard, read_rules

QUERIES = find_queries(read_dashboard())
HISTOGRAM_SUFFIX = re.compile("_(bucket|sum|count)$")


def find_metrics(expression):
    """Return the metrics that an expression reads, without the names of recorded sums."""
    names = re.findall(r"(?<![\w:])ratelimit_[a-z_]+(?![\w:])", expression)
    return {HISTOGRAM_SUFFIX.sub("", name) for name in names}


def test_every_metric_that_is_asked_for_exists(busy_sidecar):
    text = busy_sidecar.client.get("/metrics").text
    reported = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    asked = {name for _, expression in QUERIES for name in find_metrics(expression)}
    asked |= {name for rule in read_rules() for name in find_metrics(rule["expr"])}
    assert asked - reported == set()
    assert reported - asked == set(), "no alert and no panel shows these"


def test_every_label_that_is_asked_for_exists(busy_sidecar):
    text = busy_sidecar.client.get("/metrics").text
    reported = set(re.findall(r'[{,]([a-z_]+)="', text)) | {"job", "instance", "le", "alertstate"}
    expressions = [expression for _, expression in QUERIES] + [rule["expr"] for rule in read_rules()]
    for expression in expressions:
        matched = re.findall(r'(\w+)(?:=~|!=|=)"', expression)
        grouped = re.findall(r"(?:by|on|ignoring) \(([^)]*)\)", expression)
        asked = {*matched, *(name.strip() for names in grouped for name in names.split(","))}
        assert asked <= reported, expression


def test_every_recorded_sum_that_is_asked_for_is_recorded():
    recorded = {rule["record"] for rule in read_rules() if "record" in rule}
    asked = {name for rule in read_rules() for name in re.findall(r"job\w*:[\w:]+", rule["expr"])}
    assert asked == recorded


@pytest.fixture(scope="module")
def prometheus(busy_sidecar, tmp_path_factory):
    """The address of a Prometheus that has scraped the sidecar and evaluated every rule."""
    if not shutil.which("prometheus"):
        pytest.skip("prometheus is not installed")
    folder = tmp_path_factory.mktemp("prometheus")
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(folder / file.name) for file in RULE_FILES]
    for file in RULE_FILES:
        rules = yaml.safe_load(file.read_text())
        for group in rules["groups"]:
            group["interval"] = "1s"
        (folder / file.name).write_text(yaml.safe_dump(rules))
    [job] = configuration["scrape_configs"]
    job["static_configs"][0]["targets"] = [f"127.0.0.1:{busy_sidecar.port}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    address = f"127.0.0.1:{find_free_port()}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (
        run_program(command, folder / "output"),
        httpx.Client(base_url=f"http://{address}/api/v1", trust_env=False, timeout=10) as client,
    ):
        wait_until(lambda: is_ready(client, busy_sidecar))
        yield client


def is_ready(client, sidecar):
    """Send a check; tell whether Prometheus sees that denials grow, and has evaluated every rule."""
    sidecar.check("vk_flood")
    try:
        if client.get("/status/runtimeinfo").status_code != 200:  # it still reads its storage
            return False
        growth = ask(client, 'sum(rate(ratelimit_checks_total{result="denied"}[1m])) > 0')
        groups = client.get("/rules").json()["data"]["groups"]
    except httpx.TransportError:  # it does not listen yet
        return False
    return growth and all(rule["health"] != "unknown" for group in groups for rule in group["rules"])


def ask(client, expression):
    """Return the series that Prometheus answers to an expression."""
    answer = client.get("/query", params={"query": expression}).json()
    assert answer["status"] == "success", f"{expression}\n{json.dumps(answer)}"
    return answer["data"]["result"]


@pytest.mark.parametrize(("title", "expression"), QUERIES, ids=[title for title, _ in QUERIES])
def test_prometheus_has_an_answer_to_every_query_of_the_dashboard(prometheus, title, expression):
    assert ask(prometheus, expression)


def test_prometheus_evaluates_every_rule_without_an_error(prometheus):
    groups = prometheus.get("/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(read_rules())
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_every_query_of_the_dashboard_can_be_parsed(tmp_path):
    rules = [{"record": f"query_{n}", "expr": expression} for n, (_, expression) in enumerate(QUERIES)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
