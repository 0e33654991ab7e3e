"""`ratelimit usage --follow`: each record as it is settled, none missed, until Ctrl-C."""

import contextlib
import json
import signal
import sys

import pytest

from ratelimit import Limit, Limiter, Usage

from ..processes import run_program, wait_until

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

    def __init__(self, process, output, errors):
        self.process = process
        self._output, self._errors = output, errors

    def wait_for_lines(self, count):
        """Wait until at least `count` lines are printed, and return all lines."""
        wait_until(
            lambda: self.process.poll() is not None or self._output.read_text().count("\n") >= count,
            describe=lambda: f"{count} lines in {self._output.read_text()}{self.errors}",
        )
        lines = self._output.read_text().splitlines()
        assert len(lines) >= count, self.errors
        return lines

    @property
    def errors(self):
        return self._errors.read_text()

    def interrupt(self):
        """Press Ctrl-C and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=20)


@pytest.fixture
def follow_usage(tmp_path):
    """Start `usage --follow`; it stops after the test."""
    # If the tests run in the background of a shell, they ignore SIGINT, and their processes would, too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGINT, before)

        def start(*args):
            command = [sys.executable, "-m", "service", "usage", *args, "--follow"]
            output, errors = tmp_path / "output", tmp_path / "errors"
            process = stack.enter_context(run_program(command, output, errors=errors))
            return Follower(process, output, errors)

        yield start


def test_following_prints_each_new_record_and_ends_cleanly_on_ctrl_c(limiter, url, follow_usage):
    limiter.settle(Usage(key=ALICE, status=200))
    follower = follow_usage("--redis", url)
    assert follower.wait_for_lines(1)[0].split()[:4] == ["time", "(UTC)", "key", "status"]
    limiter.settle(Usage(key=BOB, model="large", timestamp=1_700_000_000, status=200, latency_ms=1234.4))
    assert follower.wait_for_lines(2)[1].split() == [
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
    assert ALICE not in "".join(follower.wait_for_lines(2))
    assert (follower.interrupt(), follower.errors) == (0, "")


def test_following_as_json_misses_nothing_and_has_keys_whole(limiter, url, follow_usage):
    limiter.settle(Usage(key=ALICE, input_tokens=7))
    limiter.settle(Usage(key=ALICE, input_tokens=1))
    follower = follow_usage("--redis", url, "--json", "--last", "1")
    follower.wait_for_lines(1)  # no record that is added after this may be missed
    for number in range(50):
        limiter.settle(
            Usage(key=BOB, input_tokens=number, cost={"requests": 2.5}, timestamp=1_700_000_000.25)
        )
    records = [json.loads(line) for line in follower.wait_for_lines(51)]
    assert (follower.interrupt(), follower.errors) == (0, "")
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


def test_following_since_prints_what_there_is_and_then_waits(limiter, url, follow_usage):
    for status in (201, 202):
        limiter.settle(Usage(key=ALICE, status=status))
    follower = follow_usage("--redis", url, "--json", "--since", "1h")
    assert [json.loads(line)["status"] for line in follower.wait_for_lines(2)] == [201, 202]
    limiter.settle(Usage(key=ALICE, status=200))
    assert json.loads(follower.wait_for_lines(3)[-1])["status"] == 200
    assert follower.interrupt() == 0


def test_a_store_that_goes_away_while_it_is_followed_is_one_line(url, follow_usage):
    with Limiter(url, Limit("requests", "10/minute"), deadline=5) as limiter:
        limiter.settle(Usage(key=ALICE, input_tokens=1))
        follower = follow_usage("--redis", url, "--json", "--last", "1")
        follower.wait_for_lines(1)
    assert follower.process.wait(timeout=20) == 2
    assert len(follower.errors.splitlines()) == 1
    assert follower.errors.startswith(f"ratelimit: {url}: ")
