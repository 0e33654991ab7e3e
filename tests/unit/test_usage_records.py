"""Reading usage records from the stream, and their totals."""

import pytest

from ratelimit.metering.usage_records import Totals, read_record, summarise


def test_a_record_has_the_fields_of_its_entry():
    fields = {"key": "k", "input_tokens": "3", "latency_ms": "1.5", "status": "400", "newer": "field"}
    record = read_record("1700000000123-7", fields)
    assert (record.input_tokens, record.output_tokens, record.latency_ms) == (3, None, 1.5)
    assert record.failed
    assert record.as_dict()["timestamp"] == "2023-11-14T22:13:20.123000Z"
    assert not read_record("1-0", {"key": "k", "status": "399"}).failed


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"key": "k", "input_tokens": "many"},
        {"key": "k", "cost": "[1]"},
        {"key": "k", "timestamp": "inf"},
    ],
)
def test_an_entry_that_is_not_a_record_is_refused(fields):
    with pytest.raises(ValueError, match="entry 1-0 is not a usage record"):
        read_record("1-0", fields)


@pytest.mark.parametrize(
    ("latencies", "p50", "p99"),
    [([], None, None), ([5.0], 5.0, 5.0), ([4.0, 1.0], 1.0, 4.0), ([*range(100, 0, -1)], 50, 99)],
)
def test_percentiles_are_latencies_of_records(latencies, p50, p99):
    totals = Totals(latencies=list(latencies))
    assert (totals.latency(50), totals.latency(99)) == (p50, p99)


def test_a_summary_spans_its_records_and_ranks_by_tokens():
    def record(number, key, tokens, model="m"):
        return read_record(f"{number}-0", {"key": key, "model": model, "input_tokens": str(tokens)})

    summary = summarise([record(2, "b", 5), record(1, "a", 4), record(3, "a", 3, "n")])
    assert [group[:2] for group in summary.ranked()] == [("a", "m"), ("a", "n"), ("b", "m")]
    assert (summary.total.requests, summary.keys["a"].input_tokens) == (3, 7)
    assert (summary.first.microsecond, summary.last.microsecond) == (1000, 3000)
    assert summarise([]).first is None
