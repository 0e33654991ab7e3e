"""`ratelimit serve --history` and `ratelimit verify`, as an operator uses them."""

import concurrent.futures
import json

import pytest

from ..processes import run_ratelimit

POLICY = """
default_plan: free
plans: {free: {limits: {requests: {rate: 10/day}, tokens: {unit: tokens, rate: 1000/day}}}}
"""


@pytest.fixture
def verify(tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    return lambda *arguments: run_ratelimit("verify", *map(str, arguments), "--policy", str(policy))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_p1_p2_p6_p7_the_history_of_a_sidecar_under_load_is_sound(
    start_sidecar, verify, tmp_path, valkey_url, open_client, workers
):
    open_client(valkey_url).flushall()
    history = tmp_path / "history.jsonl"
    sidecar = start_sidecar(
        "--history",
        str(history),
        "--redis",
        valkey_url,
        "--workers",
        workers,
        "--deadline",
        "10s",
        policy=POLICY,
    )

    def use(number):
        fields = [{}, {"reserve": True}, {"request_id": f"id-{number % 9}"}][number % 3]
        answer = sidecar.check(f"vk_{number % 5:010d}", cost={"tokens": 30}, **fields).json()
        if answer.get("reservation"):
            settled = {"reservation": answer["reservation"], "output_tokens": number % 70}
            for _ in range(2):
                assert sidecar.client.post("/v1/settle", json=settled).status_code == 200

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(200)))
    done = verify(history, "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["sound"], report["faults"]) == (0, True, [])
    assert report["decisions"] == 200
    assert 50 <= report["admitted"] < 150
    assert report["settlements"] > 0
    assert (report["buckets"], report["windows_only"]) == (10, 0)

    lines = history.read_text().splitlines()
    plain = next(
        line for line in lines if '"allowed":true,' in line and line.count('"re') == line.count('"requests')
    )
    lines.remove(plain)
    history.write_text("\n".join(lines) + "\n")
    done = verify(history)
    assert done.returncode == 1
    assert "a promise was broken: " in done.stdout
    assert "charged-more: vk_000…" in done.stdout
    assert "vk_0000000" not in done.stdout


def test_a_sound_history_is_said_to_be_sound(verify, tmp_path):
    history = tmp_path / "h.jsonl"
    history.write_text('{"timestamp": 1771601400, "key": "vk_a", "allowed": true}\n')
    done = verify(history, history)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "2 decisions (2 admitted), 0 settlements, 0 repeated\nno promise was broken\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, [], "No such file or directory"),
        ("{}\n", [], "h.jsonl:1: timestamp: required"),
        ("no json\n", [], "h.jsonl:1: Invalid JSON"),
        (
            '{"timestamp": 1, "key": "k", "allowed": true, "plan": "x"}\n',
            [],
            "h.jsonl:1: plan: there is no such plan",
        ),
        ("", ["--remember", "soon"], "--remember: 'soon' is not a duration"),
        ("", ["--remember", "48h"], "--remember 48h: must be from 0s to 24h"),
    ],
)
def test_wrong_usage_is_told_what_to_do(verify, tmp_path, text, options, message):
    history = tmp_path / "h.jsonl"
    if text is not None:
        history.write_text(text)
    done = verify(history, *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_history_that_cannot_be_written_is_told_at_the_start(tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    history = tmp_path / "no-such-folder" / "h.jsonl"
    done = run_ratelimit("serve", "--policy", str(policy), "--history", str(history))
    assert done.returncode == 2
    assert f"--history (RATELIMIT_HISTORY): {history} cannot be written: No such file" in done.stderr
