"""Spans of checks and settlements, in the traces of their requests."""

import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind

from ratelimit import Limit, Limiter, Policy, Usage
from ratelimit.observers.tracing import Tracing

from ..processes import find_free_port

KEY = "vk_0123456789abcdef"
POLICY = Policy.from_text("""
default_plan: free
models: {small: [qwen3-4b]}
plans: {free: {limits: {requests: {rate: 2/day}, tokens: {unit: tokens, rate: 9000/day}}}}
""")


class Spans:
    """A tracer provider that keeps its spans."""

    def __init__(self, **options):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observer = Tracing(self.provider)
        self.tracer = self.provider.get_tracer("tests")

    @property
    def ours(self):
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith("ratelimit")]


@pytest.fixture
def spans():
    return Spans()


def test_a_check_has_a_span_in_the_trace_of_its_request(make_limiter, spans):
    limits = make_limiter(POLICY, observers=[spans.observer])
    with spans.tracer.start_as_current_span("request") as request:
        limits.check(KEY, model="qwen3-4b")
    [span] = spans.ours
    assert span.name == "ratelimit check"
    assert span.parent.span_id == request.get_span_context().span_id
    assert span.kind is SpanKind.CLIENT
    assert dict(span.attributes) == {
        "ratelimit.result": "allowed",
        "ratelimit.source": "store",
        "ratelimit.key": "vk_012…def",
        "ratelimit.plan": "free",
        "ratelimit.model_class": "small",
        "gen_ai.request.model": "qwen3-4b",
        "db.system.name": "redis",
        "db.operation.batch.size": 1,
    }
    assert request.start_time <= span.start_time < span.end_time <= request.end_time


def test_a_denial_names_its_limits_and_how_long_to_wait(make_limiter, spans):
    limits = make_limiter(POLICY, observers=[spans.observer])
    limits.check(KEY, cost={"requests": 2})
    limits.check(KEY)
    limits.check(KEY)
    _, denied, remembered = spans.ours
    assert denied.attributes["ratelimit.result"] == "denied"
    assert denied.attributes["ratelimit.limit"] == ("requests",)
    assert denied.attributes["ratelimit.retry_after"] == pytest.approx(43_200, abs=60)
    assert remembered.attributes["ratelimit.source"] == "denial-memory"
    assert remembered.kind is SpanKind.INTERNAL
    assert "db.system.name" not in remembered.attributes


def test_checks_that_share_a_call_have_spans_in_their_own_traces(make_async_limiter, spans):
    async def request(limits, number):
        with spans.tracer.start_as_current_span(f"request {number}") as span:
            await limits.check(f"vk_{number}")
            return span.get_span_context().trace_id

    async def run_requests():
        async with make_async_limiter(POLICY, observers=[spans.observer]) as limits:
            return await asyncio.gather(*(request(limits, number) for number in range(5)))

    traces = asyncio.run(run_requests())
    assert len(set(traces)) == 5
    assert sorted(span.context.trace_id for span in spans.ours) == sorted(traces)
    assert {span.attributes["db.operation.batch.size"] for span in spans.ours} == {5}


def test_a_settlement_has_the_tokens_and_the_model(make_limiter, spans):
    limits = make_limiter(POLICY, observers=[spans.observer])
    with limits.reserve(KEY, model="qwen3-4b") as reservation:
        reservation.settle(Usage(input_tokens=31, output_tokens=50, status=200))
    limits.reserve(KEY, model="qwen3-4b").cancel()
    _, settled, _, cancelled = spans.ours
    assert settled.name == "ratelimit settle"
    assert dict(settled.attributes) == {
        "ratelimit.outcome": "settled",
        "ratelimit.key": "vk_012…def",
        "ratelimit.plan": "free",
        "gen_ai.response.model": "qwen3-4b",
        "gen_ai.usage.input_tokens": 31,
        "gen_ai.usage.output_tokens": 50,
        "http.response.status_code": 200,
        "db.system.name": "redis",
    }
    assert settled.start_time < settled.end_time
    assert (cancelled.name, cancelled.attributes["ratelimit.outcome"]) == ("ratelimit cancel", "cancelled")


@pytest.mark.parametrize(("on_outage", "result"), [("allow", "allowed"), ("deny", "unavailable")])
def test_an_outage_is_seen(spans, on_outage, result):
    url = f"redis://127.0.0.1:{find_free_port()}"
    limit = Limit("requests", "1/day", on_outage=on_outage)
    with Limiter(url, limit, deadline=5, observers=[spans.observer]) as limits:
        limits.check(KEY)
    [span] = spans.ours
    assert (span.attributes["ratelimit.result"], span.attributes["ratelimit.source"]) == (result, "outage")


def test_a_trace_that_is_not_sampled_gets_no_span(make_limiter):
    spans = Spans(sampler=ALWAYS_OFF)
    made = []
    spans.observer._make_span = lambda *arguments: made.append(arguments)
    limits = make_limiter(POLICY, observers=[spans.observer])
    with spans.tracer.start_as_current_span("request"):
        limits.check(KEY)
    assert made == []
    limits.check(KEY)
    assert len(made) == 1, "without a request's span, the sampler decides"


def test_p10_no_span_has_a_whole_key_or_tenant(make_limiter, spans):
    limits = make_limiter(POLICY, observers=[spans.observer])
    limits.check(KEY, tenant="tenant_0123456789")
    limits.settle({"key": KEY, "tenant": "tenant_0123456789", "input_tokens": 1})
    for span in spans.ours:
        assert KEY not in span.to_json()
        assert "tenant_0123456789" not in span.to_json()
    assert len(spans.ours) == 2
