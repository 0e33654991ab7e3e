"""Sidecars fail, or are kept from working: each decision is judged by the history checker."""

import contextlib
import resource
import shutil
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ..processes import wait_until
from ..sidecars import run_sidecar
from .judgement import assert_sound, describe_faults, read_report
from .load import POLICY, TASKS

LEASED_BURST, SHARE = 200, 0.2
LEASED = f"""
  leased:
    limits:
      leased:
        rate: {LEASED_BURST}/365d
        lease: {{share: {SHARE}, ttl: 1s}}
        denial_memory: false
        on_outage: deny
"""
DEADLINE = ("--deadline", "500ms")


@pytest.fixture
def run(valkey_url, tmp_path, open_client):
    """Run sidecars until the end of the test, each with a history of its own, on one store."""
    open_client(valkey_url).flushall()
    with ExitStack() as stack:

        def start(number=0, *flags, policy=POLICY, **variables):
            history = str(tmp_path / f"history-{number}")
            flags = ("--redis", valkey_url, "--history", history, *DEADLINE, *flags)
            return stack.enter_context(run_sidecar(*flags, policy=policy, **variables))

        yield start


@pytest.fixture
def histories(tmp_path):
    """The histories of all sidecars of the test."""
    return lambda: sorted(tmp_path.glob("history-*"))


@contextmanager
def limited(pid, name, soft):
    """Limit a resource of a running process until the end of the block."""
    before = resource.prlimit(pid, name, (soft, resource.getrlimit(name)[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, name, before)


def test_p1_p6_p9_one_of_four_sidecars_is_killed_with_reservations_and_leases(
    run, histories, make_load, judge, tenant
):
    """A call that was under way may be charged without a line. The dead sidecar's reservations can be settled
    through another one, and its slots are freed by their ttl. Its leases are lost: at most share · burst of
    each bucket is admitted less."""
    with ThreadPoolExecutor(2) as pool:
        first, *others = pool.map(lambda number: run(number, policy=POLICY + LEASED), range(4))
    leased = {"key": f"k-{tenant}", "tenant": tenant, "plan": "leased"}
    with make_load([one.port for one in (first, *others)], choose_plan) as load:
        load.wait_for_decisions()
        spent = 1
        while first.check(**leased).json()["source"] != "lease":
            spent += 1
        held = [first.check("slots", tenant=tenant, reserve=True).json()["reservation"] for _ in range(4)]
        assert others[0].check("slots", tenant=tenant, reserve=True).json()["violated"] == ["parallel"]
        first.kill()
        load.ports.remove(first.port)
        load.wait_for_decisions()
        settled = others[1].client.post("/v1/settle", json={"reservation": held[0], "input_tokens": 1})
        assert settled.json()["settled"]
        wait_until(lambda: count_open(others[2], "slots", tenant) == 0)
        others_spent = 0
        while others[0].check(**leased, reserve=True).json()["allowed"]:  # asks the store, not a lease
            others_spent += 1
        load.end()
    fault, allowed = "kill -9 of one of four sidecars", "calls under way are charged, leases are lost"
    report = judge(
        load, histories(), fault, allowed, "one server, four sidecars", policy=POLICY + LEASED, may_break=True
    )
    assert {fault.kind for fault in report.faults} <= {"charged-more"}, describe_faults(report)
    assert len(report.faults) <= 2 * TASKS, describe_faults(report)
    assert load.broken <= 2 * TASKS
    assert LEASED_BURST * (1 - SHARE) <= spent + others_spent < LEASED_BURST


def choose_plan(key):
    return {"plan": "leased"} if key[4] in "13579" else {}


def count_open(sidecar, key, tenant):
    """Return how many slots of a key are taken."""
    decision = sidecar.check(key, tenant=tenant, cost={"requests": 0}).json()
    [parallel] = [limit for limit in decision["limits"] if limit["name"] == "parallel"]
    return parallel["burst"] - parallel["remaining"]


def test_idle_connections_and_half_sent_requests_hinder_nobody(run, histories, make_load, judge):
    sidecar = run()
    address = ("127.0.0.1", sidecar.port)
    halves = [b"", b"POST /v1/check HT", b"POST /v1/check HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{"]
    with make_load([sidecar.port]) as load, ExitStack() as stack:
        for number in range(1_200):
            opened = stack.enter_context(socket.create_connection(address))
            opened.sendall(halves[number % len(halves)] if number >= 1_000 else b"")
        load.wait_for_decisions()
        load.end()
    fault = "1,000 idle connections and 200 half-sent requests"
    assert_sound(judge(load, histories(), fault, "nothing"))
    assert sidecar.check("k").status_code == 200


def test_p1_p6_p8_descriptors_that_run_out_break_nothing(
    run, histories, make_load, judge, open_client, valkey_url
):
    """New connections wait or are closed. When others are closed, everything goes on."""
    sidecar = run()
    with make_load([sidecar.port]) as load, ExitStack() as stack:
        load.wait_for_decisions()
        used = max(int(entry.name) for entry in Path(f"/proc/{sidecar.pid}/fd").iterdir())
        with limited(sidecar.pid, resource.RLIMIT_NOFILE, used + 10):
            for _ in range(60):
                stack.enter_context(socket.create_connection(("127.0.0.1", sidecar.port)))
            load.wait_for_decisions()
            # Without a descriptor it cannot connect to the store again.
            open_client(valkey_url).client_kill_filter(_type="normal", skipme=True)
            answers = load.answers.total()
            wait_until(lambda: load.answers.total() > answers + 100)
            stack.close()
            load.wait_for_decisions()
        load.end()
    fault = "file descriptors of the sidecar exhausted"
    assert_sound(judge(load, histories(), fault, "nothing", may_break=True))
    assert sidecar.process.poll() is None
    assert sidecar.check("k").status_code == 200


def test_p1_p6_a_full_disk_below_the_embedded_store_breaks_nothing(
    run, histories, make_load, judge, full_disk
):
    """The store refuses what it cannot keep: `on_outage` decides until there is room again."""
    sidecar = run(0, "--redis", f"embedded://{full_disk.folder}/store")
    with make_load([sidecar.port]) as load:
        load.wait_for_decisions()
        full_disk.fill()
        load.wait_for_outages()
        full_disk.make_room()
        load.wait_for_decisions()
        load.end()
    store = "embedded server with a folder"
    assert_sound(judge(load, histories(), "disk full below the store", "nothing", store))


def test_decisions_go_on_while_the_disk_of_the_history_is_full(run, histories, make_load, judge):
    """Lines are missing then: what they charged is in the store and not in the history."""
    other = run(0, "--history", "/dev/full")
    assert [other.check("k").status_code for _ in range(45)] == [200] * 40 + [429] * 5
    assert other.output.count("is incomplete") == 1
    sidecar = run()
    with make_load([sidecar.port]) as load:
        load.wait_for_decisions()
        [history] = histories()
        with limited(sidecar.pid, resource.RLIMIT_FSIZE, history.stat().st_size + 2_000):
            sidecar.wait_for_output("is incomplete")
            load.wait_for_decisions()
        load.wait_for_decisions()
        load.end()
    allowed = "charges whose lines are missing"
    report = judge(load, [history], "no room for the history", allowed)
    assert not report.select_faults("over-admitted", "answered-differently"), describe_faults(report)
    assert load.outages == 0
    assert sidecar.output.count("is incomplete") == 1
    assert load.decided > report.decisions


def test_p1_p2_p11_a_policy_that_is_reloaded_all_the_time_keeps_what_was_used(
    run, histories, make_load, judge, tenant
):
    """Each decision is by the old or by the new policy: no more passes than by the larger one, and nothing is
    denied that the smaller one allows."""
    smaller = POLICY.replace("burst: 40", "burst: 25").replace("burst: 2000", "burst: 900")
    smaller = smaller.replace("    limits:", "    limits:\n      one-more: {rate: 1000/second}")
    sidecar = run()
    with make_load([sidecar.port]) as load:
        for number in range(1, 13):
            sidecar.policy_file.write_text((POLICY, smaller)[number % 2])
            sidecar.process.send_signal(signal.SIGHUP)
            wait_until(lambda number=number: count_reloads(sidecar) >= number)
            load.wait_for_decisions(30)
        load.end()
    by_smaller = read_report(histories(), tenant, smaller)
    denied = by_smaller.select_faults("denied-without-reason")
    fault = "policy edited and reloaded, twelve times"
    report = judge(load, histories(), fault, "the old or the new policy", denied=len(denied))
    assert not denied, describe_faults(by_smaller)
    kinds = ("over-admitted", "lost", "charged-more", "answered-differently")
    assert not report.select_faults(*kinds), describe_faults(report)
    assert by_smaller.select_faults("over-admitted"), "the smaller policy was not always in force"
    assert load.answers[503] == load.outages == 0


def count_reloads(sidecar):
    """Return how many times the policy was reloaded."""
    metrics = sidecar.client.get("/metrics").text
    return sum(
        float(line.split()[-1])
        for line in metrics.splitlines()
        if line.startswith('ratelimit_policy_reloads_total{result="loaded"}')
    )


class FullDisk:
    """A small file system, which can be filled and emptied."""

    def __init__(self, folder):
        self.folder = folder
        self._filling = folder / "filling"

    def fill(self):
        with self._filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def make_room(self):
        self._filling.unlink()


@pytest.fixture
def full_disk(short_dir):
    folder = short_dir / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system of 4 MB cannot be mounted here: that needs root and the right to mount")
    yield FullDisk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
