"""`ratelimit usage`: the sums, and what it prints."""

import json
import random
import time

import pytest
from typer.testing import CliRunner

from ratelimit import Limit, Limiter, Usage
from ratelimit.engine.keyspace import ONE_SERVER
from ratelimit.stores import open_client
from service.cli.commands import app

from ..processes import run_ratelimit

ALICE, BOB = "vk_alice_0123456789", "vk_bob_9876543210"


@pytest.fixture
def url(tmp_path):
    return f"embedded://{tmp_path / 'store'}"


@pytest.fixture
def limiter(url):
    limits = [Limit("requests", "1000/minute"), Limit("tokens", "1000000/minute", unit="tokens")]
    with Limiter(url, limits, deadline=5) as limiter:
        yield limiter


def read_totals(*args):
    """Return what the command prints as JSON; it runs in this process, which is much faster."""
    done = CliRunner().invoke(app, ["usage", *args, "--json"])
    assert (done.exit_code, done.stderr) == (0, "")
    return json.loads(done.stdout)


def settle_records(limiter):
    """Settle 3 requests of Alice with a model, 1 of Bob with a reservation, 1 of Alice without a model."""
    for latency, status in ((100, 200), (300, 500), (200, 400)):
        limiter.settle(
            Usage(
                key=ALICE,
                model="small",
                input_tokens=1000,
                output_tokens=10,
                latency_ms=latency,
                status=status,
            )
        )
    with limiter.reserve(BOB, model="large[bold]", cost={"tokens": 512}) as reservation:
        reservation.settle(Usage(input_tokens=5000, output_tokens=7, status=399))
    limiter.settle(Usage(key=ALICE, input_tokens=1))


def add_entries(url, *entries):
    """Add entries to the stream as they are: pairs of id and fields."""
    client, close = open_client(url, 5)
    pipeline = client.pipeline()
    for name, fields in entries:
        pipeline.xadd(ONE_SERVER.usage_streams[0], fields, id=name)
    pipeline.execute()
    close()


def test_records_add_up_per_key_and_model_with_keys_whole_in_json(limiter, url):
    settle_records(limiter)
    none = {"latency_p50_ms": None, "latency_p99_ms": None}
    assert read_totals("--redis", url) == [
        {
            "key": BOB,
            "model": "large[bold]",
            "requests": 1,
            "input_tokens": 5000,
            "output_tokens": 7,
            "errors": 0,
            **none,
        },
        {
            "key": ALICE,
            "model": "small",
            "requests": 3,
            "input_tokens": 3000,
            "output_tokens": 30,
            "errors": 2,
            "latency_p50_ms": 200.0,
            "latency_p99_ms": 300.0,
        },
        {
            "key": ALICE,
            "model": None,
            "requests": 1,
            "input_tokens": 1,
            "output_tokens": 0,
            "errors": 0,
            **none,
        },
    ]


@pytest.mark.parametrize("columns", [80, 120])
def test_p10_the_table_has_masked_keys_and_fits(columns, limiter, url):
    settle_records(limiter)
    done = run_ratelimit("usage", "--redis", url, columns=columns)
    assert (done.returncode, done.stderr) == (0, "")
    assert ALICE not in done.stdout
    assert BOB not in done.stdout
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert all(len(line) <= columns for line in lines)
    assert lines[0].startswith("requests from 2")
    assert [line.split() for line in lines[1:]] == [
        ["key,", "model", "requests", "input", "output", "errors", "p50", "ms", "p99", "ms"],
        ["vk_bob…210", "1", "5,000", "7", "0", "-", "-"],
        ["large[bold]", "1", "5,000", "7", "0", "-", "-"],
        ["vk_ali…789", "4", "3,001", "30", "2", "200", "300"],
        ["small", "3", "3,000", "30", "2", "200", "300"],
        ["no", "model", "1", "1", "0", "0", "-", "-"],
        ["total", "5", "8,001", "37", "2", "200", "300"],
    ]


def test_a_long_name_is_folded_and_none_of_it_is_lost(limiter, url):
    model = "accounts/somebody/models/" + "long-" * 20
    limiter.settle(Usage(key=ALICE, model=model, input_tokens=10**12, output_tokens=10**12, status=200))
    lines = run_ratelimit("usage", "--redis", url).stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert model in "".join(line.split()[0] for line in lines[3:-1])


def test_an_empty_stream_says_so(limiter, url):
    done = run_ratelimit("usage", "--redis", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.replace("\n", "") == f"no usage records in {url}"
    assert read_totals("--redis", url) == []


def test_last_and_since_narrow_it_down(limiter, url):
    settle_records(limiter)
    assert [row["key"] for row in read_totals("--redis", url, "--last", "2")] == [BOB, ALICE]
    assert sum(row["requests"] for row in read_totals("--redis", url, "--last", "99")) == 5
    assert sum(row["requests"] for row in read_totals("--redis", url, "--since", "1h")) == 5
    assert read_totals("--redis", url, "--since", "2199-01-01T00:00:00Z") == []
    assert len(read_totals("--redis", url, "--since", "0", "--last", "2")) == 2
    done = run_ratelimit("usage", "--redis", url, "--since", "2199-01-01T00:00:00Z", columns=200)
    assert "no usage records in" in done.stdout
    assert "since 2199-01-01T00:00:00Z" in done.stdout


def test_since_includes_its_own_millisecond_and_nothing_before(limiter, url):
    names = ("1700000000000-0", "1700000000001-0", "1700000000001-1")
    add_entries(url, *((name, {"key": ALICE}) for name in names))
    assert read_totals("--redis", url, "--since", "1700000000.001")[0]["requests"] == 2
    assert read_totals("--redis", url, "--since", "1700000000.0001")[0]["requests"] == 2
    assert read_totals("--redis", url, "--since", "1700000000")[0]["requests"] == 3


def test_many_pages_are_read_to_the_end_and_percentiles_are_exact(limiter, url):
    latencies = [*range(1, 3502)]
    random.Random(7).shuffle(latencies)
    fields = {"key": ALICE, "input_tokens": "1"}
    add_entries(url, *(("*", {**fields, "latency_ms": str(latency)}) for latency in latencies))
    [row] = read_totals("--redis", url)
    assert (row["requests"], row["input_tokens"]) == (3501, 3501)
    assert (row["latency_p50_ms"], row["latency_p99_ms"]) == (1751, 3466)
    [row] = read_totals("--redis", url, "--last", "2500")
    assert row["requests"] == 2500


def test_an_entry_that_is_no_record_is_complained_of_and_the_rest_is_added_up(limiter, url):
    name = f"{time.time_ns() // 1_000_000 - 60_000}-0"
    add_entries(url, (name, {"some": "thing"}))
    settle_records(limiter)
    done = run_ratelimit("usage", "--redis", url, "--json")
    assert done.returncode == 0
    assert done.stderr == f"ratelimit: entry {name} is not a usage record\n"
    assert len(json.loads(done.stdout)) == 3


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("--redis", "ftp://x"), "names no store"),
        (("--redis", "redis://127.0.0.1:1"), "onnection refused"),
        (("--redis", "redis://127.0.0.1:1", "--follow"), "onnection refused"),
        (("--redis", "redis://ann:secret@127.0.0.1:1"), "onnection refused"),
        (("--redis", "redis://127.0.0.1:1/x"), "must be a number"),
        (("--redis", "memory://", "--since", "yesterday"), "30m, 2h, 7d"),
        (("--redis", "memory://", "--since", "2026-02-20T15:30:00"), "has no offset"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_exits_2(args, complaint):
    done = run_ratelimit("usage", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr


@pytest.mark.parametrize("args", [("--last", "0"), ("--last", "x"), ()])
def test_wrong_usage_exits_2(args, url):
    more = ("--redis", url) if args else ()
    assert run_ratelimit("usage", *more, *args).returncode == 2
