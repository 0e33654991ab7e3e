"""10,000 malformed requests each of gRPC and `/v1/authorize`: each has a clear answer, nothing changes."""

import json

import pytest
import redis
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from ..rls_client import make_request, run_rls_sidecar

POLICY = """
default_plan: free
unknown_keys: anonymous
plans:
  anonymous: {limits: {requests: {rate: 2/day}}}
  free: {limits: {requests: {rate: 5/day}, tokens: {unit: tokens, rate: 1000/day}}}
"""
REQUESTS = 20  # of each example, which is sent over one connection

visible = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
# Anything that protobuf can carry and no key, plan or model can be.
malformed = st.one_of(
    st.just(""),
    visible.map(lambda text: f"{text} {text}"),
    visible.map(lambda text: text + "\x00\r\n"),
    visible.map(lambda text: text + "é漢🙂"),
    st.integers(257, 3000).map(lambda length: "x" * length),
)
addends = st.one_of(st.none(), st.sampled_from([0, 1, 2**32, 2**63, 2**64 - 1]))
valid = st.fixed_dictionaries({"key": visible}, optional={"unit": st.sampled_from(["tokens", "requests"])})
bad_entries = st.one_of(
    st.fixed_dictionaries({"key": malformed}),
    # An empty plan or model is like none, as in the headers of /v1/authorize.
    st.fixed_dictionaries({"key": visible, "plan": visible}),
    st.fixed_dictionaries({"key": visible, "model": malformed.filter(bool)}),
    st.fixed_dictionaries({"key": visible, "tenant": malformed.filter(bool)}),
    st.fixed_dictionaries(
        {"key": visible, "unit": visible.filter(lambda unit: unit not in {"tokens", "requests"})}
    ),
    st.fixed_dictionaries(
        {"key": visible, "settle": visible.filter(lambda text: text not in {"true", "false"})}
    ),
    st.fixed_dictionaries({"secret": visible}),
).filter(lambda entries: entries.get("plan") not in {"free", "anonymous"})


@st.composite
def requests(draw):
    """A request with a descriptor that cannot be read, among others that can."""
    good = draw(st.lists(st.tuples(valid, addends), max_size=2))
    bad = (draw(bad_entries), draw(addends))
    request = make_request(*draw(st.permutations([*good, bad])), hits_addend=draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        for descriptor in request.descriptors:
            descriptor.entries.append(descriptor.entries[0])
    return request


@pytest.fixture(scope="module")
def running(valkey_url):
    with run_rls_sidecar("--redis", valkey_url, policy=POLICY) as (sidecar, client, _):
        yield sidecar, client


@pytest.fixture(scope="module")
def service(running):
    return running[1]


@pytest.fixture(scope="module")
def read_state(valkey_url):
    """Return all that the store holds, but the counts for `ratelimit top`, which expire while a test runs."""
    with redis.Redis.from_url(valkey_url) as client:
        yield lambda: {key: client.dump(key) for key in client.keys("*") if not key.startswith(b"rl1:top:")}


@settings(max_examples=500)
@given(sent=st.lists(requests(), min_size=REQUESTS, max_size=REQUESTS))
def test_p2_a_request_that_cannot_be_read_is_denied_and_changes_nothing(service, read_state, sent):
    before = read_state()
    for request in sent:
        answer = service.send(request)
        assert answer.overall_code == RateLimitResponse.OVER_LIMIT
        assert len(answer.statuses) == len(request.descriptors)
        assert json.loads(answer.raw_body)["status"] == 422
    assert read_state() == before


@settings(max_examples=300)
@given(body=st.binary(max_size=300))
def test_bytes_that_are_no_request_are_answered_and_never_an_error(service, body):
    answer = RateLimitResponse.FromString(service.send_bytes(body))
    assert answer.overall_code in {RateLimitResponse.OK, RateLimitResponse.OVER_LIMIT}


def test_a_text_that_is_not_utf_8_is_denied(service):
    """Envoy forwards such a header of a client as it is: an error would let the request pass."""
    message = make_request({"key": "vk_?"}).SerializeToString().replace(b"vk_?", b"vk_\xff")
    answer = RateLimitResponse.FromString(service.send_bytes(message))
    assert answer.overall_code == RateLimitResponse.OVER_LIMIT
    assert json.loads(answer.raw_body)["status"] == 400


# What a header can carry and the field cannot be. Empty values are like none.
texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_categories=["Cc"]), min_size=1)
bad_headers = st.one_of(
    st.tuples(st.just("Key"), texts.filter(lambda text: " " in text.strip(" ") or not text.isascii())),
    st.tuples(st.just("Key"), st.integers(257, 4000).map(lambda length: "x" * length)),
    st.tuples(st.just("Plan"), visible.filter(lambda plan: plan not in {"free", "anonymous"})),
    st.tuples(st.sampled_from(["Model", "Tenant", "Request-Id"]), visible.map(lambda text: f"{text} {text}")),
    st.tuples(st.just("Request-Id"), st.integers(129, 4000).map(lambda length: "x" * length)),
    st.tuples(
        st.just("Timestamp"), st.sampled_from(["now", "2026-02-20T15:30:00", "1e400", "-", "nan", "0x10"])
    ),
    st.tuples(
        st.just("Cost"),
        st.sampled_from(
            ["tokens=-1", "tokens=1e3", "bananas=1", "tokens", "=", "tokens=?1", 'tokens="1"', "(1 2)"]
        ),
    ),
    st.tuples(st.just("Reserve"), visible.filter(lambda text: text not in {"?0", "?1"})),
)


@settings(max_examples=500)
@given(sent=st.lists(st.tuples(bad_headers, visible), min_size=REQUESTS, max_size=REQUESTS))
def test_p2_headers_that_cannot_be_read_are_refused_and_change_nothing(running, read_state, sent):
    client, before = running[0].client, read_state()
    for (name, value), key in sent:
        headers = [] if name == "Key" else [(b"X-RateLimit-Key", key.encode())]
        answer = client.get(
            "/v1/authorize", headers=[*headers, (f"X-RateLimit-{name}", value.strip(" ").encode("latin-1"))]
        )
        assert answer.status_code in {400, 422}, (name, value)
        assert answer.json()["status"] == answer.status_code
    assert read_state() == before
