"""Lines that cannot be read get an error that names the file, the line and the member."""

import json

import pytest

from ratelimit import InvalidRequest
from ratelimit.history import read_history, read_lines, verify_history

from .sound import POLICY

LINE = {"timestamp": "2026-02-20T15:30:00Z", "key": "vk_a", "allowed": True}


def read(*texts):
    return list(read_lines([f"{text}\n".encode() for text in texts], "h.jsonl"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestamp": None}, "timestamp: required: an RFC 3339 time"),
        ({"timestamp": "yesterday"}, "timestamp: must be an RFC 3339 time"),
        ({"key": "two words"}, "key: must be 1 to 256 visible ASCII characters"),
        ({"allowed": "yes"}, "allowed: must be a valid boolean"),
        ({"cost": {"tokens": -1}}, "cost.tokens: must be from 0"),
        ({"settled": {"tokens": "3"}}, "settled.tokens: must be a number"),
        ({"source": "memory"}, "source: allowed: 'store', 'denial-memory', 'lease' or 'outage'"),
        ({"prompt": "hello"}, "prompt: there is no such field; allowed: allowed, clock, cost"),
    ],
)
def test_p10_a_member_that_is_wrong_or_not_listed_is_named_with_its_line(change, message):
    with pytest.raises(InvalidRequest) as raised:
        read(json.dumps(LINE), json.dumps({**LINE, **change}))
    assert str(raised.value).startswith(f"h.jsonl:2: {message}")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"key": "vk_a"}', "not json", "{}}"])
def test_what_is_no_line_is_refused_or_is_an_empty_one(text):
    if not text:
        assert read(text) == []
        return
    with pytest.raises(InvalidRequest, match=r"^h\.jsonl:1: "):
        read(text)


def test_the_last_line_of_a_process_that_was_killed_is_left_out(tmp_path):
    whole = json.dumps(LINE)
    (tmp_path / "a.jsonl").write_text(f"{whole}\n{whole}\n{whole[:30]}")
    (tmp_path / "b.jsonl").write_text(whole)
    lines = list(read_history([tmp_path / "a.jsonl", tmp_path / "b.jsonl"]))
    assert [(line.source, line.number) for line in lines] == [("a.jsonl", 1), ("a.jsonl", 2), ("b.jsonl", 1)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan": "gold"}, "h.jsonl:1: plan: there is no such plan; allowed: free"),
        (
            {"cost": {"pages": 1}},
            "h.jsonl:1: cost.pages: no plan meters this unit; allowed: requests, tokens",
        ),
    ],
)
def test_a_line_of_another_policy_is_named(change, message):
    with pytest.raises(InvalidRequest) as raised:
        verify_history(read(json.dumps({**LINE, **change})), POLICY)
    assert str(raised.value) == message
