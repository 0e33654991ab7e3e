"""Everything that reads text, fed with text that is nearly right: it is read or refused, nothing else."""

from collections import Counter
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from ratelimit import InvalidRequest, Policy, PolicyError
from ratelimit.engine.reservation_id import parse_reservation_id
from ratelimit.request.check import make_check
from service.headers import Headers
from service.identity import find_client_address
from service.routes.authorize import _parse_cost, _parse_reserve

from ..gateways.shipped import EXAMPLES

LINES = (EXAMPLES / "policies" / "llm-provider.yaml").read_text().splitlines()
LINES = [line for line in LINES if line.strip() and not line.strip().startswith("#")]
COSTS = ["tokens=512", "tokens=512, images=2", "a;q=1, b=2.5", "tokens=(1 2);x", 'a="b\\"c"', "a=:YWJj:"]
COSTS += ["a=@1659578233", "a=?1"]
TIMES = ["2026-02-20T15:30:00Z", "2026-02-20T15:30:00.123456+05:30", "1771601400", "1771601400.5"]
ADDRESSES = [
    "192.0.2.1",
    "192.0.2.1, 127.0.0.1",
    "2001:db8::1",
    "::ffff:192.0.2.1",
    "fe80::1%eth0",
    "[::1]:80",
]
IDS = ["AAAAAAAAAAAAAAAA.dmtfYQ", "----____aaaa0000.YQ"]
NUMBERS = ["1e400", "-1", "9" * 400, "0x1", "NaN", ".inf", "\u0663"]
SIGNS = ["\x00", "\xff", "\n", "\t", "~", "<<", "---", "...", "\U0001f511", *" \"'\\:;,=(){}[]*&!%?|"]
PIECES = st.sampled_from(NUMBERS + SIGNS)
CLIENTS = st.sampled_from([None, ("127.0.0.1", 1), ("x", 1)])

seen = Counter()


@pytest.fixture(scope="module", autouse=True)
def counted():
    """Print how many texts there were, and how many of them were refused."""
    yield
    print("\ntexts for parsers:", dict(seen))  # noqa: T201 - the figures of the run


@st.composite
def mutations(draw, texts):
    """A valid text with a few changes: pieces put in, taken out, doubled or exchanged."""
    text = draw(texts)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 8)))
        change = draw(st.sampled_from(["put in", "take out", "double", "move"]))
        found, rest = text[start:end], text[end:]
        if change == "put in":
            found += draw(PIECES)
        text = text[:start] + {"put in": found, "take out": "", "double": found * 2, "move": rest}[change]
        text += found if change == "move" else rest
    return text


@st.composite
def policies(draw):
    """Lines of a valid policy, some of them lost, moved or changed."""
    lines = [*LINES]
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(lines) - 1))
        change = draw(st.sampled_from(["change", "lose", "move", "indent"]))
        line = lines.pop(place)
        if change == "change":
            lines.insert(place, draw(mutations(st.just(line))))
        elif change == "move":
            lines.insert(draw(st.integers(0, len(lines))), line)
        elif change == "indent":
            lines.insert(place, draw(st.sampled_from(["", " ", "\t", "      "])) + line.lstrip())
    return "\n".join(lines)


def read(kind, parse, text, error):
    """Read a text and count whether it was refused."""
    try:
        parse(text)
    except error:
        seen[f"{kind} refused"] += 1
    else:
        seen[kind] += 1


@settings(max_examples=120)
@given(policies())
def test_p11_a_policy_that_is_nearly_right_is_read_or_refused(text):
    read("policy", Policy.from_text, text, PolicyError)


@given(st.text(max_size=200) | st.lists(PIECES, max_size=30).map("".join))
def test_p11_any_text_is_a_policy_or_refused(text):
    read("any policy", Policy.from_text, text, PolicyError)


@given(content=st.binary(max_size=200))
def test_p11_a_file_of_any_bytes_is_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "policy.yaml"
    path.write_bytes(content)
    read("bytes", Policy.from_file, path, PolicyError)


@settings(max_examples=1_000)
@given(mutations(st.sampled_from(COSTS)) | st.text(st.characters(max_codepoint=255), max_size=60))
def test_a_header_with_a_cost_is_read_or_refused(text):
    def parse(text):
        cost = _parse_cost(text)
        make_check({"key": "k", "cost": cost})

    read("cost", parse, text.encode("latin-1", "replace").decode("latin-1"), InvalidRequest)


@settings(max_examples=500)
@given(mutations(st.sampled_from(TIMES)) | st.text(max_size=40) | st.floats() | st.integers())
def test_a_timestamp_is_read_or_refused(text):
    read("timestamp", lambda text: make_check({"key": "k", "timestamp": text}), text, InvalidRequest)


@settings(max_examples=300)
@given(mutations(st.sampled_from(["?0", "?1"])))
def test_a_header_that_reserves_is_read_or_refused(text):
    read("reserve", _parse_reserve, text, InvalidRequest)


@settings(max_examples=500)
@given(st.lists(mutations(st.sampled_from(ADDRESSES)), max_size=3), CLIENTS)
def test_a_list_of_addresses_never_fails(values, client):
    headers = [(b"x-forwarded-for", value.encode("latin-1", "replace")) for value in values]
    request = Request({"type": "http", "headers": headers, "client": client})
    assert isinstance(find_client_address(request, Headers(request), [ip_network("127.0.0.0/8")]), str)
    seen["addresses"] += 1


@settings(max_examples=500)
@given(mutations(st.sampled_from(IDS)) | st.text(max_size=60))
def test_a_reservations_id_is_read_in_one_spelling_only(text):
    parsed = parse_reservation_id(text)
    assert parsed is None or (parsed.token == text[:16] and text[16] == "." and parsed.tenant.isascii())
    seen["reservation"] += 1
