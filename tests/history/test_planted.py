"""The checker finds one wrong charge or admission among 100,000, and nothing in what was done right."""

import json

import pytest

from ratelimit.history import read_lines, verify_history

from .sound import POLICY, START, make_history

COUNT = 100_000


def verify(lines, policy=POLICY, **options):
    return verify_history(read_lines([f"{line}\n".encode() for line in lines], "h"), policy, **options)


def test_p1_p2_p6_nothing_is_found_in_a_sound_history():
    lines, _ = make_history(COUNT)
    report = verify(lines)
    assert report.is_sound, report.faults[:3]
    assert report.decisions == COUNT
    assert 0.3 * COUNT < report.admitted < 0.9 * COUNT, "the limits must be busy"
    assert (report.buckets, report.windows_only) == (40, 0)


@pytest.mark.parametrize(
    ("plant", "kind", "promises"),
    [
        ("early", "over-admitted", {"P1"}),
        ("lost", "over-admitted", {"P1"}),
        ("twice", "denied-without-reason", {"P6"}),
        ("charged", "denied-without-reason", {"P2", "P6"}),
    ],
)
def test_p1_p2_p6_one_wrong_charge_among_many_lines_is_found(plant, kind, promises):
    lines, planted = make_history(COUNT, plant)
    report = verify(lines)
    faults = report.faults
    assert {fault.kind for fault in faults} == {kind}
    assert {fault.promise for fault in faults} <= promises
    assert len(faults) <= 4, "one wrong charge is not many faults"
    assert planted <= faults[0].line < planted + COUNT // 10
    key = json.loads(lines[planted - 1])["key"]
    assert {fault.key for fault in faults} == {f"{key[:6]}…{key[-3:]}"}


def test_p1_the_window_at_fault_is_named_with_its_excess():
    line = {"key": "vk_a", "allowed": True, "cost": {"tokens": 100}}
    times = [START / 1e6 + second / 1000 for second in range(21)]
    report = verify([json.dumps({**line, "timestamp": time}) for time in times])
    [fault] = report.faults
    assert (fault.promise, fault.kind, fault.limit, fault.line) == ("P1", "over-admitted", "requests", 21)
    assert (fault.start, fault.end) == (START, START + 20_000)
    assert (fault.admitted, fault.bound) == pytest.approx((21, 20.02))
    assert fault.amount == pytest.approx(0.98)
    assert "line 20 had been lost" in fault.explanation


def test_p1_a_window_is_at_fault_in_whatever_order_its_lines_are():
    times = [START / 1e6 + second for second in (0, 30, 10)]
    line = {"key": "vk_a", "allowed": True, "clock": "request", "cost": {"tokens": 15_000}}
    lines = [json.dumps({**line, "timestamp": time}) for time in times]
    assert verify(lines).is_sound
    report = verify([*lines, json.dumps({**line, "timestamp": times[2]})])
    first, second = report.faults
    assert (first.promise, first.limit, first.start, first.end) == ("P1", "tokens", START, START + 10_000_000)
    assert (first.admitted, first.bound, first.amount) == pytest.approx((45_000, 35_000, 10_000))
    assert (second.start, second.end) == (START, START + 30_000_000)
    assert (second.admitted, second.bound) == pytest.approx((60_000, 45_000))
    assert second.amount == pytest.approx(5_000), "what goes beyond the first window"


def test_p7_a_line_may_be_of_a_check_and_of_its_settlement():
    def use(second, reservation, estimate, used):
        time = START / 1e6 + second / 1000
        settled = {"reservation": reservation, "settled": {"tokens": used}}
        return json.dumps(
            {"timestamp": time, "key": "vk_a", "allowed": True, "cost": {"tokens": estimate}, **settled}
        )

    lines = [use(0, "a", 30_000, 10_000), use(1, "b", 20_000, 0), use(2, "c", 20_000, 20_000)]
    report = verify(lines)
    assert report.faults == []
    assert (report.decisions, report.settlements, report.unknown_settlements) == (3, 3, 0)
    [fault] = verify([*lines, use(3, "d", 10, 10)]).faults
    assert (fault.kind, fault.line) == ("over-admitted", 4)


def test_p1_what_rounding_to_a_microsecond_explains_is_no_fault():
    def admit_two(microseconds):
        first = {"timestamp": START / 1e6, "key": "vk_a", "allowed": True, "cost": {"requests": 20}}
        second = {**first, "timestamp": (START + microseconds) / 1e6, "cost": {"requests": 1}}
        return verify([json.dumps(first), json.dumps(second)])

    assert admit_two(999_998).is_sound
    assert [fault.kind for fault in admit_two(999_990).faults] == ["over-admitted"]
