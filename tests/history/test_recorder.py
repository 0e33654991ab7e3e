"""What a limiter's recorder writes, and that it never stops a decision."""

import asyncio
import json
import logging
import multiprocessing
import os
import stat

import pytest

from ratelimit import AsyncLimiter, Limiter, Policy, StoreUnavailable, Usage
from ratelimit.history import HistoryRecorder, read_history, verify_history

POLICY = Policy.from_text("""
default_plan: free
models: {small: [m1]}
keys: {vk_known: {tenant: acme}}
plans:
  free:
    limits:
      requests: {rate: 3/day}
      tokens: {unit: tokens, rate: 100/day, per: [tenant, model]}
      parallel: {unit: concurrent, capacity: 2}
""")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "history.jsonl"


def read_json(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_has_the_members_of_the_check_and_its_answer(valkey_url, open_client, path):
    open_client(valkey_url).flushall()
    with (
        HistoryRecorder(path) as recorder,
        Limiter(valkey_url, POLICY, deadline=20, observers=[recorder]) as limiter,
    ):
        held = limiter.reserve("vk_known", model="m1", cost={"tokens": 40}, request_id="id-1")
        held.settle(Usage(input_tokens=10, output_tokens=5, status=500))
        for _ in range(3):
            limiter.check("vk_known")
        limiter.peek("vk_known")
    opened, settled, *_, denied = lines = read_json(path)
    assert len(lines) == 5, "a peek decides nothing"
    assert opened == {
        "timestamp": opened["timestamp"],
        "key": "vk_known",
        "plan": "free",
        "model": "m1",
        "tenant": "acme",
        "cost": {"requests": 1.0, "tokens": 40.0},
        "allowed": True,
        "source": "store",
        "clock": "store",
        "request_id": "id-1",
        "reservation": held.id,
        "used": {"requests": 1.0, "tokens": pytest.approx(40)},
        "process": str(os.getpid()),
    }
    assert settled["settled"] == {"input_tokens": 10, "output_tokens": 5, "tokens": 15, "failures": 1}
    assert settled["used"]["tokens"] == pytest.approx(15, abs=0.01)
    assert settled["reservation"] == held.id
    assert (denied["allowed"], denied["violated"]) == (False, ["requests"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert verify_history(read_history([path]), POLICY).is_sound


def test_a_cancellation_names_every_unit_with_nothing_used(valkey_url, open_client, path):
    open_client(valkey_url).flushall()
    with (
        HistoryRecorder(path) as recorder,
        Limiter(valkey_url, POLICY, deadline=20, observers=[recorder]) as limiter,
    ):
        limiter.reserve("vk_a", cost={"tokens": 90}).cancel()
        assert limiter.check("vk_a", cost={"tokens": 90})
        assert not limiter.check("vk_a", cost={"tokens": 90})
    assert read_json(path)[1]["settled"] == {"requests": 0.0, "tokens": 0.0, "concurrent": 0.0}
    assert verify_history(read_history([path]), POLICY).is_sound


def test_p1_processes_that_share_a_file_make_one_sound_history(valkey_url, open_client, path):
    open_client(valkey_url).flushall()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=check_often, args=(valkey_url, path)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    report = verify_history(read_history([path]), POLICY)
    assert report.faults == []
    assert report.decisions == 3 * 200
    assert report.windows_only == 0
    assert len({line["process"] for line in read_json(path)}) == 3


def check_often(url, path):
    async def check():
        with HistoryRecorder(path) as recorder:
            async with AsyncLimiter(url, POLICY, deadline=20, observers=[recorder]) as limiter:
                for batch in range(10):
                    keys = [f"vk_{number % 7}" for number in range(20)]
                    decisions = await asyncio.gather(*(hold(limiter, key, batch) for key in keys))
                    for decision in decisions:
                        if decision.reservation:
                            await limiter.settle({"output_tokens": 20}, reservation=decision.reservation)

    asyncio.run(check())


async def hold(limiter, key, batch):
    return await limiter.check({"key": key, "cost": {"tokens": 3}, "reserve": batch % 2 == 0})


def test_p8_a_history_that_cannot_be_written_stops_no_decision(caplog):
    with (
        caplog.at_level(logging.ERROR, "ratelimit"),
        HistoryRecorder("/dev/full") as recorder,
        Limiter("memory://", POLICY, observers=[recorder]) as limiter,
    ):
        assert [bool(limiter.check("vk_full")) for _ in range(4)] == [True, True, True, False]
    [record] = caplog.records
    assert record.getMessage() == "the history /dev/full is incomplete: No space left on device"


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path):
    with pytest.raises(OSError, match="no-such-folder"):
        HistoryRecorder(tmp_path / "no-such-folder" / "history.jsonl")


@pytest.mark.parametrize(
    ("change", "kind", "promise"),
    [
        (lambda lines: lines[1:], "charged-more", "P6"),
        (lambda lines: [lines[0], *lines], "lost", "P1"),
        (lambda lines: [*lines[:3], {**lines[3], "allowed": True}], "over-admitted", "P1"),
        (lambda lines: [{**lines[0], "cost": {"tokens": 0}}, *lines[1:]], "charged-more", "P6"),
    ],
    ids=["a line is missing", "a charge was lost", "a denial was none", "a unit was not charged"],
)
def test_p1_p6_a_recorded_history_shows_what_was_changed(
    valkey_url, open_client, path, change, kind, promise
):
    open_client(valkey_url).flushall()
    with (
        HistoryRecorder(path) as recorder,
        Limiter(valkey_url, POLICY, deadline=20, observers=[recorder]) as limiter,
    ):
        for _ in range(4):
            limiter.check("vk_a", cost={"tokens": 7})
    path.write_text("".join(json.dumps(line) + "\n" for line in change(read_json(path))))
    report = verify_history(read_history([path]), POLICY)
    assert (promise, kind) in {(fault.promise, fault.kind) for fault in report.faults}


def test_p6_a_settlement_that_is_not_answered_is_written_as_such(valkey_url, open_client, path):
    open_client(valkey_url).flushall()
    with (
        HistoryRecorder(path) as recorder,
        Limiter(valkey_url, POLICY, deadline=0.3, observers=[recorder]) as limiter,
    ):
        held = limiter.reserve("vk_known", cost={"tokens": 40})
        open_client(valkey_url).client_pause(2_000, all=True)
        for end in (lambda: held.settle(Usage(output_tokens=7)), lambda: limiter.cancel(held.id)):
            with pytest.raises(StoreUnavailable):
                end()
        open_client(valkey_url).client_unpause()
    _, settled, cancelled = read_json(path)
    assert (settled["source"], settled["settled"]) == ("outage", {"output_tokens": 7, "tokens": 7})
    assert (cancelled["source"], cancelled["settled"], cancelled["tenant"]) == ("outage", {}, "acme")
    assert settled["reservation"] == cancelled["reservation"] == held.id
    assert verify_history(read_history([path]), POLICY).is_sound


def test_p7_a_settlement_may_name_another_model_than_the_check(valkey_url, open_client, path):
    open_client(valkey_url).flushall()
    with (
        HistoryRecorder(path) as recorder,
        Limiter(valkey_url, POLICY, deadline=20, observers=[recorder]) as limiter,
    ):
        limiter.reserve("vk_a", model="m1", cost={"tokens": 90}).settle(Usage(model="m2", output_tokens=30))
        assert limiter.check("vk_a", model="m1", cost={"tokens": 70})
        assert limiter.check("vk_a", model="m2", cost={"tokens": 100})
    assert read_json(path)[1]["model"] == "m2"
    assert verify_history(read_history([path]), POLICY).faults == []
