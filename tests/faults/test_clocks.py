"""Clocks are set: the sidecar's, the store's, and those of gateways that send timestamps."""

import itertools
import os
import shutil
import struct
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest

from ..processes import wait_until
from ..sidecars import run_sidecar
from .judgement import assert_sound
from .load import POLICY
from .own_server import OwnServer

HOUR = 3600
CLOCK = Path(__file__).with_name("clock")


class Clock:
    """A wall clock that differs from the real one; see the files in `clock/`."""

    def __init__(self, path):
        self.path = path
        self.seconds = 0.0
        path.write_bytes(struct.pack("d", 0.0))

    def step(self, seconds):
        """Set the clock forwards, or back if negative."""
        self.seconds += seconds
        with self.path.open("r+b") as file:
            file.write(struct.pack("d", self.seconds))


@pytest.fixture(scope="module")
def folder(short_dir):
    folder = short_dir / "clocks"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def store_clock(folder):
    return Clock(folder / "store-clock")


@pytest.fixture(scope="module")
def sidecar_clock(folder):
    return Clock(folder / "sidecar-clock")


@pytest.fixture(scope="module")
def store(folder, store_clock):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("the store's clock is set by a library, and there is no C compiler (`cc`) to make it")
    library = folder / "clock.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, CLOCK / "store_clock.c", "-ldl"]
    subprocess.run(command, check=True)
    server = OwnServer("valkey", folder, LD_PRELOAD=str(library), FAULTS_CLOCK=str(store_clock.path))
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def sidecar(store, history, sidecar_clock):
    flags = ("--redis", store.url, "--history", str(history), "--deadline", "500ms")
    paths = f"{CLOCK}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with run_sidecar(
        *flags, policy=POLICY, PYTHONPATH=paths, FAULTS_CLOCK=str(sidecar_clock.path)
    ) as sidecar:
        yield sidecar


def test_p1_p4_the_sidecars_clock_changes_nothing(sidecar, sidecar_clock, store, history, make_load, judge):
    with make_load([sidecar.port]) as load:
        for hours in (1, -2, 1):
            load.wait_for_decisions(100)
            sidecar_clock.step(hours * HOUR)
        load.wait_for_decisions(100)
        load.end()
    assert read_clock(sidecar, store) == pytest.approx(time.time(), abs=60)
    sidecar_clock.step(HOUR)
    assert read_clock(sidecar, store) == pytest.approx(time.time() + HOUR, abs=60), "the clock can be set"
    sidecar_clock.step(-HOUR)
    fault = "the sidecar's clock set an hour forwards, two back, one forwards"
    assert_sound(judge(load, [history], fault, "nothing"))


def read_clock(sidecar, store):
    """Return the sidecar's wall clock, by which it decides while the store does not answer."""
    store.freeze()
    decision = sidecar.check("probe").json()
    store.go_on()
    assert decision["source"] == "outage"
    return datetime.fromisoformat(decision["timestamp"]).timestamp()


def test_p1_p4_a_stores_clock_that_is_set_back_denies_and_admits_nothing_more(
    sidecar, store, store_clock, history, make_load, judge
):
    """Buckets that have been used deny until their time comes again; others are as they were."""
    wait_until(lambda: sidecar.check("probe").json()["source"] == "store")
    with make_load([sidecar.port]) as load:
        load.wait_for_decisions()
        assert sidecar.check("used", tenant=load.tenant, cost={"requests": 40}).json()["allowed"]
        before = store.client.time()[0]
        store_clock.step(-HOUR)
        wait_until(lambda: store.client.time()[0] < before - HOUR / 2)
        load.wait_for_decisions()
        assert not sidecar.check("used", tenant=load.tenant).json()["allowed"]
        load.end()
    report = judge(load, [history], "the store's clock set back by an hour", "denials for that hour")
    assert_sound(report)
    assert report.windows_only > 0


def test_p1_p4_a_stores_clock_that_is_set_forwards_refills_an_hour(
    sidecar, store, store_clock, history, make_load, judge
):
    """An hour's refill fills each bucket once. By the store's clock nothing is over-admitted."""
    with make_load([sidecar.port]) as load:
        load.wait_for_decisions()
        store_clock.step(HOUR)
        load.finish()
    allowed = "the refill of an hour"
    assert_sound(judge(load, [history], "the store's clock set forwards by an hour", allowed))


def test_p1_p4_gateways_whose_clocks_are_wrong_admit_nothing_more(sidecar, history, make_load, judge):
    """A future timestamp is set back to `max_skew` ahead of the store's clock; a late one earns no refill."""
    offsets = itertools.cycle([0, HOUR, -1, 0, -HOUR])

    def choose_timestamp(_):
        return {"timestamp": time.time() + next(offsets)}

    with make_load([sidecar.port], choose_timestamp) as load:
        load.wait_for_decisions(500)
        load.end()
    fault = "gateways an hour ahead and behind, with timestamps"
    assert_sound(judge(load, [history], fault, "nothing, by the requests' times"))
