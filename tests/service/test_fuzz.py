"""To any input, the sidecar sends a documented answer, and never a traceback."""

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given

DOCUMENTED = {200, 400, 404, 409, 413, 422, 429}

names = st.sampled_from(
    [
        *("key", "cost", "plan", "model", "tenant", "timestamp", "request_id", "reserve", "reservation"),
        *("status", "input_tokens", "output_tokens", "latency_ms", "prompt"),
    ]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(names | st.text(), scalars, max_size=3)
bodies = st.dictionaries(names, values) | values | st.lists(st.dictionaries(names, values), max_size=3)


@pytest.mark.parametrize("path", ["/v1/check", "/v1/check/batch", "/v1/settle"])
@given(body=bodies)
def test_p10_any_json_has_a_documented_answer(sidecar, path, body):
    response = sidecar.client.post(path, content=json.dumps(body))
    assert response.status_code in DOCUMENTED
    if response.status_code != 200:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == response.status_code


@given(
    value=st.text(
        st.characters(min_codepoint=0x20, max_codepoint=0xFF, blacklist_categories=["Cc"]), max_size=80
    ),
    header=st.sampled_from(["Key", "Plan", "Model", "Tenant", "Timestamp", "Cost", "Reserve"]),
)
def test_p10_any_header_has_a_documented_answer(sidecar, header, value):
    headers = [(b"X-RateLimit-Key", b"k")] if header != "Key" else []
    sent = (f"X-RateLimit-{header}".encode(), value.strip().encode("latin-1"))
    response = sidecar.client.get("/v1/authorize", headers=[*headers, sent])
    assert response.status_code in DOCUMENTED | {401}
    assert "Traceback" not in sidecar.output
