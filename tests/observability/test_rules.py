"""The alerts of examples/prometheus fire when they should, and docs/operations/alerts.md explains each."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import PROMETHEUS, read_rules

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations" / "alerts.md"
ALERTS = [rule for rule in read_rules() if "alert" in rule]
TEST_FILES = sorted(PROMETHEUS.glob("*_test.yml"))

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


def run_promtool(*arguments):
    done = subprocess.run(
        ["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_configuration_and_its_rules_are_valid():
    run_promtool("check", "config", "prometheus.yml")


@needs_promtool
@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.name)
def test_alerts_fire_when_they_should_and_only_then(file):
    run_promtool("test", "rules", file.name)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_is_tested_described_and_explained(alert):
    name = alert["alert"]
    assert any(f'alertname="{name}"' in file.read_text() for file in TEST_FILES)
    assert {"summary", "description", "runbook_url"} == alert["annotations"].keys()
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert alert["for"]
    path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert path == "docs/operations/alerts.md"
    assert anchor == f"alert-{name.lower()}"
    assert anchor in find_anchors(OPERATIONS.read_text())


def test_no_section_explains_an_alert_that_does_not_exist():
    sections = {anchor for anchor in find_anchors(OPERATIONS.read_text()) if anchor.startswith("alert-")}
    assert sections == {f"alert-{alert['alert'].lower()}" for alert in ALERTS}


def find_anchors(markdown):
    """Return the anchors of all headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
