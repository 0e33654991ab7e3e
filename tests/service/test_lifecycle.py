"""Starting, reloading, losing the store, and stopping."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from ratelimit.stores import open_client

from ..processes import find_free_port, run_ratelimit, wait_until


def run_serve(*flags):
    """Run a `serve` that ends by itself, because it cannot start."""
    return run_ratelimit("serve", *flags)


@pytest.fixture
def policy_file(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text("plans: {free: {limits: {requests: {rate: 5/minute}}}}")
    return str(file)


def find_workers(sidecar):
    """Return the process ids of a sidecar's workers."""
    command = ["pgrep", "-P", str(sidecar.pid), "-f", "multiprocessing.spawn"]
    return [int(pid) for pid in subprocess.run(command, capture_output=True, check=True).stdout.split()]


def test_starting_says_where_it_listens_what_it_uses_and_how_to_try_it(start_sidecar):
    sidecar = start_sidecar("--redis", "memory://")
    curl = next(line for line in sidecar.output.splitlines() if "curl" in line).partition("try")[2]
    answer = subprocess.run(curl.strip(), shell=True, capture_output=True, text=True, check=True).stdout  # noqa: S602
    assert answer.startswith("HTTP/1.1 200 OK")
    assert "store    memory://" in sidecar.output
    assert str(sidecar.policy_file) in sidecar.output
    assert "no key_pepper" in sidecar.output


def test_logs_are_json_when_asked_for(start_sidecar):
    sidecar = start_sidecar("--redis", "memory://", "--log-format", "json")
    lines = [json.loads(line) for line in sidecar.output.splitlines()]
    assert lines[0]["body"] == "listening"
    assert (lines[0]["store"], lines[0]["policy"]) == ("memory://", str(sidecar.policy_file))
    assert lines[1]["severity_text"] == "WARNING"


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "--policy (RATELIMIT_POLICY): required"),
        (["--policy", "nowhere.yaml"], "nowhere.yaml: cannot be read: No such file or directory"),
        (["--redis", "http://localhost"], "names no store; allowed: redis://"),
        (["--redis", "redis+cluster://h:1/0"], "a cluster has one database"),
        (["--redis", "redis://localhost/x"], "must be a number"),
        (["--redis", "unix://"], "needs the path of a socket"),
        (["--port", "99999"], "--port (RATELIMIT_PORT): Input should be less than or equal to 65535"),
        (["--deadline", "soon"], "'soon' is not a duration; write 50ms, 5s, 1m, 1h or 30d"),
        (["--usage-length", "-1"], "--usage-length (RATELIMIT_USAGE_LENGTH)"),
        (["--usage-age", "367d"], "--usage-age (RATELIMIT_USAGE_AGE)"),
        (["--dialect", "klingon"], "--dialect (RATELIMIT_DIALECT)"),
        (["--trusted-proxies", "everyone"], "--trusted-proxies"),
        (["--admin-token", " "], "must not be empty"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1:8080"),
    ],
)
def test_a_wrong_setting_is_one_clear_line_and_exit_2(policy_file, flags, complaint):
    given = [] if not flags or "--policy" in flags else ["--policy", policy_file]
    store = [] if "--redis" in flags else ["--redis", "memory://"]
    done = run_serve(*given, *store, *flags)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("ratelimit:")]) == 1


def test_a_bad_policy_names_file_line_and_path(policy_file):
    Path(policy_file).write_text("plans:\n  free:\n    limits:\n      requests: {rate: 5/fortnight}\n")
    done = run_serve("--policy", policy_file, "--redis", "memory://")
    assert done.returncode == 2
    assert f"{policy_file}:4: plans.free.limits.requests.rate: '5/fortnight' is not a rate" in done.stderr


def test_a_wrong_password_is_one_clear_line_without_the_password(policy_file, tmp_path):
    client, close = open_client(f"embedded://{tmp_path / 'store'}", 1.0)
    try:
        client.config_set("requirepass", "right")
        socket_path = client.connection_pool.connection_kwargs["path"]
        for url in (f"unix://:wrong-password@{socket_path}", f"unix://{socket_path}"):
            done = run_serve("--policy", policy_file, "--redis", url)
            assert done.returncode == 2
            [line] = [line for line in done.stderr.splitlines() if line.startswith("ratelimit:")]
            assert "password" in line.lower() or "auth" in line.lower()
            assert "wrong-password" not in done.stderr
    finally:
        close()


def test_a_port_in_use_is_one_clear_line(policy_file):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_serve("--policy", policy_file, "--redis", "memory://", "--port", port)
    assert done.returncode == 2
    assert (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --port"
        in done.stderr
    )


def test_without_its_store_it_starts_answers_by_on_outage_and_is_not_ready(start_sidecar, key):
    sidecar = start_sidecar("--redis", f"redis://:pass-word@127.0.0.1:{find_free_port()}")
    allowed = sidecar.check(key)
    assert (allowed.status_code, allowed.json()["source"], allowed.json()["limits"]) == (200, "outage", [])
    denied = sidecar.check(key, plan="strict")
    assert denied.status_code == 503
    assert (
        denied.json()["type"] == "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
    )
    assert denied.headers["retry-after"] == "1"
    ready = sidecar.client.get("/readyz")
    assert (ready.status_code, ready.headers["content-type"]) == (503, "application/problem+json")
    assert sidecar.client.get("/healthz").status_code == 200
    assert "does not answer" in sidecar.output
    assert "pass-word" not in sidecar.output + ready.text


def test_p11_a_changed_policy_file_takes_effect_and_keeps_what_was_used(start_sidecar, key):
    sidecar = start_sidecar("--redis", "memory://")
    assert sidecar.check(key).json()["limits"][0]["remaining"] == 4
    sidecar.policy_file.write_text(sidecar.policy_file.read_text().replace("burst: 5", "burst: 50"))
    sidecar.wait_for_output("policy reloaded")
    assert sidecar.check(key).json()["limits"][0]["remaining"] == 48


def test_p11_a_bad_policy_file_is_refused_whole_and_the_running_one_stays(start_sidecar, key):
    sidecar = start_sidecar("--redis", "memory://")
    sidecar.policy_file.write_text(
        sidecar.policy_file.read_text().replace("1000/hour", "lots").replace("burst: 5", "burst: 50")
    )
    sidecar.process.send_signal(signal.SIGHUP)
    sidecar.wait_for_output("'lots' is not a rate")
    assert f"file={sidecar.policy_file}:9 path=plans.free.limits.tokens.rate" in sidecar.output
    assert sidecar.check(key).json()["limits"][0]["burst"] == 5


def test_p10_a_fault_in_the_keys_of_a_policy_is_logged_without_the_key(start_sidecar):
    sidecar = start_sidecar("--redis", "memory://")
    sidecar.policy_file.write_text(
        sidecar.policy_file.read_text().replace("vk_partner", "vk_partner_0123456789") + "  vk_x: 5\n"
    )
    sidecar.wait_for_output("policy refused")
    sidecar.policy_file.write_text(
        sidecar.policy_file.read_text().replace("  vk_x: 5", "").replace("plan: pro,", "plan: gold,")
    )
    sidecar.wait_for_output("path=keys.vk_par…789.plan")
    assert "vk_partner_0123456789" not in sidecar.output


@pytest.mark.parametrize("odd", ['!!int ""', '!!timestamp "x"', "!!bool foo", "!!python/object:os.system {}"])
def test_p11_after_any_odd_file_a_good_one_is_still_seen(start_sidecar, odd):
    sidecar = start_sidecar("--redis", "memory://")
    good = sidecar.policy_file.read_text()
    sidecar.policy_file.write_text(f"default_plan: {odd}\n{good}")
    sidecar.wait_for_output("policy refused")
    sidecar.policy_file.write_text(good.replace("burst: 5", "burst: 50"))
    sidecar.wait_for_output("policy reloaded")


def test_p11_a_worker_that_starts_while_the_file_is_bad_runs_the_last_good_one(start_sidecar, key):
    sidecar = start_sidecar("--workers", "2")
    assert sidecar.check(key).json()["limits"][0]["burst"] == 5
    sidecar.policy_file.write_text(sidecar.policy_file.read_text().replace("burst: 5", "burst: 7"))
    sidecar.wait_for_output("policy reloaded")
    sidecar.policy_file.write_text("plans: none")
    for worker in find_workers(sidecar):
        os.kill(worker, signal.SIGKILL)
    with httpx.Client(base_url=sidecar.address, timeout=60) as client:
        answer = client.post("/v1/check", json={"key": key})
    assert answer.json()["limits"][0]["burst"] == 7


def test_several_workers_share_one_store_and_one_pepper(start_sidecar):
    sidecar = start_sidecar("--workers", "2")
    answers = []
    for _ in range(12):  # a connection for each request, so that both workers get some
        with httpx.Client(base_url=sidecar.address) as client:
            answers.append(client.get("/v1/authorize", headers={"Authorization": "Bearer sk-shared"}))
    assert len({answer.headers["x-ratelimit-key"] for answer in answers}) == 1
    assert [answer.status_code for answer in answers].count(200) == 5


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists what a process has loaded")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_runs_on_uvloop_and_httptools(start_sidecar, key, workers):
    """Each library is loaded only if it is used, so a process that has loaded it uses it."""
    sidecar = start_sidecar("--workers", workers)
    assert sidecar.check(key).status_code == 200
    pids = [sidecar.pid] if workers == "1" else find_workers(sidecar)
    assert len(pids) == int(workers)
    for pid in pids:
        maps = Path(f"/proc/{pid}/maps")
        for library in ("/uvloop/loop.", "/httptools/parser/"):
            wait_until(lambda maps=maps, library=library: library in maps.read_text())


def test_memory_cannot_be_shared_by_workers(policy_file):
    done = run_serve("--policy", policy_file, "--redis", "memory://", "--workers", "2", "--port", "0")
    assert done.returncode == 2
    assert "memory:// cannot be shared between processes" in done.stderr


def test_it_listens_on_a_unix_socket(start_sidecar, tmp_path, key):
    sidecar = start_sidecar("--redis", "memory://", "--uds", str(tmp_path / "s.sock"))
    assert sidecar.check(key).status_code == 200
    anonymous = sidecar.client.get("/v1/authorize", headers={"X-Forwarded-For": "203.0.113.7"})
    assert anonymous.headers["x-ratelimit-key"].startswith("anon_")
    assert sidecar.stop() == 0
    assert not (tmp_path / "s.sock").exists()


def test_an_embedded_path_keeps_what_was_used_across_a_restart(start_sidecar, tmp_path, key):
    flags = ("--redis", f"embedded://{tmp_path / 'data'}")
    first = start_sidecar(*flags)
    assert first.check(key, cost={"tokens": 900}).json()["limits"][1]["remaining"] == 100
    first.stop()
    assert (
        start_sidecar(*flags).client.post("/v1/check", json={"key": key}).json()["limits"][1]["remaining"]
        < 200
    )


def test_no_embedded_server_outlives_a_killed_sidecar(start_sidecar, tmp_path):
    data = tmp_path / "data"
    sidecar = start_sidecar("--redis", f"embedded://{data}")
    assert accepts_connections(data / "valkey.sock")
    sidecar.kill()
    wait_until(lambda: not accepts_connections(data / "valkey.sock"))


def accepts_connections(path):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_sigterm_answers_what_is_under_way_and_leaves_quietly(start_sidecar, key):
    sidecar = start_sidecar("--redis", "memory://")
    assert sidecar.check(key).status_code == 200
    assert sidecar.stop() == 0
    assert "Traceback" not in sidecar.output


def test_p4_max_skew_none_trusts_timestamps_entirely(start_sidecar, key):
    body = (
        start_sidecar("--redis", "memory://", "--max-skew", "none")
        .check(key, timestamp="2100-01-01T00:00:00Z")
        .json()
    )
    assert (body["timestamp"], body["clamped"]) == ("2100-01-01T00:00:00.000000Z", False)


def test_settings_come_from_the_environment_too(start_sidecar, key):
    sidecar = start_sidecar(
        RATELIMIT_REDIS="memory://", RATELIMIT_ADMIN_TOKEN="t", RATELIMIT_LOG_FORMAT="json"
    )
    assert json.loads(sidecar.output.splitlines()[0])["store"] == "memory://"
    shown = sidecar.client.get(f"/v1/keys/{key}", headers={"Authorization": "Bearer t"})
    assert json.loads(shown.text)["plan"] == "free"
