"""A sidecar that has done something of everything, and the expressions of the dashboard and the rules."""

import json
import re
from pathlib import Path

import pytest
import yaml

from ..sidecars import run_sidecar

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMETHEUS = EXAMPLES / "prometheus"
RULE_FILES = [PROMETHEUS / "ratelimit-alerts.yml", PROMETHEUS / "ratelimit-recording.yml"]
DASHBOARD = EXAMPLES / "grafana" / "ratelimit.json"

POLICY = """
default_plan: free
plans:
  free:
    limits:
      requests: {rate: 20/hour, burst: 5}
      tokens: {unit: tokens, rate: 1000/hour}
      new: {rate: 1/hour, mode: shadow}
"""


def read_rules():
    """Return all rules of the examples: alerts and recorded sums."""
    files = [yaml.safe_load(file.read_text()) for file in RULE_FILES]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def read_dashboard():
    return json.loads(DASHBOARD.read_text())


def find_queries(dashboard):
    """Return each expression of the dashboard as Grafana sends it, with its panel or annotation."""
    queries = [
        (f"{panel['title']} {target['refId']}", target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]
    queries += [(note["name"], note["expr"]) for note in dashboard["annotations"]["list"]]
    return [(title, fill_in(expression)) for title, expression in queries]


def fill_in(expression):
    """Replace the dashboard's variables as Grafana does."""
    filled = re.sub(r"\$(instance|plan)\b", ".*", expression.replace("$__rate_interval", "1m"))
    assert "$" not in filled
    return filled


@pytest.fixture(scope="module")
def busy_sidecar():
    """A sidecar that has allowed, denied, refused and settled checks."""
    with run_sidecar(policy=POLICY) as sidecar:
        for _ in range(8):
            sidecar.check("vk_flood")
        sidecar.check("vk_typo", cost={"apples": 1})
        reservation = sidecar.check("vk_paid", reserve=True, cost={"tokens": 100}).json()["reservation"]
        usage = {"input_tokens": 10, "output_tokens": 20, "latency_ms": 300, "status": 200}
        assert sidecar.client.post("/v1/settle", json={"reservation": reservation, **usage}).is_success
        yield sidecar
