"""`ratelimit top`: of two sidecars on one store."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

from ..processes import run_ratelimit, wait_until

NOWHERE = ["--redis", "redis://127.0.0.1:1"]


@pytest.fixture(scope="module")
def busy_store(valkey_url, open_client, start_module_sidecar):
    """The URL of a store on which two sidecars have denied one key and settled tokens of another."""
    open_client(valkey_url).flushall()
    flags = ("--redis", valkey_url, "--deadline", "5s")
    sidecars = [start_module_sidecar(*flags), start_module_sidecar(*flags)]
    for sidecar in sidecars:
        for _ in range(40):
            sidecar.check("vk_flooder_0123456789", plan="free")
        settled = {"key": "vk_partner", "model": "qwen3-4b", "input_tokens": 300, "output_tokens": 200}
        sidecar.client.post("/v1/settle", json=settled)
        sidecar.check("vk_partner", model="qwen3-4b")
    return valkey_url


def read_top(url, *flags):
    """Return what `ratelimit top --once --json` prints."""
    done = run_ratelimit("top", "--redis", url, "--window", "60s", "--once", "--json", *flags)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def top(busy_store):
    """Read `ratelimit top` when all has been told."""

    def read(*flags):
        wait_until(lambda: read_top(busy_store)["checks"] >= 82)
        return read_top(busy_store, *flags)

    return read


def test_it_names_who_is_denied_most_in_all_sidecars(top, busy_store):
    shown = top()
    assert shown["store"] == busy_store
    assert shown["processes"] == 2
    assert (shown["checks"], shown["denied"], shown["tokens"]) == (82, 75, 1000)
    assert shown["missing"]["key"] == {"checks": 0, "denied": 0, "tokens": 0}
    assert shown["by"]["key"] == [
        {"name": "vk_flooder_0123456789", "checks": 80, "denied": 75, "tokens": 0},
        {"name": "vk_partner", "checks": 2, "denied": 0, "tokens": 1000},
    ]
    assert [row["name"] for row in shown["by"]["tenant"]] == ["vk_flooder_0123456789", "acme"]
    assert [row["name"] for row in shown["by"]["model"]] == [None, "qwen3-4b"]
    assert [row["name"] for row in shown["by"]["plan"]] == ["free", "pro"]


def test_it_names_who_spends_most_tokens(top):
    shown = top("--sort", "tokens", "--by", "key", "-n", "1")
    assert list(shown["by"]) == ["key"]
    assert [row["name"] for row in shown["by"]["key"]] == ["vk_partner"]


def test_p10_people_see_masked_keys_within_80_columns(top, busy_store):
    top()
    done = run_ratelimit("top", "--redis", busy_store, "--window", "60s", "--once", COLUMNS="80")
    assert done.returncode == 0
    assert "vk_flooder" not in done.stdout
    assert "vk_flo…789" in done.stdout
    assert "no model" in done.stdout
    head, *lines = done.stdout.splitlines()
    assert busy_store in head
    assert max(map(len, lines)) <= 80
    assert "tenant" in done.stdout, "one key has another tenant"
    assert re.search(r"^vk_flo…789 +80 +75 +0 *$", done.stdout, re.MULTILINE)


def test_a_store_on_which_nothing_happens_says_so(redis6_url, open_client):
    open_client(redis6_url).flushall()
    done = run_ratelimit("top", "--redis", redis6_url)
    assert (done.returncode, "nothing happened" in done.stdout) == (0, True)
    shown = read_top(redis6_url)
    assert (shown["processes"], shown["checks"], shown["by"]["key"]) == (0, 0, [])


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([*NOWHERE, "--window", "61s"], "must be from 5s to 60s"),
        ([*NOWHERE, "--window", "soon"], "not a duration"),
        ([*NOWHERE, "--by", "answer"], "answer"),
        (NOWHERE, "127.0.0.1:1"),
        (["--redis", "http://x"], "redis"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(flags, complaint):
    done = run_ratelimit("top", "--once", *flags)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_the_live_screen_is_renewed_until_q_or_ctrl_c(top, busy_store, key):
    top()
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "service", "top", "--redis", busy_store, "--window", "60s"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "40"}
    with subprocess.Popen(
        command,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        start_new_session=True,
        preexec_fn=_take_terminal,  # noqa: PLW1509 - no thread of the tests holds a lock that it needs
    ) as process:
        os.close(terminal)
        screen = b""
        until = time.monotonic() + 30
        while screen.count(b"vk_flo") < 2 * 2 and time.monotonic() < until:
            if select.select([main], [], [], 1)[0]:
                screen += os.read(main, 65_536)
        assert screen.count(b"vk_flo") >= 2 * 2, screen  # in two tables, twice
        os.write(main, key)
        assert process.wait(10) == 0
    os.close(main)


def _take_terminal():
    """Make standard input the controlling terminal of this process, so that it turns Ctrl-C into SIGINT."""
    import fcntl  # noqa: PLC0415 - this runs in the child
    import termios  # noqa: PLC0415

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
