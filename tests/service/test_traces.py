"""Traces of a sidecar in a process of its own, printed by OpenTelemetry's own exporter to the console."""

import gzip
import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

from ..rls_client import make_request, run_rls_sidecar
from .conftest import POLICY

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
SECRET = "sk-0123456789abcdef0123456789abcdef"


def read_spans(sidecar):
    """Return the spans that a stopped sidecar has printed: JSON objects among other lines."""
    decoder, text, spans = json.JSONDecoder(), sidecar.output, []
    while (start := text.find("{\n")) >= 0:
        span, length = decoder.raw_decode(text[start:])
        spans.append(span)
        text = text[start + length :]
    return spans


@pytest.fixture
def traced(start_sidecar):
    """Start a sidecar with traces; stop it and return its spans."""

    def start(*flags):
        sidecar = start_sidecar(*flags, OTEL_TRACES_EXPORTER="console")

        def stop():
            assert sidecar.stop() == 0
            return read_spans(sidecar)

        # The folder of its output is removed when it stops as a fixture, not here.
        return sidecar, stop

    return start


def test_each_request_has_a_server_span_with_our_span_below_it(traced):
    sidecar, stop = traced()
    sidecar.client.post("/v1/check", json={"key": "vk_0123456789abcdef"}, headers=TRACEPARENT)
    sidecar.client.get(
        "/v1/authorize/chat", headers={**TRACEPARENT, "X-RateLimit-Key": "vk_0123456789abcdef"}
    )
    settled = {"key": "vk_0123456789abcdef", "input_tokens": 5}
    sidecar.client.post("/v1/settle", json=settled, headers=TRACEPARENT)
    for path in ("/healthz", "/readyz", "/metrics"):
        sidecar.client.get(path)
    spans = [span for span in stop() if span["context"]["trace_id"] == f"0x{TRACE}"]
    servers = {span["name"]: span for span in spans if span["kind"] == "SpanKind.SERVER"}
    assert set(servers) == {"POST /v1/check", "GET /v1/authorize", "POST /v1/settle"}
    assert all(span["parent_id"] == f"0x{PARENT}" for span in servers.values())
    ours = {span["parent_id"]: span["name"] for span in spans if span["name"].startswith("ratelimit")}
    assert ours == {
        servers["POST /v1/check"]["context"]["span_id"]: "ratelimit check",
        servers["GET /v1/authorize"]["context"]["span_id"]: "ratelimit check",
        servers["POST /v1/settle"]["context"]["span_id"]: "ratelimit settle",
    }
    assert servers["POST /v1/check"]["resource"]["attributes"]["service.name"] == "ratelimit"


def test_a_call_over_grpc_has_a_server_span_too():
    with run_rls_sidecar(policy=POLICY, OTEL_TRACES_EXPORTER="console") as (sidecar, client, _):
        request = make_request({"secret": f"Bearer {SECRET}"})
        client.send(request, **TRACEPARENT)
        assert sidecar.stop() == 0
        spans = read_spans(sidecar)
    assert SECRET not in json.dumps(spans)
    server = next(span for span in spans if span["kind"] == "SpanKind.SERVER")
    assert server["context"]["trace_id"] == f"0x{TRACE}"
    assert server["name"].endswith("RateLimitService/ShouldRateLimit")
    [check] = [span for span in spans if span["name"] == "ratelimit check"]
    assert check["parent_id"] == server["context"]["span_id"]


def test_health_and_metrics_have_no_spans(traced):
    sidecar, stop = traced()
    for path in ("/healthz", "/readyz", "/metrics"):
        assert sidecar.client.get(path).status_code == 200
    assert stop() == []


def test_p10_no_span_has_a_secret_or_a_whole_key(traced):
    sidecar, stop = traced("--admin-token", SECRET, "--gateway-token", SECRET)
    token = {"X-RateLimit-Gateway-Token": SECRET}
    get = sidecar.client.get
    get("/v1/authorize", headers={**token, "Authorization": f"Bearer {SECRET}"})
    get(f"/v1/authorize/{SECRET}?key={SECRET}", headers={**token, "X-Api-Key": SECRET, "Cookie": SECRET})
    get("/v1/keys/vk_0123456789abcdef", headers={"Authorization": f"Bearer {SECRET}"})
    get(f"/{SECRET}?{SECRET}", headers=token)
    sidecar.client.delete(f"/v1/reservations/{SECRET}", headers=token)
    spans = stop()
    assert len(spans) >= 5
    assert SECRET not in json.dumps(spans)
    assert "vk_0123456789abcdef" not in json.dumps(spans)


def test_log_lines_have_the_ids_of_the_trace(start_sidecar):
    sidecar = start_sidecar("--log-format", "json", OTEL_TRACES_EXPORTER="console")
    for _ in range(6):
        sidecar.client.post("/v1/check", json={"key": "vk_a"}, headers=TRACEPARENT)
    sidecar.wait_for_output('"denied"')
    line = next(line for line in sidecar.output.splitlines() if '"denied"' in line and line.startswith("{"))
    assert json.loads(line)["trace_id"] == TRACE
    assert len(json.loads(line)["span_id"]) == 16


class Collector(http.server.BaseHTTPRequestHandler):
    """A collector that keeps what it is sent."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.received.append((self.path, json.loads(body)))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        """Print nothing."""


@pytest.fixture
def collector():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        server.received = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_an_endpoint_is_all_that_must_be_configured(start_sidecar, collector):
    sidecar = start_sidecar(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_port}")
    sidecar.client.post("/v1/check", json={"key": "vk_a"}, headers=TRACEPARENT)
    assert sidecar.stop() == 0, "a stop sends what was not sent yet"
    spans = [
        span
        for path, body in collector.received
        if path == "/v1/traces"
        for resource in body["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    assert sorted(span["name"] for span in spans) == ["POST /v1/check", "ratelimit check"]
    assert {span["traceId"] for span in spans} == {TRACE}


LOADED = """
import sys
from service.app import create_app
from service.settings import Settings
app = create_app(Settings(policy=sys.argv[1]))
# redis-py imports the API of OpenTelemetry by itself if it is installed.
print(type(app).__name__, "opentelemetry.instrumentation.asgi" in sys.modules)
"""


@pytest.mark.parametrize(
    ("variables", "printed"),
    [
        ({}, "FastPathAPI False"),
        ({"OTEL_TRACES_EXPORTER": "none"}, "FastPathAPI False"),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, "FastPathAPI False"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, "TracedAPI True"),
    ],
)
def test_without_a_configuration_nothing_is_imported(tmp_path, variables, printed):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}, **variables}
    command = [sys.executable, "-c", LOADED, str(policy)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60)
    assert done.stdout.strip() == printed


def test_an_exporter_that_does_not_exist_is_an_error_in_the_log_and_no_outage(start_sidecar):
    sidecar = start_sidecar(OTEL_TRACES_EXPORTER="none-such")
    assert sidecar.check("k").status_code == 200
    assert "traces are off" in sidecar.output
    assert "none-such" in sidecar.output
