"""`ratelimit usage --follow`: each record as it is settled, none missed, until it is told to stop."""

import contextlib
import json
import signal
import subprocess
import sys
import time

import pytest

from ratelimit import Limit, Limiter, Usage

ALICE, BOB = "vk_alice_0123456789", "vk_bob_9876543210"


@pytest.fixture
def url(tmp_path):
    return f"embedded://{tmp_path / 'store'}"


@pytest.fixture
def limiter(url):
    with Limiter(url, Limit("requests", "1000/minute"), deadline=5) as limiter:
        yield limiter


class Follower:
    """A running `usage --follow`, and what it has printed."""

    def __init__(self, folder, *args):
        self._output, self._complaints = folder / "output", folder / "complaints"
        command = [sys.executable, "-m", "service", "usage", *args, "--follow"]
        with self._output.open("wb") as output, self._complaints.open("wb") as complaints:
            self.process = subprocess.Popen(command, stdout=output, stderr=complaints)

    def lines(self, count):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            text = self._output.read_text()
            if text.count("\n") >= count:
                return text.splitlines()
            time.sleep(0.02)
        raise AssertionError(f"{count} lines never came: {self._output.read_text()}{self.complaints}")

    @property
    def complaints(self):
        return self._complaints.read_text()

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=20)


@pytest.fixture
def follow(tmp_path):
    # A suite in the background of a shell ignores Ctrl-C, and so would the processes it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGINT, before)

        def follow(*args):
            follower = Follower(tmp_path, *args)
            stack.enter_context(follower.process)
            stack.callback(follower.process.kill)
            return follower

        yield follow


def test_following_prints_each_new_record_and_ends_cleanly_on_ctrl_c(limiter, url, follow):
    limiter.settle(Usage(key=ALICE, status=200))
    follower = follow("--redis", url)
    assert follower.lines(1)[0].split()[:4] == ["time", "(UTC)", "key", "status"]
    limiter.settle(Usage(key=BOB, model="large", timestamp=1_700_000_000, status=200, latency_ms=1234.4))
    assert follower.lines(2)[1].split() == [
        "11-14",
        "22:13:20",
        "vk_bob…210",
        "200",
        "-",
        "-",
        "1,234",
        "ms",
        "large",
    ]
    assert ALICE not in "".join(follower.lines(2))
    assert (follower.interrupt(), follower.complaints) == (0, "")


def test_following_as_json_misses_nothing_and_has_keys_whole(limiter, url, follow):
    limiter.settle(Usage(key=ALICE, input_tokens=7))
    limiter.settle(Usage(key=ALICE, input_tokens=1))
    follower = follow("--redis", url, "--json", "--last", "1")
    follower.lines(1)  # from here on nothing may be missed
    for number in range(50):
        limiter.settle(
            Usage(key=BOB, input_tokens=number, cost={"requests": 2.5}, timestamp=1_700_000_000.25)
        )
    records = [json.loads(line) for line in follower.lines(51)]
    assert (follower.interrupt(), follower.complaints) == (0, "")
    assert [record["input_tokens"] for record in records] == [1, *range(50)]
    last = records[-1]
    assert last.pop("id") > records[0]["id"]
    assert last == {
        "key": BOB,
        "tenant": BOB,
        "plan": "default",
        "model": None,
        "timestamp": "2023-11-14T22:13:20.250000Z",
        "reservation": None,
        "input_tokens": 49,
        "output_tokens": None,
        "latency_ms": None,
        "status": None,
        "cost": {"requests": 2.5},
    }


def test_following_since_prints_what_there_is_and_then_waits(limiter, url, follow):
    for status in (201, 202):
        limiter.settle(Usage(key=ALICE, status=status))
    follower = follow("--redis", url, "--json", "--since", "1h")
    assert [json.loads(line)["status"] for line in follower.lines(2)] == [201, 202]
    limiter.settle(Usage(key=ALICE, status=200))
    assert json.loads(follower.lines(3)[-1])["status"] == 200
    assert follower.interrupt() == 0


def test_a_store_that_goes_away_while_it_is_followed_is_one_line(url, follow):
    with Limiter(url, Limit("requests", "10/minute"), deadline=5) as limiter:
        limiter.settle(Usage(key=ALICE, input_tokens=1))
        follower = follow("--redis", url, "--json", "--last", "1")
        follower.lines(1)
    assert follower.process.wait(timeout=20) == 2
    assert len(follower.complaints.splitlines()) == 1
    assert follower.complaints.startswith(f"ratelimit: {url}: ")
