"""The gRPC benchmark end to end, very small, and its client against services that misbehave."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc

from benchmarks import BenchmarkError, cli, grpc_load
from benchmarks.suite import grpc as suite


@contextmanager
def service(answer):
    """Serve the rate-limit service with one answer; gives its port."""

    class Service(rls_pb2_grpc.RateLimitServiceServicer):
        def ShouldRateLimit(self, _, context):  # noqa: N802 - the protocol's name
            if answer is None:
                context.abort(grpc.StatusCode.UNAVAILABLE, "not today")
            return rls_pb2.RateLimitResponse(overall_code=answer)

    server = grpc.server(ThreadPoolExecutor(4))
    rls_pb2_grpc.add_RateLimitServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def test_the_whole_of_it_on_real_servers(monkeypatch, capsys, run_command, figure):
    monkeypatch.setitem(cli.FULL, "grpc", suite.Grpc(rounds=2, flood=0.05, pace=0.1))
    assert run_command("grpc", "--json") == 0
    document = json.loads(capsys.readouterr().out)["grpc"]
    assert document["faults"] == []
    for name in suite.FULL.contestants:
        assert min(figure(document, name, suite.RATE, suite.FULL.label)) > 0
    assert len(figure(document, suite.OURS, "ratio")) == 2
    assert all(0 <= share <= 1 for share in figure(document, suite.OURS, "share_after_20_ms"))


@pytest.mark.parametrize("answer", [rls_pb2.RateLimitResponse.OVER_LIMIT, rls_pb2.RateLimitResponse.UNKNOWN])
def test_an_answer_other_than_ok_is_an_error(answer):
    with service(answer) as port, pytest.raises(BenchmarkError, match="other than OK"):
        grpc_load.flood(port, suite.MESSAGES, 2, 0.05)


def test_an_error_of_grpc_names_the_port_and_the_reason():
    with service(None) as port, pytest.raises(BenchmarkError, match=rf"{port}.*UNAVAILABLE.*not today"):
        grpc_load.pace(port, suite.MESSAGES, 2, 0.05, 100)


def test_calls_on_a_schedule_are_as_many_as_are_due():
    with service(rls_pb2.RateLimitResponse.OK) as port:
        load = grpc_load.pace(port, suite.MESSAGES, 4, 0.1, 200)
    assert len(load.latencies) == 20
